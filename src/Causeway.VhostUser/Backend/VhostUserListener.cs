using System.Text;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Backend;

/// <summary>A listening Unix socket at which front ends connect.</summary>
/// <remarks>
/// The errors of <see cref="Bind"/> and <see cref="Adopt"/> are written for the operator: one sentence with the path, the
/// reason, and what to do. <see cref="Accept"/> and <see cref="Stop"/> may be called from any thread, several at a time; the rest
/// belongs to one.
/// </remarks>
public sealed class VhostUserListener : IDisposable
{
    private const ushort FileTypeMask = 0xF000;
    private const ushort FileTypeSocket = 0xC000;
    private const uint OwnerOnly = 0b111_000_000;
    private const uint OwnerAndGroup = 0b111_111_000;

    /// <summary>A front end connects once; more than a few at the same time have nothing to wait for (arbitrary).</summary>
    private const int Backlog = 16;

    // RENAME_NOREPLACE of renameat2(2).
    private const uint NoReplace = 1;

    private readonly SafeFileHandle _socket;
    private readonly SafeFileHandle _stopEvent = Events.CreateEvent();

    // Which of several threads waits for the next front end. The socket may be somebody else's too, and then is not ours to make
    // non-blocking: a second thread that polls it would get stuck in accept(2).
    private readonly Lock _turn = new();
    private StatxBuffer _identity;

    private VhostUserListener(SafeFileHandle socket, string? path, in StatxBuffer identity)
    {
        _socket = socket;
        Path = path;
        _identity = identity;
    }

    /// <summary>Where the socket is in the file system, or null for one that was adopted.</summary>
    public string? Path { get; }

    /// <summary>The socket's number, for a program that is started and is to listen instead; it stays the listener's.</summary>
    public int Descriptor => (int)_socket.DangerousGetHandle();

    /// <summary>
    /// Creates a socket in the file system that only this process's user may use (mode 0700), and listens on it. A socket
    /// that a daemon left behind is replaced; one that somebody has bound, and anything else, is not touched.
    /// </summary>
    /// <param name="path">The path, at most <see cref="UnixAddress.MaxPathLength"/> bytes.</param>
    /// <param name="group">A group whose members may use the socket, too (mode 0770); null for none.</param>
    /// <exception cref="IOException">It cannot be done; the message says why and what to do.</exception>
    public static VhostUserListener Bind(string path, uint? group = null)
    {
        ThrowIfUnusable(path);
        RemoveIfStale(path, UnixAddress.FromPath(path));

        // Who waits for the socket to be there finds one that listens: until then it has another name, if one fits.
        string name = $"{path}.{Guid.NewGuid().ToString("N")[..8]}";
        name = Encoding.UTF8.GetByteCount(name) > UnixAddress.MaxPathLength ? path : name;
        SafeFileHandle socket = new(
            Sockets.Socket(SocketDomain.Unix, SocketType.Stream).ThrowIfError("create a socket").Descriptor,
            ownsHandle: true);
        try
        {
            // The kernel takes the mode of the new file from the socket. Unlike the umask, that is nobody else's.
            int descriptor = (int)socket.DangerousGetHandle();
            Files.Fchmod(descriptor, OwnerOnly).ThrowIfError("set the mode of a socket");
            Sockets.Bind(descriptor, UnixAddress.FromPath(name)).ThrowIfError($"create the socket '{path}'");
        }
        catch
        {
            socket.Dispose();
            throw;
        }

        var listener = new VhostUserListener(socket, path, default);
        try
        {
            listener.Listen(name, group);
            return listener;
        }
        catch
        {
            Files.Unlinkat(Files.WorkingDirectory, Terminated(name), AtFlags.None);
            listener.Dispose();
            throw;
        }
    }

    /// <summary>Takes over a socket that somebody else created, bound and listens on, as management programs pass it.</summary>
    /// <param name="descriptor">The descriptor; owned by the listener if the method succeeds.</param>
    /// <exception cref="IOException">It is no such socket; the message says why and what to do.</exception>
    public static VhostUserListener Adopt(int descriptor)
    {
        SyscallResult domain = Sockets.Getsockopt(descriptor, SocketOption.Domain);
        string? objection = domain switch
        {
            { Error: Errno.EBADF } => "is not open",
            { Error: Errno.ENOTSOCK } => "is not a socket",
            { IsError: true } => $"cannot be used ({domain.Error})",
            _ when domain.Count != (int)SocketDomain.Unix => "is not a Unix socket",
            _ when Sockets.Getsockopt(descriptor, SocketOption.Type).RawValue != (nint)SocketType.Stream =>
                "is not a stream socket",
            _ when Sockets.Getsockopt(descriptor, SocketOption.AcceptsConnections).RawValue != 1 =>
                "does not listen; pass a socket on which listen(2) was called, not a connection",
            _ => null,
        };
        return objection is null
            ? new VhostUserListener(new SafeFileHandle(descriptor, ownsHandle: true), path: null, default)
            : throw new IOException($"descriptor {descriptor} {objection}");
    }

    /// <summary>Waits for the next front end.</summary>
    /// <returns>The connection, owned by the caller; null after <see cref="Stop"/>.</returns>
    /// <exception cref="ErrnoException">A system call failed, for example for lack of descriptors.</exception>
    public SafeFileHandle? Accept()
    {
        lock (_turn)
        {
            return AcceptAlone();
        }
    }

    /// <summary>Makes <see cref="Accept"/> return null, now and from now on.</summary>
    public void Stop() => Events.Signal((int)_stopEvent.DangerousGetHandle());

    /// <summary>
    /// Removes the socket from the file system if it is still the one that was created. May be called from any thread.
    /// </summary>
    public void RemoveSocket()
    {
        if (Path is not null
            && !Status(Path, out StatxBuffer now).IsError
            && (now.Inode, now.DeviceMajor, now.DeviceMinor)
                == (_identity.Inode, _identity.DeviceMajor, _identity.DeviceMinor))
        {
            Files.Unlinkat(Files.WorkingDirectory, Terminated(Path), AtFlags.None);
        }
    }

    /// <summary>
    /// Closes the socket here, because another process listens on it now. It stays in the file system until
    /// <see cref="Dispose"/>.
    /// </summary>
    public void CloseSocket() => _socket.Dispose();

    /// <summary>Stops listening, and removes the socket as <see cref="RemoveSocket"/> does.</summary>
    public void Dispose()
    {
        if (_stopEvent.IsClosed)
        {
            return;
        }

        RemoveSocket();
        _socket.Dispose();
        _stopEvent.Dispose();
    }

    private SafeFileHandle? AcceptAlone()
    {
        Span<PollDescriptor> waits = stackalloc PollDescriptor[2];
        while (true)
        {
            waits[0] = new PollDescriptor((int)_socket.DangerousGetHandle(), PollEvents.Readable);
            waits[1] = new PollDescriptor((int)_stopEvent.DangerousGetHandle(), PollEvents.Readable);
            Poll.Wait(waits, Poll.Forever).ThrowIfError("wait for a front end");
            if (waits[1].Returned != PollEvents.None)
            {
                return null;
            }

            SyscallResult result = Sockets.Accept4((int)_socket.DangerousGetHandle());
            if (result.Error is Errno.EAGAIN or Errno.ECONNABORTED)
            {
                // Somebody else took it, or it is gone again.
                continue;
            }

            return new SafeFileHandle(result.ThrowIfError("accept a front end").Descriptor, ownsHandle: true);
        }
    }

    // Makes a socket that is bound under a name usable, and gives it the name it is to have.
    private void Listen(string name, uint? group)
    {
        Status(name, out _identity).ThrowIfError($"look at the socket '{name}'");
        if (group is { } id)
        {
            GiveTo(name, id);
        }

        Sockets.Listen(Descriptor, Backlog).ThrowIfError($"listen on '{Path}'");
        if (name != Path)
        {
            Files.Renameat2(
                Files.WorkingDirectory, Terminated(name), Files.WorkingDirectory, Terminated(Path!), NoReplace)
                .ThrowIfError($"create the socket '{Path}'");
        }
    }

    // First the group, then what it may do. By a descriptor, which is no symbolic link's target.
    private void GiveTo(string name, uint group)
    {
        const uint noChange = uint.MaxValue;
        using SafeFileHandle socket = new(
            Files.Openat(Files.WorkingDirectory, Terminated(name), OpenFlags.Path | OpenFlags.NoFollow | OpenFlags.CloseOnExec)
                .ThrowIfError($"open the socket '{Path}'").Descriptor,
            ownsHandle: true);
        int descriptor = (int)socket.DangerousGetHandle();
        SyscallResult result = Files.Fchown(descriptor, noChange, group);
        if (result.Error == Errno.EPERM)
        {
            throw new IOException(
                $"the socket '{Path}' cannot be given to group {group}; run the daemon as root, or as a member of that group");
        }

        result.ThrowIfError($"give the socket '{Path}' to group {group}");
        Files.Fchmodat(Files.WorkingDirectory, Terminated($"/proc/self/fd/{descriptor}"), OwnerAndGroup)
            .ThrowIfError($"let group {group} use the socket '{Path}'");
    }

    private static void ThrowIfUnusable(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        int length = Encoding.UTF8.GetByteCount(path);
        if (length > UnixAddress.MaxPathLength)
        {
            throw new IOException(
                $"the socket path '{path}' is {length} bytes long, and the kernel's limit is "
                + $"{UnixAddress.MaxPathLength} bytes; choose a shorter path");
        }

        string? directory = System.IO.Path.GetDirectoryName(path);
        if (!string.IsNullOrEmpty(directory) && !Directory.Exists(directory))
        {
            throw new IOException(
                $"the socket '{path}' cannot be created: there is no directory '{directory}'; "
                + "create it or choose another path");
        }
    }

    private static void RemoveIfStale(string path, in UnixAddress address)
    {
        SyscallResult status = Status(path, out StatxBuffer found);
        if (status.Error == Errno.ENOENT)
        {
            return;
        }

        status.ThrowIfError($"look at '{path}'");
        if ((found.Mode & FileTypeMask) != FileTypeSocket)
        {
            throw new IOException(
                $"the socket '{path}' cannot be created: something that is not a socket is there; "
                + "remove it or choose another path");
        }

        using SafeFileHandle probe = new(
            Sockets.Socket(SocketDomain.Unix, SocketType.Datagram).ThrowIfError("create a socket").Descriptor,
            ownsHandle: true);

        // A datagram socket, because a stream one would reach the daemon there, which may end when it disconnects. The
        // kernel looks for the owner first (ECONNREFUSED) and compares the types then (EPROTOTYPE).
        SyscallResult result = Sockets.Connect((int)probe.DangerousGetHandle(), address);
        if (result.Error != Errno.ECONNREFUSED)
        {
            throw new IOException(
                result.Error == Errno.EACCES
                    ? $"the socket '{path}' belongs to another user; choose another path"
                    : $"the socket '{path}' is in use by another program; end it or choose another path");
        }

        Files.Unlinkat(Files.WorkingDirectory, Terminated(path), AtFlags.None).ThrowIfError($"remove the old socket '{path}'");
    }

    private static SyscallResult Status(string path, out StatxBuffer status) =>
        Files.Statx(Files.WorkingDirectory, Terminated(path), AtFlags.NoFollow, StatxMask.Basic, out status);

    private static byte[] Terminated(string path) => Encoding.UTF8.GetBytes(path + "\0");
}
