using System.Buffers;
using System.Buffers.Binary;
using Causeway.Driver;

namespace Causeway.EndToEnd;

/// <content>A file as a wire: messages through a ring buffer (Programs/ring.c) that both sides have mapped.</content>
public sealed partial class DaxTests
{
    private const int Messages = 1_000_000;
    private const int Slots = 2048;
    private const int MessageBytes = 64;
    private const int FirstMessage = 4096;
    private const int ReceivedAt = 64;
    private const int AllowedAt = 128;

    private static readonly TimeSpan _exchangeTime = TimeSpan.FromMinutes(8);

    private string Ring => Path.Combine(HostDirectory, "ring");

    [Fact]
    public async Task A_million_messages_pass_from_a_driver_to_a_guest_without_a_request()
    {
        await MakeRingAsync();
        await using DaemonProcess daemon = await StartSecondAsync();
        await using VirtioFsClient client = await VirtioFsClient.ConnectAsync($"{fixture.SecondFolder}/share.sock");
        using VirtioFsMapping mapping = await client.MapAsync($"{TestName}/ring", MappingAccess.ReadWrite);
        using var end = new CancellationTokenSource(_exchangeTime);
        Task sending = Task.Factory.StartNew(
            () => Send(mapping, end.Token), end.Token, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        Task<string> receiving = GuestAsync($"./pass ring receive {Messages}", seconds: (int)_exchangeTime.TotalSeconds);
        await PassAsync(daemon);
        Assert.Equal($"{Messages}\n", await receiving);
        await sending;
        mapping.ThrowIfNotIntact();
        Assert.Empty(daemon.WarningsSince(0));
    }

    [Fact]
    public async Task A_million_messages_pass_from_a_guest_to_a_driver_without_a_request()
    {
        await MakeRingAsync();
        await using DaemonProcess daemon = await StartSecondAsync();
        await using VirtioFsClient client = await VirtioFsClient.ConnectAsync($"{fixture.SecondFolder}/share.sock");
        using VirtioFsMapping mapping = await client.MapAsync($"{TestName}/ring", MappingAccess.ReadWrite);
        using var end = new CancellationTokenSource(_exchangeTime);
        Task<int> receiving = Task.Factory.StartNew(
            () => Receive(mapping, end.Token), end.Token, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        Task<string> sending = GuestAsync($"./pass ring send {Messages}", seconds: (int)_exchangeTime.TotalSeconds);
        await PassAsync(daemon);
        Assert.Equal($"{Messages}\n", await sending);
        Assert.Equal(Messages, await receiving);
        mapping.ThrowIfNotIntact();
        Assert.Empty(daemon.WarningsSince(0));
    }

    [Fact]
    public async Task A_million_messages_pass_between_two_guests_without_a_request()
    {
        await MakeRingAsync();
        await using DaemonProcess daemon = await StartSecondAsync();
        Guest other = await BootSecondAsync();
        try
        {
            Task<GuestResult> sending = other.RunAsync($"cd /mnt/{TestName}; ./pass ring send {Messages}", time: _exchangeTime);
            Task<string> receiving = GuestAsync($"./pass ring receive {Messages}", seconds: (int)_exchangeTime.TotalSeconds);
            await PassAsync(daemon);
            Assert.Equal($"{Messages}\n", await receiving);
            Assert.Equal($"{Messages}\n", (await sending).OutputText);
            Assert.Empty(daemon.WarningsSince(0));
            await KillUnderAsync(other, daemon);
        }
        finally
        {
            await other.KillAsync();
        }
    }

    // A guest whose daemon is killed keeps what it has mapped, and QEMU lives.
    private async Task KillUnderAsync(Guest guest, DaemonProcess daemon)
    {
        GuestResult held = await guest.RunAsync($"""
            cat >/tmp/hold.py <<'END'
            import mmap, os, time
            m = mmap.mmap(os.open('/mnt/{TestName}/ring', os.O_RDWR), {FirstMessage + (Slots * MessageBytes)})
            before = m[:]
            open('/tmp/held', 'w').close()
            while not os.path.exists('/tmp/go'):
                time.sleep(0.05)
            assert m[:] == before
            m[4096:4100] = b'kept'
            print(m[4096:4100].decode())
            END
            setsid python3 /tmp/hold.py </dev/null >/tmp/out 2>&1 &
            while ! test -e /tmp/held && ! grep -q . /tmp/out; do sleep 0.05; done
            cat /tmp/out
            """);
        Assert.Equal((0, ""), (held.Status, held.OutputText));
        await HostCommand.BashAsync("/", $"kill -KILL {daemon.Worker}");
        GuestResult after = await guest.RunAsync("touch /tmp/go; while ! grep -q . /tmp/out; do sleep 0.05; done; cat /tmp/out");
        Assert.Equal("kept\n", after.OutputText);
        Assert.Equal("kept", await HostAsync("dd if=ring bs=1 skip=4096 count=4 status=none"));
    }

    private Task<string> MakeRingAsync() => HostAsync($"""
        gcc -static -O2 -o pass '{Path.Combine(Repository.Root, "tests", "Causeway.EndToEnd", "Programs", "ring.c")}'
        head -c {FirstMessage + (Slots * MessageBytes)} /dev/zero >ring
        """);

    private async Task<Guest> BootSecondAsync() => await Guest.BootAsync(
        fixture.Configuration, fixture.SecondFolder, $"{fixture.SecondFolder}/share.sock", await HostCommand.ScriptAsync("guest-tools-disk"));

    private async Task<DaemonProcess> StartSecondAsync(params string[] moreOptions)
    {
        await HostCommand.BashAsync(fixture.Folder, $"rm -rf second; mkdir second; ln -sfn '{fixture.Folder}/second' '{fixture.SecondFolder}'");
        return await DaemonProcess.StartAsync(
            fixture.Configuration, fixture.Share, $"{fixture.SecondFolder}/share.sock", $"{fixture.Folder}/second/daemon.log", moreOptions);
    }

    /// <summary>Lets the messages pass, and sees that both daemons have nothing to do meanwhile.</summary>
    private async Task PassAsync(DaemonProcess second)
    {
        // The first ones, with which everything is mapped.
        await AllowAsync(Slots);
        IReadOnlyDictionary<string, long> here = await fixture.Daemon.CountRequestsAsync();
        IReadOnlyDictionary<string, long> there = await second.CountRequestsAsync();
        await AllowAsync(Messages - 1);
        Assert.Equal(here, await fixture.Daemon.CountRequestsAsync());
        Assert.Equal(there, await second.CountRequestsAsync());
        await AllowAsync(Messages);
    }

    private async Task AllowAsync(ulong messages)
    {
        using var file = File.OpenHandle(Ring, System.IO.FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        byte[] number = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(number, messages);
        RandomAccess.Write(file, number, AllowedAt);
        await Deadline.UntilAsync($"{messages} messages have arrived", _exchangeTime, () =>
            RandomAccess.Read(file, number, ReceivedAt) == 8 && BinaryPrimitives.ReadUInt64LittleEndian(number) >= messages);
    }

    private static unsafe void Send(VirtioFsMapping mapping, CancellationToken end)
    {
        using MemoryHandle pin = mapping.Pin();
        var memory = (byte*)pin.Pointer;
        for (ulong number = 0; number < Messages; number++)
        {
            Wait(ref *(ulong*)(memory + AllowedAt), number + 1, end);
            Wait(ref *(ulong*)(memory + ReceivedAt), number - Slots + 1, end);
            var message = (ulong*)(memory + FirstMessage + ((number % Slots) * MessageBytes));
            for (int i = 0; i < MessageBytes / sizeof(ulong); i++)
            {
                message[i] = Word(number, i);
            }

            Volatile.Write(ref *(ulong*)memory, number + 1);
        }
    }

    private static unsafe int Receive(VirtioFsMapping mapping, CancellationToken end)
    {
        using MemoryHandle pin = mapping.Pin();
        var memory = (byte*)pin.Pointer;
        int good = 0;
        for (ulong number = 0; number < Messages; number++)
        {
            Wait(ref *(ulong*)memory, number + 1, end);
            var message = new ReadOnlySpan<ulong>(
                memory + FirstMessage + ((number % Slots) * MessageBytes), MessageBytes / sizeof(ulong));
            int right = 0;
            for (int i = 0; i < message.Length; i++)
            {
                right += message[i] == Word(number, i) ? 1 : 0;
            }

            good += right == message.Length ? 1 : 0;
            Volatile.Write(ref *(ulong*)(memory + ReceivedAt), number + 1);
        }

        return good;
    }

    private static ulong Word(ulong number, int index) => (number * 0x9E37_79B9_7F4A_7C15) + (ulong)index;

    private static void Wait(ref ulong position, ulong until, CancellationToken end)
    {
        var wait = default(SpinWait);
        while ((long)(Volatile.Read(ref position) - until) < 0)
        {
            end.ThrowIfCancellationRequested();
            wait.SpinOnce();
        }
    }
}
