using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>Other file systems of the host, made in a file and mounted below the share.</summary>
public sealed class FileSystemTests
{
    [Theory]
    [InlineData("ext4", "-q -F", 64)]
    [InlineData("xfs", "-q", 512)]
    [InlineData("btrfs", "-q", 256)]
    public void Nodes_live_by_handle_and_prove_their_identity(string type, string arguments, int megabytes) =>
        Worker.Run(() =>
        {
            Assert.SkipUnless(File.Exists($"/usr/sbin/mkfs.{type}") || File.Exists($"/sbin/mkfs.{type}"),
                $"mkfs.{type} is not installed");
            Assert.SkipUnless(File.Exists("/dev/loop-control"), "there are no loop devices");
            using HostDirectory host = new HostDirectory("/var/tmp").Fill();
            string image = host["d/image"];
            using (FileStream file = File.Create(image))
            {
                file.SetLength((long)megabytes << 20);
            }

            Host.Run($"mkfs.{type}", [.. arguments.Split(' '), image]);
            Directory.CreateDirectory(host["mnt"]);
            host.Mount("mnt", "-t", type, "-o", "loop", image);
            using var guest = new Guest(host.Options);
            NodeEntry mount = guest.Walk("mnt");
            Assert.Equal(FuseAttributeFlags.Submount, mount.Attributes.Flags);
            NodeId root = mount.NodeId;
            for (int i = 0; i < 200; i++)
            {
                FuseCreateOut made = Guest.Good(guest.As(1000, 1000).Create(root, "file"));
                Assert.Equal(4, Guest.Good(guest.Write(made.Entry.NodeId, made.Open.Handle, 0, "data"u8)));
                Assert.Equal(Errno.Success, guest.Release(made.Entry.NodeId, made.Open.Handle));
                NodeEntry again = Guest.Good(guest.Lookup(root, "file"));
                Assert.Equal(made.Entry.NodeId, again.NodeId);
                File.Delete(host["mnt/file"]);
                File.WriteAllText(host["mnt/file"], "replaced on the host");
                NodeEntry other = Guest.Good(guest.Lookup(root, "file"));
                Assert.NotEqual(again.NodeId, other.NodeId);
                Assert.Equal(20UL, other.Attributes.Size);
                Assert.Equal(20UL, Guest.Good(guest.GetAttr(other.NodeId)).Attributes.Size);
                Assert.Equal(Errno.Success, guest.Unlink(root, "file"));
                Assert.Equal(0U, Guest.Good(guest.GetAttr(other.NodeId)).Attributes.LinkCount);
                guest.Forget(again.NodeId, 2);
                guest.Forget(other.NodeId, 1);
            }

            // The root of the mount stays; nothing but it needs a descriptor.
            guest.FileSystem.Settle();
            Assert.Equal(1, guest.FileSystem.Figures.Nodes);
            Assert.InRange(guest.FileSystem.Figures.Descriptors, 0, 1);
            HandleId handle = Guest.Good(guest.OpenDir(root)).Handle;
            Assert.Contains(guest.ReadAll(root, handle, isPlus: true), entry => entry.Name == ".");
            Assert.Equal(Errno.Success, guest.ReleaseDir(root, handle));
        });

    [Fact]
    public void An_overlay_is_served() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/dev/shm").Fill();
        foreach (string name in new[] { "lower", "upper", "work", "merged" })
        {
            Directory.CreateDirectory(host[name]);
        }

        File.WriteAllText(host["lower/file"], "lower");
        host.Mount("merged", "-t", "overlay", "-o",
            $"lowerdir={host["lower"]},upperdir={host["upper"]},workdir={host["work"]}", "none");
        using var guest = new Guest(host.Options);
        NodeId merged = guest.Walk("merged").NodeId;
        NodeId file = guest.Walk("merged/file").NodeId;
        HandleId handle = Guest.Good(guest.Open(file, OpenFlags.ReadWrite)).Handle;
        Assert.Equal(5, Guest.Good(guest.Write(file, handle, 0, "UPPER"u8)));
        Assert.Equal(Errno.Success, guest.Release(file, handle));
        Assert.Equal("UPPER", File.ReadAllText(host["upper/file"]));
        FuseCreateOut made = Guest.Good(guest.As(1000, 1000).Create(merged, "new"));
        Assert.Equal(1000U, made.Entry.Attributes.UserId);
        Assert.Equal(Errno.Success, guest.Unlink(merged, "new"));
        Assert.Equal(0U, Guest.Good(guest.GetAttr(made.Entry.NodeId, made.Open.Handle)).Attributes.LinkCount);
        Assert.Equal(Errno.Success, guest.Release(made.Entry.NodeId, made.Open.Handle));
    });
}
