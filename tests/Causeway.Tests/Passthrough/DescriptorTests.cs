using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>The budget of descriptors.</summary>
public sealed class DescriptorTests
{
    [Theory]
    [InlineData("/var/tmp")]
    [InlineData("/dev/shm")]
    public void Nodes_by_handle_never_need_more_descriptors_than_there_are(string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place);
        using var guest = new Guest(host.Options with { MaxDescriptors = 64 });
        var nodes = new List<NodeId>();
        for (int i = 0; i < 1000; i++)
        {
            NodeEntry directory = Guest.Good(guest.Mkdir(NodeId.Root, $"{i}"));
            nodes.Add(directory.NodeId);
            nodes.Add(Guest.Good(guest.Mknod(directory.NodeId, "file", 0x81a4)).NodeId);
            Assert.InRange(guest.FileSystem.Figures.Descriptors, 0, 64);
        }

        // Each of them twice, so that each is worth a descriptor.
        foreach (NodeId node in nodes.Concat(nodes))
        {
            Assert.Equal(Errno.Success, guest.GetAttr(node).Error);
            Assert.InRange(guest.FileSystem.Figures.Descriptors, 0, 64);
        }

        Assert.Equal(2000, guest.FileSystem.Figures.Nodes);
        Assert.True(guest.FileSystem.Figures.Pinned > 16);
        Assert.InRange(host.OpenDescriptors().Count, 17, 70);

        // Open files come first: the nodes' descriptors make way for them.
        var open = new List<(NodeId, HandleId)>();
        while (guest.Open(nodes[1 + (2 * open.Count)]) is { IsError: false } opened)
        {
            open.Add((nodes[1 + (2 * open.Count)], opened.Value.Handle));
        }

        Assert.Equal(64, open.Count);
        Assert.Equal(Errno.ENFILE, guest.Open(nodes[1]).Error);
        Assert.Equal(Errno.ENFILE, guest.OpenDir(nodes[0]).Error);
        Assert.All(nodes, node => Assert.Equal(Errno.Success, guest.GetAttr(node).Error));
        Assert.All(open, file => Assert.Equal(Errno.Success, guest.Release(file.Item1, file.Item2)));
        Assert.All(nodes, node => guest.Forget(node));
        guest.FileSystem.Settle();
        Assert.Equal((0L, 0), (guest.FileSystem.Figures.Nodes, guest.FileSystem.Figures.Descriptors));
    });

    [Fact]
    public void A_tree_with_more_nodes_than_descriptors_takes_only_few_of_them_away() => Worker.Run(() =>
    {
        using var host = new HostDirectory("/dev/shm");
        using var guest = new Guest(host.Options with { MaxDescriptors = 128 });
        var nodes = new List<NodeId>();
        for (int i = 0; i < 300; i++)
        {
            File.WriteAllText(host[$"{i}"], "");
            nodes.Add(Guest.Good(guest.Lookup(NodeId.Root, $"{i}")).NodeId);
        }

        Assert.All(nodes, node => Assert.Equal(Errno.Success, guest.GetAttr(node).Error));
        guest.FileSystem.Settle();
        List<string> before = host.OpenDescriptors();
        Assert.InRange(guest.FileSystem.Figures.Pinned, 90, 96);

        // In turn: whoever always makes room has just taken away what comes next.
        Assert.All(nodes, node => Assert.Equal(Errno.Success, guest.GetAttr(node).Error));
        guest.FileSystem.Settle();
        List<string> after = host.OpenDescriptors();
        Assert.InRange(before.Intersect(after).Count(), before.Count / 2, before.Count - 1);
        Assert.All(nodes, node => guest.Forget(node));
    });

    [Theory]
    [InlineData("/var/tmp")]
    [InlineData("/dev/shm")]
    public void Nodes_by_descriptor_end_with_a_clear_error_and_recover(string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place);
        for (int i = 0; i < 200; i++)
        {
            File.WriteAllText(host[$"{i}"], "");
        }

        using var guest = new Guest(host.Options with { MaxDescriptors = 64, FileHandles = InodeFileHandles.Never });
        for (int round = 0; round < 3; round++)
        {
            var nodes = new List<NodeId>();
            for (int i = 0; i < 200; i++)
            {
                Result<NodeEntry> found = guest.Lookup(NodeId.Root, $"{i}");
                Assert.Equal(i < 64 ? Errno.Success : Errno.ENFILE, found.Error);
                if (!found.IsError)
                {
                    nodes.Add(found.Value.NodeId);
                }
            }

            Assert.Equal(Errno.ENFILE, guest.Mkdir(NodeId.Root, $"new{round}").Error);
            Assert.Equal(Errno.ENFILE, guest.OpenDir(NodeId.Root).Error);
            guest.Forget(nodes[0]);
            HandleId handle = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
            List<Listed> listed = guest.ReadAll(NodeId.Root, handle, isPlus: true);
            Assert.InRange(listed.Count, 203, 205);
            Assert.Equal(63, listed.Count(entry => entry.Entry.NodeId != NodeId.None));
            Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, handle));
            // Once for the lookup and once for the listing.
            Assert.All(nodes, node => guest.Forget(node, 2));
            Assert.Equal(0, guest.FileSystem.Figures.Nodes);
        }
    });

    [Fact]
    public void A_node_without_a_name_keeps_its_descriptor_when_others_need_the_place() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp");
        using var guest = new Guest(host.Options with { MaxDescriptors = 32 });
        NodeId directory = Guest.Good(guest.Mkdir(NodeId.Root, "gone")).NodeId;
        NodeId onHost = Guest.Good(guest.Mkdir(NodeId.Root, "gone on the host")).NodeId;
        Assert.Equal(Errno.Success, guest.GetAttr(onHost).Error);
        Assert.Equal(Errno.Success, guest.Rmdir(NodeId.Root, "gone"));
        Directory.Delete(host["gone on the host"]);
        for (int i = 0; i < 300; i++)
        {
            NodeId node = Guest.Good(guest.Mkdir(NodeId.Root, $"{i}")).NodeId;
            Assert.Equal(Errno.Success, guest.GetAttr(node).Error);
        }

        Assert.Equal(Errno.Success, guest.GetAttr(directory).Error);
        Assert.Equal(Errno.Success, guest.GetAttr(onHost).Error);
        guest.Forget(directory);
        guest.Forget(onHost);
        guest.FileSystem.Settle();
        Assert.DoesNotContain(host.OpenDescriptors(), path => path.Contains("deleted", StringComparison.Ordinal));
    });

    [Theory]
    [InlineData("/var/tmp")]
    [InlineData("/dev/shm")]
    public void What_the_guest_has_made_is_one_node_and_survives_its_name_after_its_descriptor_went_elsewhere(string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place);
        using var guest = new Guest(host.Options with { MaxDescriptors = 64 });
        NodeId folder = Guest.Good(guest.Mkdir(NodeId.Root, "folder")).NodeId;
        var made = new List<NodeId>();
        for (int i = 0; i < 200; i++)
        {
            made.Add(Guest.Good(guest.Mknod(folder, $"{i}", 0x81a4)).NodeId);
        }

        // Others take the places of all of them.
        for (int i = 0; i < 200; i++)
        {
            File.WriteAllText(host[$"{i}"], "");
            NodeId other = Guest.Good(guest.Lookup(NodeId.Root, $"{i}")).NodeId;
            Assert.Equal(Errno.Success, guest.GetAttr(other).Error);
            guest.Forget(other);
        }

        for (int i = 0; i < made.Count; i++)
        {
            Assert.Equal(made[i], Guest.Good(guest.Lookup(folder, $"{i}")).NodeId);
            Assert.Equal(Errno.Success, guest.Unlink(folder, $"{i}"));
            Assert.Equal(0u, guest.GetAttr(made[i]).Value.Attributes.LinkCount);
            guest.Forget(made[i], 2);
        }

        guest.FileSystem.Settle();
        Assert.Equal(1, guest.FileSystem.Figures.Nodes);
        Assert.InRange(host.OpenDescriptors().Count, 0, 4);
    });

    [Fact]
    public void What_is_made_while_others_list_the_directory_is_one_node()
    {
        using HostDirectory host = new HostDirectory("/dev/shm");
        using var guest = new Guest(host.Options);
        var made = new NodeId[300];
        bool isDone = false;
        Worker.RunAll(2, number =>
        {
            if (number == 0)
            {
                for (int i = 0; i < made.Length; i++)
                {
                    made[i] = Guest.Good(guest.Mkdir(NodeId.Root, $"{i}")).NodeId;
                }

                Volatile.Write(ref isDone, true);
                return;
            }

            // What is found is given back, so that nodes by handle come and go meanwhile.
            while (!Volatile.Read(ref isDone))
            {
                HandleId handle = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
                foreach (Listed listed in guest.ReadAll(NodeId.Root, handle, isPlus: true))
                {
                    if (listed.Entry.NodeId != NodeId.None)
                    {
                        guest.Forget(listed.Entry.NodeId);
                    }
                }

                Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, handle));
            }
        });
        Worker.Run(() =>
        {
            Assert.Equal(made.Length, guest.FileSystem.Figures.Nodes);
            for (int i = 0; i < made.Length; i++)
            {
                Assert.Equal(made[i], Guest.Good(guest.Lookup(NodeId.Root, $"{i}")).NodeId);
                guest.Forget(made[i], 2);
            }
        });
    }

    [Fact]
    public void Options_that_cannot_work_are_refused_with_a_reason()
    {
        using var host = new HostDirectory();
        PassthroughOptions good = host.Options;
        Refused(good with { SharedDirectory = "" }, "name an existing directory");
        Refused(good with { EntryLifetime = TimeSpan.FromSeconds(-1) }, "entry lifetime");
        Refused(good with { AttributeLifetime = TimeSpan.FromSeconds(-1) }, "attribute lifetime");
        Refused(good with { NegativeLifetime = TimeSpan.FromSeconds(-1) }, "negative lifetime");
        Refused(good with { MaxNodes = 1 }, "between 16");
        Refused(good with { MaxXattrSize = 65537 }, "65536 bytes");
        Refused(good with { MaxLocks = 0 }, "remote locks off");
        Refused(good with { MaxLockWaits = 0 }, "remote locks off");
        Refused(good with { LockWaitLimit = TimeSpan.FromSeconds(-1) }, "lock wait lifetime");
        Refused(good with { MaxDescriptors = 3 }, "at least 16");
        Refused(good with { Cache = (CacheMode)9 }, "cache mode");
        Refused(good with { FileHandles = (InodeFileHandles)9 }, "file handles");
        Assert.Equal(
            Errno.ENOENT,
            Assert.Throws<ErrnoException>(() => Share.Open(good with { SharedDirectory = "/nowhere" })).Error);
        Assert.Equal(
            Errno.ENOTDIR,
            Assert.Throws<ErrnoException>(() => Share.Open(good with { SharedDirectory = host.Outside })).Error);

        static void Refused(PassthroughOptions options, string reason) => Assert.Contains(
            reason, Assert.Throws<ArgumentException>(() => Share.Open(options)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Features_are_granted_by_option() => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        const FuseFeatures always = FuseFeatures.AsyncRead | FuseFeatures.AtomicOTrunc | FuseFeatures.BigWrites |
            FuseFeatures.AutoInvalData | FuseFeatures.AsyncDio | FuseFeatures.ParallelDirOps | FuseFeatures.MaxPages |
            FuseFeatures.InitExt | FuseFeatures.CreateSuppGroup | FuseFeatures.AllowIdmap;
        const FuseFeatures listing = FuseFeatures.DoReadDirPlus | FuseFeatures.ReadDirPlusAuto;
        const FuseFeatures locks = FuseFeatures.PosixLocks | FuseFeatures.FlockLocks;
        Assert.Equal(
            always | listing | locks | FuseFeatures.Submounts | FuseFeatures.CacheSymlinks, Granted(host.Options));
        Assert.Equal(
            always | locks, Granted(host.Options with { Cache = CacheMode.Never, AnnounceSubmounts = false }));
        Assert.Equal(
            always,
            Granted(host.Options with { Cache = CacheMode.Never, AnnounceSubmounts = false, RemoteLocks = false }));
        Assert.Equal(
            always | FuseFeatures.Submounts | FuseFeatures.CacheSymlinks | FuseFeatures.WritebackCache |
            FuseFeatures.HandleKillPrivV2 | FuseFeatures.DirectIoAllowMmap,
            Granted(host.Options with
            {
                Cache = CacheMode.Always,
                ReadDirPlus = false,
                Writeback = true,
                KillPrivV2 = true,
                AllowMmap = true,
            }));

        static FuseFeatures Granted(PassthroughOptions options)
        {
            using var guest = new Guest(options);
            return guest.Negotiation.Granted;
        }
    });
}
