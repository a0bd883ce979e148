using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Extensions.Logging;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Backend;

/// <summary>One front end's connection: answers its requests and keeps the device's rings and memory as it asks.</summary>
/// <remarks>
/// <para>Everything here belongs to the thread that calls <see cref="Run"/>, except <see cref="Stop"/>.</para>
/// <para>A request that makes no sense is refused: with an error acknowledgement where the front end waits for one, else by
/// ending the connection, because there is no other way to tell it. After every request each ring is looked at again: a
/// ring that is started, enabled and described runs, whatever order the pieces came in; front ends differ in that.</para>
/// </remarks>
public sealed partial class VhostUserBackend : IDisposable
{
    private const VhostUserHeaderFlags ReplyFlags = VhostUserHeaderFlags.Version1 | VhostUserHeaderFlags.Reply;

    private readonly MessageSocket _socket;
    private readonly IVhostUserDevice _device;
    private readonly ILogger _logger;
    private readonly Ring[] _rings;
    private readonly HashSet<VhostUserRequest> _reported = [];
    private readonly byte[] _message = new byte[VhostUserHeader.Length + RequestMessage.MaxPayload];
    private readonly byte[] _reply = new byte[VhostUserHeader.Length + RequestMessage.MaxPayload];

    private VirtioFeatures? _features;
    private VhostUserProtocolFeatures _protocolFeatures;
    private GuestMemory _memory = GuestMemory.CreateEmpty();
    private DirtyLog? _log;
    private volatile bool _isStopping;

    /// <summary>Makes the back end of a connection.</summary>
    /// <param name="socket">The connected stream socket; owned from here on.</param>
    /// <param name="device">The device; it stays the caller's.</param>
    /// <param name="logger">Where violations and, at debug level, the life of the connection are logged.</param>
    public VhostUserBackend(SafeFileHandle socket, IVhostUserDevice device, ILogger logger)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(device.QueueCount, nameof(device));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(device.QueueCount, 256, nameof(device));
        _socket = new MessageSocket(socket);
        _device = device;
        _logger = logger;
        _rings = new Ring[device.QueueCount];
        for (int i = 0; i < _rings.Length; i++)
        {
            _rings[i] = new Ring();
        }
    }

    /// <summary>The channel for requests to the front end, or null as long as it has given none.</summary>
    public BackendChannel? Channel { get; private set; }

    /// <summary>The virtio features that are offered to the front end.</summary>
    public VirtioFeatures OfferedFeatures =>
        _device.DeviceFeatures | VirtioFeatures.LogAll | VirtioFeatures.ProtocolFeatures;

    /// <summary>The protocol features that are offered to the front end.</summary>
    public VhostUserProtocolFeatures OfferedProtocolFeatures =>
        VhostUserProtocolFeatures.MultipleQueues
        | VhostUserProtocolFeatures.LogSharedMemory
        | VhostUserProtocolFeatures.ReplyAcknowledge
        | VhostUserProtocolFeatures.BackendRequests
        | VhostUserProtocolFeatures.BackendSendsDescriptors
        | VhostUserProtocolFeatures.ResetDevice
        | MemoryFeatures
        | (_device.TakesFuseDevices ? VhostUserProtocolFeatures.FuseDevices : VhostUserProtocolFeatures.None)
        | (_device.ConfigSize > 0 ? VhostUserProtocolFeatures.Config : VhostUserProtocolFeatures.None);

    /// <summary>
    /// Serves the front end until it disconnects or <see cref="Stop"/> is called; then stops all rings, tells the device,
    /// and releases everything. To be called once.
    /// </summary>
    /// <exception cref="VhostUserException">The front end broke the protocol; the message says how.</exception>
    /// <exception cref="ErrnoException">A system call failed, for example for lack of descriptors.</exception>
    public void Run()
    {
        try
        {
            using DescriptorBatch descriptors = new();
            while (ReceiveAndHandle(descriptors))
            {
            }

            Log.Disconnected(_logger);
        }
        catch (VhostUserException) when (_isStopping)
        {
            // A message was cut off by Stop.
        }
        finally
        {
            Release();
        }
    }

    /// <summary>Makes <see cref="Run"/> return soon. May be called from any thread, at any time, repeatedly.</summary>
    public void Stop()
    {
        _isStopping = true;
        _socket.Shutdown();
    }

    /// <summary>Closes the connection of a back end that was never run. Otherwise <see cref="Run"/> has done it.</summary>
    public void Dispose() => _socket.Dispose();

    private bool ReceiveAndHandle(DescriptorBatch descriptors)
    {
        if (!_socket.ReceiveHeader(out VhostUserHeader header, descriptors))
        {
            return false;
        }

        ThrowIfFault(header, RequestMessage.CheckHeader(header));
        MemoryMarshal.Write(_message, header);
        int length = VhostUserHeader.Length + (int)header.Size;
        _socket.ReceiveRest(_message.AsSpan(VhostUserHeader.Length..length));
        RequestFault fault =
            RequestMessage.TryDecode(_message.AsSpan(0, length), descriptors.Count, out RequestMessage message);
        bool isAnswered = fault == RequestFault.UnsupportedRequest
            ? HandleUnsupported(message)
            : HandleOrThrow(header, fault, message, descriptors);
        descriptors.Dispose();
        return isAnswered;
    }

    private bool HandleOrThrow(
        VhostUserHeader header, RequestFault fault, in RequestMessage message, DescriptorBatch descriptors)
    {
        if (fault == RequestFault.UnknownRequest && WantsAcknowledgement(message))
        {
            return Refuse(message, "the protocol has no such request");
        }

        ThrowIfFault(header, fault);
        return IsQuestion(message.Request)
            ? Answer(message, descriptors)
            : Acknowledge(message, Apply(message, descriptors));
    }

    private static void ThrowIfFault(VhostUserHeader header, RequestFault fault)
    {
        if (fault != RequestFault.None)
        {
            throw new VhostUserException(
                $"the front end sent {VhostUserRequestNames.Of((VhostUserRequest)header.Request)} with flags "
                + $"0x{(uint)header.Flags:x} and {header.Size} bytes: {fault}");
        }
    }

    private static bool IsQuestion(VhostUserRequest request) => request is
        VhostUserRequest.GetFeatures
        or VhostUserRequest.GetProtocolFeatures
        or VhostUserRequest.GetQueueNum
        or VhostUserRequest.GetVringBase
        or VhostUserRequest.GetConfig
        or VhostUserRequest.GetMaxMemorySlots
        or VhostUserRequest.GetSharedMemoryConfig
        or VhostUserRequest.SetLogBase;

    /// <summary>Handles the requests that have a reply of their own. Without one the front end would wait for ever.</summary>
    private bool Answer(in RequestMessage message, DescriptorBatch descriptors)
    {
        switch (message.Request)
        {
            case VhostUserRequest.GetFeatures:
                return Reply(message.Request, (ulong)OfferedFeatures);

            case VhostUserRequest.GetProtocolFeatures:
                return Reply(message.Request, (ulong)OfferedProtocolFeatures);

            case VhostUserRequest.GetQueueNum:
                Demand(message.Request, VhostUserProtocolFeatures.MultipleQueues);
                return Reply(message.Request, (ulong)_rings.Length);

            case VhostUserRequest.GetMaxMemorySlots:
                Demand(message.Request, VhostUserProtocolFeatures.ConfigureMemorySlots);
                return Reply(message.Request, (ulong)OfferedMemorySlots);

            case VhostUserRequest.GetSharedMemoryConfig:
                return AnswerSharedMemoryConfig();

            case VhostUserRequest.GetVringBase:
                return Reply(message.Request, StopRing(message.State));

            case VhostUserRequest.GetConfig:
                Demand(message.Request, VhostUserProtocolFeatures.Config);
                return AnswerConfig(message.Config);

            default:
                Debug.Assert(message.Request == VhostUserRequest.SetLogBase, "IsQuestion lists the requests above");
                Demand(message.Request, VhostUserProtocolFeatures.LogSharedMemory);
                SetLog(message, descriptors);
                return Reply(message.Request, 0UL);
        }
    }

    /// <summary>Handles the requests that are acknowledged at most.</summary>
    /// <returns>Null, or why the request was refused.</returns>
    private string? Apply(in RequestMessage message, DescriptorBatch descriptors)
    {
        switch (message.Request)
        {
            case VhostUserRequest.SetOwner:
            case VhostUserRequest.ResetOwner:
            case VhostUserRequest.SetLogEvent:
                // The first two have no effect here. The log event is a courtesy that no front end waits for.
                return null;

            case VhostUserRequest.SetFeatures:
                return SetFeatures((VirtioFeatures)message.Word);
            case VhostUserRequest.SetProtocolFeatures:
                return SetProtocolFeatures((VhostUserProtocolFeatures)message.Word);
            case VhostUserRequest.SetVringNum:
                return SetRingSize(message.State);
            case VhostUserRequest.SetVringBase:
                return SetRingBase(message.State);
            case VhostUserRequest.SetVringAddress:
                return SetRingAddresses(message.Addresses);
            case VhostUserRequest.SetVringEnable:
                return EnableRing(message.State);
            case VhostUserRequest.SetVringKick:
            case VhostUserRequest.SetVringCall:
            case VhostUserRequest.SetVringError:
                return SetRingEvent(message, descriptors);
            case VhostUserRequest.SetMemoryTable:
                return SetMemoryTable(message, descriptors);
            case VhostUserRequest.AddMemoryRegion:
                return AddRegion(message.Region, descriptors);
            case VhostUserRequest.RemoveMemoryRegion:
                return RemoveRegion(message.Region);
            case VhostUserRequest.SetBackendRequestChannel:
                return SetChannel(descriptors);
            case VhostUserRequest.AddFuseDevice:
                return AddFuseDevice(message.FuseDevice, descriptors);
            case VhostUserRequest.SetConfig:
                return SetConfig(message.Config);
            default:
                Debug.Assert(message.Request == VhostUserRequest.ResetDevice, "the decoder knows no other request");
                return ResetDevice();
        }
    }

    /// <summary>
    /// Brings the rings up to date and answers a request as REPLY_ACK says. Whether it was negotiated is asked before the
    /// request takes effect, so SET_PROTOCOL_FEATURES itself is never acknowledged the first time.
    /// </summary>
    private bool Acknowledge(in RequestMessage message, string? refusal)
    {
        StartReadyRings();
        bool isWanted = WantsAcknowledgement(message) && !_isFirstProtocolNegotiation;
        _isFirstProtocolNegotiation = false;
        if (refusal is null)
        {
            return !isWanted || Reply(message.Request, 0UL);
        }

        if (!isWanted && message.Request != VhostUserRequest.SetConfig)
        {
            throw new VhostUserException($"the front end's {VhostUserRequestNames.Of(message.Request)}: {refusal}");
        }

        // A refused write to the configuration may be the guest's doing, which must not cost the connection.
        return isWanted ? Refuse(message, refusal) : Report(message.Request, refusal);
    }

    private bool HandleUnsupported(in RequestMessage message)
    {
        string name = VhostUserRequestNames.Of(message.Request);
        if (VhostUserRequestNames.HasReply(message.Request))
        {
            throw new VhostUserException($"the front end sent {name}, which needs a feature that was not offered");
        }

        if (WantsAcknowledgement(message))
        {
            return Refuse(message, "it needs a feature that was not offered");
        }

        Log.RequestIgnored(_logger, name);
        return true;
    }

    private bool WantsAcknowledgement(in RequestMessage message) =>
        message.NeedsReply && (_protocolFeatures & VhostUserProtocolFeatures.ReplyAcknowledge) != 0;

    private bool Refuse(in RequestMessage message, string reason)
    {
        Report(message.Request, reason);
        return Reply(message.Request, 1UL);
    }

    private bool Report(VhostUserRequest request, string reason)
    {
        // Once per kind: whoever lies once lies often. The set is bounded by the requests that the protocol has.
        VhostUserRequest kind = Enum.IsDefined(request) ? request : VhostUserRequest.None;
        if (_reported.Add(kind))
        {
            Log.RequestRefused(_logger, VhostUserRequestNames.Of(request), reason);
        }

        return true;
    }

    private void Demand(VhostUserRequest request, VhostUserProtocolFeatures feature)
    {
        if ((_protocolFeatures & feature) == 0)
        {
            throw new VhostUserException(
                $"the front end sent {VhostUserRequestNames.Of(request)} without having negotiated {feature}");
        }
    }

    private bool Reply<T>(VhostUserRequest request, T payload)
        where T : unmanaged
    {
        MemoryMarshal.Write(_reply.AsSpan(VhostUserHeader.Length), payload);
        return SendReply(request, Unsafe.SizeOf<T>());
    }

    private bool SendReply(VhostUserRequest request, int payloadLength)
    {
        MemoryMarshal.Write(_reply, new VhostUserHeader((uint)request, ReplyFlags, (uint)payloadLength));
        return _socket.Send(_reply.AsSpan(0, VhostUserHeader.Length + payloadLength), []);
    }
}
