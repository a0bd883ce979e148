using System.Net.Sockets;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Daemon;
using Causeway.Tests.Driver;

namespace Causeway.Tests.Bridge;

/// <summary>Daemons that lie: the program gets an error, and the mount goes on.</summary>
public sealed class HostileDaemonTests
{
    // Written length, length in the header, error in the header, distance of unique.
    [Theory]
    [InlineData(8, 16, 0, 0)]
    [InlineData(0, 16, 0, 0)]
    [InlineData(16, 100, 0, 0)]
    [InlineData(144, 16, 0, 0)]
    [InlineData(144, 144, 0, 2)]
    [InlineData(16, 16, 1, 0)]
    [InlineData(16, 16, -512, 0)]
    [InlineData(16, 16, int.MinValue, 0)]
    [InlineData(144, 144, -2, 0)]
    [InlineData(26, 26, 0, 0)]
    [InlineData(1016, 1016, 0, 0)]
    [InlineData(65536, 65536, 0, 0)]
    public void A_reply_that_breaks_the_protocol_is_an_error_of_its_request_alone(
        int written, int length, int error, int distance)
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        bool isLying = true;
        using var daemon = new LyingDaemon(request => request.Opcode == FuseOpcode.Lookup && Volatile.Read(ref isLying)
            ? LyingDaemon.Reply(request.Unique.Value + (ulong)distance, error, length, Math.Max(0, written - 16))[..written]
            : null);
        foreach (string options in FuseIoUring.Obstacle is null ? (string[])["noio_uring", "io_uring"] : ["noio_uring"])
        {
            using MountProcess mount = MountProcess.Start(daemon.SocketPath, options);
            Volatile.Write(ref isLying, true);
            (int status, string output) = Shell.Try(mount.Path, "stat some-name");
            Assert.Equal(1, status);
            Assert.Contains("Input/output error", output, StringComparison.Ordinal);

            Volatile.Write(ref isLying, false);
            (status, output) = Shell.Try(mount.Path, "stat other-name");
            Assert.Equal(1, status);
            Assert.Contains("No such file", output, StringComparison.Ordinal);
            mount.Signal(15);
            Assert.Equal(0, mount.AwaitEnd());
        }
    }

    [Fact]
    public void Notifications_that_are_about_nothing_or_none_leave_the_mount_alone()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        ulong size = 5;
        int lookups = 0;
        using var daemon = new LyingDaemon(request => request.Opcode == FuseOpcode.Lookup && Interlocked.Increment(ref lookups) > 0
            ? LyingDaemon.Reply(request.Unique, new NodeEntry
            {
                NodeId = new NodeId(2),
                AttributeLifetimeSeconds = 1000,
                EntryLifetimeSeconds = 1000,
                Attributes = new FuseAttributes { Inode = 7, Mode = 0x81A4, LinkCount = 1, Size = Volatile.Read(ref size) },
            })
            : null) { HasNotifications = true };
        using MountProcess mount = MountProcess.Start(daemon.SocketPath);
        Assert.Equal("5", Shell.Run(mount.Path, "stat -c %s name"));
        Volatile.Write(ref size, 6);

        void Notify(int code, ulong unique, ReadOnlySpan<byte> payload, int lie = 0) =>
            daemon.Notify(HostileDeviceTests.Notification(code, unique, payload.ToArray(), lie));
        byte[] unknown = RawRequests.Bytes(new FuseNotifyInvalInodeOut { NodeId = new NodeId(999) });
        byte[] entry = RawRequests.Bytes(new FuseNotifyInvalEntryOut { Parent = NodeId.Root, NameLength = 4 });
        Notify((int)FuseNotifyCode.InvalInode, 0, unknown);
        Notify((int)FuseNotifyCode.InvalInode, 0, unknown.AsSpan(0, 3));
        Notify((int)FuseNotifyCode.InvalInode, 0, unknown, lie: 1);
        Notify((int)FuseNotifyCode.InvalInode, 9, unknown);
        Notify((int)FuseNotifyCode.InvalEntry, 0,
            [.. RawRequests.Bytes(new FuseNotifyInvalEntryOut { Parent = new NodeId(999), NameLength = 4 }), .. "name\0"u8]);
        Notify((int)FuseNotifyCode.InvalEntry, 0,
            [.. RawRequests.Bytes(new FuseNotifyInvalEntryOut { Parent = NodeId.Root, NameLength = 9999 }), .. "name\0"u8]);
        Notify((int)FuseNotifyCode.InvalEntry, 0, [.. entry, .. "other and longer\0"u8]);
        Notify((int)FuseNotifyCode.Delete, 0, entry);
        Notify(1234, 0, []);
        Notify(-2, 0, unknown);
        daemon.Notify([1, 2, 3]);

        // Nothing of this was about what the kernel knows.
        Assert.Equal("5", Shell.Run(mount.Path, "stat -c %s name"));
        Assert.Equal(1, Volatile.Read(ref lookups));

        // They come in order; after this one, they all have been looked at.
        Notify((int)FuseNotifyCode.InvalEntry, 0, [.. entry, .. "name\0"u8]);
        HostileDeviceTests.Until(() => Shell.Run(mount.Path, "stat -c %s name") == "6");
        mount.Signal(15);
        Assert.Equal(0, mount.AwaitEnd());
    }

    [Fact]
    public void A_device_that_refuses_to_begin_is_not_mounted()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var daemon = new LyingDaemon(request => request.Opcode == FuseOpcode.Init
            ? LyingDaemon.Reply(request.Unique.Value, -(int)Errno.EPROTO, 16, 0)
            : null);
        ExpectRefusal(daemon.SocketPath, "refuses FUSE_INIT");
    }

    [Fact]
    public void A_device_that_grants_what_was_not_offered_is_not_mounted()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var daemon = new LyingDaemon(request => request.Opcode == FuseOpcode.Init
            ? LyingDaemon.Reply(request.Unique, new FuseInitOut
            {
                Major = 7,
                Minor = 38,
                MaxWrite = 1 << 16,
                Flags = (uint)FuseFeatures.InitExt,
                Flags2 = (uint)((ulong)FuseFeatures.OverIoUring >> 32),
            })
            : null);
        ExpectRefusal(daemon.SocketPath, "not offered");
    }

    [Fact]
    public void A_socket_that_is_no_device_is_not_mounted()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        string path = Path.Combine(Path.GetTempPath(), $"causeway-{Guid.NewGuid():N}.sock");
        using var socket = new Socket(AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, ProtocolType.Unspecified);
        socket.Bind(new UnixDomainSocketEndPoint(path));
        socket.Listen();
        var greeter = new Thread(() =>
        {
            using Socket connection = socket.Accept();
            connection.Send("220 mail.example.org ready, and some more to be long enough\r\n"u8);
            // Until the other side is fed up.
            byte[] rest = new byte[4096];
            while (connection.Receive(rest, SocketFlags.None, out SocketError error) > 0 && error == SocketError.Success)
            {
            }
        }) { IsBackground = true };
        greeter.Start();

        ExpectRefusal(path, "the back end");
        greeter.Join();
        File.Delete(path);
    }

    private static void ExpectRefusal(string socket, string message)
    {
        using var place = new TemporaryDirectory();
        (int status, string error) = DaemonProcess.RunToEnd(DaemonProcess.Program, "mount", socket, place.Path);

        Assert.Equal(1, status);
        Assert.Contains(message, error, StringComparison.Ordinal);
        Assert.Single(error.Trim().Split('\n'));
        Assert.DoesNotContain(File.ReadLines("/proc/mounts"), line => line.Contains(place.Path, StringComparison.Ordinal));
    }
}
