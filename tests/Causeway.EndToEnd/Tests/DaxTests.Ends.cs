using System.Diagnostics;
using System.Net.Sockets;

namespace Causeway.EndToEnd;

/// <content>Pauses and ends in the middle of it, and what is left in QEMU and in the daemon.</content>
public sealed partial class DaxTests
{
    [Fact]
    public async Task A_guest_that_is_paused_again_and_again_while_it_maps_and_unmaps_goes_on()
    {
        // Each file is two messages of the daemon's to QEMU. One that QEMU found after it had stopped the device would be its end.
        const int files = 200;
        await HostAsync($"for i in $(seq {files}); do printf 'file %04d' $i >f$i; truncate -s 4096 f$i; done");
        await GuestAsync(Always, inDirectory: false);
        IReadOnlyDictionary<string, long> before = await fixture.Daemon.CountRequestsAsync();
        Task<string> guest = GuestAsync($"""
            python3 - <<'END'
            import mmap, os
            open('begun', 'w').close()
            again = 0
            for i in range(1, {files} + 1):
                fd = os.open(f'f{'{'}i{'}'}', os.O_RDWR)
                m = mmap.mmap(fd, 4096)
                # A fault that meets a pause is tried again by the kernel, a read by the program.
                assert m[:9] == b'file %04d' % i
                m.close()
                while True:
                    try:
                        assert os.pread(fd, 9, 0) == b'file %04d' % i
                        break
                    except BlockingIOError:
                        again += 1
                os.close(fd)
                os.unlink(f'f{'{'}i{'}'}')
            print('all')
            END
            """, seconds: 300);
        int pauses = 0;
        using (QemuMonitor monitor = new(fixture.MonitorPath))
        {
            await monitor.RunAsync("qmp_capabilities");
            await Deadline.UntilAsync(
                "the guest has begun", TimeSpan.FromSeconds(100), () => File.Exists(Path.Combine(HostDirectory, "begun")));
            while (!guest.IsCompleted)
            {
                await monitor.RunAsync("stop");
                await monitor.RunAsync("cont");
                pauses++;
            }
        }

        Assert.Equal("all\n", await guest);
        Assert.InRange(pauses, 50, int.MaxValue);
        IReadOnlyDictionary<string, long> after = await fixture.Daemon.CountRequestsAsync();
        Assert.InRange(after["SetupMapping"] - before.GetValueOrDefault("SetupMapping"), files, 3 * files);
        Assert.InRange(after["RemoveMapping"] - before.GetValueOrDefault("RemoveMapping"), files / 2, int.MaxValue);
        await GuestAsync(ByFile, inDirectory: false);
    }

    [Fact]
    public async Task A_guest_that_restarts_after_a_pause_with_files_mapped_has_them_again()
    {
        await HostAsync("head -c 16M /dev/urandom >file");
        await GuestAsync(Always, inDirectory: false);
        await GuestAsync("""
            setsid bash -c 'exec 5<file; touch /tmp/open; sleep infinity' </dev/null >/dev/null 2>&1 &
            while ! test -e /tmp/open; do sleep 0.05; done
            for i in $(seq 0 3); do dd if=file bs=16 count=1 skip=$((i * 131072)) of=/dev/null status=none; done
            """);
        Assert.InRange(CountMappings(fixture.Guest.Qemu), 1, 20);
        using (QemuMonitor monitor = new(fixture.MonitorPath))
        {
            await monitor.RunAsync("qmp_capabilities");
            await monitor.RunAsync("stop");
            await monitor.RunAsync("cont");
        }

        await fixture.Guest.RebootAsync();
        Assert.Equal(await HostAsync("md5sum file"), await GuestAsync("md5sum file"));
    }

    [Fact]
    public async Task A_guest_that_is_killed_leaves_nothing_and_the_next_one_finds_the_window_empty()
    {
        await HostAsync("for i in 1 2 3; do head -c 2M /dev/urandom >file-$i; done");
        string sums = await HostAsync("md5sum file-*");
        await using DaemonProcess daemon = await StartSecondAsync("--persistent", "--spare-files=0");
        DaemonResources idle = daemon.CountResources();
        for (int life = 0; life < 2; life++)
        {
            Guest other = await BootSecondAsync();
            try
            {
                GuestResult held = await other.RunAsync($"""
                    cd /mnt/{TestName}
                    md5sum file-*
                    exec 5<file-1 6<file-2
                    """);
                Assert.Equal((0, sums), (held.Status, held.OutputText));
                Assert.Equal(3, CountMappings(other.Qemu));

                Assert.Equal(3, CountOpenFiles(daemon.Worker));
            }
            finally
            {
                await other.KillAsync();
            }

            await Deadline.UntilAsync("the daemon has let go of the guest", TimeSpan.FromSeconds(20), () =>
            {
                DaemonResources now = daemon.CountResources();
                return CountOpenFiles(daemon.Worker) == 0 && now.GuestMemoryMappings == 0
                    && now.Descriptors <= idle.Descriptors + Spare;
            });
            Assert.Equal(0, CountMappings(daemon.Worker));
        }

        Assert.Empty(daemon.WarningsSince(0));
    }

    [Fact]
    public async Task A_second_front_end_is_not_served_and_the_guest_goes_on_mapping()
    {
        await HostAsync("for i in 1 2 3; do head -c 2M /dev/urandom >file-$i; done");
        string[] sums = (await HostAsync("md5sum file-*")).Split('\n');
        Assert.Equal($"{sums[0]}\n", await GuestAsync("md5sum file-1"));

        // One that says what front ends say first, and one that says what none does.
        byte[][] greetings = [[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], [.. Enumerable.Repeat((byte)0xFF, 64)]];
        for (int i = 0; i < greetings.Length; i++)
        {
            using Socket second = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            await second.ConnectAsync(new UnixDomainSocketEndPoint(fixture.SocketPath));
            await second.SendAsync(greetings[i]);
            Assert.Equal($"{sums[i + 1]}\n", await GuestAsync($"md5sum file-{i + 2}"));
            Assert.Equal(0, second.Available);
        }

        Assert.Equal(3, CountMappings(fixture.Guest.Qemu));
        Assert.Equal(string.Join('\n', sums), await GuestAsync("md5sum file-*"));
        Assert.Empty(fixture.Daemon.WarningsSince(0));
    }

    [Fact]
    public async Task A_daemon_that_is_given_the_socket_on_which_QEMU_listens_leaves_QEMU_alone()
    {
        // Somebody who connects there a second time ends QEMU 11.1. The first one passes on what QEMU and a daemon say to each other.
        await HostAsync("for i in 1 2; do head -c 2M /dev/urandom >file-$i; done");
        string[] sums = (await HostAsync("md5sum file-*")).Split('\n');
        await using DaemonProcess daemon = await StartSecondAsync();
        string listening = $"{fixture.SecondFolder}/qemu.sock";
        using Process relay = StartRelay(listening, $"{fixture.SecondFolder}/share.sock");
        Guest other = await Guest.BootAsync(
            fixture.Configuration with { BootOptions = ["--listen"] }, fixture.SecondFolder, listening, await HostCommand.ScriptAsync("guest-tools-disk"));
        try
        {
            Assert.Equal(sums[0], (await other.RunAsync($"cd /mnt/{TestName}; md5sum file-1")).OutputText.Trim());
            Assert.Equal(1, CountMappings(other.Qemu));

            await AssertRefusedAsync();
            Assert.Equal(sums[1], (await other.RunAsync($"cd /mnt/{TestName}; md5sum file-2")).OutputText.Trim());
            Assert.Equal(2, CountMappings(other.Qemu));

            // And when the first one is gone, so that QEMU listens again.
            relay.Kill();
            await relay.WaitForExitAsync();
            Assert.Equal(0, await daemon.WaitForExitAsync());
            await AssertRefusedAsync();
            Assert.Equal("alive\n", (await other.RunAsync("echo alive")).OutputText);
        }
        finally
        {
            await other.KillAsync();
        }

        Assert.Empty(daemon.WarningsSince(0));

        async Task AssertRefusedAsync()
        {
            string said = await HostAsync(
                $"! '{Repository.Binary}' serve --shared-dir . --socket-path '{listening}' --sandbox none --tag causeway --exclusive --dax=16M 2>&1");
            Assert.Contains("is in use by another program", said, StringComparison.Ordinal);
        }
    }

    /// <summary>Connects to both sockets, once they are there, and passes on what is said, descriptors as well.</summary>
    private static Process StartRelay(string listening, string daemon)
    {
        const string program = """
            import os, select, socket, sys, time
            def connect(path):
                s = socket.socket(socket.AF_UNIX)
                while True:
                    try:
                        s.connect(path)
                        return s
                    except OSError:
                        time.sleep(0.05)
            a, b = connect(sys.argv[1]), connect(sys.argv[2])
            while True:
                for s, other in ((a, b), (b, a)):
                    if s in select.select([a, b], [], [])[0]:
                        # One message at a time: descriptors belong to the first byte of theirs.
                        data, fds, _, _ = socket.recv_fds(s, 12, 64)
                        while data and len(data) < 12 + int.from_bytes(data[8:12], 'little'):
                            data += s.recv(12 + int.from_bytes(data[8:12], 'little') - len(data))
                        if not data:
                            sys.exit()
                        socket.send_fds(other, [data], fds)
                        for fd in fds:
                            os.close(fd)
            """;
        return Process.Start("python3", ["-c", program, listening, daemon]);
    }

    // What a first guest makes the daemon open, once and for all: events of queues, the root of the share.
    private const int Spare = 16;

    /// <summary>How many parts of this test's files a process has mapped.</summary>
    private int CountMappings(int process) =>
        File.ReadLines($"/proc/{process}/maps").Count(line => line.Contains($"/{TestName}/", StringComparison.Ordinal));

    /// <summary>How many of this test's files a process has open.</summary>
    private int CountOpenFiles(int process) =>
        Directory.GetFileSystemEntries($"/proc/{process}/fd").Count(IsOfThisTest);

    private static bool IsOfThisTest(string descriptor)
    {
        try
        {
            // The daemon sees the share as its root.
            return new FileInfo(descriptor).LinkTarget?.Contains($"/{TestName}/", StringComparison.Ordinal) == true;
        }
        catch (IOException)
        {
            return false;
        }
    }
}
