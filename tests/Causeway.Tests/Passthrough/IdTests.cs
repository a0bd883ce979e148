using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>Translated ids wherever they go in or out (passthrough.md 7.11).</summary>
public sealed class IdTests
{
    [Theory, EveryMode]
    public void What_a_guest_makes_has_the_translated_owner_and_is_told_as_its_own(
        InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        // T1.
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(host.Options with
        {
            FileHandles = handles,
            UserIds = IdTranslation.Parse(["map:1000:3000:10"]),
            GroupIds = IdTranslation.Parse(["map:2000:4000:10"]),
        });
        guest.As(1000, 2001);
        NodeEntry directory = Guest.Good(guest.Mkdir(NodeId.Root, "dir"));
        NodeEntry node = Guest.Good(guest.Mknod(NodeId.Root, "pipe", 0x1180));
        NodeEntry link = Guest.Good(guest.Symlink(NodeId.Root, "link", "f"));
        FuseCreateOut file = Guest.Good(guest.Create(NodeId.Root, "file"));
        Assert.Equal(Errno.Success, guest.Release(file.Entry.NodeId, file.Open.Handle));
        foreach (string name in new[] { "dir", "pipe", "link", "file" })
        {
            Assert.Equal("3000:4001", Owner(host, name));
            Assert.Equal((1000U, 2001U), Told(Guest.Good(guest.Lookup(NodeId.Root, name)).Attributes));
        }

        Assert.All(
            new[] { directory, node, link, file.Entry }, entry => Assert.Equal((1000U, 2001U), Told(entry.Attributes)));

        // GETATTR, STATX, READDIRPLUS, LINK and SETATTR tell the same.
        Assert.Equal((1000U, 2001U), Told(Guest.Good(guest.GetAttr(directory.NodeId)).Attributes));
        FuseStatxOut statx = Guest.Good(Guest.Done(guest.FileSystem.StatxAsync(directory.NodeId, default, guest.Context)));
        Assert.Equal((1000U, 2001U), (statx.Statx.UserId, statx.Statx.GroupId));
        HandleId list = Guest.Good(guest.OpenDir(NodeId.Root)).Handle;
        NodeEntry listed = guest.ReadAll(NodeId.Root, list, isPlus: true).Single(entry => entry.Name == "dir").Entry;
        Assert.Equal((1000U, 2001U), Told(listed.Attributes));
        Assert.Equal(Errno.Success, guest.ReleaseDir(NodeId.Root, list));
        Assert.Equal((1000U, 2001U), Told(Guest.Good(guest.Link(file.Entry.NodeId, directory.NodeId, "hard")).Attributes));
        FuseAttributes owned = Guest.Good(guest.SetAttr(
            node.NodeId,
            new FuseSetAttrIn { Valid = SetAttrValid.UserId | SetAttrValid.GroupId, UserId = 1009, GroupId = 2009 })).Attributes;
        Assert.Equal((1009U, 2009U), Told(owned));
        Assert.Equal("3009:4009", Owner(host, "pipe"));
        // An id that is not given stays; one outside of the rules is itself.
        Assert.Equal((5U, 2009U), Told(Guest.Good(guest.SetAttr(
            node.NodeId, new FuseSetAttrIn { Valid = SetAttrValid.UserId, UserId = 5 })).Attributes));
        Assert.Equal("5:4009", Owner(host, "pipe"));

        // ACCESS compares what the guest knows.
        Host.Run("chmod", "0600", host["file"]);
        Assert.Equal(Errno.Success, Guest.Done(guest.As(1000, 1).FileSystem.AccessAsync(file.Entry.NodeId, 6, guest.Context)));
        Assert.Equal(Errno.EACCES, Guest.Done(guest.As(3000, 1).FileSystem.AccessAsync(file.Entry.NodeId, 6, guest.Context)));
    });

    [Fact]
    public void An_id_that_may_not_be_used_is_EPERM_and_nothing_happens() => Worker.Run(() =>
    {
        // T2.
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options with
        {
            UserIds = IdTranslation.Parse(["forbid-guest:2000:10"]),
            GroupIds = IdTranslation.Parse(["forbid-guest:3000:10"]),
        });
        string before = Host.Run("stat", "-c", "%u:%g %a %s %Y", host["f"]);
        (uint User, uint Group, uint[] Groups)[] callers = [(2005, 1, []), (1, 3005, []), (1, 1, [1, 3009])];
        foreach ((uint user, uint group, uint[] groups) in callers)
        {
            guest.As(user, group, groups);
            Assert.Equal(Errno.EPERM, guest.Mkdir(NodeId.Root, "new").Error);
            Assert.Equal(Errno.EPERM, guest.Mknod(NodeId.Root, "new", 0x81a4).Error);
            Assert.Equal(Errno.EPERM, guest.Symlink(NodeId.Root, "new", "t").Error);
            Assert.Equal(Errno.EPERM, guest.Create(NodeId.Root, "new").Error);
            Assert.Equal(Errno.EPERM, guest.Tmpfile(NodeId.Root).Error);
            Assert.False(Path.Exists(host["new"]));
        }

        NodeId file = guest.As(0, 0).Walk("f").NodeId;
        const SetAttrValid all = SetAttrValid.UserId | SetAttrValid.GroupId | SetAttrValid.Mode | SetAttrValid.Size;
        Assert.Equal(Errno.EPERM, guest.SetAttr(file, new FuseSetAttrIn { Valid = all, UserId = 2005 }).Error);
        Assert.Equal(Errno.EPERM, guest.SetAttr(file, new FuseSetAttrIn { Valid = all, GroupId = 3000 }).Error);
        Assert.Equal(before, Host.Run("stat", "-c", "%u:%g %a %s %Y", host["f"]));

        // Who is forbidden may still do what needs no id.
        Assert.Equal(8192UL, Guest.Good(guest.As(2005, 3005).GetAttr(file)).Attributes.Size);
        Assert.Equal(Errno.Success, guest.Unlink(NodeId.Root, "f"));
    });

    [Fact]
    public void Squashed_ids_all_become_the_one_and_root_loses_its_powers() => Worker.Run(() =>
    {
        // T3.
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options with
        {
            UserIds = IdTranslation.Parse(["squash-guest:0:1001:4294967295", "squash-host:0:7:500"]),
            GroupIds = IdTranslation.Parse(["squash-guest:0:1002:4294967295"]),
        });
        foreach (uint user in new uint[] { 0, 5, 4294967294 })
        {
            NodeEntry made = Guest.Good(guest.As(user, user, 4).Mkdir(NodeId.Root, $"{user}"));
            Assert.Equal("1001:1002", Owner(host, $"{user}"));
            Assert.Equal((1001U, 1002U), Told(made.Attributes));
        }

        Assert.Equal((7U, 0U), Told(guest.Walk("f").Attributes));
        // A device node is root's to make, and guest root is none any more; a whiteout is anybody's.
        Assert.Equal(Errno.EPERM, guest.As(0, 0).Mknod(NodeId.Root, "null", 0x21b6, 0x103).Error);
        Assert.Equal(0U, Guest.Good(guest.Mknod(NodeId.Root, "whiteout", 0x2000)).Attributes.Device);
        // Nor does it keep the setgid bit of a group it is not in.
        Host.Run("chown", "0:4", host["d"]);
        Host.Run("chmod", "2777", host["d"]);
        Assert.Equal(0x81edU, Guest.Good(guest.Mknod(guest.Walk("d").NodeId, "sgid", 0x85ed)).Attributes.Mode);
        Assert.Equal(
            (1001U, 1002U),
            Told(Guest.Good(guest.SetAttr(
                guest.Walk("f").NodeId,
                new FuseSetAttrIn { Valid = SetAttrValid.UserId | SetAttrValid.GroupId, UserId = 0, GroupId = 0 })).Attributes));
    });

    [Fact]
    public void Groups_of_the_caller_are_translated() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options with { GroupIds = IdTranslation.Parse(["map:100:4000:10"]) });
        Host.Run("chown", "0:4004", host["d"]);
        Host.Run("chmod", "2777", host["d"]);
        NodeId parent = guest.Walk("d").NodeId;
        Assert.Equal(104U, Guest.Good(guest.GetAttr(parent)).Attributes.GroupId);
        NodeEntry member = Guest.Good(guest.As(1000, 1000, 104).Mknod(parent, "member", 0x85ed));
        Assert.Equal((0x85edU, 104U), (member.Attributes.Mode, member.Attributes.GroupId));
        Assert.Equal("4004", CreateTests.StatusOfThisThread("Groups"));
        Assert.Equal(0x81edU, Guest.Good(guest.As(1000, 1000, 105).Mknod(parent, "stranger", 0x85ed)).Attributes.Mode);
        Assert.Equal("4005", CreateTests.StatusOfThisThread("Groups"));
        Guest.Good(guest.As(1000, 1000).Mknod(parent, "without", 0x85ed));
        Assert.Equal("", CreateTests.StatusOfThisThread("Groups"));
    });

    [Fact]
    public void Root_stays_special_after_translation() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options with { UserIds = IdTranslation.Parse(["map:0:1000:1", "map:1000:0:1"]) });
        Guest.Good(guest.As(0, 0).Mkdir(NodeId.Root, "roots"));
        Assert.Equal("1000:0", Owner(host, "roots"));
        Guest.Good(guest.As(1000, 0).Mkdir(NodeId.Root, "users"));
        Assert.Equal("0:0", Owner(host, "users"));
        Assert.Equal("0\t0\t0\t0", CreateTests.StatusOfThisThread("Uid"));
    });

    [Theory]
    [InlineData(NegotiationMode.Auto)]
    [InlineData(NegotiationMode.Always)]
    public void Access_control_lists_exclude_translation(NegotiationMode mode) => Worker.Run(() =>
    {
        // T4.
        using var host = new HostDirectory();
        ArgumentException error = Assert.Throws<ArgumentException>(() => Share.Open(host.Options with
        {
            PosixAcl = mode,
            GroupIds = IdTranslation.Parse(["map:1:2:3"]),
        }));
        Assert.Contains("exclude each other", error.Message, StringComparison.Ordinal);
    });

    private static (uint User, uint Group) Told(in FuseAttributes attributes) => (attributes.UserId, attributes.GroupId);

    private static string Owner(HostDirectory host, string name) => Host.Run("stat", "-c", "%u:%g", host[name]).Trim();
}
