using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>Security labels of new objects (passthrough.md 3.5; cases C8, C22a, C22b; weaknesses 24b and 31).</summary>
public sealed class LabelTests
{
    [Theory, EveryMode]
    public void What_is_made_has_its_label_when_the_guest_hears_of_it(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(Labels(host, handles));
            guest.As(1000, 1000).Labelled("security.label", "secret");
            NodeId[] made =
            [
                Guest.Good(guest.Mkdir(NodeId.Root, "dir")).NodeId,
                Guest.Good(guest.Mknod(NodeId.Root, "pipe", 0x1180)).NodeId,
                Guest.Good(guest.Mknod(NodeId.Root, "plain", 0x180)).NodeId,
                Guest.Good(guest.Symlink(NodeId.Root, "link", "f")).NodeId,
                Open(Guest.Good(guest.Create(NodeId.Root, "file"))),
            ];
            FuseCreateOut nameless = Guest.Good(guest.Tmpfile(NodeId.Root));
            Assert.Equal("secret", Guest.Good(guest.GetXattr(nameless.Entry.NodeId, "security.label")));
            Open(nameless);
            Assert.All(made, node => Assert.Equal("secret", Guest.Good(guest.GetXattr(node, "security.label"))));
            Assert.Equal("1000:1000", Host.Run("stat", "-c", "%u:%g", host["link"]).Trim());

            // What exists keeps its own, and what comes without gets none.
            Assert.Equal(Errno.ENODATA, guest.GetXattr(Open(Guest.Good(guest.Create(NodeId.Root, "f"))), "security.label").Error);
            NodeId bare = Guest.Good(guest.As(1000, 1000).Mkdir(NodeId.Root, "bare")).NodeId;
            Assert.Equal(Errno.ENODATA, guest.GetXattr(bare, "security.label").Error);

            NodeId Open(FuseCreateOut created)
            {
                Assert.Equal(Errno.Success, guest.Release(created.Entry.NodeId, created.Open.Handle));
                return created.Entry.NodeId;
            }
        });

    [Theory, EveryMode]
    public void Labelled_objects_cost_no_descriptors_once_they_are_forgotten(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            // C22a.
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(Labels(host, handles));
            guest.As(0, 0).Labelled("security.label", "x");
            _ = guest.GetAttr(NodeId.Root);
            int before = host.OpenDescriptors().Count;
            for (int i = 0; i < 50; i++)
            {
                NodeId[] made =
                [
                    Guest.Good(guest.Mkdir(NodeId.Root, $"d{i}")).NodeId,
                    Guest.Good(guest.Mknod(NodeId.Root, $"n{i}", 0x81a4)).NodeId,
                    Guest.Good(guest.Symlink(NodeId.Root, $"s{i}", "t")).NodeId,
                ];
                FuseCreateOut created = Guest.Good(guest.Create(NodeId.Root, $"c{i}"));
                Assert.Equal(Errno.Success, guest.Release(created.Entry.NodeId, created.Open.Handle));
                foreach (NodeId node in made.Append(created.Entry.NodeId))
                {
                    guest.Forget(node);
                }
            }

            guest.FileSystem.Settle();
            Assert.Equal((0L, 0, 0), (guest.FileSystem.Figures.Nodes, guest.FileSystem.Figures.OpenFiles,
                guest.FileSystem.Figures.Descriptors));
            Assert.Equal(before, host.OpenDescriptors().Count);
        });

    [Theory, EveryMode]
    public void Where_the_host_refuses_the_label_the_object_is_gone_again(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            // C8, C22b: user.* may not be on links, pipes and sockets, and a value may have 64 KiB at most.
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(
                Labels(host, handles) with { XattrMap = XattrMap.Parse(":prefix:all:security.label:user.: :ok:all:::") });
            SessionFigures before = guest.FileSystem.Figures;
            guest.As(1000, 1000).Labelled("security.label", "x");
            Assert.Equal(Errno.EPERM, guest.Symlink(NodeId.Root, "new", "t").Error);
            Assert.Equal(Errno.EPERM, guest.Mknod(NodeId.Root, "new", 0x1180).Error);
            Assert.Equal(Errno.EPERM, guest.Mknod(NodeId.Root, "new", 0xc180).Error);
            Assert.False(Path.Exists(host["new"]));
            Assert.Equal("x", Guest.Good(guest.GetXattr(
                Guest.Good(guest.Mkdir(NodeId.Root, "fits")).NodeId, "security.label")));
            guest.Labelled("security.label", new string('x', 65537));
            Assert.Equal(Errno.E2BIG, guest.Mkdir(NodeId.Root, "new").Error);
            Assert.Equal(Errno.E2BIG, guest.Mknod(NodeId.Root, "new", 0x81a4).Error);
            Assert.Equal(Errno.E2BIG, guest.Create(NodeId.Root, "new").Error);
            Assert.Equal(Errno.E2BIG, guest.Create(NodeId.Root, "new", OpenFlags.ReadWrite | OpenFlags.Exclusive).Error);
            Assert.Equal(Errno.E2BIG, guest.Tmpfile(NodeId.Root).Error);
            Assert.False(Path.Exists(host["new"]));
            guest.Forget(guest.Walk("fits").NodeId, 2);
            guest.FileSystem.Settle();
            Assert.Equal(before with { NodeBytes = 0 }, guest.FileSystem.Figures with { NodeBytes = 0 });
        });

    [Theory]
    [InlineData("user.label", "", Errno.EPERM)]
    [InlineData("trusted.label", "", Errno.EPERM)]
    [InlineData("security", "", Errno.EPERM)]
    [InlineData("security.label", ":bad:all:security.:security.: :ok:all:::", Errno.EPERM)]
    [InlineData("security.label", ":unsupported:all:security.:security.: :ok:all:::", Errno.EOPNOTSUPP)]
    public void A_label_that_may_not_be_is_refused_before_anything_is_made(string name, string rules, Errno expected) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory().Fill();
            using var guest = new Guest(Labels(host, InodeFileHandles.Prefer) with
            {
                XattrMap = rules.Length == 0 ? null : XattrMap.Parse(rules),
            });
            guest.As(0, 0).Labelled(name, "x");
            Assert.Equal(expected, guest.Mkdir(NodeId.Root, "new").Error);
            Assert.Equal(expected, guest.Mknod(NodeId.Root, "new", 0x81a4).Error);
            Assert.Equal(expected, guest.Symlink(NodeId.Root, "new", "t").Error);
            Assert.Equal(expected, guest.Create(NodeId.Root, "new").Error);
            Assert.Equal(expected, guest.Tmpfile(NodeId.Root).Error);
            Assert.False(Path.Exists(host["new"]));
            Assert.Equal((0L, 0), (guest.FileSystem.Figures.Nodes, guest.FileSystem.Figures.Descriptors));
        });

    [Fact]
    public void The_map_renames_the_label_too() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(Labels(host, InodeFileHandles.Prefer) with
        {
            XattrMap = XattrMap.Parse(":map:security.selinux:trusted.virtiofs.:"),
        });
        NodeId made = Guest.Good(guest.As(5, 5).Labelled("security.selinux", "a:b").Mkdir(NodeId.Root, "new")).NodeId;
        Assert.Equal("a:b", Guest.Good(guest.GetXattr(made, "security.selinux")));
        Assert.Equal("a:b", HostXattrs.Get(host["new"], "trusted.virtiofs.security.selinux"));
        Assert.Equal(Errno.ENODATA, guest.GetXattr(made, "trusted.virtiofs.security.selinux").Error);
    });

    [Fact]
    public void Without_descriptors_left_nothing_is_made() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(Labels(host, InodeFileHandles.Never) with { MaxDescriptors = 16 });
        guest.As(0, 0).Labelled("security.label", "x");
        int made = 0;
        while (!guest.Mkdir(NodeId.Root, $"{made}").IsError)
        {
            made++;
        }

        Assert.InRange(made, 14, 16);
        Assert.Equal(Errno.ENFILE, guest.Mkdir(NodeId.Root, "more").Error);
        Assert.Equal(made, Directory.GetDirectories(host.Path).Length - 1);
    });

    private static PassthroughOptions Labels(HostDirectory host, InodeFileHandles handles) =>
        host.Options with { FileHandles = handles, SecurityLabel = NegotiationMode.Always };
}

/// <summary>Extended attributes as the host has them, by its own programs.</summary>
internal static class HostXattrs
{
    private const string Follow = "follow_symlinks=False";

    public static string Get(string path, string name) =>
        Python($"sys.stdout.write(os.getxattr(sys.argv[1], sys.argv[2], {Follow}).decode('latin1'))", path, name);

    public static void Set(string path, string name, byte[] value) => Python(
        $"os.setxattr(sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]), {Follow})",
        path,
        name,
        Convert.ToHexString(value));

    public static string[] List(string path) =>
        Python($"print(*sorted(os.listxattr(sys.argv[1], {Follow})))", path).Split(' ', StringSplitOptions.RemoveEmptyEntries);

    private static string Python(string code, params string[] arguments) =>
        Host.Run("python3", ["-c", "import os,sys; " + code, .. arguments]).TrimEnd('\n');
}
