using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Passthrough;

namespace Causeway.Tests.Coherency;

/// <summary>
/// Several guests at the same time on the real table and the real file system: no check accepts what is older than a change that
/// had finished, or that anybody had seen, before the check began. Without any half of the protocol the same runs find some that do.
/// </summary>
public class ConcurrentVersionsTests
{
    private enum Mutation
    {
        None,
        NoBegin,
        NoEnd,
        OneLook,
    }

    [Fact]
    public void No_check_accepts_what_is_older_than_what_was_finished_or_seen() => Worker.Run(() =>
        Assert.Equal(0, Run(Mutation.None, TimeSpan.FromSeconds(10), stopAtFirst: false)));

    [Fact]
    public void The_same_while_the_server_believes_that_nobody_looks() => Worker.Run(() =>
        Assert.Equal(0, Run(Mutation.None, TimeSpan.FromSeconds(5), stopAtFirst: false, isWatched: false)));

    [Fact]
    public void And_without_the_beginning_some_do_then_too() => Worker.Run(() =>
        Assert.NotEqual(0, Run(Mutation.NoBegin, TimeSpan.FromSeconds(60), stopAtFirst: true, isWatched: false)));

    [Fact]
    public void Without_the_beginning_some_do() => Worker.Run(() =>
        Assert.NotEqual(0, Run(Mutation.NoBegin, TimeSpan.FromSeconds(60), stopAtFirst: true)));

    [Fact]
    public void Without_the_end_some_do() => Worker.Run(() =>
        Assert.NotEqual(0, Run(Mutation.NoEnd, TimeSpan.FromSeconds(60), stopAtFirst: true)));

    [Fact]
    public void Without_the_second_look_some_do() => Worker.Run(() =>
        Assert.NotEqual(0, Run(Mutation.OneLook, TimeSpan.FromSeconds(60), stopAtFirst: true)));

    // One guest makes a file longer, byte by byte, and says when it has; two look it up, keep what they learn, and check. Lengths
    // only grow, so what is older is shorter.
    private static long Run(Mutation mutation, TimeSpan limit, bool stopAtFirst, bool isWatched = true)
    {
        using var host = new HostDirectory();
        using Share share = Share.Open(host.Options with { VersionTable = VersionTableLayout.Default });
        File.WriteAllText(host["f"], "");
        Action pause = mutation == Mutation.None ? () => { } : RandomPause;
        share.Versions!.Table.Probe = new VersionTableProbe
        {
            SkipsBegin = mutation == Mutation.NoBegin,
            SkipsEnd = mutation == Mutation.NoEnd,
            Pause = pause,
        };
        var history = new History();
        long end = Environment.TickCount64 + (long)limit.TotalMilliseconds;
        bool IsOver() => Environment.TickCount64 > end || (stopAtFirst && history.Stale > 0);
        Worker.RunAll(3, index =>
        {
            using Guest guest = Guest.On(share);
            guest.LooksAtTable = isWatched;
            guest.FileSystem.SkipsSecondLook = mutation == Mutation.OneLook;
            guest.FileSystem.SecondLookPause = pause;
            if (index == 0)
            {
                Grow(guest, history, IsOver);
            }
            else
            {
                Check(guest, history, pause, IsOver);
            }
        });
        Assert.True(history.Accepted > 100 || stopAtFirst, $"only {history.Accepted} checks accepted anything");
        return history.Stale;
    }

    private static void Grow(Guest guest, History history, Func<bool> isOver)
    {
        NodeId node = Guest.Good(guest.Lookup(NodeId.Root, "f")).NodeId;
        for (ulong size = 1; !isOver(); size++)
        {
            Guest.Good(guest.SetAttr(node, new FuseSetAttrIn { Valid = SetAttrValid.Size, Size = size }));
            history.See(size);
            if (size % 64 == 0)
            {
                // So that there is something to accept as well.
                Thread.Yield();
                Thread.SpinWait(2000);
            }
        }
    }

    private static void Check(Guest guest, History history, Action pause, Func<bool> isOver)
    {
        VersionTable table = guest.FileSystem.Versions!;
        while (!isOver())
        {
            // Anew each time, so that the node is unknown and its words are found out.
            ulong epoch = table.Epoch;
            NodeEntry entry = Guest.Good(guest.Versioned().Lookup(NodeId.Root, "f"));
            FuseVersionTags tags = guest.Context.Versions;
            guest.Forget(entry.NodeId);
            history.See(entry.Attributes.Size);
            for (int i = 0; i < 20; i++)
            {
                ulong seen = history.Newest;
                if (tags.Metadata == 0 || table.Read(tags.InodeWord) != tags.Metadata
                    || table.Epoch != epoch || !VersionWord.IsVersion(epoch))
                {
                    break;
                }

                history.Accept(entry.Attributes.Size, seen);
                pause();
            }
        }
    }

    // Long enough for the other guests to do something in between: by spinning for those on other processors, and now and then by
    // sleeping for those that have none while the machine is busy.
    private static void RandomPause()
    {
        switch (Random.Shared.Next(32))
        {
            case 0:
                Thread.Sleep(1);
                break;
            case < 8:
                Thread.SpinWait(Random.Shared.Next(3000));
                break;
        }
    }

    /// <summary>The newest length that anybody has seen or set, and what checks have accepted.</summary>
    private sealed class History
    {
        private ulong _newest;
        private long _accepted;
        private long _stale;

        public ulong Newest => Volatile.Read(ref _newest);

        public long Accepted => Volatile.Read(ref _accepted);

        public long Stale => Volatile.Read(ref _stale);

        public void See(ulong size)
        {
            ulong known = Volatile.Read(ref _newest);
            while (size > known)
            {
                ulong other = Interlocked.CompareExchange(ref _newest, size, known);
                if (other == known)
                {
                    return;
                }

                known = other;
            }
        }

        public void Accept(ulong size, ulong newestBefore)
        {
            Interlocked.Increment(ref _accepted);
            if (size < newestBefore)
            {
                Interlocked.Increment(ref _stale);
            }
        }
    }
}
