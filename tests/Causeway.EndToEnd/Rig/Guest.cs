using System.Diagnostics;

namespace Causeway.EndToEnd;

/// <summary>A running guest, with the share mounted at /mnt.</summary>
public sealed class Guest : IAsyncDisposable
{
    public const string Tag = "causeway";

    /// <summary>For one command, unless the test says otherwise: generous, since guests are often emulated.</summary>
    private static readonly TimeSpan _commandTime = TimeSpan.FromSeconds(120);

    /// <summary>For a start: so long, and until QEMU had so much of a processor, but never longer than the third.</summary>
    /// <remarks>
    /// On a machine with other work, a restart that takes 4 s took 267 s once: the kernel was still unpacking itself. A guest that
    /// hangs while it starts either idles, until the third limit, or spins, until the second.
    /// </remarks>
    private static readonly TimeSpan _bootTime = TimeSpan.FromSeconds(240);
    private static readonly TimeSpan _bootProcessorTime = TimeSpan.FromSeconds(90);
    private static readonly TimeSpan _longestBootTime = TimeSpan.FromSeconds(600);

    private readonly Process _qemu;
    private readonly GuestChannel _channel;
    private readonly SemaphoreSlim _oneCommand = new(1);
    private string? _lost;

    private Guest(Process qemu, GuestChannel channel)
    {
        _qemu = qemu;
        _channel = channel;
    }

    internal static async Task<Guest> BootAsync(GuestConfiguration configuration, string runFolder, string socket, string disk)
    {
        string[] options =
        [
            "--run", runFolder, "--platform", configuration.Platform, "--mode", "agent", "--share", $"{socket}={Tag}",
            "--queues", configuration.Queues.ToString(), "--cpus", configuration.Processors.ToString(), "--disk", disk,
            "--allow-reboot", .. configuration.Dax is null ? Array.Empty<string>() : ["--dax", "--qmp", $"{runFolder}/qmp.sock"],
            .. configuration.PackedRings ? ["--packed"] : Array.Empty<string>(), .. configuration.BootOptions,
        ];
        // Its messages go to a file, which outlives us and needs no reader.
        string script = $"exec \"$@\" >'{runFolder}/qemu.log' 2>&1 </dev/null";
        var start = new ProcessStartInfo("/bin/bash", ["-c", script, "bash", Repository.Script("boot-guest"), .. options]);
        Process qemu = Process.Start(start) ?? throw new InvalidOperationException("eng/boot-guest does not start");
        try
        {
            GuestChannel channel = await GuestChannel.ConnectAsync($"{runFolder}/agent.sock", () => qemu.HasExited, _bootTime);
            await WaitUntilReadyAsync(qemu, channel);
            return new Guest(qemu, channel);
        }
        catch
        {
            qemu.Kill();
            await qemu.WaitForExitAsync();
            throw;
        }
    }

    /// <summary>The process of QEMU, which the scripts that start it have become.</summary>
    public int Qemu => _qemu.Id;

    /// <summary>Runs a bash script and returns its result, whatever that is.</summary>
    public Task<GuestResult> RunAsync(string script, GuestPlace place = GuestPlace.Tools, TimeSpan? time = null) =>
        TalkAsync(() => _channel.RunAsync(place, script, time ?? _commandTime));

    /// <summary>Restarts the guest, without warning to anybody, and waits until it is back.</summary>
    public Task RebootAsync() => TalkAsync(async () =>
    {
        await _channel.SendAsync(GuestPlace.Initramfs, "reboot -f", _commandTime);
        await WaitUntilReadyAsync(_qemu, _channel);
        return true;
    });

    /// <summary>Ends the guest as a power cut does, whatever it is doing.</summary>
    public async Task KillAsync()
    {
        _qemu.Kill();
        await _qemu.WaitForExitAsync();
        await DisposeAsync();
    }

    /// <summary>Switches the guest off and waits for QEMU to end.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_lost is null && !_qemu.HasExited)
        {
            await _channel.SendAsync(GuestPlace.Initramfs, "sync; umount /tools/mnt; poweroff -f", _commandTime);
            using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(20));
            await _qemu.WaitForExitAsync(patience.Token).ContinueWith(_ => { }, TaskScheduler.Default);
        }

        _channel.Dispose();
        if (!_qemu.HasExited)
        {
            _qemu.Kill();
            await _qemu.WaitForExitAsync();
        }

        _qemu.Dispose();
        _oneCommand.Dispose();
    }

    private static async Task WaitUntilReadyAsync(Process qemu, GuestChannel channel)
    {
        using var patience = new CancellationTokenSource(_longestBootTime);
        long started = Stopwatch.GetTimestamp();
        TimeSpan processorTime = GetProcessorTime(qemu);
        Task ready = channel.WaitUntilReadyAsync(patience.Token);
        while (await Task.WhenAny(ready, Task.Delay(TimeSpan.FromSeconds(1))) != ready)
        {
            if (Stopwatch.GetElapsedTime(started) > _bootTime && GetProcessorTime(qemu) - processorTime > _bootProcessorTime)
            {
                await patience.CancelAsync();
            }
        }

        await ready;
    }

    private static TimeSpan GetProcessorTime(Process process)
    {
        process.Refresh();
        return process.HasExited ? TimeSpan.Zero : process.TotalProcessorTime;
    }

    /// <summary>One conversation at a time, and none with a guest that did not answer once.</summary>
    private async Task<T> TalkAsync<T>(Func<Task<T>> conversation)
    {
        await _oneCommand.WaitAsync();
        try
        {
            return _lost is null
                ? await conversation()
                : throw new GuestLostException($"an earlier test has lost this guest: {_lost}");
        }
        catch (GuestLostException exception)
        {
            _lost ??= exception.Message.Split('\n')[0];
            throw;
        }
        finally
        {
            _oneCommand.Release();
        }
    }
}
