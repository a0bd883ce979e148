namespace Causeway.EndToEnd;

/// <summary>
/// A stock Linux guest on stock QEMU that has host files as memory: the window is 16 MiB, eight ranges of 2 MiB. The guest
/// decides by file, as mounts do without an option, unless the test says otherwise.
/// </summary>
public sealed partial class DaxTests(DaxTests.Fixture fixture) : IClassFixture<DaxTests.Fixture>, IAsyncLifetime
{
    private const string Always = "cd /; umount /mnt/submount 2>/dev/null || true; umount /mnt; mount -t virtiofs -o dax=always causeway /mnt";
    private const string ByFile = "cd /; umount /mnt/submount 2>/dev/null || true; umount /mnt; mount -t virtiofs causeway /mnt";

    private static string TestName =>
        TestContext.Current.TestMethod?.MethodName ?? throw new InvalidOperationException("not within a test");

    private string HostDirectory => Path.Combine(fixture.Share, TestName);

    public async ValueTask InitializeAsync()
    {
        Assert.SkipWhen(fixture.Missing is not null, fixture.Missing ?? "");
        Assert.SkipWhen(DaemonProcess.IsVirtiofsd, "virtiofsd has no DAX window");
        Directory.CreateDirectory(HostDirectory);

        // What the guest remembers has a place in the window; begin with an empty one.
        await GuestAsync(ByFile, inDirectory: false);
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    [Fact]
    public async Task A_guest_that_restarts_with_files_mapped_finds_the_window_again()
    {
        await HostAsync("head -c 8M /dev/urandom >file");
        long before = (await fixture.Daemon.CountRequestsAsync()).GetValueOrDefault("SetupMapping");
        Assert.Equal(await HostAsync("md5sum file"), await GuestAsync("md5sum file; cat file >/dev/null"));
        Assert.True((await fixture.Daemon.CountRequestsAsync()).GetValueOrDefault("SetupMapping") > before, "nothing was mapped");

        // With the device reset under its mappings QEMU 11.1 crashes, if memory slots were negotiated.
        await fixture.Guest.RebootAsync();

        Assert.Equal(await HostAsync("md5sum file"), await GuestAsync("md5sum file"));
    }

    // No WRITE tells the host, so that the guest's kernel has to see to it.
    [Theory]
    [InlineData(ByFile)]
    [InlineData(Always)]
    public async Task A_setuid_bit_goes_when_a_user_writes_into_the_window(string mount)
    {
        await HostAsync("head -c 8M /dev/urandom >file; chmod 4777 file");
        await GuestAsync(mount, inDirectory: false);
        long before = (await fixture.Daemon.CountRequestsAsync()).GetValueOrDefault("Write");
        string mode = await GuestAsync(
            """
            setpriv --reuid=1000 --regid=1000 --clear-groups python3 -c "
            import os
            os.pwrite(os.open('file', os.O_RDWR), b'written', 5 << 20)"
            stat -c %a file
            """);
        Assert.Equal("777\n", mode);
        Assert.Equal("777\n", await HostAsync("stat -c %a file"));
        Assert.Equal(before, (await fixture.Daemon.CountRequestsAsync()).GetValueOrDefault("Write"));
    }

    [Fact]
    public async Task The_kernel_reports_the_window() =>
        Assert.Contains("Cache len: 0x1000000", await GuestAsync("dmesg"), StringComparison.Ordinal);

    [Theory]
    [InlineData(ByFile)]
    [InlineData(Always)]
    public async Task Reading_mapping_and_writing_inside_a_file_cost_no_READ_and_no_WRITE(string mount)
    {
        await HostAsync("head -c 8M /dev/urandom >file");
        await GuestAsync(mount, inDirectory: false);
        IReadOnlyDictionary<string, long> before = await fixture.Daemon.CountRequestsAsync();

        // By read(2), by mmap(2), and in /proc/meminfo nothing of it.
        string output = await GuestAsync("""
            python3 - <<'END'
            import hashlib, mmap, os
            def cached():
                return sum(int(l.split()[1]) for l in open('/proc/meminfo') if l.startswith(('Cached:', 'Active(file)')))
            fd = os.open('file', os.O_RDWR)
            before = cached()
            data = os.read(fd, 8 << 20)
            while len(data) < 8 << 20:
                data += os.read(fd, 8 << 20)
            m = mmap.mmap(fd, 8 << 20)
            assert m[:] == data
            grown = cached() - before
            os.pwrite(fd, b'written', 5 << 20)
            assert m[5 << 20:(5 << 20) + 7] == b'written'
            m[(6 << 20) + 1:(6 << 20) + 7] = b'stored'
            m.flush()
            print(hashlib.md5(m[:]).hexdigest(), 'cache grew' if grown > 4096 else 'cache did not grow')
            END
            """);

        IReadOnlyDictionary<string, long> after = await fixture.Daemon.CountRequestsAsync();
        Assert.Equal($"{(await HostAsync("md5sum <file"))[..32]} cache did not grow\n", output);
        Assert.Equal(before.GetValueOrDefault("Read"), after.GetValueOrDefault("Read"));
        Assert.Equal(before.GetValueOrDefault("Write"), after.GetValueOrDefault("Write"));
        Assert.InRange(after["SetupMapping"] - before.GetValueOrDefault("SetupMapping"), 4, 12);
        await GuestAsync(ByFile, inDirectory: false);
    }

    [Fact]
    public async Task What_the_host_writes_is_there_in_a_page_that_the_guest_has_mapped()
    {
        await HostAsync("head -c 1M /dev/zero >file");
        Task<string> guest = GuestAsync("""
            python3 - <<'END'
            import mmap, os, time
            m = mmap.mmap(os.open('file', os.O_RDONLY), 1 << 20, prot=mmap.PROT_READ)
            assert m[4096:4100] == bytes(4)
            open('mapped', 'w').close()
            until = time.monotonic() + 100
            while m[4096:4100] != b'host':
                assert time.monotonic() < until
            print('seen')
            END
            """);
        await Deadline.UntilAsync(
            "the guest has mapped the file", TimeSpan.FromSeconds(100), () => File.Exists(Path.Combine(HostDirectory, "mapped")));
        await HostAsync("printf host | dd of=file bs=1 seek=4096 conv=notrunc status=none");
        Assert.Equal("seen\n", await guest);
    }

    [Fact]
    public async Task A_file_that_changes_its_size_has_the_same_bytes_on_both_sides_at_every_step()
    {
        await HostAsync("head -c 3M /dev/urandom >file; head -c 1M /dev/urandom >other");
        string[] steps =
        [
            "cat other >/dev/null",
            "echo appended >>file",
            "head -c 1M /dev/urandom >>file",
            "dd if=/dev/urandom of=file bs=64k seek=3 count=2 conv=notrunc status=none",
            "truncate -s 1000001 file",
            "echo more >>file",
            "truncate -s 5M file",
            "fallocate --punch-hole --offset 8192 --length 100000 file",
            "fallocate --length 6M file",
            "mv other file",
            "head -c 300000 /dev/urandom >file",
            "truncate -s 0 file; head -c 2M /dev/urandom >file",
        ];
        foreach (string step in steps)
        {
            string seen = await GuestAsync($"md5sum file >/dev/null; {step}; md5sum file");
            Assert.Equal((step, await HostAsync("md5sum file")), (step, seen));
        }

        string sum = await HostAsync("md5sum <file");
        Assert.Equal(sum, await GuestAsync("exec 5<file; rm file; md5sum <&5; test ! -e file"));
    }

    [Fact]
    public async Task Files_four_times_the_window_are_read_correctly_and_without_churn()
    {
        await HostAsync("for i in $(seq 16); do head -c 4M /dev/urandom >file-$i; done");
        string sums = await HostAsync("md5sum file-*");
        IReadOnlyDictionary<string, long> before = await fixture.Daemon.CountRequestsAsync();
        Assert.Equal(sums, await GuestAsync("md5sum file-*"));
        Assert.Equal(sums, await GuestAsync("md5sum file-*"));
        IReadOnlyDictionary<string, long> after = await fixture.Daemon.CountRequestsAsync();
        Assert.InRange(after["SetupMapping"] - before.GetValueOrDefault("SetupMapping"), 1, 8);
    }

    [Fact]
    public async Task A_thousand_ranges_come_and_go_in_a_guest_that_maps_everything()
    {
        // Mounted so, a file of whole pages is one that QEMU can map; another one is an error, and stays as it is.
        await HostAsync("truncate -s 1G file; printf odd >odd; for i in 0 511; do printf \"at $i\" | dd of=file bs=2M seek=$i conv=notrunc status=none; done");
        IReadOnlyDictionary<string, long> before = await fixture.Daemon.CountRequestsAsync();
        await GuestAsync(Always, inDirectory: false);
        int descriptors = CountDescriptors();
        Assert.Equal((0, 0), (CountMappings(fixture.Guest.Qemu), CountOpenFiles(fixture.Guest.Qemu)));
        Task<string> reading = GuestAsync("""
            python3 - <<'END'
            import mmap, os
            fd = os.open('file', os.O_RDONLY)
            n = 0
            for turn in range(2):
                for i in range(512):
                    data = os.pread(fd, 16, i << 21)
                    n += 1
                    assert len(data) == 16
            first = os.pread(fd, 4, 0).decode()
            last = os.pread(fd, 6, 511 << 21).decode()
            print(first, last, n)
            END
            cat odd 2>/dev/null || echo refused
            """, seconds: 240);
        await Deadline.UntilAsync(
            "QEMU has mapped the file", TimeSpan.FromSeconds(100), () => CountMappings(fixture.Guest.Qemu) > 0);
        Assert.Equal("at 0 at 511 1024\nrefused\n", await reading);
        await GuestAsync(ByFile, inDirectory: false);

        // Neither in QEMU is anything left of it, nor in the daemon.
        await Deadline.UntilAsync("QEMU and the daemon have let go of the file", TimeSpan.FromSeconds(20), () =>
            CountMappings(fixture.Guest.Qemu) == 0 && CountOpenFiles(fixture.Guest.Qemu) == 0 && CountDescriptors() <= descriptors
            && CountMappings(fixture.Daemon.Worker) == 0 && CountOpenFiles(fixture.Daemon.Worker) == 0);
        IReadOnlyDictionary<string, long> after = await fixture.Daemon.CountRequestsAsync();
        Assert.InRange(after["SetupMapping"] - before.GetValueOrDefault("SetupMapping"), 1000, 1200);
        Assert.Equal("odd", await HostAsync("cat odd"));
        Assert.Equal($"{1L << 30}\n", await HostAsync("stat -c %s file"));

        int CountDescriptors() => Directory.GetFileSystemEntries($"/proc/{fixture.Guest.Qemu}/fd").Length;
    }

    [Fact]
    public async Task A_guest_that_is_paused_and_continued_goes_on_with_its_mappings_and_makes_new_ones()
    {
        await HostAsync("head -c 6M /dev/urandom >file");
        await GuestAsync("head -c 3M file >/dev/null");
        using (QemuMonitor monitor = new(fixture.MonitorPath))
        {
            await monitor.RunAsync("qmp_capabilities");
            for (int cycle = 0; cycle < 5; cycle++)
            {
                await monitor.RunAsync("stop");
                await monitor.RunAsync("cont");
            }
        }

        Assert.Equal(await HostAsync("md5sum file"), await GuestAsync("md5sum file"));
    }

    [Fact]
    public async Task Twenty_remounts_with_files_mapped_leave_nothing_behind_in_the_daemon()
    {
        await HostAsync("head -c 4M /dev/urandom >file");
        string use = $"cat {TestName}/file >/dev/null";
        await GuestAsync($"cd /mnt; {use}; {ByFile}", inDirectory: false);
        DaemonResources before = fixture.Daemon.CountResources();
        for (int cycle = 0; cycle < 20; cycle++)
        {
            await GuestAsync($"cd /mnt; {use}; {ByFile}", inDirectory: false);
        }

        DaemonResources now = before;
        await Deadline.UntilAsync("the daemon's resources are back", TimeSpan.FromSeconds(20), () =>
        {
            now = fixture.Daemon.CountResources();
            return now.Descriptors <= before.Descriptors && now.Threads <= before.Threads;
        });
    }

    private async Task<string> GuestAsync(string script, int seconds = 120, bool inDirectory = true)
    {
        string start = inDirectory ? $"cd /mnt/{TestName}\n" : "";
        GuestResult result = await fixture.Guest.RunAsync(
            $"set -euo pipefail\n{start}{script}", time: TimeSpan.FromSeconds(seconds));
        Assert.True(
            result.Status == 0, $"in the guest, status {result.Status}:\n{script}\n{result.OutputText}\n{result.ErrorText}");
        return result.OutputText;
    }

    private Task<string> HostAsync(string script) => HostCommand.BashAsync(HostDirectory, script);

    public sealed class Fixture() : GuestFixture(new("newer", CacheMode.Auto, Queues: 2) { Dax = "16M" })
    {
        /// <summary>Where the sockets of a second daemon and guest are.</summary>
        public string SecondFolder { get; } = $"/tmp/causeway-{Environment.ProcessId}-dax2";

        public string MonitorPath => Path.Combine(Folder, "qmp.sock");

        /// <summary>QEMU dies with files mapped: the daemon takes it as any other end.</summary>
        protected override async Task EndGuestAsync(Guest guest)
        {
            await HostCommand.BashAsync(Share, "head -c 8M /dev/urandom >mapped-at-the-end");
            GuestResult read = await guest.RunAsync("exec 5</mnt/mapped-at-the-end; head -c 4M <&5 >/dev/null");
            Assert.Equal(0, read.Status);
            await guest.KillAsync();
            File.Delete(SecondFolder);
        }
    }
}
