using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>passthrough.md 7.3: objects without a name.</summary>
public sealed class UnlinkedTests
{
    [Theory, EveryMode]
    public void An_unlinked_open_file_can_be_used_opened_again_and_truncated(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles });
            NodeId node = guest.Walk("f").NodeId;
            HandleId handle = Guest.Good(guest.Open(node, OpenFlags.ReadWrite)).Handle;
            Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "f"));

            Assert.Equal(0U, Guest.Good(guest.GetAttr(node)).Attributes.LinkCount);
            HandleId second = Guest.Good(guest.Open(node)).Handle;
            Assert.Equal(Errno.Success, guest.SetAttr(
                node, new FuseSetAttrIn { Valid = SetAttrValid.Size, Size = 100 }).Error);
            Assert.Equal(100, Guest.Good(guest.Read(node, second, 0, 4096)));
            Assert.Equal(Errno.ENOENT, guest.Link(node, NodeId.Root, "again").Error);
            Assert.Equal(Errno.Success, guest.Release(node, handle));
            Assert.Equal(Errno.Success, guest.Release(node, second));
        });

    [Theory, EveryMode]
    public void A_looked_up_file_survives_its_unlink_until_it_is_forgotten(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles });
            NodeId node = guest.Walk("f").NodeId;
            Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "f"));
            Assert.Equal(0U, Guest.Good(guest.GetAttr(node)).Attributes.LinkCount);
            HandleId handle = Guest.Good(guest.Open(node)).Handle;
            Assert.Equal(8192, Guest.Good(guest.Read(node, handle, 0, 10000)));
            Assert.Equal(Errno.Success, guest.Release(node, handle));
            guest.Forget(node);
            guest.FileSystem.Settle();
            Assert.Equal(0, guest.FileSystem.Figures.Descriptors);
        });

    [Theory, EveryMode]
    public void A_looked_up_file_survives_a_rename_over_it(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId victim = guest.Walk("f").NodeId;
        NodeId mover = guest.Walk("d/x").NodeId;
        Assert.Equal(Errno.Success, guest.Rename(guest.Walk("d").NodeId, "x", NodeId.Root, "f"));
        Assert.Equal(8192UL, Guest.Good(guest.GetAttr(victim)).Attributes.Size);
        Assert.Equal(0U, Guest.Good(guest.GetAttr(victim)).Attributes.LinkCount);
        Assert.Equal(mover, guest.Walk("f").NodeId);
    });

    [Theory, EveryMode]
    public void A_looked_up_file_survives_its_unlink_while_descriptors_of_forgotten_ones_are_still_open(
        InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        foreach (string name in new[] { "ln", "abs", "fifo", "chr" })
        {
            // Looked at, which gives it a descriptor; forgotten, which closes that some time later.
            NodeId other = guest.Walk(name).NodeId;
            Assert.Equal(Errno.Success, guest.GetAttr(other).Error);
            guest.Forget(other);
        }

        NodeId node = guest.Walk("f").NodeId;
        Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "f"));
        Assert.Equal(0U, Guest.Good(guest.GetAttr(node)).Attributes.LinkCount);
    });

    [Theory, EveryMode]
    public void A_removed_directory_is_empty_but_there(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        NodeId directory = Guest.Good(guest.Mkdir(NodeId.Root, "gone")).NodeId;
        Assert.Equal(Errno.Success, guest.Rmdir(NodeId.Root, "gone"));
        Assert.Equal(Errno.Success, guest.GetAttr(directory).Error);
        Assert.Equal(Errno.ENOENT, guest.Lookup(directory, "x").Error);
        Assert.Equal(Errno.ENOENT, guest.Create(directory, "x").Error);
        Assert.Equal(Errno.ENOENT, guest.Mkdir(directory, "x").Error);
    });

    [Theory, EveryMode]
    public void A_file_made_and_unlinked_leaves_no_descriptor(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        for (int i = 0; i < 300; i++)
        {
            FuseCreateOut made = Guest.Good(guest.Create(NodeId.Root, "temporary"));
            Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "temporary"));
            Assert.Equal(Errno.Success, guest.Release(made.Entry.NodeId, made.Open.Handle));
            guest.Forget(made.Entry.NodeId);
        }

        guest.FileSystem.Settle();
        Assert.Equal(0, guest.FileSystem.Figures.Descriptors);
    });

    [Theory, EveryMode]
    public void A_file_without_a_name_can_be_given_one(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles });
        FuseCreateOut made = Guest.Good(guest.As(1000, 1001).Tmpfile(guest.Walk("d").NodeId, mode: 0x1c0));
        Assert.Equal(0U, made.Entry.Attributes.LinkCount);
        Assert.Equal((1000U, 1001U), (made.Entry.Attributes.UserId, made.Entry.Attributes.GroupId));
        Assert.Equal(4, Guest.Good(guest.Write(made.Entry.NodeId, made.Open.Handle, 0, "data"u8)));
        NodeEntry named = Guest.Good(guest.Link(made.Entry.NodeId, NodeId.Root, "named"));
        Assert.Equal(made.Entry.NodeId, named.NodeId);
        Assert.Equal("data", File.ReadAllText(host["named"]));
        Assert.Equal(Errno.Success, guest.Release(made.Entry.NodeId, made.Open.Handle));
    });
}
