using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>What one guest may have at most. Locks are in LockTests, descriptors in DescriptorTests.</summary>
public sealed class LimitTests
{
    [Theory, EveryMode]
    public void Nodes_beyond_the_limit_are_ENFILE_until_some_are_forgotten(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            using var host = new HostDirectory(place);
            using var guest = new Guest(host.Options with { FileHandles = handles, MaxNodes = 40 });
            var nodes = new List<NodeId>();
            for (int i = 0; i < 40; i++)
            {
                nodes.Add(Guest.Good(guest.Mkdir(NodeId.Root, $"{i}")).NodeId);
            }

            Directory.CreateDirectory(host["more"]);
            File.WriteAllText(host["file"], "");
            for (int i = 0; i < 100; i++)
            {
                Assert.Equal(Errno.ENFILE, guest.Lookup(NodeId.Root, "more").Error);
                Assert.Equal(Errno.ENFILE, guest.Create(NodeId.Root, "file").Error);
                Assert.Equal(Errno.ENFILE, guest.Create(NodeId.Root, $"new {i}").Error);
                Assert.Equal(Errno.ENFILE, guest.Tmpfile(NodeId.Root).Error);
            }

            Assert.Equal(0, guest.FileSystem.Figures.OpenFiles);
            Assert.Equal(42, Directory.GetFileSystemEntries(host.Path).Length);
            HandleId listing = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
            List<Listed> names = guest.ReadAll(NodeId.Root, listing, isPlus: true);
            Assert.Contains(names, entry => entry.Name == "more" && entry.Entry.NodeId.Value == 0);
            names.Where(entry => entry.Entry.NodeId.Value != 0).ToList().ForEach(entry => guest.Forget(entry.Entry.NodeId));
            Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, listing));

            nodes.ForEach(node => guest.Forget(node));
            guest.FileSystem.Settle();
            Assert.Equal(0, guest.FileSystem.Figures.Nodes);
            Assert.Equal(Errno.Success, guest.Lookup(NodeId.Root, "more").Error);
            FuseCreateOut made = Guest.Good(guest.Create(NodeId.Root, "file"));
            Assert.Equal(Errno.Success, guest.Release(made.Entry.NodeId, made.Open.Handle));
        });

    [Fact]
    public void Attributes_beyond_the_limit_are_E2BIG() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options with { Xattr = true, MaxXattrSize = 100 });
        NodeId file = guest.Walk("f").NodeId;
        Assert.Equal(Errno.Success, Set(100));
        Assert.Equal(Errno.E2BIG, Set(101));
        Assert.Equal(Errno.Success, Set(0));

        Errno Set(int size) => Guest.Done(guest.FileSystem.SetXattrAsync(
            file, Guest.Terminated("user.a"), new byte[size], new FuseSetXattrIn { Size = (uint)size }, guest.Context));
    });
}
