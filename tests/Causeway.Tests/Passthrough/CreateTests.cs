using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>passthrough.md 7.5.</summary>
public sealed class CreateTests
{
    [Theory, EveryMode]
    public void New_objects_belong_to_the_caller(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        guest.As(1000, 1001);
        NodeEntry directory = Guest.Good(guest.Mkdir(NodeId.Root, "dir", 0x1c0));
        NodeEntry node = Guest.Good(guest.Mknod(NodeId.Root, "pipe", 0x1180));
        NodeEntry link = Guest.Good(guest.Symlink(NodeId.Root, "link", "../anywhere"));
        FuseCreateOut file = Guest.Good(guest.Create(NodeId.Root, "file", mode: 0x1ff));
        Assert.All(new[] { directory, node, link, file.Entry }, entry =>
            Assert.Equal((1000U, 1001U), (entry.Attributes.UserId, entry.Attributes.GroupId)));
        Assert.Equal("1000:1001 drwx------", Host.Run("stat", "-c", "%u:%g %A", host["dir"]).Trim());
        Assert.Equal("1000:1001 prw-------", Host.Run("stat", "-c", "%u:%g %A", host["pipe"]).Trim());
        Assert.Equal("1000:1001 -rwxrwxrwx", Host.Run("stat", "-c", "%u:%g %A", host["file"]).Trim());
        Assert.Equal("../anywhere", new FileInfo(host["link"]).LinkTarget);

        // Guest root is the daemon itself, even between two creations of somebody else.
        NodeEntry roots = Guest.Good(guest.As(0, 0).Mkdir(NodeId.Root, "roots"));
        Assert.Equal((0U, 0U), (roots.Attributes.UserId, roots.Attributes.GroupId));
        Assert.Equal(Errno.EPERM, guest.As(uint.MaxValue, 0).Mkdir(NodeId.Root, "nobodys").Error);
        Assert.Equal(Errno.Success, guest.Release(file.Entry.NodeId, file.Open.Handle));
    });

    [Fact]
    public void A_callers_groups_are_taken_on_and_dropped() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options);
        Host.Run("chown", "0:4", host["d"]);
        Host.Run("chmod", "2770", host["d"]);
        NodeId parent = guest.Walk("d").NodeId;
        NodeEntry made = Guest.Good(guest.As(1000, 1000, 4).Mkdir(parent, "in-group"));
        Assert.Equal((1000U, 4U), (made.Attributes.UserId, made.Attributes.GroupId));
        Assert.Equal("4", GroupsOfThisThread());

        // The same member keeps a setgid bit with execute permission, a stranger loses it.
        NodeEntry member = Guest.Good(guest.Mknod(parent, "member", 0x85ed));
        Assert.Equal(0x85edU, member.Attributes.Mode);
        NodeEntry stranger = Guest.Good(guest.As(1000, 1000).Mknod(parent, "stranger", 0x85ed));
        Assert.Equal(0x81edU, stranger.Attributes.Mode);
        Assert.Equal("", GroupsOfThisThread());
        NodeEntry root = Guest.Good(guest.As(0, 0, 4).Mknod(parent, "root", 0x85ed));
        Assert.Equal(0x85edU, root.Attributes.Mode);
        Assert.Equal(Errno.Success, guest.As(0, 0).Mkdir(parent, "last").Error);
        Assert.Equal("", GroupsOfThisThread());
    });

    [Fact]
    public void A_file_made_by_a_stranger_in_a_setgid_directory_has_the_directorys_group() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options);
        Host.Run("chown", "0:4", host["d"]);
        Host.Run("chmod", "2777", host["d"]);
        FuseCreateOut made = Guest.Good(guest.As(1000, 1000).Create(guest.Walk("d").NodeId, "file", mode: 0x5ed));
        Assert.Equal((1000U, 4U), (made.Entry.Attributes.UserId, made.Entry.Attributes.GroupId));
        Assert.Equal(0x81edU, made.Entry.Attributes.Mode);
        Assert.Equal(Errno.Success, guest.Release(made.Entry.NodeId, made.Open.Handle));
    });

    [Fact]
    public void Mixed_users_on_many_threads_never_get_each_others_files() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/dev/shm").Fill();
        using var guest = new Guest(host.Options);
        const int threads = 16;
        const int each = 625;
        var wrong = new int[threads];
        Worker.RunAll(threads, i =>
        {
            var random = new Random(i);
            var context = new RequestContext();
            for (int n = 0; n < each; n++)
            {
                uint user = (uint)random.Next(4) * 1000;
                uint group = (uint)random.Next(3) * 500;
                context.Reset(new FuseInHeader { UserId = user, GroupId = group });
                FuseCreateOut made = Guest.Good(Guest.Done(guest.FileSystem.CreateAsync(
                    NodeId.Root,
                    Guest.Name($"{i}-{n}"),
                    new FuseCreateIn { Flags = OpenFlags.ReadWrite, Mode = 0x1a4 },
                    context)));
                wrong[i] += made.Entry.Attributes.UserId == user && made.Entry.Attributes.GroupId == group ? 0 : 1;
                Assert.Equal(Errno.Success, Guest.Done(guest.FileSystem.ReleaseAsync(
                    made.Entry.NodeId, new FuseReleaseIn { Handle = made.Open.Handle }, context)));
            }

            context.Reset(default);
            Guest.Good(Guest.Done(guest.FileSystem.MkdirAsync(NodeId.Root, Guest.Name($"{i}"), default, context)));
            Assert.Equal("", GroupsOfThisThread());
            Assert.Equal("0\t0\t0\t0", StatusOfThisThread("Uid"));
        });
        Assert.All(wrong, count => Assert.Equal(0, count));
        Assert.Equal(threads * each, Directory.GetFiles(host.Path, "*-*").Length);
    });

    [Theory, EveryMode]
    public void Create_with_O_EXCL_fails_on_what_exists(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        Assert.Equal(Errno.EEXIST, guest.Create(NodeId.Root, "f", OpenFlags.ReadWrite | OpenFlags.Exclusive).Error);
        NodeId known = guest.Walk("f").NodeId;
        FuseCreateOut opened = Guest.Good(guest.Create(NodeId.Root, "f", OpenFlags.ReadWrite | OpenFlags.Truncate));
        Assert.Equal(known, opened.Entry.NodeId);
        Assert.Equal(0, new FileInfo(host["f"]).Length);
        Assert.Equal(Errno.Success, guest.Release(known, opened.Open.Handle));
    });

    [Theory, EveryMode]
    public void Create_on_what_is_no_regular_file_is_refused_and_leaks_nothing(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles });
            SessionFigures before = guest.FileSystem.Figures;
            (string Name, Errno Expected)[] cases =
            [
                ("ln", Errno.ELOOP), ("abs", Errno.ELOOP), ("fifo", Errno.EEXIST), ("chr", Errno.EEXIST),
                ("d", Errno.EISDIR),
            ];
            foreach ((string name, Errno expected) in cases)
            {
                for (int i = 0; i < 50; i++)
                {
                    Assert.Equal(expected, guest.Create(NodeId.Root, name).Error);
                }
            }

            guest.FileSystem.Settle();
            Assert.Equal(before with { NodeBytes = 0 }, guest.FileSystem.Figures with { NodeBytes = 0 });
        });

    [Theory, EveryMode]
    public void Create_without_descriptors_left_leaves_no_file(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles, MaxDescriptors = 16 });
        NodeId node = guest.Walk("f").NodeId;
        var open = new List<HandleId>();
        while (true)
        {
            Result<FuseOpenOut> opened = guest.Open(node);
            if (opened.IsError)
            {
                Assert.Equal(Errno.ENFILE, opened.Error);
                break;
            }

            open.Add(opened.Value.Handle);
        }

        Assert.InRange(open.Count, 14, 16);
        Assert.Equal(Errno.ENFILE, guest.Create(NodeId.Root, "new").Error);
        Assert.False(File.Exists(host["new"]));
        foreach (HandleId handle in open)
        {
            Assert.Equal(Errno.Success, guest.Release(node, handle));
        }

        FuseCreateOut made = Guest.Good(guest.Create(NodeId.Root, "new"));
        Assert.Equal(Errno.Success, guest.Release(made.Entry.NodeId, made.Open.Handle));
    });

    [Fact]
    public void Bits_beyond_the_permissions_are_ignored() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options);
        FuseCreateOut made = Guest.Good(guest.Create(NodeId.Root, "new", mode: 0x1fffff));
        Assert.Equal(0x8fffU, made.Entry.Attributes.Mode);
        Assert.Equal(Errno.Success, guest.Release(made.Entry.NodeId, made.Open.Handle));
    });

    [Theory, EveryMode]
    public void Flags_of_create_are_those_of_open(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        PassthroughOptions options = host.Options with { FileHandles = handles };
        using (var guest = new Guest(options with { Writeback = true }))
        {
            FuseCreateOut made = Guest.Good(guest.Create(NodeId.Root, "w", OpenFlags.WriteOnly));
            Assert.Equal(0, Guest.Good(guest.Read(made.Entry.NodeId, made.Open.Handle, 0, 100)));
            Assert.Equal(Errno.Success, guest.Release(made.Entry.NodeId, made.Open.Handle));
        }

        using (var guest = new Guest(options))
        {
            int hostile = OpenFlags.ReadWrite | OpenFlags.Direct | OpenFlags.NoAccessTime | OpenFlags.Path |
                OpenFlags.TemporaryFile | OpenFlags.Append;
            FuseCreateOut made = Guest.Good(guest.Create(NodeId.Root, "h", hostile));
            int flags = HostFlags(host["h"]);
            Assert.Equal(0, flags & (OpenFlags.Direct | OpenFlags.NoAccessTime | OpenFlags.Path | OpenFlags.Append));
            Assert.True(File.Exists(host["h"]));
            Assert.Equal(Errno.Success, guest.Release(made.Entry.NodeId, made.Open.Handle));
            Assert.Equal(Errno.EINVAL, guest.Create(NodeId.Root, "three", 3).Error);
            Assert.False(File.Exists(host["three"]));
        }
    });

    [Theory, EveryMode]
    public void Special_files_are_made_by_root_and_pipes_by_all(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeEntry made = Guest.Good(guest.Mknod(NodeId.Root, "null", 0x21b6, 0x103));
        Assert.Equal((0x21b6U, 0x103U), (made.Attributes.Mode, made.Attributes.Device));
        Assert.Equal("1:3", Host.Run("stat", "-c", "%t:%T", host["null"]).Trim());
        Assert.Equal(Errno.EPERM, guest.As(1000, 1000).Mknod(NodeId.Root, "other", 0x21b6, 0x103).Error);
        Assert.Equal(Errno.EPERM, guest.As(1000, 1000).Mknod(NodeId.Root, "block", 0x61b6).Error);
        Assert.Equal(1000U, Guest.Good(guest.As(1000, 1000).Mknod(NodeId.Root, "whiteout", 0x2000)).Attributes.UserId);
        Assert.Equal(0xc1a4U, Guest.Good(guest.Mknod(NodeId.Root, "socket", 0xc1a4)).Attributes.Mode);
        Assert.Equal(Errno.EPERM, guest.Mknod(NodeId.Root, "directory", 0x41ed).Error);
        Assert.Equal(Errno.EINVAL, guest.Mknod(NodeId.Root, "garbage", 0xf1ed).Error);
        Assert.Equal(Errno.EINVAL, guest.Mknod(NodeId.Root, "garbage", 0xa1ed).Error);
        Assert.Equal(Errno.EEXIST, guest.Mknod(NodeId.Root, "f", 0x81a4).Error);
    });

    [Theory, EveryMode]
    public void Targets_of_links_are_data_of_up_to_4095_bytes(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        Assert.Equal(Errno.ENOENT, guest.Symlink(NodeId.Root, "empty", "").Error);
        Assert.Equal(Errno.ENAMETOOLONG, guest.Symlink(NodeId.Root, "long", new string('t', 4096)).Error);
        string target = "/" + new string('\xe9', 4094);
        NodeEntry link = Guest.Good(guest.Symlink(NodeId.Root, "fits", target));
        byte[] read = new byte[8192];
        Assert.Equal(4095, Guest.Good(Guest.Done(guest.FileSystem.ReadLinkAsync(link.NodeId, read, guest.Context))));
        Assert.Equal(Guest.Terminated(target)[..^1], read[..4095]);
        Assert.Equal(
            Errno.EINVAL,
            Guest.Done(guest.FileSystem.ReadLinkAsync(guest.Walk("f").NodeId, read, guest.Context)).Error);
    });

    [Theory, EveryMode]
    public void All_but_directories_can_be_linked(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId directory = guest.Walk("d").NodeId;
        Assert.Equal(Errno.EPERM, guest.Link(directory, NodeId.Root, "again").Error);
        foreach (string name in new[] { "f", "ln", "abs", "fifo", "chr" })
        {
            NodeId node = guest.Walk(name).NodeId;
            NodeEntry linked = Guest.Good(guest.Link(node, directory, name + "2"));
            Assert.Equal(node, linked.NodeId);
            Assert.Equal(2U, linked.Attributes.LinkCount);
            Assert.Equal(
                Host.Run("stat", "-c", "%i", host[name]), Host.Run("stat", "-c", "%i", host[$"d/{name}2"]));
            Assert.Equal(Errno.EEXIST, guest.Link(node, directory, name + "2").Error);
        }
    });

    [Fact]
    public void A_created_file_and_its_node_are_the_same_whatever_the_name_means_by_then() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/dev/shm").Fill();
        using var guest = new Guest(host.Options);
        using var stop = new ManualResetEventSlim();
        File.WriteAllText(host["d/other"], "other");
        var swapper = new Thread(() =>
        {
            while (!stop.IsSet)
            {
                try
                {
                    File.Copy(host["d/other"], host["d/swap"], overwrite: true);
                    File.Move(host["d/swap"], host["raced"], overwrite: true);
                }
                catch (IOException)
                {
                }
            }
        });
        swapper.Start();
        for (int i = 0; i < 500; i++)
        {
            Result<FuseCreateOut> made = guest.Create(NodeId.Root, "raced", OpenFlags.ReadWrite | OpenFlags.Exclusive);
            if (!made.IsError)
            {
                FuseAttrOut open = Guest.Good(guest.GetAttr(made.Value.Entry.NodeId, made.Value.Open.Handle));
                Assert.Equal(made.Value.Entry.Attributes.Inode, open.Attributes.Inode);
                Assert.Equal(Errno.Success, guest.Release(made.Value.Entry.NodeId, made.Value.Open.Handle));
            }

            _ = guest.Unlink(NodeId.Root, "raced");
        }

        stop.Set();
        swapper.Join();
    });

    internal static string StatusOfThisThread(string field) => File.ReadAllLines("/proc/thread-self/status")
        .Single(line => line.StartsWith(field + ":", StringComparison.Ordinal))[(field.Length + 1)..].Trim();

    private static string GroupsOfThisThread() => StatusOfThisThread("Groups");

    // The flags of the one descriptor that is open on a file.
    private static int HostFlags(string path)
    {
        string link = Directory.GetFiles("/proc/self/fd").Single(link =>
            HostDirectory.TargetOf(link) == path &&
            (FlagsOf(link) & OpenFlags.Path) == 0);
        return FlagsOf(link);
    }

    private static int FlagsOf(string link) => Convert.ToInt32(
        File.ReadAllLines($"/proc/self/fdinfo/{Path.GetFileName(link)}")
            .Single(line => line.StartsWith("flags:", StringComparison.Ordinal))[6..].Trim(),
        8);
}
