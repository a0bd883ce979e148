using System.Buffers.Binary;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Fuse;
using Microsoft.Extensions.Logging;

namespace Causeway.Tests.Passthrough;

/// <summary>Modes that need the guest's consent, and access control lists (passthrough.md 3.2, 3.16, 3.17; C19, X7, X8).</summary>
public sealed class AclTests
{
    private const FuseFeatures AclFeatures = FuseFeatures.PosixAcl | FuseFeatures.DontMask | FuseFeatures.SetXattrExt;

    private const string Access = "system.posix_acl_access";

    private const string Default = "system.posix_acl_default";

    [Theory]
    [InlineData(NegotiationMode.Never, false)]
    [InlineData(NegotiationMode.Auto, true)]
    [InlineData(NegotiationMode.Always, true)]
    public void A_guest_that_supports_it_gets_what_the_mode_says(NegotiationMode mode, bool isGranted) => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        using var guest = new Guest(host.Options with { PosixAcl = mode, SecurityLabel = mode });
        Assert.Equal(isGranted ? AclFeatures : 0, guest.Negotiation.Granted & AclFeatures);
        Assert.Equal(isGranted, (guest.Negotiation.Granted & FuseFeatures.SecurityContext) != 0);
    });

    [Theory]
    [InlineData(FuseFeatures.PosixAcl)]
    [InlineData(FuseFeatures.DontMask)]
    [InlineData(FuseFeatures.SetXattrExt)]
    [InlineData(FuseFeatures.SecurityContext)]
    public void A_guest_that_lacks_it_is_refused_or_served_without(FuseFeatures missing) => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        PassthroughOptions options = host.Options with { Xattr = true };
        foreach (NegotiationMode mode in new[] { NegotiationMode.Auto, NegotiationMode.Always })
        {
            var logger = new RecordingLogger();
            bool isLabel = missing == FuseFeatures.SecurityContext;
            options = isLabel ? options with { SecurityLabel = mode } : options with { PosixAcl = mode };
            using Share share = Share.Open(options);
            using var system = new PassthroughFileSystem(share, logger);
            var negotiation = new FuseNegotiation(46, Guest.Everything & ~missing);
            Assert.Equal(
                mode == NegotiationMode.Always ? Errno.EPROTO : Errno.Success,
                Guest.Done(system.InitializeAsync(negotiation)));
            Assert.Equal(0UL, (ulong)(negotiation.Granted & (isLabel ? FuseFeatures.SecurityContext : AclFeatures)));
            (LogLevel level, _, string text, _) = Assert.Single(logger.Entries);
            Assert.Equal(mode == NegotiationMode.Always ? LogLevel.Error : LogLevel.Warning, level);
            Assert.Contains(isLabel ? "security labels" : "POSIX access control lists", text, StringComparison.Ordinal);
            Assert.Contains(host.Path, text, StringComparison.Ordinal);
        }
    });

    [Fact]
    public void A_guest_without_killpriv_is_served_and_the_operator_hears_of_it() => Worker.Run(() =>
    {
        using var host = new HostDirectory();
        var logger = new RecordingLogger();
        using var guest = new Guest(
            host.Options with { KillPrivV2 = true }, Guest.Everything & ~FuseFeatures.HandleKillPrivV2, logger);
        Assert.Equal(0UL, (ulong)(guest.Negotiation.Granted & FuseFeatures.HandleKillPrivV2));
        Assert.Contains("killpriv-v2", Assert.Single(logger.Entries).Text, StringComparison.Ordinal);
    });

    [Theory, EveryMode]
    public void The_umask_counts_unless_the_directory_has_a_default_list(InodeFileHandles handles, string place) =>
        Worker.Run(() =>
        {
            // C19.
            using HostDirectory host = new HostDirectory(place).Fill();
            using var guest = new Guest(Acls(host, handles));
            Guest.Good(guest.Mkdir(NodeId.Root, "masked", 0x1ff, umask: 0x12));
            Assert.Equal("755", Mode(host, "masked"));
            Guest.Good(guest.Mkdir(NodeId.Root, "unmasked", 0x1ff));
            Assert.Equal("777", Mode(host, "unmasked"));

            NodeId parent = guest.Walk("d").NodeId;
            Assert.Equal(Errno.Success, guest.SetXattr(parent, Default, List((1, 7, -1), (2, 7, 5), (4, 5, -1), (16, 7, -1), (32, 0, -1))));
            Guest.Good(guest.Mkdir(parent, "dir", 0x1ff, umask: 0x3f));
            Assert.Equal("770", Mode(host, "d/dir"));
            Guest.Good(guest.Mknod(parent, "node", 0x81b6, umask: 0x3f));
            Assert.Equal("660", Mode(host, "d/node"));
            FuseCreateOut file = Guest.Good(guest.Create(parent, "file", mode: 0x1b6, umask: 0x3f));
            Assert.Equal("660", Mode(host, "d/file"));
            FuseCreateOut nameless = Guest.Good(guest.Tmpfile(parent, mode: 0x1b6));
            Assert.Equal(0x81b0U, nameless.Entry.Attributes.Mode);
            Assert.Equal(Errno.Success, guest.Release(file.Entry.NodeId, file.Open.Handle));
            Assert.Equal(Errno.Success, guest.Release(nameless.Entry.NodeId, nameless.Open.Handle));

            // The list is inherited, as the host sees it too.
            Assert.Equal([Access], HostXattrs.List(host["d/file"]));
            Assert.Equal([Access, Default], HostXattrs.List(host["d/dir"]));
            Assert.Contains(Access, guest.ListXattr(file.Entry.NodeId));
            // And the next one without a list is masked again.
            Guest.Good(guest.Mknod(NodeId.Root, "later", 0x81b6, umask: 0x3f));
            Assert.Equal("600", Mode(host, "later"));
            Guest.Good(guest.Symlink(NodeId.Root, "link", "f"));
        });

    [Fact]
    public void Without_lists_the_guest_masks_and_the_host_does_not() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory().Fill();
        using var guest = new Guest(host.Options);
        Guest.Good(guest.Mkdir(NodeId.Root, "dir", 0x1ff, umask: 0x3f));
        Assert.Equal("777", Mode(host, "dir"));
    });

    [Theory, EveryMode]
    public void A_list_clears_setgid_when_the_request_says_so(InodeFileHandles handles, string place) => Worker.Run(() =>
    {
        // X8, for a thread that acts for a member of the file's group and for one that does not.
        using HostDirectory host = new HostDirectory(place).Fill();
        using var guest = new Guest(Acls(host, handles));
        NodeId file = guest.Walk("f").NodeId;
        byte[] list = List((1, 7, -1), (4, 7, -1), (32, 7, -1));
        byte[] longer = List((1, 7, -1), (2, 6, 5), (4, 7, -1), (16, 7, -1), (32, 7, -1));
        Host.Run("chown", "0:4", host["f"]);
        foreach (uint group in new uint[] { 0, 4 })
        {
            Guest.Good(guest.As(1000, group).Mkdir(NodeId.Root, $"as{group}"));
            foreach (byte[] value in new[] { list, longer })
            {
                Host.Run("chmod", "6777", host["f"]);
                Assert.Equal(Errno.Success, guest.SetXattr(file, Access, value));
                Assert.Equal("6777", Mode(host, "f"));
                Assert.Equal(Errno.Success, guest.SetXattr(file, Access, value, more: SetXattrFlags.AclKillSgid));
                Assert.Equal("4777", Mode(host, "f"));
                Host.Run("chmod", "6777", host["f"]);
                Assert.Equal(Errno.Success, guest.SetXattr(file, "user.a", value, more: SetXattrFlags.AclKillSgid));
                Assert.Equal("6777", Mode(host, "f"));
                // A list that is none changes nothing.
                Assert.Equal(
                    Errno.EINVAL, guest.SetXattr(file, Access, [2, 0, 0, 0, 9], more: SetXattrFlags.AclKillSgid));
                Assert.Equal("6777", Mode(host, "f"));
                Assert.Equal(Errno.Success, guest.RemoveXattr(file, "user.a"));
            }
        }

        Assert.Equal(Errno.Success, guest.RemoveXattr(file, Access));
        Assert.Equal(Errno.ENODATA, guest.GetXattr(file, Access).Error);
    });

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Without_lists_they_are_refused_and_hidden_whatever_the_map_says(bool hasMap) => Worker.Run(() =>
    {
        // X7.
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        byte[] list = List((1, 7, -1), (2, 7, 5), (4, 5, -1), (16, 7, -1), (32, 5, -1));
        HostXattrs.Set(host["d"], Default, list);
        using var guest = new Guest(host.Options with
        {
            Xattr = true,
            XattrMap = hasMap ? XattrMap.Parse(":prefix:all:other.:user.: :ok:all:::") : null,
        });
        NodeId directory = guest.Walk("d").NodeId;
        foreach (string name in new[] { Access, Default })
        {
            Assert.Equal(Errno.EOPNOTSUPP, guest.SetXattr(directory, name, list));
            Assert.Equal(Errno.EOPNOTSUPP, guest.GetXattr(directory, name).Error);
            Assert.Equal(Errno.EOPNOTSUPP, guest.RemoveXattr(directory, name));
        }

        Assert.Empty(guest.ListXattr(directory));
        // X6: names that only begin like one are the host's to judge.
        foreach (string name in new[] { "s", "system", "system.posix_acl_accessx", "system.posix" })
        {
            Assert.Equal(Errno.EOPNOTSUPP, guest.GetXattr(directory, name).Error);
        }

        Assert.Equal(Errno.Success, guest.SetXattr(directory, "user.system.posix_acl_access", "x"u8));
    });

    [Fact]
    public void A_map_cannot_be_used_to_reach_a_list() => Worker.Run(() =>
    {
        using HostDirectory host = new HostDirectory("/var/tmp").Fill();
        using var guest = new Guest(host.Options with
        {
            XattrMap = XattrMap.Parse(":prefix:all:posix_acl_access:system.: :ok:all:::"),
        });
        NodeId directory = guest.Walk("d").NodeId;
        Assert.Equal(Errno.EOPNOTSUPP, guest.SetXattr(directory, "posix_acl_access", List((1, 7, -1), (4, 5, -1), (32, 5, -1))));
    });

    /// <summary>A list: version 2, then entries of tag, permissions and id.</summary>
    internal static byte[] List(params (int Tag, int Permissions, int Id)[] entries)
    {
        byte[] list = new byte[4 + (8 * entries.Length)];
        list[0] = 2;
        for (int i = 0; i < entries.Length; i++)
        {
            BinaryPrimitives.WriteInt16LittleEndian(list.AsSpan(4 + (8 * i)), (short)entries[i].Tag);
            BinaryPrimitives.WriteInt16LittleEndian(list.AsSpan(6 + (8 * i)), (short)entries[i].Permissions);
            BinaryPrimitives.WriteInt32LittleEndian(list.AsSpan(8 + (8 * i)), entries[i].Id);
        }

        return list;
    }

    private static PassthroughOptions Acls(HostDirectory host, InodeFileHandles handles) =>
        host.Options with { FileHandles = handles, PosixAcl = NegotiationMode.Always };

    private static string Mode(HostDirectory host, string name) => Host.Run("stat", "-c", "%a", host[name]).Trim();
}
