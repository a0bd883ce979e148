namespace Causeway.EndToEnd;

/// <summary>Two guests with different kernels on one daemon process: each sees what the other does, and one outlives the other.</summary>
public sealed class TwoGuestsTests : IAsyncDisposable
{
    private static readonly TimeSpan _patience = TimeSpan.FromMinutes(2);

    private readonly string _folder = Path.Combine(Repository.Root, "artifacts", "end-to-end", "two-guests");
    private readonly string _link = Path.Combine("/tmp", $"causeway-{Environment.ProcessId}-two");
    private readonly List<Guest> _guests = [];
    private DaemonProcess? _daemon;

    [Fact]
    public async Task Two_guests_of_one_daemon_share_a_tree_and_its_locks_and_one_outlives_the_other()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "needs root: the daemon creates files of any owner");
        Assert.SkipUnless(File.Exists(Repository.Binary), $"no daemon at {Repository.Binary}: run ./build, or set CAUSEWAY_BINARY");
        Assert.SkipWhen(DaemonProcess.IsVirtiofsd, "virtiofsd has one guest");
        await HostCommand.ScriptAsync("install-guest-tools", "test");
        string disk = await HostCommand.ScriptAsync("guest-tools-disk");
        string share = Path.Combine(_folder, "share");
        await HostCommand.BashAsync("/", $"rm -rf '{_folder}'; mkdir -p '{share}' '{_folder}'/{{a,b}}; ln -s '{_folder}' '{_link}'");
        GuestConfiguration[] configurations =
        [
            new("debian12", CacheMode.Never, Queues: 1), new("newer", CacheMode.Never, Queues: 2),
        ];
        _daemon = await DaemonProcess.StartAsync(
            configurations[1], share, $"{_link}/a.sock", $"{_folder}/daemon.log", $"--socket-path={_link}/b.sock");
        _guests.Add(await Guest.BootAsync(configurations[0], $"{_link}/a", $"{_link}/a.sock", disk));
        _guests.Add(await Guest.BootAsync(configurations[1], $"{_link}/b", $"{_link}/b.sock", disk));

        // What one does the other sees at once.
        for (int writer = 0; writer < 2; writer++)
        {
            await RunAsync(writer, $"cd /mnt; mkdir d{writer}; echo from {writer} >d{writer}/f; touch d{writer}/gone");
            Assert.Equal($"from {writer}\n", await RunAsync(1 - writer, $"cat /mnt/d{writer}/f; rm /mnt/d{writer}/gone"));
            await RunAsync(writer, $"test ! -e /mnt/d{writer}/gone");
        }

        // Locks hold between them, and those of a guest that is gone are gone, too.
        await RunAsync(0, "cd /mnt; setsid flock d0/f sleep 10000 </dev/null >/dev/null 2>&1 & sleep 1");
        await RunAsync(1, "! flock --nonblock /mnt/d0/f true");
        await _guests[0].KillAsync();
        _guests.RemoveAt(0);
        await Deadline.UntilAsync(
            "the daemon lets go of the dead guest", _patience, () => _daemon.HasLogged("Guest 1 disconnected"));
        await RunAsync(0, "flock --nonblock /mnt/d0/f true");

        // And its place is free.
        _guests.Insert(0, await Guest.BootAsync(configurations[0], $"{_link}/a", $"{_link}/a.sock", disk));
        Assert.Equal("from 1\n", await RunAsync(0, "cat /mnt/d1/f"));
        Assert.Empty(_daemon.WarningsSince(0));
    }

    public async ValueTask DisposeAsync()
    {
        foreach (Guest guest in _guests)
        {
            await guest.DisposeAsync();
        }

        if (_daemon is not null)
        {
            await _daemon.DisposeAsync();
        }

        File.Delete(_link);
    }

    private async Task<string> RunAsync(int guest, string script)
    {
        GuestResult result = await _guests[guest].RunAsync(script);
        Assert.True(result.Status == 0, $"'{script}' ends with {result.Status}: {result.ErrorText}");
        return result.OutputText;
    }
}
