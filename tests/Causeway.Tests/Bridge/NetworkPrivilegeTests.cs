using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Daemon;
using Causeway.Tests.Passthrough;

namespace Causeway.Tests.Bridge;

/// <summary>
/// Set-id bits of files that a server elsewhere stores. A mount of ours is such a server: the host's kernel leaves them alone when it
/// writes there without a cache, and our capabilities mean nothing to the daemon behind it.
/// </summary>
public sealed class NetworkPrivilegeTests
{
    private const uint Without = 0x81ff;

    private const uint With = 0x8dff;

    public NetworkPrivilegeTests() => Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");

    [Fact]
    public void They_are_the_guests_to_clear_by_default_and_the_daemon_clears_them_when_asked_to()
    {
        using var directory = new TemporaryDirectory();
        File.WriteAllText(directory.File("f"), "content");
        using DaemonProcess daemon = DaemonProcess.Start(directory.Path, "--xattr --no-killpriv-v2");
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, "cache=none");
        Worker.Run(() =>
        {
            var options = new PassthroughOptions { SharedDirectory = mount.Path, Xattr = true };
            using (var guest = new Guest(options))
            {
                Assert.Equal(0UL, (ulong)(guest.Negotiation.Granted & FuseFeatures.HandleKillPrivV2));
            }

            Check(options with { KillPrivV2 = true });
        });
        // The same below a share that is not itself on such a file system: there the default is to leave them to the host.
        using var local = new TemporaryDirectory();
        Directory.CreateDirectory(local.File("below"));
        Shell.Run(local.Path, $"mount --bind {mount.Path} below");
        try
        {
            Worker.Run(() => Check(new PassthroughOptions { SharedDirectory = local.Path, Xattr = true }, "below/"));
        }
        finally
        {
            Shell.Run(local.Path, "umount below");
        }
    }

    private static void Check(PassthroughOptions options, string prefix = "")
    {
        using var guest = new Guest(options);
        Assert.NotEqual(0UL, (ulong)(guest.Negotiation.Granted & FuseFeatures.HandleKillPrivV2));
        NodeId file = guest.Walk($"{prefix}f").NodeId;
        HandleId handle = Guest.Good(guest.Open(file, OpenFlags.ReadWrite)).Handle;

        SetMode();
        Assert.Equal(1, Guest.Good(guest.Write(file, handle, 0, "x"u8)));
        Assert.Equal(With, Mode());
        Assert.Equal(1, Guest.Good(guest.Write(file, handle, 0, "x"u8, 0, FuseWriteFlags.KillSuidGid)));
        Assert.Equal(Without, Mode());
        // What means nothing stays: a setgid bit where the group may not execute.
        SetMode(0x5b6);
        Assert.Equal(1, Guest.Good(guest.Write(file, handle, 0, "x"u8, 0, FuseWriteFlags.KillSuidGid)));
        Assert.Equal(0x85b6U, Mode());

        SetMode();
        Assert.Equal(Without, Guest.Good(guest.SetAttr(
            file, new FuseSetAttrIn { Valid = SetAttrValid.Size | SetAttrValid.KillSuidGid, Size = 4 })).Attributes.Mode);
        SetMode();
        HandleId truncated = Guest.Good(guest.Open(
            file, OpenFlags.ReadWrite | OpenFlags.Truncate, FuseOpenInFlags.KillSuidGid)).Handle;
        Assert.Equal(Without, Mode());
        SetMode();
        Assert.Equal(Errno.Success, Guest.Done(guest.FileSystem.FallocateAsync(
            file, new FuseFallocateIn { Handle = handle, Length = 4096 }, guest.Context)));
        Assert.Equal(Without, Mode());
        Assert.Equal(Errno.Success, guest.Release(file, handle));
        Assert.Equal(Errno.Success, guest.Release(file, truncated));

        void SetMode(uint mode = 0xdff) => Assert.Equal(0x8000 | mode, Guest.Good(guest.SetAttr(
            file, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = mode })).Attributes.Mode);

        uint Mode() => Guest.Good(guest.GetAttr(file)).Attributes.Mode;
    }
}
