namespace Causeway.EndToEnd;

public abstract partial class GuestTests
{
    private const string Remount = "cd /; umount /mnt/submount 2>/dev/null || true; umount /mnt; mount -t virtiofs causeway /mnt";

    /// <summary>A request that takes long makes a thread that takes the queue over, and stays. A leak makes one each time.</summary>
    private const int StandBys = 2;

    private const string Use = "ls -lR . >/dev/null; echo x >>file; cat file >/dev/null";

    [Fact]
    public async Task Twenty_remounts_leave_nothing_behind_in_the_daemon()
    {
        DaemonResources before = await SettleAsync();
        for (int cycle = 0; cycle < 20; cycle++)
        {
            await GuestAsync($"{Use}; {Remount}");
        }

        await AssertBackAtAsync(before);
        Assert.Equal(21, (await File.ReadAllLinesAsync(HostPath("file"))).Length);
    }

    [Fact]
    public async Task Taking_the_driver_away_and_back_leaves_nothing_behind_in_the_daemon()
    {
        DaemonResources before = await SettleAsync();
        // Unloads the module where there is one; otherwise the built-in driver lets go of the device.
        const string reload = """
            set -e
            . /functions
            umount /tools/mnt/submount 2>/dev/null || true
            umount /tools/mnt
            driver=/sys/bus/virtio/drivers/virtiofs
            if grep -q '^virtiofs ' /proc/modules; then
                rmmod virtiofs
                load virtiofs
            else
                device=$(basename "$(readlink -f $driver/virtio[0-9]*)")
                echo "$device" >$driver/unbind
                echo "$device" >$driver/bind
            fi
            mount -t virtiofs causeway /tools/mnt
            """;
        for (int cycle = 0; cycle < 5; cycle++)
        {
            GuestResult result = await Guest.RunAsync(reload, GuestPlace.Initramfs);
            Assert.True(result.Status == 0, $"status {result.Status}: {result.ErrorText}");
            await GuestAsync(Use);
        }

        await GuestAsync(Remount);
        await AssertBackAtAsync(before);
        Assert.Equal(6, (await File.ReadAllLinesAsync(HostPath("file"))).Length);
    }

    [Fact]
    public async Task A_guest_that_restarts_in_the_middle_of_its_work_finds_the_share_again()
    {
        DaemonResources before = await SettleAsync();
        await GuestAsync("echo kept >kept; sync; exec 5<>open; ls -lR / >/dev/null 2>&1 & sleep 0");

        await Guest.RebootAsync();

        // QEMU 7.2 can be very slow for a while after a restart, in the pages that held translated code before.
        Assert.Equal("kept\n", await GuestAsync("cat kept", seconds: 300));
        await GuestAsync(Use);
        await GuestAsync(Remount);
        await AssertBackAtAsync(before);
    }

    [Fact]
    public async Task Every_request_queue_carries_requests_if_the_kernel_spreads_them()
    {
        const string count = "grep -o '^.*virtio[0-9]*-requests.*' /proc/interrupts | awk '{ n = 0; for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) n += $i; print n }'";
        int[] before = await CountAsync();
        Assert.SkipUnless(before.Length == Configuration.Queues, "this kernel does not say which interrupts belong to which queue");
        string work = string.Join('\n', Enumerable.Range(0, Configuration.Processors).Select(
            processor => $"taskset --cpu-list {processor} sh -c 'for n in $(seq 20); do echo x >file-{processor}; rm file-{processor}; done'"));
        await GuestAsync(work);
        int[] after = await CountAsync();

        int busy = before.Zip(after).Count(pair => pair.Second > pair.First);
        // Linux spreads requests over queues since 6.11; what it does is visible in sysfs only from then on.
        bool spreads = (await GuestAsync("ls -d /sys/fs/virtiofs 2>/dev/null || true")).Length > 0;
        Assert.SkipUnless(spreads || Configuration.Queues == 1, "this kernel uses the first request queue only");
        Assert.Equal(Configuration.Queues, busy);

        async Task<int[]> CountAsync() =>
            [.. (await GuestAsync(count)).Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse)];
    }

    /// <summary>Uses the share once, so that everything is running that ever will, forgets all of it, and counts.</summary>
    private async Task<DaemonResources> SettleAsync()
    {
        await GuestAsync(Use);
        await GuestAsync(Remount);
        return fixture.Daemon.CountResources();
    }

    private async Task AssertBackAtAsync(DaemonResources before)
    {
        DaemonResources now = before;
        try
        {
            await Deadline.UntilAsync("the daemon's resources are back", TimeSpan.FromSeconds(10), () =>
            {
                now = fixture.Daemon.CountResources();
                return now.Descriptors <= before.Descriptors && now.Threads <= before.Threads + StandBys
                    && now.GuestMemoryMappings == before.GuestMemoryMappings;
            });
        }
        catch (TimeoutException)
        {
            Assert.Equal(before, now);
        }
    }
}
