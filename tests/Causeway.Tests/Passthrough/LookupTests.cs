using System.Text;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>passthrough.md 7.2.</summary>
public sealed class LookupTests
{
    [Theory, EveryMode]
    public void Looking_up_twice_gives_one_node_that_is_gone_after_two_forgets(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles });
            NodeEntry first = Guest.Good(guest.Lookup(NodeId.Root, "f"));
            NodeEntry second = Guest.Good(guest.Lookup(NodeId.Root, "f"));
            Assert.Equal(first.NodeId, second.NodeId);
            Assert.Equal(8192UL, first.Attributes.Size);

            guest.Forget(first.NodeId);
            Assert.Equal(Errno.Success, guest.GetAttr(first.NodeId).Error);
            guest.Forget(first.NodeId);
            Assert.Equal(Errno.EBADF, guest.GetAttr(first.NodeId).Error);
        });

    [Theory, EveryMode]
    public void A_missing_name_is_an_error_unless_negative_entries_are_wanted(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using (var guest = new Guest(host.Options with { FileHandles = handles }))
            {
                Assert.Equal(Errno.ENOENT, guest.Lookup(NodeId.Root, "missing").Error);
                Assert.Equal(Errno.ENOENT, guest.Lookup(NodeId.Root, "missing").Error);
            }

            using (var guest = new Guest(host.Options with
            {
                FileHandles = handles,
                NegativeLifetime = TimeSpan.FromMilliseconds(2500),
            }))
            {
                NodeEntry negative = Guest.Good(guest.Lookup(NodeId.Root, "missing"));
                Assert.Equal(NodeId.None, negative.NodeId);
                Assert.Equal(2UL, negative.EntryLifetimeSeconds);
                Assert.Equal(500_000_000U, negative.EntryLifetimeNanoseconds);
            }
        });

    [Theory, EveryMode]
    public void Names_are_bytes(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        const string name = "\xff\xfe\x01 \\";
        Assert.Equal(Errno.ENOENT, guest.Lookup(NodeId.Root, name).Error);
        NodeEntry made = Guest.Good(guest.Mknod(NodeId.Root, name, 0x81a4));
        Assert.Equal(made.NodeId, Guest.Good(guest.Lookup(NodeId.Root, name)).NodeId);
        Assert.Equal(Errno.ENOENT, guest.Lookup(NodeId.Root, new string('a', 255)).Error);
    });

    [Theory, EveryMode]
    public void Symbolic_links_are_found_themselves_and_never_followed(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles });
            foreach (string name in new[] { "ln", "abs", "d/esc" })
            {
                Assert.Equal(0xa1ffU, guest.Walk(name).Attributes.Mode);
            }

            // As a directory a link is none, wherever it leads.
            File.CreateSymbolicLink(host["up"], "..");
            Assert.Equal(Errno.ENOTDIR, guest.Lookup(guest.Walk("up").NodeId, "victim").Error);
        });

    [Theory, EveryMode]
    public void Unknown_nodes_and_files_are_no_directories(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        Assert.Equal(Errno.ENOTDIR, guest.Lookup(guest.Walk("f").NodeId, "x").Error);
        foreach (ulong id in new ulong[] { 0, 999, ulong.MaxValue, 1UL << 32, (1UL << 32) | 1, 0xffffffff })
        {
            Assert.Equal(Errno.EBADF, guest.Lookup(new NodeId(id), "x").Error);
            Assert.Equal(Errno.EBADF, guest.GetAttr(new NodeId(id)).Error);
        }
    });

    [Fact]
    public void Forgetting_too_much_neither_underflows_nor_removes_the_root() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options);
        guest.Forget(NodeId.Root, 1000);
        Assert.Equal(Errno.Success, guest.GetAttr(NodeId.Root).Error);

        NodeId node = guest.Walk("f").NodeId;
        guest.Forget(new NodeId(node.Value + 5000), 3);
        guest.Forget(node, ulong.MaxValue);
        guest.Forget(node, ulong.MaxValue);
        Assert.Equal(0, guest.FileSystem.Figures.Nodes);
        NodeId again = guest.Walk("f").NodeId;
        Assert.Equal(Errno.Success, guest.GetAttr(again).Error);
        Assert.Equal(1, guest.FileSystem.Figures.Nodes);
    });

    [Theory, EveryMode]
    public void Hard_links_are_one_node(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        Host.Run("ln", host["f"], host["d/second"]);
        NodeEntry first = guest.Walk("f");
        NodeEntry second = guest.Walk("d/second");
        Assert.Equal(first.NodeId, second.NodeId);
        Assert.Equal(2U, second.Attributes.LinkCount);
        guest.Forget(first.NodeId);
        Assert.Equal(Errno.Success, guest.GetAttr(first.NodeId).Error);
    });

    [Theory, EveryMode]
    public void A_file_replaced_on_the_host_is_a_new_node(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeEntry old = guest.Walk("f");
        // The attributes are looked at, which gives a node known by handle its descriptor.
        Assert.Equal(Errno.Success, guest.GetAttr(old.NodeId).Error);
        File.WriteAllText(host["new"], "new");
        File.Move(host["new"], host["f"], overwrite: true);

        NodeEntry replacement = guest.Walk("f");
        Assert.NotEqual(old.NodeId, replacement.NodeId);
        Assert.Equal(3UL, replacement.Attributes.Size);
        Assert.Equal(0U, Guest.Good(guest.GetAttr(old.NodeId)).Attributes.LinkCount);
    });

    [Theory, EveryMode]
    public void A_reused_inode_number_is_never_taken_for_the_old_object(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles });
            int reused = 0;
            for (int round = 0; round < 200; round++)
            {
                string path = host["victim"];
                File.WriteAllText(path, "old");
                NodeEntry old = guest.Walk("victim");
                if (round % 2 == 0)
                {
                    // Known once more, so that the next lookup would like to open it.
                    _ = guest.Walk("victim");
                }

                File.Delete(path);
                File.WriteAllText(path, "newer");
                NodeEntry next = guest.Walk("victim");
                reused += next.Attributes.Inode == old.Attributes.Inode ? 1 : 0;
                Assert.NotEqual(old.NodeId, next.NodeId);
                Assert.Equal(5UL, next.Attributes.Size);
                Assert.Equal(5UL, Guest.Good(guest.GetAttr(next.NodeId)).Attributes.Size);
                guest.Forget(old.NodeId, 2);
                guest.Forget(next.NodeId, 1);
            }

            Assert.SkipWhen(reused == 0 && handles == InodeFileHandles.Prefer, "this file system did not reuse a number");
        });

    [Theory, EveryMode]
    public void Threads_that_look_up_one_new_name_get_one_node(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        for (int round = 0; round < 20; round++)
        {
            string name = $"n{round}";
            File.WriteAllText(host[name], "");
            FileName checkedName = Guest.Name(name);
            var found = new NodeEntry[8];
            using var start = new Barrier(8);
            Worker.RunAll(8, i =>
            {
                start.SignalAndWait(TestContext.Current.CancellationToken);
                found[i] = Guest.Good(Guest.Done(
                    guest.FileSystem.LookupAsync(NodeId.Root, checkedName, new RequestContext())));
            });
            NodeId node = Assert.Single(found.Select(entry => entry.NodeId).Distinct());
            guest.Forget(node, 7);
            Assert.Equal(Errno.Success, guest.GetAttr(node).Error);
            guest.Forget(node, 1);
            Assert.Equal(Errno.EBADF, guest.GetAttr(node).Error);
        }
    });

    [Theory, EveryMode]
    public void A_rename_on_the_host_keeps_the_node(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeEntry node = guest.Walk("f");
        File.Move(host["f"], host["d/g"]);
        Assert.Equal(Errno.Success, guest.GetAttr(node.NodeId).Error);
        Assert.Equal(node.NodeId, guest.Walk("d/g").NodeId);
        Assert.Equal(Errno.ENOENT, guest.Lookup(NodeId.Root, "f").Error);
    });

    [Theory, EveryMode]
    public void A_new_session_knows_nothing_of_the_old(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId node = guest.Walk("f").NodeId;
        HandleId handle = Guest.Good(guest.Open(node)).Handle;
        Assert.Equal(Errno.Success, Guest.Done(guest.FileSystem.InitializeAsync(guest.Negotiation)));
        Assert.Equal(Errno.EBADF, guest.GetAttr(node).Error);
        Assert.Equal(Errno.EBADF, guest.Read(node, handle, 0, 10).Error);
        Assert.Equal(new SessionFigures(0, 0, 0, 0, 1, guest.FileSystem.Figures.NodeBytes), guest.FileSystem.Figures);
        Assert.NotEqual(node, guest.Walk("f").NodeId);
    });

    [Fact]
    public void Lifetimes_follow_the_cache_mode_and_the_options() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        (CacheMode Mode, ulong Seconds)[] expected =
        [
            (CacheMode.Never, 0), (CacheMode.Metadata, 86400), (CacheMode.Auto, 1), (CacheMode.Always, 86400),
        ];
        foreach ((CacheMode mode, ulong seconds) in expected)
        {
            using var guest = new Guest(host.Options with { Cache = mode });
            NodeEntry entry = guest.Walk("f");
            Assert.Equal((seconds, 0U), (entry.EntryLifetimeSeconds, entry.EntryLifetimeNanoseconds));
            Assert.Equal((seconds, 0U), (entry.AttributeLifetimeSeconds, entry.AttributeLifetimeNanoseconds));
            Assert.Equal(seconds, Guest.Good(guest.GetAttr(entry.NodeId)).AttributeLifetimeSeconds);
        }

        using (var guest = new Guest(host.Options with
        {
            AttributeLifetime = TimeSpan.FromSeconds(2.25),
            EntryLifetime = TimeSpan.FromSeconds(0.5),
        }))
        {
            NodeEntry entry = guest.Walk("f");
            Assert.Equal((0UL, 500_000_000U), (entry.EntryLifetimeSeconds, entry.EntryLifetimeNanoseconds));
            Assert.Equal((2UL, 250_000_000U), (entry.AttributeLifetimeSeconds, entry.AttributeLifetimeNanoseconds));
        }
    });

    [Fact]
    public void Attributes_are_those_of_the_host() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options);
        FuseAttributes attributes = guest.Walk("chr").Attributes;
        Assert.Equal(0x103U, attributes.Device);
        string[] facts = Host.Run("stat", "-c", "%i %s %b %X %Y %Z %f %h %u %g", host["f"]).Trim().Split(' ');
        attributes = guest.Walk("f").Attributes;
        Assert.Equal(
            string.Join(' ', facts),
            new StringBuilder()
                .Append(attributes.Inode).Append(' ').Append(attributes.Size).Append(' ').Append(attributes.Blocks)
                .Append(' ').Append(attributes.AccessTime).Append(' ').Append(attributes.ModificationTime)
                .Append(' ').Append(attributes.ChangeTime).Append(' ').Append($"{attributes.Mode:x}")
                .Append(' ').Append(attributes.LinkCount).Append(' ').Append(attributes.UserId)
                .Append(' ').Append(attributes.GroupId).ToString());
    });
}
