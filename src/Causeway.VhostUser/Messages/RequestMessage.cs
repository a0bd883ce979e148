using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.VhostUser.Backend;

namespace Causeway.VhostUser.Messages;

/// <summary>
/// A request of the front end, checked for everything that can be told from its bytes alone: flags, sizes, counts.
/// Decoding is separate from sockets and from state, so that random bytes can be thrown at it.
/// </summary>
/// <remarks>
/// <see cref="TryDecode"/> is the only way to a useful value; each accessor belongs to the requests named at it and
/// relies on the size that was checked for them.
/// </remarks>
public readonly ref struct RequestMessage
{
    /// <summary>
    /// The longest payload, in bytes. SET_MEM_TABLE with 32 regions has 1032 and GET_CONFIG at most this; the other
    /// implementations have the same limit.
    /// </summary>
    public const int MaxPayload = 4096;

    /// <summary>The most descriptors a request can have: the most regions of one SET_MEM_TABLE.</summary>
    public const int MaxDescriptors = 32;

    private readonly ReadOnlySpan<byte> _payload;

    private RequestMessage(VhostUserHeader header, ReadOnlySpan<byte> payload)
    {
        Request = (VhostUserRequest)header.Request;
        NeedsReply = (header.Flags & VhostUserHeaderFlags.NeedReply) != 0;
        _payload = payload;
    }

    /// <summary>What is asked.</summary>
    public VhostUserRequest Request { get; }

    /// <summary>NEED_REPLY; it counts only once REPLY_ACK has been negotiated.</summary>
    public bool NeedsReply { get; }

    /// <summary>SET_FEATURES, SET_PROTOCOL_FEATURES: the bits.</summary>
    public ulong Word => Read<ulong>(0);

    /// <summary>SET_VRING_NUM, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_ENABLE: the ring and its number.</summary>
    public VringState State => Read<VringState>(0);

    /// <summary>SET_VRING_ADDR: the places of a ring.</summary>
    public VringAddresses Addresses => Read<VringAddresses>(0);

    /// <summary>SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR: the ring.</summary>
    public VringEventWord Event => Read<VringEventWord>(0);

    /// <summary>ADD_MEM_REG, REM_MEM_REG: the region.</summary>
    public MemoryRegionEntry Region => Read<SingleMemoryRegion>(0).Region;

    /// <summary>SET_MEM_TABLE: how many regions there are.</summary>
    public int RegionCount => (int)Read<MemoryTableHeader>(0).Count;

    /// <summary>SET_LOG_BASE: the area of the log, unless the request has the form without LOG_SHMFD.</summary>
    public LogArea? Log => _payload.Length == Unsafe.SizeOf<LogArea>() ? Read<LogArea>(0) : null;

    /// <summary>GET_CONFIG, SET_CONFIG: which part of the configuration space.</summary>
    public ConfigHeader Config => Read<ConfigHeader>(0);

    /// <summary>SET_CONFIG: the bytes.</summary>
    public ReadOnlySpan<byte> ConfigBytes => _payload[ConfigHeader.Length..];

    /// <summary>ADD_FUSE_DEVICE: how the connection is to be served.</summary>
    public FuseDeviceDescription FuseDevice => Read<FuseDeviceDescription>(0);

    /// <summary>SET_MEM_TABLE: one of the regions.</summary>
    /// <param name="index">Which, below <see cref="RegionCount"/>.</param>
    public MemoryRegionEntry RegionAt(int index) =>
        Read<MemoryRegionEntry>(Unsafe.SizeOf<MemoryTableHeader>() + (index * Unsafe.SizeOf<MemoryRegionEntry>()));

    /// <summary>Checks the header alone, before its payload is read.</summary>
    /// <param name="header">The header.</param>
    /// <returns><see cref="RequestFault.None"/>, or what is wrong.</returns>
    public static RequestFault CheckHeader(VhostUserHeader header)
    {
        const VhostUserHeaderFlags VersionMask = (VhostUserHeaderFlags)0x3;
        const VhostUserHeaderFlags Known = VersionMask | VhostUserHeaderFlags.Reply | VhostUserHeaderFlags.NeedReply;
        return header switch
        {
            _ when (header.Flags & VersionMask) != VhostUserHeaderFlags.Version1 =>
                RequestFault.WrongVersion,
            _ when (header.Flags & VhostUserHeaderFlags.Reply) != 0 => RequestFault.IsReply,
            _ when (header.Flags & ~Known) != 0 => RequestFault.UnknownFlags,
            { Size: > MaxPayload } => RequestFault.TooLong,
            _ => RequestFault.None,
        };
    }

    /// <summary>Decodes and checks a request.</summary>
    /// <param name="bytes">The header and the payload, and nothing behind it. The message refers to these bytes.</param>
    /// <param name="descriptorCount">How many descriptors came with it.</param>
    /// <param name="message">
    /// The request. Also set, with nothing but <see cref="Request"/> and <see cref="NeedsReply"/> to be used, when the
    /// result is <see cref="RequestFault.UnknownRequest"/> or <see cref="RequestFault.UnsupportedRequest"/>.
    /// </param>
    /// <returns><see cref="RequestFault.None"/>, or what is wrong.</returns>
    public static RequestFault TryDecode(ReadOnlySpan<byte> bytes, int descriptorCount, out RequestMessage message)
    {
        message = default;
        if (bytes.Length < VhostUserHeader.Length)
        {
            return RequestFault.Incomplete;
        }

        VhostUserHeader header = MemoryMarshal.Read<VhostUserHeader>(bytes);
        RequestFault fault = CheckHeader(header);
        if (fault != RequestFault.None)
        {
            return fault;
        }

        ReadOnlySpan<byte> payload = bytes[VhostUserHeader.Length..];
        if (payload.Length != header.Size)
        {
            return RequestFault.Incomplete;
        }

        message = new RequestMessage(header, payload);
        return message.CheckShape(descriptorCount);
    }

    private RequestFault CheckShape(int descriptorCount)
    {
        switch (Request)
        {
            case VhostUserRequest.GetFeatures:
            case VhostUserRequest.SetOwner:
            case VhostUserRequest.ResetOwner:
            case VhostUserRequest.GetProtocolFeatures:
            case VhostUserRequest.GetQueueNum:
            case VhostUserRequest.ResetDevice:
            case VhostUserRequest.GetMaxMemorySlots:
            case VhostUserRequest.GetSharedMemoryConfig:
                return Shape(0, 0, descriptorCount);

            case VhostUserRequest.SetLogEvent:
            case VhostUserRequest.SetBackendRequestChannel:
                return Shape(0, 1, descriptorCount);

            case VhostUserRequest.SetFeatures:
            case VhostUserRequest.SetProtocolFeatures:
            case VhostUserRequest.SetVringNum:
            case VhostUserRequest.SetVringBase:
            case VhostUserRequest.GetVringBase:
            case VhostUserRequest.SetVringEnable:
                return Shape(sizeof(ulong), 0, descriptorCount);

            case VhostUserRequest.SetVringKick:
            case VhostUserRequest.SetVringCall:
            case VhostUserRequest.SetVringError:
                return Shape(
                    sizeof(ulong),
                    _payload.Length == sizeof(ulong) && Event.HasDescriptor ? 1 : 0,
                    descriptorCount);

            case VhostUserRequest.SetVringAddress:
                return Shape(Unsafe.SizeOf<VringAddresses>(), 0, descriptorCount);

            case VhostUserRequest.AddFuseDevice:
                return Shape(Unsafe.SizeOf<FuseDeviceDescription>(), FuseDeviceSetup.Descriptors, descriptorCount);

            case VhostUserRequest.AddMemoryRegion:
                return Shape(Unsafe.SizeOf<SingleMemoryRegion>(), 1, descriptorCount);

            case VhostUserRequest.RemoveMemoryRegion:
                // The document says no descriptor; some front ends send the region's all the same.
                return Shape(Unsafe.SizeOf<SingleMemoryRegion>(), descriptorCount == 1 ? 1 : 0, descriptorCount);

            case VhostUserRequest.SetLogBase:
                return _payload.Length == sizeof(ulong)
                    ? Shape(sizeof(ulong), 0, descriptorCount)
                    : Shape(Unsafe.SizeOf<LogArea>(), 1, descriptorCount);

            case VhostUserRequest.SetMemoryTable:
                return CheckTable(descriptorCount);

            case VhostUserRequest.GetConfig:
            case VhostUserRequest.SetConfig:
                return _payload.Length < ConfigHeader.Length
                    ? RequestFault.WrongSize
                    : Shape(ConfigHeader.Length + (long)Config.Size, 0, descriptorCount);

            default:
                return (uint)Request is > 0 and <= 44 ? RequestFault.UnsupportedRequest : RequestFault.UnknownRequest;
        }
    }

    private RequestFault Shape(long size, int descriptors, int descriptorCount) =>
        _payload.Length != size ? RequestFault.WrongSize
        : descriptorCount != descriptors ? RequestFault.WrongDescriptorCount
        : RequestFault.None;

    private RequestFault CheckTable(int descriptorCount)
    {
        int header = Unsafe.SizeOf<MemoryTableHeader>();
        if (_payload.Length < header)
        {
            return RequestFault.WrongSize;
        }

        uint count = Read<MemoryTableHeader>(0).Count;
        return count > MaxDescriptors
            ? RequestFault.WrongDescriptorCount
            : Shape(header + (count * (long)Unsafe.SizeOf<MemoryRegionEntry>()), (int)count, descriptorCount);
    }

    private T Read<T>(int offset)
        where T : unmanaged
    {
        Debug.Assert(offset + Unsafe.SizeOf<T>() <= _payload.Length, "the size was checked when the request was decoded");
        return MemoryMarshal.Read<T>(_payload[offset..]);
    }
}
