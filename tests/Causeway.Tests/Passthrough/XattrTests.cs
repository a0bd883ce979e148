using System.Text;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>passthrough.md 7.10; the grammar of maps is in <see cref="XattrMapTests"/>, lists in <see cref="AclTests"/>.</summary>
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

    [Theory, EveryMode]
    public void Under_a_map_every_name_has_another_one_on_the_host(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            // X12, X18.
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with
            {
                FileHandles = handles,
                XattrMap = XattrMap.Parse(":map::user.virtiofs.:"),
            });
            HostXattrs.Set(host["f"], "user.hosts", [1]);
            HostXattrs.Set(host["f"], "user.virtiofs.", [1]);
            NodeId file = guest.Walk("f").NodeId;
            string[] names = ["system.foo", "trusted.t", "user.a", "user.virtiofs.q"];
            foreach (string name in names)
            {
                Assert.Equal(Errno.ENODATA, guest.GetXattr(file, name).Error);
                Assert.Equal(Errno.Success, guest.SetXattr(file, name, "value"u8));
                Assert.Equal(Errno.EEXIST, guest.SetXattr(file, name, "x"u8, flags: 1));
                Assert.Equal("value", Guest.Good(guest.GetXattr(file, name)));
                Assert.Equal("value", HostXattrs.Get(host["f"], "user.virtiofs." + name));
            }

            Assert.Equal(names, guest.ListXattr(file).Order(StringComparer.Ordinal));
            Assert.Equal(Errno.ENODATA, guest.GetXattr(file, "user.hosts").Error);
            foreach (string name in names)
            {
                Assert.Equal(Errno.Success, guest.RemoveXattr(file, name));
                Assert.Equal(Errno.ENODATA, guest.RemoveXattr(file, name));
            }

            Assert.Empty(guest.ListXattr(file));
            Assert.Equal(["user.hosts", "user.virtiofs."], HostXattrs.List(host["f"]));
            string longest = "user." + new string('x', 236);
            Assert.Equal(Errno.Success, guest.SetXattr(file, longest, "v"u8));
            Assert.Equal(Errno.ERANGE, guest.SetXattr(file, longest + "x", "v"u8));
            Assert.Equal(Errno.ERANGE, guest.GetXattr(file, longest + "x").Error);
        });

    [Fact]
    public void Under_a_map_of_some_names_their_place_on_the_host_is_out_of_reach() => Worker.Run(() =>
    {
        // X13.
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options with { XattrMap = XattrMap.Parse(":map:trusted.:user.virtiofs.:") });
        NodeId file = guest.Walk("f").NodeId;
        Assert.Equal(Errno.Success, guest.SetXattr(file, "trusted.q", "q"u8));
        Assert.Equal("q", HostXattrs.Get(host["f"], "user.virtiofs.trusted.q"));
        Assert.Equal(Errno.Success, guest.SetXattr(file, "user.a", "a"u8));
        Assert.Equal("a", HostXattrs.Get(host["f"], "user.a"));
        Assert.Equal(Errno.EPERM, guest.SetXattr(file, "user.virtiofs.trusted.q", "forged"u8));
        Assert.Equal(Errno.ENODATA, guest.GetXattr(file, "user.virtiofs.trusted.q").Error);
        Assert.Equal(Errno.EPERM, guest.RemoveXattr(file, "user.virtiofs.trusted.q"));
        HostXattrs.Set(host["f"], "trusted.hosts", [1]);
        Assert.Equal(["trusted.q", "user.a"], guest.ListXattr(file).Order(StringComparer.Ordinal));
    });

    [Fact]
    public void What_a_map_does_not_support_is_answered_as_by_a_file_system_without() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options with
        {
            XattrMap = XattrMap.Parse(":unsupported:all:user.:user.: :ok:all:::"),
        });
        NodeId file = guest.Walk("f").NodeId;
        HostXattrs.Set(host["f"], "user.a", [1]);
        Assert.Equal(Errno.EOPNOTSUPP, guest.SetXattr(file, "user.a", "x"u8));
        Assert.Equal(Errno.EOPNOTSUPP, guest.GetXattr(file, "user.a").Error);
        Assert.Equal(Errno.EOPNOTSUPP, guest.RemoveXattr(file, "user.a"));
        Assert.Empty(guest.ListXattr(file));
    });

    [Theory, EveryMode]
    public void Capabilities_under_a_map_end_when_the_file_changes(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            // X16.
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(host.Options with
            {
                FileHandles = handles,
                XattrMap = XattrMap.Parse(":map:security.:trusted.virtiofs.:"),
            });
            NodeId file = guest.Walk("f").NodeId;
            HandleId handle = Guest.Good(guest.Open(file, OpenFlags.ReadWrite)).Handle;
            (string What, Action Change)[] changes =
            [
                ("write", () => Guest.Good(guest.Write(file, handle, 0, "x"u8))),
                ("chown", () => Guest.Good(guest.SetAttr(
                    file, new FuseSetAttrIn { Valid = SetAttrValid.GroupId, GroupId = 0 }))),
                ("truncate", () => Guest.Good(guest.SetAttr(
                    file, new FuseSetAttrIn { Valid = SetAttrValid.Size, Size = 5 }))),
                ("ftruncate", () => Guest.Good(guest.SetAttr(
                    file, new FuseSetAttrIn { Valid = SetAttrValid.Size | SetAttrValid.Handle, Size = 9, Handle = handle }))),
                ("open with O_TRUNC", () => Assert.Equal(
                    Errno.Success,
                    guest.Release(file, Guest.Good(guest.Open(file, OpenFlags.ReadWrite | OpenFlags.Truncate)).Handle))),
                ("create with O_TRUNC", () => Assert.Equal(
                    Errno.Success,
                    guest.Release(
                        file,
                        Guest.Good(guest.Create(NodeId.Root, "f", OpenFlags.ReadWrite | OpenFlags.Truncate)).Open.Handle))),
                ("fallocate", () => Assert.Equal(Errno.Success, Guest.Done(guest.FileSystem.FallocateAsync(
                    file, new FuseFallocateIn { Handle = handle, Length = 4096 }, guest.Context)))),
                ("copy_file_range", () => Guest.Good(Guest.Done(guest.FileSystem.CopyFileRangeAsync(
                    file,
                    new FuseCopyFileRangeIn
                    {
                        SourceHandle = handle,
                        DestinationNode = file,
                        DestinationHandle = handle,
                        DestinationOffset = 4096,
                        Length = 100,
                    },
                    guest.Context)))),
            ];
            foreach ((string what, Action change) in changes)
            {
                Assert.Equal(Errno.Success, guest.SetXattr(file, "security.capability", "caps"u8));
                // What does not change content or owner changes nothing here, as on a local file system.
                Assert.Equal(Errno.Success, guest.SetXattr(file, "user.other", "x"u8));
                Guest.Good(guest.SetAttr(file, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = 0x1ed }));
                Guest.Good(guest.Read(file, handle, 0, 100));
                Assert.Equal("caps", HostXattrs.Get(host["f"], "trusted.virtiofs.security.capability"));
                change();
                Assert.Equal((what, Errno.ENODATA), (what, guest.GetXattr(file, "security.capability").Error));
            }

            // Of things that are no regular files nothing is lost or refused.
            Guest.Good(guest.SetAttr(
                guest.Walk("ln").NodeId, new FuseSetAttrIn { Valid = SetAttrValid.UserId, UserId = 7 }));
            Guest.Good(guest.SetAttr(
                guest.Walk("d").NodeId, new FuseSetAttrIn { Valid = SetAttrValid.UserId, UserId = 7 }));
            Assert.Equal(Errno.Success, guest.Release(file, handle));
        });

    [Fact]
    public void A_read_only_share_answers_EROFS_whatever_the_map_says() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options with { ReadOnly = true, XattrMap = XattrMap.Parse(":bad:all:::") });
        NodeId file = guest.Walk("f").NodeId;
        Assert.Equal(Errno.EROFS, guest.SetXattr(file, "user.a", "x"u8));
        Assert.Equal(Errno.EROFS, guest.RemoveXattr(file, "user.a"));
        Assert.Equal(Errno.ENODATA, guest.GetXattr(file, "user.a").Error);
    });

    [Fact]
    public void Names_and_values_have_the_hosts_limits() => Worker.Run(() =>
    {
        // X11.
        using HostDirectory host = new HostDirectory("/dev/shm").Fill();
        using var guest = new Guest(host.Options with { Xattr = true });
        NodeId file = guest.Walk("f").NodeId;
        Assert.Equal(Errno.ERANGE, guest.SetXattr(file, "user." + new string('x', 251), "v"u8));
        Assert.Equal(Errno.Success, guest.SetXattr(file, "user." + new string('x', 250), "v"u8));
        Assert.Equal(Errno.E2BIG, guest.SetXattr(file, "user.a", new byte[65537]));
        Assert.Equal(Errno.Success, guest.SetXattr(file, "user.a", new byte[65536]));
        Assert.Equal(65536, Guest.Good(guest.GetXattr(file, "user.a")).Length);
        Assert.Equal(2, guest.ListXattr(file).Length);
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
