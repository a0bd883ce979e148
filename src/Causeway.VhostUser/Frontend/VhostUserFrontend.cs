using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Frontend;

/// <summary>
/// The front end's end of the control socket: one method for each request, and the sequences that start and stop a device.
/// </summary>
/// <remarks>
/// <para>Once REPLY_ACK is negotiated every request is acknowledged before its method returns. A refusal is a
/// <see cref="VhostUserRefusedException"/>; a back end that breaks the protocol, goes away, or takes longer than
/// <see cref="ReplyTimeout"/> is a <see cref="VhostUserException"/>, after which only disposing is left.</para>
/// <para>One thread at a time.</para>
/// </remarks>
public sealed partial class VhostUserFrontend : IDisposable
{
    private const VhostUserHeaderFlags ReplyFlags = VhostUserHeaderFlags.Version1 | VhostUserHeaderFlags.Reply;

    private readonly MessageSocket _socket;
    private readonly byte[] _message = new byte[VhostUserHeader.Length + RequestMessage.MaxPayload];

    /// <summary>Makes the front end of a connection, whoever connected to whom.</summary>
    /// <param name="socket">The connected stream socket; owned from here on.</param>
    public VhostUserFrontend(SafeFileHandle socket) => _socket = new MessageSocket(socket);

    /// <summary>The virtio features that were set last.</summary>
    public VirtioFeatures NegotiatedFeatures { get; private set; }

    /// <summary>The protocol features that were set last.</summary>
    public VhostUserProtocolFeatures NegotiatedProtocolFeatures { get; private set; }

    /// <summary>How long to wait for an answer. Default: 60 seconds, because stopping a ring waits for its requests.</summary>
    public TimeSpan ReplyTimeout { get; set; } = TimeSpan.FromSeconds(60);

    /// <summary>The control socket, to be polled for the end of the back end (POLLHUP) and for nothing else.</summary>
    public SafeFileHandle Socket => _socket.Handle;

    /// <summary>Whether the back end still has its end of the control socket open.</summary>
    public bool IsConnected =>
        (Poll.Now(Number(_socket.Handle), PollEvents.PeerClosed)
            & (PollEvents.PeerClosed | PollEvents.HangUp | PollEvents.Error | PollEvents.Invalid)) == 0;

    /// <summary>Connects to a back end.</summary>
    /// <param name="path">Where it listens.</param>
    /// <exception cref="ErrnoException">Nobody listens there, or the path is not accessible.</exception>
    /// <exception cref="ArgumentException">The path cannot be that of a socket.</exception>
    public static VhostUserFrontend Connect(string path)
    {
        UnixAddress address = UnixAddress.FromPath(path);
        SafeFileHandle socket = new(
            Sockets.Socket(SocketDomain.Unix, SocketType.Stream).ThrowIfError("create a socket").Descriptor,
            ownsHandle: true);
        SyscallResult result = Sockets.Connect(Number(socket), address);
        if (result.IsError)
        {
            socket.Dispose();
        }

        result.ThrowIfError($"connect to '{path}'");
        return new VhostUserFrontend(socket);
    }

    /// <summary>SET_OWNER.</summary>
    public void SetOwner() => Request(VhostUserRequest.SetOwner);

    /// <summary>GET_FEATURES.</summary>
    /// <returns>What the back end offers.</returns>
    public VirtioFeatures GetFeatures() => (VirtioFeatures)Ask<ulong>(VhostUserRequest.GetFeatures);

    /// <summary>SET_FEATURES.</summary>
    /// <param name="features">A subset of what is offered.</param>
    public void SetFeatures(VirtioFeatures features)
    {
        Request(VhostUserRequest.SetFeatures, (ulong)features);
        NegotiatedFeatures = features;
    }

    /// <summary>GET_PROTOCOL_FEATURES.</summary>
    /// <returns>What the back end offers.</returns>
    public VhostUserProtocolFeatures GetProtocolFeatures() =>
        (VhostUserProtocolFeatures)Ask<ulong>(VhostUserRequest.GetProtocolFeatures);

    /// <summary>SET_PROTOCOL_FEATURES. They count from the next request on.</summary>
    /// <param name="features">A subset of what is offered.</param>
    public void SetProtocolFeatures(VhostUserProtocolFeatures features)
    {
        Request(VhostUserRequest.SetProtocolFeatures, (ulong)features);
        NegotiatedProtocolFeatures = features;
    }

    /// <summary>GET_QUEUE_NUM.</summary>
    /// <returns>How many queues the device has, all kinds together.</returns>
    public int GetQueueNum() => Count(VhostUserRequest.GetQueueNum);

    /// <summary>GET_MAX_MEM_SLOTS.</summary>
    /// <returns>How many memory regions the back end takes.</returns>
    public int GetMaxMemorySlots() => Count(VhostUserRequest.GetMaxMemorySlots);

    /// <summary>GET_CONFIG.</summary>
    /// <param name="offset">Where to start in the configuration space.</param>
    /// <param name="destination">Filled completely.</param>
    /// <exception cref="VhostUserRefusedException">The back end has no such part.</exception>
    public void GetConfig(int offset, Span<byte> destination)
    {
        ConfigHeader part = new((uint)offset, (uint)destination.Length, ConfigFlags.None);
        WriteConfig(part, destination.Length).Clear();
        Send(VhostUserRequest.GetConfig, ConfigHeader.Length + destination.Length, []);
        int length = ReceiveReply(VhostUserRequest.GetConfig);
        if (length == 0)
        {
            throw new VhostUserRefusedException(VhostUserRequest.GetConfig, 0);
        }

        ConfigHeader answer = length < ConfigHeader.Length ? default : ReadPayload<ConfigHeader>();
        if (length != ConfigHeader.Length + destination.Length
            || (answer.Offset, answer.Size) != (part.Offset, part.Size))
        {
            throw Broken($"answered GET_CONFIG of {part.Size} bytes at {part.Offset} with {length} bytes");
        }

        _message.AsSpan(VhostUserHeader.Length + ConfigHeader.Length, destination.Length).CopyTo(destination);
    }

    /// <summary>SET_CONFIG.</summary>
    /// <param name="offset">Where to start in the configuration space.</param>
    /// <param name="source">The bytes.</param>
    /// <param name="flags">Who asks.</param>
    public void SetConfig(int offset, ReadOnlySpan<byte> source, ConfigFlags flags)
    {
        source.CopyTo(WriteConfig(new ConfigHeader((uint)offset, (uint)source.Length, flags), source.Length));
        SendAndConfirm(VhostUserRequest.SetConfig, ConfigHeader.Length + source.Length, []);
    }

    /// <summary>SET_BACKEND_REQ_FD.</summary>
    /// <param name="socket">The back end's end of the channel; it stays the caller's, who closes it afterwards.</param>
    public void SetBackendRequestChannel(SafeFileHandle socket) =>
        SendAndConfirm(VhostUserRequest.SetBackendRequestChannel, 0, [Number(socket)]);

    /// <summary>SET_MEM_TABLE: replaces all memory.</summary>
    /// <param name="regions">The regions, at most 8 for most back ends and 32 for all.</param>
    public void SetMemoryTable(params ReadOnlySpan<FrontendRegion> regions)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(regions.Length, RequestMessage.MaxDescriptors, nameof(regions));
        WritePayload(new MemoryTableHeader((uint)regions.Length, 0));
        Span<MemoryRegionEntry> entries = MemoryMarshal.Cast<byte, MemoryRegionEntry>(
            _message.AsSpan(VhostUserHeader.Length + Unsafe.SizeOf<MemoryTableHeader>()))[..regions.Length];
        Span<int> files = stackalloc int[regions.Length];
        for (int i = 0; i < regions.Length; i++)
        {
            entries[i] = Describe(regions[i].Range);
            files[i] = Number(regions[i].File);
        }

        SendAndConfirm(
            VhostUserRequest.SetMemoryTable,
            Unsafe.SizeOf<MemoryTableHeader>() + (regions.Length * Unsafe.SizeOf<MemoryRegionEntry>()),
            files);
    }

    /// <summary>ADD_MEM_REG.</summary>
    /// <param name="region">The region.</param>
    public void AddMemoryRegion(FrontendRegion region)
    {
        WritePayload(new SingleMemoryRegion(0, Describe(region.Range)));
        SendAndConfirm(
            VhostUserRequest.AddMemoryRegion, Unsafe.SizeOf<SingleMemoryRegion>(), [Number(region.File)]);
    }

    /// <summary>REM_MEM_REG.</summary>
    /// <param name="range">The region as it was added.</param>
    public void RemoveMemoryRegion(GuestMemoryRange range) =>
        Request(VhostUserRequest.RemoveMemoryRegion, new SingleMemoryRegion(0, Describe(range)));

    /// <summary>SET_LOG_BASE; on return the back end uses the log.</summary>
    /// <param name="file">The file that holds it; it stays the caller's.</param>
    /// <param name="area">Where it is in the file.</param>
    public void SetLogBase(SafeFileHandle file, LogArea area)
    {
        WritePayload(area);
        Send(VhostUserRequest.SetLogBase, Unsafe.SizeOf<LogArea>(), [Number(file)]);
        if ((NegotiatedProtocolFeatures & VhostUserProtocolFeatures.LogSharedMemory) != 0)
        {
            // The payload is a word of zero in QEMU's document and nothing in others.
            ReceiveReply(VhostUserRequest.SetLogBase);
        }
    }

    /// <summary>SET_VRING_NUM.</summary>
    /// <param name="index">The ring.</param>
    /// <param name="size">How many descriptors it has.</param>
    public void SetVringNum(int index, int size) =>
        Request(VhostUserRequest.SetVringNum, new VringState((uint)index, (uint)size));

    /// <summary>SET_VRING_BASE.</summary>
    /// <param name="index">The ring.</param>
    /// <param name="start">Where the ring starts.</param>
    public void SetVringBase(int index, uint start) =>
        Request(VhostUserRequest.SetVringBase, new VringState((uint)index, start));

    /// <summary>SET_VRING_ADDR.</summary>
    /// <param name="addresses">Where the ring is, and whether writes to its used ring are logged.</param>
    public void SetVringAddresses(VringAddresses addresses) => Request(VhostUserRequest.SetVringAddress, addresses);

    /// <summary>GET_VRING_BASE: stops a ring; on return none of its requests is in flight.</summary>
    /// <param name="index">The ring.</param>
    /// <returns>Where to start it again.</returns>
    public uint GetVringBase(int index)
    {
        WritePayload(new VringState((uint)index, 0));
        Send(VhostUserRequest.GetVringBase, Unsafe.SizeOf<VringState>(), []);
        VringState state = ReceiveReply<VringState>(VhostUserRequest.GetVringBase);
        bool isBase = state.Value <= ushort.MaxValue || (NegotiatedFeatures & VirtioFeatures.PackedRing) != 0;
        return state.Index == index && isBase
            ? state.Value
            : throw Broken($"answered GET_VRING_BASE of ring {index} with {state}");
    }

    /// <summary>SET_VRING_KICK: starts a ring.</summary>
    /// <param name="index">The ring.</param>
    /// <param name="kick">The event; it stays the caller's. Null asks the back end to poll.</param>
    public void SetVringKick(int index, SafeFileHandle? kick) => SendEvent(VhostUserRequest.SetVringKick, index, kick);

    /// <summary>SET_VRING_CALL.</summary>
    /// <param name="index">The ring.</param>
    /// <param name="call">The event; it stays the caller's. Null for none.</param>
    public void SetVringCall(int index, SafeFileHandle? call) => SendEvent(VhostUserRequest.SetVringCall, index, call);

    /// <summary>SET_VRING_ERR.</summary>
    /// <param name="index">The ring.</param>
    /// <param name="error">The event; it stays the caller's. Null for none.</param>
    public void SetVringError(int index, SafeFileHandle? error) =>
        SendEvent(VhostUserRequest.SetVringError, index, error);

    /// <summary>SET_VRING_ENABLE.</summary>
    /// <param name="index">The ring.</param>
    /// <param name="isEnabled">Whether it is enabled.</param>
    public void SetVringEnable(int index, bool isEnabled) =>
        Request(VhostUserRequest.SetVringEnable, new VringState((uint)index, isEnabled ? 1u : 0u));

    /// <summary>ADD_FUSE_DEVICE: has the device serve a FUSE connection of this host's kernel. All descriptors stay the caller's.</summary>
    /// <param name="looking">/dev/fuse of the connection, not blocking.</param>
    /// <param name="waiting">Another one of the same connection, blocking.</param>
    /// <param name="ended">An eventfd that the device signals when the connection has ended.</param>
    /// <param name="description">How the connection is to be served.</param>
    public void AddFuseDevice(
        SafeFileHandle looking, SafeFileHandle waiting, SafeFileHandle ended, FuseDeviceDescription description)
    {
        WritePayload(description);
        SendAndConfirm(
            VhostUserRequest.AddFuseDevice,
            Unsafe.SizeOf<FuseDeviceDescription>(),
            [Number(looking), Number(waiting), Number(ended)]);
    }

    /// <summary>RESET_DEVICE.</summary>
    public void ResetDevice() => Request(VhostUserRequest.ResetDevice);

    /// <summary>Closes the connection.</summary>
    public void Dispose()
    {
        _socket.Dispose();
        BackendRequests?.Dispose();
        _channel?.Dispose();
    }
}
