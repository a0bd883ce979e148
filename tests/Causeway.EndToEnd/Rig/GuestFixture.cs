using System.Diagnostics;

namespace Causeway.EndToEnd;

/// <summary>What all tests of one configuration share: a directory, a daemon that serves it, and a guest that has it mounted.</summary>
/// <remarks>
/// Everything is below artifacts/end-to-end/NAME, and the logs stay there. Sockets are reached through a link in /tmp, because their
/// paths must be short.
/// </remarks>
public abstract class GuestFixture(GuestConfiguration configuration) : IAsyncLifetime
{
    private const int SubmountMegabytes = 64;

    private readonly string _link = Path.Combine("/tmp", $"causeway-{Environment.ProcessId}-{configuration.Name}");
    private Guest? _guest;
    private DaemonProcess? _daemon;
    private long _up;

    public GuestConfiguration Configuration { get; } = configuration;

    public string Folder { get; } = Path.Combine(Repository.Root, "artifacts", "end-to-end", configuration.Name);

    /// <summary>Where the daemon listens.</summary>
    public string SocketPath => $"{_link}/share.sock";

    public string Share => Path.Combine(Folder, "share");

    /// <summary>A file system of its own on the host, below the share.</summary>
    public string Submount => Path.Combine(Share, "submount");

    /// <summary>Why no guest of this configuration can run here; its tests are skipped and say so.</summary>
    public string? Missing { get; } =
        !Environment.IsPrivilegedProcess ? "needs root: the daemon creates files of any owner"
        : !File.Exists(Repository.Binary) ? $"no daemon at {Repository.Binary}: run ./build, or set CAUSEWAY_BINARY"
        : DaemonProcess.IsVirtiofsd && configuration.Queues > 1 ? "virtiofsd has one request queue, this configuration more"
        : null;

    public Guest Guest => _guest ?? throw new InvalidOperationException("the guest has not been started");

    internal DaemonProcess Daemon => _daemon ?? throw new InvalidOperationException("the daemon has not been started");

    public async ValueTask InitializeAsync()
    {
        if (Missing is not null)
        {
            return;
        }

        await HostCommand.ScriptAsync("install-guest-tools", "test");
        string disk = await HostCommand.ScriptAsync("guest-tools-disk");
        await RemoveAsync(Folder);
        Directory.CreateDirectory(Submount);
        await HostCommand.BashAsync(Folder, $"mount -t tmpfs -o size={SubmountMegabytes}m causeway-submount '{Submount}'");
        File.CreateSymbolicLink(_link, Folder);

        long started = Stopwatch.GetTimestamp();
        if (!await TryBootAsync(disk))
        {
            Report("the guest did not come as far as mounting the share; booting again");
            Assert.True(await TryBootAsync(disk), "twice in a row the guest did not come as far as mounting the share");
        }

        Report($"the guest is up after {Stopwatch.GetElapsedTime(started).TotalSeconds:0} s");
        _up = Stopwatch.GetTimestamp();
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            if (_guest is not null)
            {
                Report($"done after {Stopwatch.GetElapsedTime(_up).TotalSeconds:0} s");
                await EndGuestAsync(_guest);
                Assert.Equal(0, await Daemon.WaitForExitAsync());
                // Also those from before the first test and after the last.
                Assert.Empty(Daemon.WarningsSince(0));
            }
        }
        finally
        {
            if (_daemon is not null)
            {
                await _daemon.DisposeAsync();
            }

            File.Delete(_link);
            await RemoveAsync(Share);
            GC.SuppressFinalize(this);
        }
    }

    /// <summary>Starts the daemon and boots a guest.</summary>
    /// <returns>Whether it is up. False if it got stuck before it mounted the share.</returns>
    /// <remarks>
    /// An emulated guest on a busy machine hangs, very rarely, while its kernel starts. What the daemon can have to do with begins
    /// when the guest mounts the share; that it hangs from there on is a failure at the first time.
    /// </remarks>
    private async Task<bool> TryBootAsync(string disk)
    {
        _daemon = await DaemonProcess.StartAsync(Configuration, Share, SocketPath, $"{Folder}/daemon.log");
        try
        {
            _guest = await Guest.BootAsync(Configuration, _link, SocketPath, disk);
            return true;
        }
        catch (GuestLostException exception)
        {
            string console = await ReadLogAsync("console.log");
            Report(
                $"{exception.Message}\n--- console\n{Tail(console)}\n--- QEMU\n{Tail(await ReadLogAsync("qemu.log"))}\n"
                + $"--- daemon\n{Tail(await ReadLogAsync("daemon.log"))}");
            if (console.Contains("causeway: mounting the share", StringComparison.Ordinal))
            {
                throw;
            }

            await _daemon.DisposeAsync();
            return false;
        }
    }

    private async Task<string> ReadLogAsync(string log)
    {
        string path = Path.Combine(Folder, log);
        return File.Exists(path) ? await File.ReadAllTextAsync(path) : "(none)";
    }

    private static string Tail(string text) => text[Math.Max(0, text.Length - 3000)..];

    /// <summary>How the guest ends: it is switched off, unless a configuration has another end in mind.</summary>
    protected virtual async Task EndGuestAsync(Guest guest) => await guest.DisposeAsync();

    // The runner is silent for minutes otherwise.
    private void Report(string what) => Console.Error.WriteLine($"{Configuration.Name}: {what}");

    // Also what a killed test run has left. By rm, since .NET cannot delete names that are not UTF-8.
    private async Task RemoveAsync(string path) => await HostCommand.BashAsync("/", $"""
        if mountpoint --quiet '{Submount}'; then umount --lazy '{Submount}'; fi
        if [ -e '{path}' ]; then chattr -R -f -i -a '{path}' || true; fi
        rm -rf --one-file-system '{path}'
        """);
}
