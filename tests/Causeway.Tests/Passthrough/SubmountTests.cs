using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>passthrough.md 7.4: mount points below the share.</summary>
public sealed class SubmountTests
{
    [Theory, EveryMode]
    public void Mount_points_are_announced_where_they_are_looked_up(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            Directory.CreateDirectory(host["t with space"]);
            Directory.CreateDirectory(host["b"]);
            File.WriteAllText(host["bf"], "");
            host.Mount("t with space", "-t", "tmpfs", "none");
            Directory.CreateDirectory(host["t with space/sub"]);
            host.Mount("b", "--bind", host["d"]);
            host.Mount("bf", "--bind", host["f"]);
            using var guest = new Guest(host.Options with { FileHandles = handles });

            NodeEntry mounted = guest.Walk("t with space");
            Assert.Equal(FuseAttributeFlags.Submount, mounted.Attributes.Flags);
            Assert.Equal(Host.Run("stat", "-c", "%i", host["t with space"]).Trim(), $"{mounted.Attributes.Inode}");
            Assert.Equal(FuseAttributeFlags.None, guest.Walk("t with space/sub").Attributes.Flags);
            Assert.Equal(FuseAttributeFlags.None, Guest.Good(guest.GetAttr(mounted.NodeId)).Attributes.Flags);
            NodeEntry bound = guest.Walk("b");
            Assert.Equal(FuseAttributeFlags.Submount, bound.Attributes.Flags);
            Assert.NotEqual(guest.Walk("d").NodeId, bound.NodeId);
            NodeEntry file = guest.Walk("bf");
            Assert.Equal(FuseAttributeFlags.None, file.Attributes.Flags);
            Assert.NotEqual(guest.Walk("f").NodeId, file.NodeId);
            Assert.Equal(guest.Walk("f").Attributes.Inode, file.Attributes.Inode);

            Assert.Equal(Errno.Success, Guest.Done(guest.FileSystem.SyncFsAsync(mounted.NodeId, guest.Context)));
            Assert.Equal(Errno.Success, Guest.Done(guest.FileSystem.SyncFsAsync(file.NodeId, guest.Context)));
            Assert.Equal(
                Errno.EBADF, Guest.Done(guest.FileSystem.SyncFsAsync(guest.Walk("abs").NodeId, guest.Context)));
            Assert.Equal(Errno.EXDEV, guest.Rename(NodeId.Root, "f", mounted.NodeId, "f"));
            Assert.Equal(Errno.EXDEV, guest.Link(guest.Walk("f").NodeId, mounted.NodeId, "f").Error);
        });

    [Fact]
    public void Mount_points_are_not_announced_when_not_wanted_or_not_understood() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        host.Mount("d", "-t", "tmpfs", "none");
        using (var guest = new Guest(host.Options with { AnnounceSubmounts = false }))
        {
            Assert.Equal(FuseAttributeFlags.None, guest.Walk("d").Attributes.Flags);
            Assert.Equal(FuseFeatures.None, guest.Negotiation.Granted & FuseFeatures.Submounts);
        }

        using (var guest = new Guest(host.Options, FuseFeatures.None))
        {
            Assert.Equal(FuseAttributeFlags.None, guest.Walk("d").Attributes.Flags);
        }
    });

    [Theory, EveryMode]
    public void What_is_mounted_after_the_start_shows_at_the_next_lookup(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with { FileHandles = handles });
            NodeEntry before = guest.Walk("d");
            host.Mount("d", "-t", "tmpfs", "none");
            NodeEntry after = guest.Walk("d");
            Assert.NotEqual(before.NodeId, after.NodeId);
            Assert.Equal(FuseAttributeFlags.Submount, after.Attributes.Flags);
            Assert.Equal(Errno.Success, guest.Lookup(before.NodeId, "x").Error);
            Assert.Equal(Errno.ENOENT, guest.Lookup(after.NodeId, "x").Error);
        });

    [Fact]
    public void A_file_system_without_handles_lives_by_descriptors_or_is_refused() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        host.Mount("d", "-t", "proc", "none");
        using (var guest = new Guest(host.Options))
        {
            NodeEntry version = guest.Walk("d/version");
            HandleId handle = Guest.Good(guest.Open(version.NodeId)).Handle;
            Assert.True(Guest.Good(guest.Read(version.NodeId, handle, 0, 4096)) > 0);
            Assert.Equal(Errno.Success, guest.Release(version.NodeId, handle));
        }

        using (var guest = new Guest(host.Options with { FileHandles = InodeFileHandles.Mandatory }))
        {
            Assert.Equal(Errno.EOPNOTSUPP, guest.Lookup(NodeId.Root, "d").Error);
            HandleId root = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
            Listed listed = guest.ReadAll(NodeId.Root, root, isPlus: true).Single(e => e.Name == "d");
            Assert.Equal(NodeId.None, listed.Entry.NodeId);
            Assert.Equal(4U, listed.Type);
        }
    });

    [Fact]
    public void Handles_that_are_mandatory_and_missing_are_an_error_at_start() => Worker.Run(() =>
    {
        ErrnoException error = Assert.Throws<ErrnoException>(() => Share.Open(
            new PassthroughOptions { SharedDirectory = "/proc", FileHandles = InodeFileHandles.Mandatory }));
        Assert.Equal(Errno.EOPNOTSUPP, error.Error);
        Assert.Contains("/proc", error.Message, StringComparison.Ordinal);
    });
}
