namespace Causeway.Linux;

/// <summary>
/// Unix-domain sockets that carry descriptors. Each method is the system call of that name; its contract is the man page.
/// Sockets made here are close-on-exec.
/// </summary>
public static unsafe class Sockets
{
    /// <summary>The most descriptors that one message can carry (SCM_MAX_FD).</summary>
    public const int MaxDescriptors = 253;

    private const int SolSocket = 1;
    private const int ScmRights = 1;
    private const int CloseOnExec = 0x80000;
    private const int MsgControlTruncated = 0x8;
    private const int MsgNoSignal = 0x4000;
    private const int MsgCloseOnExec = 0x40000000;

    /// <summary>socket(2).</summary>
    /// <param name="domain">The address family.</param>
    /// <param name="type">The type.</param>
    /// <returns>The socket; owned by the caller.</returns>
    public static SyscallResult Socket(SocketDomain domain, SocketType type) =>
        SyscallResult.From(Libc.socket((int)domain, (int)type | CloseOnExec, 0));

    /// <summary>socketpair(2) for Unix sockets.</summary>
    /// <param name="type">The type.</param>
    /// <param name="first">One end; owned by the caller.</param>
    /// <param name="second">The other end; owned by the caller.</param>
    public static SyscallResult Socketpair(SocketType type, out int first, out int second)
    {
        int* ends = stackalloc int[2] { -1, -1 };
        SyscallResult result = SyscallResult.From(
            Libc.socketpair((int)SocketDomain.Unix, (int)type | CloseOnExec, 0, ends));
        first = ends[0];
        second = ends[1];
        return result;
    }

    /// <summary>bind(2): creates the socket in the file system.</summary>
    /// <param name="descriptor">The socket.</param>
    /// <param name="address">The path.</param>
    public static SyscallResult Bind(int descriptor, in UnixAddress address)
    {
        fixed (UnixAddress* pointer = &address)
        {
            return SyscallResult.From(Libc.bind(descriptor, pointer, UnixAddress.Size));
        }
    }

    /// <summary>listen(2).</summary>
    /// <param name="descriptor">The socket.</param>
    /// <param name="backlog">How many connections may wait to be accepted.</param>
    public static SyscallResult Listen(int descriptor, int backlog) =>
        SyscallResult.From(Libc.listen(descriptor, backlog));

    /// <summary>accept4(2).</summary>
    /// <param name="descriptor">The listening socket.</param>
    /// <returns>The connection, close-on-exec; owned by the caller.</returns>
    public static SyscallResult Accept4(int descriptor)
    {
        while (true)
        {
            SyscallResult result = SyscallResult.From(Libc.accept4(descriptor, null, null, CloseOnExec));
            if (result.Error != Errno.EINTR)
            {
                return result;
            }
        }
    }

    /// <summary>connect(2).</summary>
    /// <param name="descriptor">The socket.</param>
    /// <param name="address">The path.</param>
    public static SyscallResult Connect(int descriptor, in UnixAddress address)
    {
        fixed (UnixAddress* pointer = &address)
        {
            while (true)
            {
                SyscallResult result = SyscallResult.From(Libc.connect(descriptor, pointer, UnixAddress.Size));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }

    /// <summary>shutdown(2). Wakes threads that wait on the socket.</summary>
    /// <param name="descriptor">The socket.</param>
    /// <param name="how">Which direction.</param>
    public static SyscallResult Shutdown(int descriptor, SocketShutdown how) =>
        SyscallResult.From(Libc.shutdown(descriptor, (int)how));

    /// <summary>getsockopt(2) for options of SOL_SOCKET that are a number.</summary>
    /// <param name="descriptor">The socket.</param>
    /// <param name="option">The option.</param>
    /// <returns>The option's value, or the error; ENOTSOCK for a descriptor that is no socket.</returns>
    public static SyscallResult Getsockopt(int descriptor, SocketOption option)
    {
        int value = 0;
        uint length = sizeof(int);
        SyscallResult result = SyscallResult.From(
            Libc.getsockopt(descriptor, SolSocket, (int)option, &value, &length));
        return result.IsError ? result : new SyscallResult(value);
    }

    /// <summary>
    /// getsockopt(2) with SO_MEMINFO: how much memory of the kernel's holds what was sent on a Unix socket and has not been read
    /// by its other end yet. More than the bytes themselves, and zero once they are read.
    /// </summary>
    /// <param name="descriptor">The socket.</param>
    public static SyscallResult Unread(int descriptor)
    {
        // SK_MEMINFO_WMEM_ALLOC is the third of nine or more numbers (linux/sock_diag.h); a kernel with more tells the first ones.
        const int Count = 9;
        const int WriteMemory = 2;
        uint* numbers = stackalloc uint[Count];
        uint length = Count * sizeof(uint);
        SyscallResult result = SyscallResult.From(
            Libc.getsockopt(descriptor, SolSocket, (int)SocketOption.MemoryInformation, numbers, &length));
        return result.IsError ? result : new SyscallResult((nint)numbers[WriteMemory]);
    }

    /// <summary>recvmsg(2): receives bytes and the descriptors that came with them.</summary>
    /// <param name="descriptor">The socket.</param>
    /// <param name="data">Where the bytes go.</param>
    /// <param name="descriptors">
    /// Where descriptors go, close-on-exec and owned by the caller. May be empty: the kernel then drops what arrives.
    /// </param>
    /// <param name="control">How many descriptors arrived, and whether some were dropped for lack of room.</param>
    /// <returns>How many bytes arrived; 0 when the peer has closed.</returns>
    public static SyscallResult Recvmsg(
        int descriptor, Span<byte> data, Span<int> descriptors, out ReceivedControl control)
    {
        control = default;

        // Exactly CMSG_LEN bytes, not CMSG_SPACE: the padding of an odd count would have room for one more descriptor.
        int room = Math.Min(descriptors.Length, MaxDescriptors);
        nuint controlLength = room == 0 ? 0 : (nuint)(sizeof(Libc.ControlHeader) + (room * sizeof(int)));
        ulong* buffer = stackalloc ulong[(sizeof(Libc.ControlHeader) + (MaxDescriptors * sizeof(int)) + 7) / 8];
        fixed (byte* bytes = data)
        {
            while (true)
            {
                IoVector vector = new(bytes, (nuint)data.Length);
                Libc.MessageHeader message = new()
                {
                    Vectors = &vector,
                    VectorCount = 1,
                    Control = room == 0 ? null : buffer,
                    ControlLength = controlLength,
                };
                SyscallResult result = SyscallResult.From(Libc.recvmsg(descriptor, &message, MsgCloseOnExec));
                if (result.Error == Errno.EINTR)
                {
                    continue;
                }

                if (!result.IsError)
                {
                    int count = room == 0 ? 0 : TakeDescriptors((byte*)buffer, message.ControlLength, descriptors);
                    control = new ReceivedControl(count, (message.Flags & MsgControlTruncated) != 0);
                }

                return result;
            }
        }
    }

    /// <summary>sendmsg(2): sends bytes, and descriptors with the first of them. Never raises SIGPIPE.</summary>
    /// <param name="descriptor">The socket.</param>
    /// <param name="data">The bytes; at least one when there are descriptors.</param>
    /// <param name="descriptors">The descriptors; they stay the caller's. At most <see cref="MaxDescriptors"/>.</param>
    /// <returns>How many bytes were taken.</returns>
    public static SyscallResult Sendmsg(int descriptor, ReadOnlySpan<byte> data, ReadOnlySpan<int> descriptors)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, MaxDescriptors);
        ulong* buffer = stackalloc ulong[(sizeof(Libc.ControlHeader) + (MaxDescriptors * sizeof(int)) + 7) / 8];
        nuint length = (nuint)(sizeof(Libc.ControlHeader) + (descriptors.Length * sizeof(int)));
        *(Libc.ControlHeader*)buffer = new Libc.ControlHeader { Length = length, Level = SolSocket, Type = ScmRights };
        descriptors.CopyTo(new Span<int>((byte*)buffer + sizeof(Libc.ControlHeader), descriptors.Length));
        fixed (byte* bytes = data)
        {
            while (true)
            {
                IoVector vector = new(bytes, (nuint)data.Length);
                Libc.MessageHeader message = new()
                {
                    Vectors = &vector,
                    VectorCount = 1,
                    Control = descriptors.IsEmpty ? null : buffer,
                    ControlLength = descriptors.IsEmpty ? 0 : length,
                };
                SyscallResult result = SyscallResult.From(Libc.sendmsg(descriptor, &message, MsgNoSignal));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }

    /// <summary>Collects the descriptors of all SCM_RIGHTS messages; other control messages carry none.</summary>
    private static int TakeDescriptors(byte* control, nuint length, Span<int> descriptors)
    {
        // SAFETY: the kernel wrote `length` bytes of well-formed control messages into the buffer, none longer than the rest.
        int taken = 0;
        nuint offset = 0;
        while (offset + (nuint)sizeof(Libc.ControlHeader) <= length)
        {
            var header = (Libc.ControlHeader*)(control + offset);
            if (header->Level == SolSocket && header->Type == ScmRights)
            {
                int count = (int)(header->Length - (nuint)sizeof(Libc.ControlHeader)) / sizeof(int);
                new ReadOnlySpan<int>(header + 1, count).CopyTo(descriptors[taken..]);
                taken += count;
            }

            offset += (header->Length + 7) & ~(nuint)7;
        }

        return taken;
    }
}

/// <summary>What arrived beside the bytes of a message.</summary>
/// <param name="DescriptorCount">How many descriptors were received.</param>
/// <param name="IsTruncated">MSG_CTRUNC: there were more descriptors than room; the kernel dropped the rest.</param>
public readonly record struct ReceivedControl(int DescriptorCount, bool IsTruncated);

/// <summary>Address families of socket(2).</summary>
public enum SocketDomain
{
    /// <summary>AF_UNIX</summary>
    Unix = 1,
}

/// <summary>Types of socket(2).</summary>
public enum SocketType
{
    /// <summary>SOCK_STREAM</summary>
    Stream = 1,

    /// <summary>SOCK_DGRAM</summary>
    Datagram = 2,

    /// <summary>SOCK_SEQPACKET</summary>
    SequencedPacket = 5,

    /// <summary>SOCK_NONBLOCK: added to a type, calls on the socket do not wait.</summary>
    NonBlocking = 0x800,
}

/// <summary>Directions of shutdown(2).</summary>
public enum SocketShutdown
{
    /// <summary>SHUT_RD</summary>
    Read = 0,

    /// <summary>SHUT_WR</summary>
    Write = 1,

    /// <summary>SHUT_RDWR</summary>
    Both = 2,
}

/// <summary>Options of SOL_SOCKET, socket(7).</summary>
public enum SocketOption
{
    /// <summary>SO_TYPE: a <see cref="SocketType"/>.</summary>
    Type = 3,

    /// <summary>SO_ACCEPTCONN: 1 when the socket listens.</summary>
    AcceptsConnections = 30,

    /// <summary>SO_DOMAIN: a <see cref="SocketDomain"/>.</summary>
    Domain = 39,

    /// <summary>SO_MEMINFO: several numbers, see <see cref="Sockets.Unread"/>.</summary>
    MemoryInformation = 55,
}
