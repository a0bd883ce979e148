using System.Text;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>passthrough.md 7.10, as far as it needs no map.</summary>
public sealed class XattrTests
{
    [Fact]
    public void Without_the_option_the_guest_is_told_never_to_ask_again() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options);
        NodeId file = guest.Walk("f").NodeId;
        Assert.Equal(Errno.ENOSYS, Set(guest, file, "user.a", "1"));
        Assert.Equal(Errno.ENOSYS, Get(guest, file, "user.a", 10).Error);
        Assert.Equal(Errno.ENOSYS, List(guest, file, 10).Error);
        Assert.Equal(Errno.ENOSYS, Remove(guest, file, "user.a"));
    });

    [Theory, EveryMode]
    public void Attributes_are_set_read_listed_and_removed(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles, Xattr = true });
        foreach (string name in new[] { "f", "d" })
        {
            NodeId node = guest.Walk(name).NodeId;
            Assert.Equal(Errno.ENODATA, Get(guest, node, "user.a", 10).Error);
            Assert.Equal(Errno.Success, Set(guest, node, "user.a", "value"));
            Assert.Equal("value", Guest.Good(Get(guest, node, "user.a", 5)));
            Assert.Equal("     ", Guest.Good(Get(guest, node, "user.a", 0)));
            Assert.Equal(Errno.ERANGE, Get(guest, node, "user.a", 4).Error);
            Assert.Contains("user.a\0", Guest.Good(List(guest, node, 1000)), StringComparison.Ordinal);
            Assert.Equal(Errno.EEXIST, Set(guest, node, "user.a", "x", flags: 1));
            Assert.Equal(Errno.ENODATA, Set(guest, node, "user.b", "x", flags: 2));
            Assert.Equal(Errno.EINVAL, Set(guest, node, "user.b", "x", flags: 8));
            Assert.Equal(Errno.Success, Remove(guest, node, "user.a"));
            Assert.Equal(Errno.ENODATA, Remove(guest, node, "user.a"));
        }
    });

    [Theory, EveryMode]
    public void Links_and_pipes_have_attributes_of_their_own(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with { FileHandles = handles, Xattr = true });
        NodeId link = guest.Walk("ln").NodeId;
        Assert.Equal(Errno.EPERM, Set(guest, link, "user.x", "1"));
        Assert.Equal(Errno.EPERM, Set(guest, guest.Walk("fifo").NodeId, "user.x", "1"));
        Assert.Equal(Errno.Success, Set(guest, link, "trusted.x", "on the link"));
        Assert.Equal("on the link", Guest.Good(Get(guest, link, "trusted.x", 100)));
        Assert.Equal(Errno.ENODATA, Get(guest, guest.Walk("f").NodeId, "trusted.x", 100).Error);
    });

    [Fact]
    public void Access_control_lists_are_refused_and_hidden() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options with { Xattr = true });
        NodeId directory = guest.Walk("d").NodeId;
        // The list of a directory that gives user 5 all rights: entries {tag, permissions, id} after a version of 2.
        byte[] list = Convert.FromHexString(
            "02000000" + "01000700ffffffff" + "0200070005000000" + "04000500ffffffff" + "10000700ffffffff" +
            "20000500ffffffff");
        Assert.Equal(Errno.EOPNOTSUPP, Guest.Done(guest.FileSystem.SetXattrAsync(
            directory, Guest.Terminated("system.posix_acl_default"), list, default, guest.Context)));
        Host.Run(
            "python3",
            "-c",
            "import os,sys; os.setxattr(sys.argv[1], 'system.posix_acl_default', bytes.fromhex(sys.argv[2]))",
            host["d"],
            Convert.ToHexString(list));
        Assert.Equal(Errno.Success, Set(guest, directory, "user.a", "1"));
        Assert.Equal("user.a\0", Guest.Good(List(guest, directory, 1000)));
        Assert.Equal(Errno.EOPNOTSUPP, Get(guest, directory, "system.posix_acl_default", 100).Error);
        Assert.Equal(Errno.EOPNOTSUPP, Remove(guest, directory, "system.posix_acl_default"));
        Assert.Equal(Errno.EOPNOTSUPP, Get(guest, directory, "system", 100).Error);
    });

    [Fact]
    public void Threads_do_not_see_each_others_files() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/dev/shm").Fill();
        using var guest = new Guest(host.Options with { Xattr = true });
        NodeId[] nodes =
        [
            .. Enumerable.Range(0, 16).Select(i => i % 2 == 0
                ? Guest.Good(guest.Mkdir(NodeId.Root, $"{i}")).NodeId
                : Guest.Good(guest.Symlink(NodeId.Root, $"{i}", "f")).NodeId),
        ];
        Worker.RunAll(16, i =>
        {
            var context = new RequestContext();
            byte[] value = new byte[16];
            for (int round = 0; round < 200; round++)
            {
                Assert.Equal(Errno.Success, Guest.Done(guest.FileSystem.SetXattrAsync(
                    nodes[i], Guest.Terminated("trusted.t"), Encoding.ASCII.GetBytes($"{i}"), default, context)));
                int length = Guest.Good(Guest.Done(guest.FileSystem.GetXattrAsync(
                    nodes[i], Guest.Terminated("trusted.t"), value, context)));
                Assert.Equal($"{i}", Encoding.ASCII.GetString(value, 0, length));
            }
        });
    });

    private static Errno Set(Guest guest, NodeId node, string name, string value, uint flags = 0) =>
        Guest.Done(guest.FileSystem.SetXattrAsync(
            node,
            Guest.Terminated(name),
            Encoding.Latin1.GetBytes(value),
            new FuseSetXattrIn { Size = (uint)value.Length, Flags = flags },
            guest.Context));

    // The value, or as many blanks as it has bytes when there is no room.
    private static Result<string> Get(Guest guest, NodeId node, string name, int room) => Text(
        room, destination => Guest.Done(
            guest.FileSystem.GetXattrAsync(node, Guest.Terminated(name), destination, guest.Context)));

    private static Result<string> List(Guest guest, NodeId node, int room) => Text(
        room, destination => Guest.Done(guest.FileSystem.ListXattrAsync(node, destination, guest.Context)));

    private static Result<string> Text(int room, Func<byte[], Result<int>> call)
    {
        byte[] destination = new byte[room];
        Result<int> length = call(destination);
        return length.IsError ? length.Error
            : room == 0 ? new string(' ', length.Value)
            : Encoding.Latin1.GetString(destination, 0, length.Value);
    }

    private static Errno Remove(Guest guest, NodeId node, string name) => Guest.Done(
        guest.FileSystem.RemoveXattrAsync(node, Guest.Terminated(name), guest.Context));
}
