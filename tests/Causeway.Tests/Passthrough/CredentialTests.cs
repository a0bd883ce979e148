using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Tests.Passthrough;

/// <summary>Daemons with fewer rights, made by taking capabilities away from the thread that serves.</summary>
public sealed class CredentialTests
{
    private const Capability SetPcap = (Capability)8;

    [Fact]
    public void Without_the_right_to_open_by_handle_nodes_live_by_descriptor() => Worker.Run(() =>
    {
        Drop(Capability.DacReadSearch);
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using (var guest = new Guest(host.Options))
        {
            _ = guest.Walk("f");
            _ = guest.Walk("d/x");
            Assert.Equal((3, 0), (guest.FileSystem.Figures.Descriptors, guest.FileSystem.Figures.Pinned));
        }

        ErrnoException error = Assert.Throws<ErrnoException>(
            () => Share.Open(host.Options with { FileHandles = InodeFileHandles.Mandatory }));
        Assert.Contains("CAP_DAC_READ_SEARCH", error.Message, StringComparison.Ordinal);
    });

    [Fact]
    public void Without_the_right_to_change_ids_only_the_daemons_own_are_served() => Worker.Run(() =>
    {
        Drop(Capability.SetUid, Capability.SetGid);
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options);
        Assert.Equal(Errno.EPERM, guest.As(1000, 0).Mkdir(NodeId.Root, "a").Error);
        Assert.Equal(Errno.EPERM, guest.As(0, 1000).Mkdir(NodeId.Root, "a").Error);
        Assert.Equal(Errno.EPERM, guest.As(1000, 1000).Create(NodeId.Root, "a").Error);
        Assert.False(File.Exists(host["a"]));
        Assert.Equal(0U, Guest.Good(guest.As(0, 0).Mkdir(NodeId.Root, "a")).Attributes.UserId);
        Assert.Equal(0, guest.FileSystem.Figures.OpenFiles);
    });

    [Fact]
    public void Without_the_right_to_keep_capabilities_ids_are_taken_back_after_each_call() => Worker.Run(() =>
    {
        Drop(SetPcap);
        using HostDirectory host = new HostDirectory().Fill();
        Host.Run("chmod", "0777", host["d"]);
        using var guest = new Guest(host.Options with { KillPrivV2 = true });
        NodeId directory = guest.Walk("d").NodeId;
        string before = CreateTests.StatusOfThisThread("CapEff");
        for (uint user = 1000; user < 1010; user++)
        {
            FuseCreateOut made = Guest.Good(guest.As(user, user + 1, 4).Create(directory, $"{user}"));
            Assert.Equal((user, user + 1), (made.Entry.Attributes.UserId, made.Entry.Attributes.GroupId));
            Assert.Equal("0\t0\t0\t0", CreateTests.StatusOfThisThread("Uid"));
            Assert.Equal("0\t0\t0\t0", CreateTests.StatusOfThisThread("Gid"));
            Assert.Equal("", CreateTests.StatusOfThisThread("Groups"));
            Assert.Equal(Errno.Success, guest.Release(made.Entry.NodeId, made.Open.Handle));
        }

        // With its capabilities the host's checks are back too.
        Assert.Equal(Errno.EACCES, guest.As(1000, 1000).Mkdir(NodeId.Root, "not in root's directory").Error);
        Assert.Equal("0\t0\t0\t0", CreateTests.StatusOfThisThread("Uid"));
        Assert.Equal(
            Convert.ToUInt64(before, 16) | (1UL << (int)SetPcap),
            Convert.ToUInt64(CreateTests.StatusOfThisThread("CapEff"), 16) | (1UL << (int)SetPcap));
    });

    [Fact]
    public void Without_the_right_to_keep_capabilities_the_host_trusts_guests_that_cannot_tell_their_groups() =>
        Worker.Run(() =>
        {
            // C2: what a group may allow the host cannot judge, unless it is told.
            Drop(SetPcap);
            using HostDirectory host = new HostDirectory().Fill();
            Host.Run("chown", "0:4", host["d"]);
            Host.Run("chmod", "0770", host["d"]);
            foreach (bool tellsGroups in new[] { true, false })
            {
                using var guest = new Guest(
                    host.Options, tellsGroups ? Guest.Everything : Guest.Everything & ~FuseFeatures.CreateSuppGroup);
                NodeId directory = guest.Walk("d").NodeId;
                string before = CreateTests.StatusOfThisThread("CapEff");
                Assert.Equal(
                    tellsGroups ? Errno.EACCES : Errno.Success, guest.As(1000, 1000).Mkdir(directory, "new").Error);
                Assert.Equal("0\t0\t0\t0", CreateTests.StatusOfThisThread("Uid"));
                Assert.Equal(before, CreateTests.StatusOfThisThread("CapEff"));
            }

            Assert.Equal("1000:1000", Host.Run("stat", "-c", "%u:%g", host["d/new"]).Trim());
        });

    [Theory]
    [InlineData(Capability.Fowner)]
    [InlineData(Capability.DacOverride)]
    [InlineData(Capability.Chown)]
    public void Ids_stick_only_where_the_daemon_is_above_them(Capability missing) => Worker.Run(() =>
    {
        Drop(missing);
        using HostDirectory host = new HostDirectory().Fill();
        Host.Run("chmod", "0777", host["d"]);
        using var guest = new Guest(host.Options);
        NodeId directory = guest.Walk("d").NodeId;
        Guest.Good(guest.As(1000, 1001, 4).Mkdir(directory, "new"));
        Assert.Equal("0\t0\t0\t0", CreateTests.StatusOfThisThread("Uid"));
        Assert.Equal("0\t0\t0\t0", CreateTests.StatusOfThisThread("Gid"));
        Assert.Equal("", CreateTests.StatusOfThisThread("Groups"));
        // What belongs to the daemon's user is still changed with his rights.
        Guest.Good(guest.SetAttr(directory, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = 0x1c0 }));
    });

    [Fact]
    public void An_id_that_the_kernel_refuses_leaves_the_thread_as_it_was() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options);
        Guest.Good(guest.As(1000, 1001, 4).Mkdir(NodeId.Root, "before"));
        // The highest number is no user or group; nor is it a supplementary one.
        Assert.Equal(Errno.EPERM, guest.As(uint.MaxValue, 7).Mkdir(NodeId.Root, "new").Error);
        Assert.Equal(Errno.EPERM, guest.As(7, uint.MaxValue).Mkdir(NodeId.Root, "new").Error);
        Assert.Equal(Errno.EINVAL, guest.As(7, 7, uint.MaxValue).Mkdir(NodeId.Root, "new").Error);
        Assert.False(Path.Exists(host["new"]));
        Guest.Good(guest.As(0, 0).Mkdir(NodeId.Root, "after"));
        Assert.Equal("0:0", Host.Run("stat", "-c", "%u:%g", host["after"]).Trim());
        Assert.Equal("", CreateTests.StatusOfThisThread("Groups"));
        Assert.Equal("0\t0\t0\t0", CreateTests.StatusOfThisThread("Uid"));
    });

    [Fact]
    public void A_thread_that_is_started_while_another_acts_for_a_guest_starts_as_the_daemon() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options);
        Guest.Good(guest.As(1000, 1000, 4).Mkdir(NodeId.Root, "a"));
        Assert.Equal("0\t1000\t0\t1000", CreateTests.StatusOfThisThread("Uid"));
        Worker.Run(() =>
        {
            NodeEntry made = Guest.Good(guest.As(0, 0).Mkdir(NodeId.Root, "b"));
            Assert.Equal((0U, 0U), (made.Attributes.UserId, made.Attributes.GroupId));
            Assert.Equal("", CreateTests.StatusOfThisThread("Groups"));
        });
    });

    private static void Drop(params Capability[] capabilities)
    {
        Credentials.Capget(out CapabilitySets sets).ThrowIfError("capget");
        foreach (Capability capability in capabilities)
        {
            sets = sets.With(capability, isEffective: false);
        }

        Credentials.Capset(sets with { Permitted = sets.Effective }).ThrowIfError("capset");
    }
}
