using System.Diagnostics;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Passthrough;

namespace Causeway.Tests.Coherency;

/// <summary>What a process of the host changes makes void what guests keep, where the host is watched.</summary>
public sealed class HostChangesTests
{
    // For a machine with far more to do than it can.
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData(HostWatching.Fanotify, "echo more >>f", "attributes content")]
    [InlineData(HostWatching.Fanotify, "chmod 0700 f", "attributes")]
    [InlineData(HostWatching.Fanotify, "rm f", "attributes name listing")]
    [InlineData(HostWatching.Fanotify, "mv f g", "attributes name listing")]
    [InlineData(HostWatching.Fanotify, "touch missing", "missing listing")]
    [InlineData(HostWatching.Directories, "echo more >>f", "attributes content")]
    [InlineData(HostWatching.Directories, "chmod 0700 f", "attributes")]
    [InlineData(HostWatching.Directories, "rm f", "attributes name listing")]
    [InlineData(HostWatching.Directories, "mv f g", "attributes name listing")]
    [InlineData(HostWatching.Directories, "touch missing", "missing listing")]
    [InlineData(HostWatching.Inotify, "echo more >>f", "attributes content")]
    [InlineData(HostWatching.Inotify, "chmod 0700 f", "attributes")]
    [InlineData(HostWatching.Inotify, "rm f", "name listing")]
    [InlineData(HostWatching.Inotify, "mv f g", "attributes name listing")]
    [InlineData(HostWatching.Inotify, "touch missing", "missing listing")]
    public void A_change_by_the_host_makes_void_what_it_changed_where_it_is_watched(
        HostWatching how, string change, string voided) => Worker.Run(() =>
    {
        Assert.SkipUnless(
            how != HostWatching.Fanotify || Environment.IsPrivilegedProcess, "NOT TESTED: fanotify needs root");
        using var host = new HostDirectory();
        File.WriteAllText(host["f"], "text");
        using Share watched = Share.Open(host.Options with { VersionTable = VersionTableLayout.Default, HostWatching = how });
        using Share exclusive = Share.Open(host.Options with { VersionTable = VersionTableLayout.Default });
        using Guest guest = Guest.On(watched);
        using Guest alone = Guest.On(exclusive);
        Dictionary<string, Kept> known = Learn(guest);
        Dictionary<string, Kept> knownAlone = Learn(alone);
        Run(host, change);

        // By the words themselves: the epoch, which moves every ten seconds for what nobody tells of, would make all of it void.
        foreach (string what in voided.Split(' '))
        {
            Assert.True(
                SpinWait.SpinUntil(() => HasMoved(known[what], watched.Versions!.Table), s_patience), $"{what} is still current");
        }

        foreach ((string what, Kept kept) in knownAlone)
        {
            Assert.True(kept.IsCurrent(exclusive.Versions!.Table), $"{what}: nobody watches, so nobody can know");
        }
    });

    [Fact]
    public void Where_the_kernel_has_no_delegations_strict_is_refused_with_what_is_missing()
    {
        using var host = new HostDirectory();
        PassthroughOptions options = host.Options with { VersionTable = VersionTableLayout.Default, TakesDelegations = true };
        Exception? refusal = Record.Exception(() => Share.Open(options).Dispose());

        Assert.SkipWhen(refusal is null, "NOT TESTED: this kernel has delegations; StrictGuestTests show what they do");
        Assert.Equal(Errno.EINVAL, Assert.IsType<ErrnoException>(refusal).Error);
        Assert.Contains("F_SETDELEG", refusal.Message, StringComparison.Ordinal);
        Assert.Contains("--version-table=watched", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Where_events_never_stop_the_epoch_moves_all_the_same() => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        File.WriteAllText(host["f"], "");
        using Share share = Share.Open(
            host.Options with { VersionTable = VersionTableLayout.Default, HostWatching = HostWatching.Inotify });
        using Guest guest = Guest.On(share);
        Guest.Good(guest.Lookup(NodeId.Root, "f"));
        ulong epoch = share.Versions!.Table.Epoch;
        var watch = Stopwatch.StartNew();
        Assert.True(
            SpinWait.SpinUntil(
                () =>
                {
                    File.AppendAllText(host["f"], "x");
                    return share.Versions.Table.Epoch != epoch;
                },
                s_patience),
            $"nothing in {watch.Elapsed}");
    });

    [Theory]
    [InlineData(HostWatching.Fanotify)]
    [InlineData(HostWatching.Directories)]
    [InlineData(HostWatching.Inotify)]
    public void What_is_known_is_watched_again_when_somebody_looks_again(HostWatching how) => Worker.Run(() =>
    {
        Assert.SkipUnless(
            how != HostWatching.Fanotify || Environment.IsPrivilegedProcess, "NOT TESTED: fanotify needs root");
        using var host = new HostDirectory();
        Directory.CreateDirectory(host["d"]);
        using Share share = Share.Open(
            host.Options with { VersionTable = VersionTableLayout.Default, HostWatching = how, MaxSessions = 2 });
        using Guest first = Guest.On(share);
        using Guest second = Guest.On(share);
        NodeId directory = Guest.Good(first.Lookup(NodeId.Root, "d")).NodeId;
        Guest.Good(second.Lookup(NodeId.Root, "d"));
        Kept before = Kept.Listing(first, directory);

        second.LooksAtTable = false;
        Assert.True(share.Watch!.IsWatching);
        first.LooksAtTable = false;
        Assert.True(SpinWait.SpinUntil(() => !share.Watch!.IsWatching, s_patience), "nobody looks, and it is watched");
        Run(host, "touch d/unseen");
        first.LooksAtTable = true;
        Assert.False(before.IsCurrent(share.Versions!.Table));

        Kept listing = Kept.Listing(first, directory);
        Run(host, "touch d/new");
        Assert.True(SpinWait.SpinUntil(() => HasMoved(listing, share.Versions!.Table), s_patience));
    });

    [Theory]
    [InlineData(HostWatching.Fanotify)]
    [InlineData(HostWatching.Directories)]
    public void What_guests_change_is_not_voided_once_more(HostWatching how) => Worker.Run(() =>
    {
        Assert.SkipUnless(
            how != HostWatching.Fanotify || Environment.IsPrivilegedProcess, "NOT TESTED: fanotify needs root");
        using var host = new HostDirectory();
        File.WriteAllText(host["f"], "text");
        using Share share = Share.Open(
            host.Options with { VersionTable = VersionTableLayout.Default, HostWatching = how, MaxSessions = 2 });
        using Guest guest = Guest.On(share);
        NodeId file = Guest.Good(guest.Lookup(NodeId.Root, "f")).NodeId;
        Assert.Equal(Errno.Success, guest.Rename(NodeId.Root, "f", NodeId.Root, "g"));
        Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "g"));
        Guest.Good(guest.Mkdir(NodeId.Root, "d"));
        Kept attributes = Kept.Attributes(guest, file);
        Kept listing = Kept.Listing(guest, NodeId.Root);
        NodeId marked = Guest.Good(guest.Mkdir(NodeId.Root, "marker")).NodeId;
        Kept marker = Kept.Listing(guest, marked);
        listing = Kept.Listing(guest, NodeId.Root);

        // Events come in order: ours are before this one.
        Run(host, "touch marker/x");
        Assert.True(SpinWait.SpinUntil(() => HasMoved(marker, share.Versions!.Table), s_patience));
        Assert.False(HasMoved(attributes, share.Versions!.Table));
        Assert.False(HasMoved(listing, share.Versions!.Table));
    });

    private static bool HasMoved(Kept kept, VersionTable table) =>
        kept.Proofs.All(proof => table.Read(proof.Word) != proof.Version);

    private static Dictionary<string, Kept> Learn(Guest guest)
    {
        NodeId node = Guest.Good(guest.Lookup(NodeId.Root, "f")).NodeId;
        var known = new Dictionary<string, Kept>
        {
            ["attributes"] = Kept.Attributes(guest, node),
            ["name"] = Kept.Name(guest, NodeId.Root, "f"),
            ["missing"] = Kept.Name(guest, NodeId.Root, "missing"),
            ["listing"] = Kept.Listing(guest, NodeId.Root),
            ["content"] = Kept.Content(guest, node, Guest.Good(guest.Open(node)).Handle),
        };
        foreach ((string what, Kept kept) in known)
        {
            Assert.True(kept.IsCurrent(guest.FileSystem.Versions!), what);
        }

        return known;
    }

    // Another process: what this one does is what its guests do.
    private static void Run(HostDirectory host, string command)
    {
        using Process process = Process.Start(
            new ProcessStartInfo("/bin/sh", ["-c", command]) { WorkingDirectory = host.Path })!;
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }
}
