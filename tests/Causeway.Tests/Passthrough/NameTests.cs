using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>passthrough.md 7.6: rename and remove.</summary>
public sealed class NameTests
{
    [Theory, EveryMode]
    public void Rename_obeys_its_flags(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId root = NodeId.Root;
        NodeId file = guest.Walk("f").NodeId;
        NodeId link = guest.Walk("ln").NodeId;
        Assert.Equal(Errno.EEXIST, guest.Rename(root, "ln", root, "f", RenameFlags.NoReplace));
        Assert.Equal(Errno.Success, guest.Rename(root, "ln", root, "f", RenameFlags.Exchange));
        Assert.Equal(file, guest.Walk("ln").NodeId);
        Assert.Equal(link, guest.Walk("f").NodeId);
        Assert.Equal(Errno.EINVAL, guest.Rename(root, "ln", root, "f", RenameFlags.Exchange | RenameFlags.NoReplace));
        Assert.Equal(Errno.EINVAL, guest.Rename(root, "ln", root, "f", (RenameFlags)8));
        Assert.Equal(Errno.EINVAL, guest.Rename(root, "ln", root, "f", (RenameFlags)uint.MaxValue));
        Assert.Equal(Errno.EINVAL, guest.Rename(root, "d", guest.Walk("d").NodeId, "inside"));
        Assert.Equal(Errno.ENOENT, guest.Rename(root, "missing", root, "f"));

        Assert.Equal(Errno.Success, guest.As(1000, 1000).Mkdir(root, "of-somebody").Error);
        Assert.Equal(Errno.Success, guest.Rename(root, "fifo", root, "moved", RenameFlags.Whiteout));
        Assert.Equal("0:0 0", Host.Run("stat", "-c", "%t:%T %u", host["fifo"]).Trim());
    });

    [Theory, EveryMode]
    public void A_node_keeps_its_id_when_it_is_renamed(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId node = guest.Walk("f").NodeId;
        NodeId directory = guest.Walk("d").NodeId;
        Assert.Equal(Errno.Success, guest.Rename(NodeId.Root, "f", directory, "g"));
        Assert.Equal(Errno.Success, guest.GetAttr(node).Error);
        Assert.Equal(node, guest.Walk("d/g").NodeId);
        Assert.Equal(Errno.ENOENT, guest.Lookup(NodeId.Root, "f").Error);
    });

    [Theory, EveryMode]
    public void Unlink_and_rmdir_remove_what_they_are_for(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        Assert.Equal(Errno.EISDIR, guest.Unlink(NodeId.Root, "d"));
        Assert.Equal(Errno.ENOTDIR, guest.Rmdir(NodeId.Root, "f"));
        Assert.Equal(Errno.ENOTEMPTY, guest.Rmdir(NodeId.Root, "d"));
        Assert.Equal(Errno.ENOENT, guest.Unlink(NodeId.Root, "missing"));
        Assert.Equal(Errno.EBADF, guest.Unlink(new NodeId(77), "f"));
        Assert.Equal(Errno.ENOTDIR, guest.Unlink(guest.Walk("f").NodeId, "x"));
        NodeId directory = guest.Walk("d").NodeId;
        Assert.Equal(Errno.Success, guest.Unlink(directory, "x"));
        Assert.Equal(Errno.Success, guest.Unlink(directory, "esc"));
        Assert.Equal(Errno.Success, guest.Rmdir(NodeId.Root, "d"));
        Assert.False(Directory.Exists(host["d"]));
        Assert.Equal("outside", File.ReadAllText(host.Outside));
    });

    [Fact]
    public void No_name_leads_out_of_the_directory()
    {
        foreach (string name in new[] { "", ".", "..", "/", "a/b", "../victim", "/etc/passwd", "d/", "a\0b" })
        {
            Assert.Equal(Errno.EINVAL, FileName.TryCreate(Guest.Terminated(name), out _));
        }

        Assert.Equal(Errno.ENAMETOOLONG, FileName.TryCreate(Guest.Terminated(new string('a', 256)), out _));
        Assert.Equal(Errno.EINVAL, FileName.TryCreate(new byte[] { 97 }, out _));
    }

    [Fact]
    public void A_share_for_reading_refuses_every_change() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        string before = Host.Run("find", host.Path, "-printf", "%p %s %m %T@\n");
        using (var guest = new Guest(host.Options with { ReadOnly = true, Xattr = true }))
        {
            NodeId root = NodeId.Root;
            NodeId file = guest.Walk("f").NodeId;
            RequestContext context = guest.Context;
            PassthroughFileSystem system = guest.FileSystem;
            HandleId handle = Guest.Good(guest.Open(file)).Handle;
            Assert.Equal(Errno.EROFS, guest.SetAttr(file, default).Error);
            Assert.Equal(Errno.EROFS, guest.Symlink(root, "s", "t").Error);
            Assert.Equal(Errno.EROFS, guest.Mknod(root, "n", 0x81a4).Error);
            Assert.Equal(Errno.EROFS, guest.Mknod(root, "n", 0x41a4).Error);
            Assert.Equal(Errno.EROFS, guest.Mkdir(root, "m").Error);
            Assert.Equal(Errno.EROFS, guest.Unlink(root, "f"));
            Assert.Equal(Errno.EROFS, guest.Rmdir(root, "d"));
            Assert.Equal(Errno.EROFS, guest.Rename(root, "f", root, "g"));
            Assert.Equal(Errno.EROFS, guest.Link(file, root, "g").Error);
            Assert.Equal(Errno.EROFS, guest.Write(file, handle, 0, "x"u8).Error);
            Assert.Equal(Errno.EROFS, guest.Tmpfile(root).Error);
            Assert.Equal(Errno.EROFS, Guest.Done(system.FallocateAsync(file, default, context)));
            Assert.Equal(Errno.EROFS, Guest.Done(system.CopyFileRangeAsync(file, default, context)).Error);
            Assert.Equal(Errno.EROFS, Guest.Done(
                system.SetXattrAsync(file, Guest.Terminated("user.a"), default, default, context)));
            Assert.Equal(Errno.EROFS, Guest.Done(
                system.RemoveXattrAsync(file, Guest.Terminated("user.a"), context)));
            Assert.Equal(Errno.EROFS, Guest.Done(system.AccessAsync(file, 2, context)));
            Assert.Equal(Errno.EROFS, guest.Open(file, OpenFlags.WriteOnly).Error);
            Assert.Equal(Errno.EROFS, guest.Open(file, OpenFlags.ReadWrite).Error);
            Assert.Equal(Errno.EROFS, guest.Open(file, OpenFlags.ReadOnly | OpenFlags.Truncate).Error);
            Assert.Equal(Errno.EROFS, guest.Create(root, "new", OpenFlags.ReadWrite).Error);
            Assert.Equal(Errno.EROFS, guest.Create(root, "new", OpenFlags.ReadOnly).Error);
            Assert.Equal(Errno.EROFS, guest.Create(root, "f", OpenFlags.ReadOnly | OpenFlags.Exclusive).Error);
            Assert.Equal(1, system.Figures.OpenFiles);
            FuseCreateOut existing = Guest.Good(guest.Create(root, "f", OpenFlags.ReadOnly));
            Assert.Equal(file, existing.Entry.NodeId);

            Assert.Equal(8192, Guest.Good(guest.Read(file, handle, 0, 10000)));
            Assert.Equal(Errno.Success, guest.Fsync(file, handle));
            Assert.Equal(Errno.Success, guest.Release(file, handle));
            Assert.Equal(Errno.Success, guest.Release(file, existing.Open.Handle));
        }

        Assert.Equal(before, Host.Run("find", host.Path, "-printf", "%p %s %m %T@\n"));
    });
}
