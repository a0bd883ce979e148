using System.Text;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Server;
using CacheMode = Causeway.Passthrough.CacheMode;

namespace Causeway.Tests.Passthrough;

/// <summary>Files that stay open after the guest has closed them.</summary>
public sealed class SpareFileTests
{
    [Theory, EveryMode]
    public void A_closed_file_stays_open_until_its_node_is_forgotten(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId node = guest.Walk("f").NodeId;
        HandleId first = Guest.Good(guest.Open(node)).Handle;
        int before = guest.FileSystem.Figures.Descriptors;
        Assert.Equal(Errno.Success, guest.Release(node, first));
        Assert.Equal(before, guest.FileSystem.Figures.Descriptors);
        Assert.Equal(0, guest.FileSystem.Figures.OpenFiles);

        // A handle of its own, though the descriptor is not.
        HandleId second = Guest.Good(guest.Open(node)).Handle;
        Assert.NotEqual(first, second);
        Assert.Equal(before, guest.FileSystem.Figures.Descriptors);
        Assert.Equal(Errno.EBADF, guest.Read(node, first, 0, 1).Error);
        Assert.Equal(Errno.EBADF, guest.Release(node, first));
        Assert.Equal(8192, Guest.Good(guest.Read(node, second, 0, 10000)));
        Assert.Equal(Errno.EBADF, guest.Write(node, second, 0, "x"u8).Error);
        Assert.Equal(Errno.Success, guest.Release(node, second));
        guest.Forget(node);
        _ = guest.FileSystem.Settle();
        Assert.Equal(0, guest.FileSystem.Figures.Descriptors);
    });

    [Fact]
    public void Of_a_file_that_is_open_twice_one_stays_open() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options);
        NodeId node = guest.Walk("f").NodeId;
        HandleId[] open = [.. Enumerable.Range(0, 3).Select(_ => Guest.Good(guest.Open(node)).Handle)];
        Assert.All(open, handle => Assert.Equal(Errno.Success, guest.Release(node, handle)));
        Assert.Equal(1, guest.FileSystem.Figures.Descriptors);
        guest.FileSystem.Destroy();
        Assert.Equal(0, guest.FileSystem.Figures.Descriptors);
    });

    [Theory]
    [InlineData(CacheMode.Never, 1024, OpenFlags.ReadOnly)]
    [InlineData(CacheMode.Auto, 0, OpenFlags.ReadOnly)]
    [InlineData(CacheMode.Auto, 1024, OpenFlags.ReadWrite)]
    [InlineData(CacheMode.Auto, 1024, OpenFlags.WriteOnly)]
    [InlineData(CacheMode.Auto, 1024, OpenFlags.NonBlocking)]
    [InlineData(CacheMode.Auto, 1024, OpenFlags.NoAccessTime)]
    public void A_file_is_closed_at_once_if_it_was_open_for_more_than_reading_or_no_spare_files_are_wanted(
        CacheMode cache, int spareFiles, int flags) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options with { Cache = cache, SpareFiles = spareFiles, PreserveNoatime = true });
        NodeId node = guest.Walk("f").NodeId;
        HandleId handle = Guest.Good(guest.Open(node, flags)).Handle;
        Assert.Equal(Errno.Success, guest.Release(node, handle));
        HandleId directory = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
        Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, directory));
        Assert.Equal(0, guest.FileSystem.Figures.Descriptors);
    });

    [Theory]
    [InlineData(FuseLockFlags.Flock)]
    [InlineData(FuseLockFlags.None)]
    public void A_lock_ends_with_its_file_and_nobody_else_gets_it(FuseLockFlags kind) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options);
        using var other = new Guest(host.Options);
        NodeId node = guest.Walk("f").NodeId;
        NodeId same = other.Walk("f").NodeId;
        HandleId handle = Guest.Good(guest.Open(node)).Handle;
        HandleId its = Guest.Good(other.Open(same, OpenFlags.ReadWrite)).Handle;
        Assert.Equal(Errno.Success, Lock(guest, node, handle, FuseLockType.Read, kind));
        Assert.Equal(Errno.EAGAIN, Lock(other, same, its, FuseLockType.Write, kind));
        Assert.Equal(Errno.Success, guest.Release(node, handle));
        handle = Guest.Good(guest.Open(node)).Handle;
        Assert.Equal(Errno.Success, Lock(other, same, its, FuseLockType.Write, kind));
        Assert.Equal(Errno.EAGAIN, Lock(guest, node, handle, FuseLockType.Read, kind));
        Assert.Equal(Errno.Success, guest.Release(node, handle));
        Assert.Equal(Errno.Success, other.Release(same, its));
    });

    [Fact]
    public void A_file_whose_permissions_are_gone_is_opened_as_before() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options);
        using var without = new Guest(host.Options with { SpareFiles = 0 });
        NodeId node = guest.Walk("f").NodeId;
        NodeId same = without.Walk("f").NodeId;
        Assert.Equal(Errno.Success, guest.Release(node, Guest.Good(guest.Open(node)).Handle));
        Host.Run("chmod", "0", host["f"]);
        Host.Run("chown", "4242:4242", host["f"]);
        Result<FuseOpenOut> opened = guest.Open(node);
        Result<FuseOpenOut> anew = without.Open(same);
        Assert.Equal(anew.Error, opened.Error);
        Assert.Equal(Errno.Success, guest.Release(node, opened.Value.Handle));
        Assert.Equal(Errno.Success, without.Release(same, anew.Value.Handle));
    });

    [Fact]
    public void A_name_that_means_another_file_opens_that() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options);
        for (int i = 0; i < 10; i++)
        {
            File.WriteAllText(host["new"], $"{i}");
            File.Move(host["new"], host["f"], overwrite: true);
            NodeId node = guest.Walk("f").NodeId;
            HandleId handle = Guest.Good(guest.Open(node)).Handle;
            Assert.Equal(1, Guest.Good(guest.Read(node, handle, 0, 10)));
            Assert.Equal((byte)('0' + i), guest.Buffer[0]);
            Assert.Equal(Errno.Success, guest.Release(node, handle));
        }
    });

    [Fact]
    public void Content_that_changed_while_nobody_had_the_file_open_is_not_kept_by_the_guest() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options);
        File.SetLastWriteTimeUtc(host["f"], DateTime.UtcNow.AddHours(-1));
        NodeId node = guest.Walk("f").NodeId;
        OpenReplyFlags Reopen()
        {
            FuseOpenOut opened = Guest.Good(guest.Open(node));
            _ = Guest.Good(guest.Read(node, opened.Handle, 0, 10));
            Assert.Equal(Errno.Success, guest.Release(node, opened.Handle));
            return opened.Flags & OpenReplyFlags.KeepCache;
        }

        // The host's clock ticks on before a change can be told from the one before.
        Assert.True(SpinWait.SpinUntil(() => Reopen() == OpenReplyFlags.KeepCache, TimeSpan.FromSeconds(10)));
        File.AppendAllText(host["f"], "more");
        Assert.Equal(OpenReplyFlags.None, Reopen());
    });

    [Fact]
    public void Spare_files_make_way_for_open_files_and_nodes() => Worker.Run(() =>
    {
        using var host = new HostDirectory("/var/tmp");
        using var guest = new Guest(host.Options with { MaxDescriptors = 64 });
        var nodes = new List<NodeId>();
        for (int i = 0; i < 64; i++)
        {
            File.WriteAllText(host[$"{i}"], "");
            nodes.Add(guest.Walk($"{i}").NodeId);
        }

        foreach (NodeId node in nodes)
        {
            Assert.Equal(Errno.Success, guest.Release(node, Guest.Good(guest.Open(node)).Handle));
        }

        Assert.Equal(4, guest.FileSystem.Figures.Descriptors);
        List<HandleId> open = [.. nodes.Select(node => Guest.Good(guest.Open(node, OpenFlags.ReadWrite)).Handle)];
        Assert.Equal(64, guest.FileSystem.Figures.Descriptors);
        Assert.Equal(Errno.ENFILE, guest.Open(nodes[0]).Error);

        // With few left none is kept.
        Assert.Equal(Errno.Success, guest.Release(nodes[0], open[0]));
        HandleId last = Guest.Good(guest.Open(nodes[0])).Handle;
        Assert.Equal(Errno.Success, guest.Release(nodes[0], last));
        Assert.Equal(63, guest.FileSystem.Figures.Descriptors);
        Assert.All(nodes.Zip(open).Skip(1), file => Assert.Equal(Errno.Success, guest.Release(file.First, file.Second)));
    });

    [Fact]
    public void A_device_that_is_idle_closes_them_by_itself()
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using Share share = Share.Open(host.Options);
        using var fileSystem = new PassthroughFileSystem(share);
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect();
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        NodeId node = client.Lookup(NodeId.Root, "f").Value.NodeId;
        HandleId handle = client.Open(node, OpenFlags.ReadOnly).Value.Handle;
        Assert.Equal(Errno.Success, client.Release(node, handle));
        Assert.Equal(1, fileSystem.Figures.Descriptors);
        Assert.True(SpinWait.SpinUntil(() => fileSystem.Figures.Descriptors == 0, TimeSpan.FromSeconds(60)));
    }

    [Fact]
    public void Requests_that_meet_never_share_or_lose_a_descriptor() => Worker.Run(() =>
    {
        // Fewer places than files, so that files take them from each other.
        const int files = 24;
        const int rounds = 3000;
        using var host = new HostDirectory("/dev/shm");
        for (int i = 0; i < files; i++)
        {
            File.WriteAllText(host[$"{i}"], $"{i:00}");
        }

        using Share share = Share.Open(host.Options with { SpareFiles = 7, MaxDescriptors = 400 });
        using var fileSystem = new PassthroughFileSystem(share);
        Assert.Equal(Errno.Success, Guest.Done(fileSystem.InitializeAsync(new FuseNegotiation(46, Guest.Everything))));
        Worker.RunAll(4, number => Race(fileSystem, files, new Random(number), rounds));
        fileSystem.Destroy();
        _ = fileSystem.Settle();
        Assert.Equal((0L, 0), (fileSystem.Figures.OpenFiles, fileSystem.Figures.Descriptors));
    });

    private static unsafe void Race(PassthroughFileSystem system, int files, Random random, int rounds)
    {
        var context = new RequestContext();
        byte* data = stackalloc byte[2];
        IoVector piece = new(data, 2);
        for (int round = 0; round < rounds; round++)
        {
            int i = random.Next(files);
            NodeId node = Guest.Good(Guest.Done(system.LookupAsync(NodeId.Root, Guest.Name($"{i}"), context))).NodeId;
            Result<FuseOpenOut> opened = Guest.Done(system.OpenAsync(node, default, context));
            if (random.Next(4) == 0)
            {
                // More than this thread has looked up, as no honest guest would.
                system.Forget(node, (ulong)random.Next(1, 100));
            }

            if (opened.IsError)
            {
                Assert.Equal(Errno.EBADF, opened.Error);
                continue;
            }

            HandleId handle = opened.Value.Handle;
            Result<int> read = Guest.Done(system.ReadAsync(
                node, new FuseReadIn { Handle = handle, Size = 2 }, new IoVectorList(&piece, 1, 2), context));
            Assert.Equal(2, Guest.Good(read));
            Assert.Equal($"{i:00}", Encoding.ASCII.GetString(data, 2));
            Assert.Equal(Errno.Success, Guest.Done(system.ReleaseAsync(node, new FuseReleaseIn { Handle = handle }, context)));
            if (random.Next(8) == 0)
            {
                _ = system.Settle();
            }
        }
    }

    private static Errno Lock(Guest guest, NodeId node, HandleId handle, FuseLockType type, FuseLockFlags kind) =>
        Guest.Done(guest.FileSystem.SetLockAsync(
            node,
            new FuseLkIn { Handle = handle, Owner = 1, End = long.MaxValue, Type = type, Flags = kind },
            mayWait: false,
            guest.Context));
}
