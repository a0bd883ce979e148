using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Frontend;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.VhostUser;

/// <summary>The listening socket and what it may remove.</summary>
public sealed class VhostUserListenerTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("causeway").FullName;

    private string SocketPath => Path.Combine(_directory, "s");

    [Fact]
    public void The_socket_is_for_its_owner_only_and_goes_with_the_listener()
    {
        using (VhostUserListener listener = VhostUserListener.Bind(SocketPath))
        {
            byte[] path = System.Text.Encoding.UTF8.GetBytes(SocketPath + "\0");
            Files.Statx(Files.WorkingDirectory, path, AtFlags.NoFollow, StatxMask.Basic, out StatxBuffer status);
            Assert.Equal(0b1100_000_111_000_000, status.Mode);
        }

        Assert.False(File.Exists(SocketPath));
    }

    [Fact]
    public void The_socket_appears_under_its_name_when_somebody_listens_there()
    {
        using SafeFileHandle watch = new(
            FileEvents.InotifyInit().ThrowIfError("watch").Descriptor, ownsHandle: true);
        int descriptor = (int)watch.DangerousGetHandle();
        FileEvents.InotifyAddWatch(
            descriptor,
            System.Text.Encoding.UTF8.GetBytes(_directory + "\0"),
            InotifyEvents.Create | InotifyEvents.MovedTo).ThrowIfError("watch");

        using VhostUserListener listener = VhostUserListener.Bind(SocketPath);

        // Made under a name that nobody waits for, and given its own at the end.
        byte[] events = new byte[4096];
        int count = FileEvents.Read(descriptor, events).ThrowIfError("read what has happened").Count;
        var seen = new List<(InotifyEvents What, string Name)>();
        for (int offset = 0; offset < count;)
        {
            InotifyEvent one = MemoryMarshal.Read<InotifyEvent>(events.AsSpan(offset));
            offset += Unsafe.SizeOf<InotifyEvent>();
            seen.Add((one.Events, System.Text.Encoding.UTF8.GetString(events, offset, (int)one.NameLength).TrimEnd('\0')));
            offset += (int)one.NameLength;
        }

        Assert.Equal([InotifyEvents.Create, InotifyEvents.MovedTo], seen.Select(one => one.What));
        Assert.NotEqual("s", seen[0].Name);
        Assert.Equal("s", seen[1].Name);
        Assert.Equal(["s"], Directory.GetFileSystemEntries(_directory).Select(Path.GetFileName));
    }

    [Fact]
    public void A_path_as_long_as_it_may_be_is_bound_all_the_same()
    {
        string path = Path.Combine(_directory, new string('x', UnixAddress.MaxPathLength - _directory.Length - 1));
        using VhostUserListener listener = VhostUserListener.Bind(path);
        using VhostUserFrontend frontend = VhostUserFrontend.Connect(path);
    }

    [Fact]
    public void A_front_end_that_connects_is_accepted()
    {
        using VhostUserListener listener = VhostUserListener.Bind(SocketPath);
        using VhostUserFrontend frontend = VhostUserFrontend.Connect(SocketPath);

        using SafeFileHandle? connection = listener.Accept();

        connection!.SendHex("01000000 05000000 08000000 0000007401000000");
        Assert.Equal(0x174000000UL, (ulong)frontend.GetFeatures());
    }

    [Fact]
    public void Stop_ends_waiting_for_good()
    {
        using VhostUserListener listener = VhostUserListener.Bind(SocketPath);
        SafeFileHandle? accepted = null;
        Thread thread = new(() => accepted = listener.Accept());
        thread.Start();

        listener.Stop();

        Assert.True(thread.Join(TimeSpan.FromSeconds(30)));
        Assert.Null(accepted);
        Assert.Null(listener.Accept());
    }

    [Fact]
    public void A_socket_that_was_left_behind_is_replaced()
    {
        using (SafeFileHandle old = BindRaw(SocketPath))
        {
        }

        Assert.True(File.Exists(SocketPath));
        using VhostUserListener listener = VhostUserListener.Bind(SocketPath);
        using VhostUserFrontend frontend = VhostUserFrontend.Connect(SocketPath);
    }

    [Fact]
    public void A_socket_in_use_stays_and_its_owner_does_not_notice()
    {
        using VhostUserListener owner = VhostUserListener.Bind(SocketPath);

        IOException exception = Assert.Throws<IOException>(() => VhostUserListener.Bind(SocketPath));

        Assert.Equal(
            $"the socket '{SocketPath}' is in use by another program; end it or choose another path", exception.Message);
        owner.Stop();
        Assert.Null(owner.Accept());
        using VhostUserFrontend frontend = VhostUserFrontend.Connect(SocketPath);
    }

    [Fact]
    public void Something_that_is_not_a_socket_stays()
    {
        File.WriteAllText(SocketPath, "precious");

        IOException exception = Assert.Throws<IOException>(() => VhostUserListener.Bind(SocketPath));

        Assert.Contains("not a socket", exception.Message, StringComparison.Ordinal);
        Assert.Equal("precious", File.ReadAllText(SocketPath));
    }

    [Fact]
    public void A_link_is_not_followed()
    {
        File.WriteAllText(Path.Combine(_directory, "target"), "precious");
        File.CreateSymbolicLink(SocketPath, Path.Combine(_directory, "target"));

        Assert.Throws<IOException>(() => VhostUserListener.Bind(SocketPath));

        Assert.True(File.Exists(SocketPath));
    }

    [Fact]
    public void Somebody_elses_socket_at_the_same_path_is_not_removed()
    {
        VhostUserListener listener = VhostUserListener.Bind(SocketPath);
        File.Delete(SocketPath);
        using SafeFileHandle other = BindRaw(SocketPath);

        listener.Dispose();

        Assert.True(File.Exists(SocketPath));
    }

    [Fact]
    public void A_path_that_is_too_long_is_told_the_limit()
    {
        string path = Path.Combine(_directory, new string('x', 107));

        IOException exception = Assert.Throws<IOException>(() => VhostUserListener.Bind(path));

        Assert.Contains($"is {path.Length} bytes long, and the kernel's limit is 107 bytes", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_longest_path_works()
    {
        string path = Path.Combine(_directory, new string('x', 106 - _directory.Length));
        Assert.Equal(UnixAddress.MaxPathLength, path.Length);

        using VhostUserListener listener = VhostUserListener.Bind(path);
        using VhostUserFrontend frontend = VhostUserFrontend.Connect(path);
    }

    [Fact]
    public void A_missing_directory_is_named()
    {
        IOException exception =
            Assert.Throws<IOException>(() => VhostUserListener.Bind(Path.Combine(_directory, "no", "s")));

        Assert.Contains($"there is no directory '{Path.Combine(_directory, "no")}'", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_listening_socket_of_somebody_else_is_adopted_and_not_removed()
    {
        SafeFileHandle socket = BindRaw(SocketPath);
        Sockets.Listen((int)socket.DangerousGetHandle(), 1).ThrowIfError("listen");
        int descriptor = (int)socket.DangerousGetHandle();
        socket.SetHandleAsInvalid();

        using (VhostUserListener listener = VhostUserListener.Adopt(descriptor))
        {
            using VhostUserFrontend frontend = VhostUserFrontend.Connect(SocketPath);
            using SafeFileHandle? connection = listener.Accept();
            Assert.NotNull(connection);
        }

        Assert.True(File.Exists(SocketPath));
    }

    [Fact]
    public void What_does_not_listen_is_not_adopted()
    {
        using SafeFileHandle handle = Events.CreateEvent();
        (SafeFileHandle first, SafeFileHandle second) = BackendRig.SocketPair();
        using SafeFileHandle datagram = new(
            Sockets.Socket(SocketDomain.Unix, SocketType.Datagram).Descriptor, ownsHandle: true);

        AssertRefused("is not open", 1_000_000);
        AssertRefused("is not a socket", (int)handle.DangerousGetHandle());
        AssertRefused("does not listen", (int)first.DangerousGetHandle());
        AssertRefused("is not a stream socket", (int)datagram.DangerousGetHandle());
        first.Dispose();
        second.Dispose();

        static void AssertRefused(string complaint, int descriptor) => Assert.Contains(
            $"descriptor {descriptor} {complaint}",
            Assert.Throws<IOException>(() => VhostUserListener.Adopt(descriptor)).Message, StringComparison.Ordinal);
    }

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    private static SafeFileHandle BindRaw(string path)
    {
        SafeFileHandle socket = new(
            Sockets.Socket(SocketDomain.Unix, SocketType.Stream).ThrowIfError("socket").Descriptor, ownsHandle: true);
        Sockets.Bind((int)socket.DangerousGetHandle(), UnixAddress.FromPath(path)).ThrowIfError("bind");
        return socket;
    }
}
