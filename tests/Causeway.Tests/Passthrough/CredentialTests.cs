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
