using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Backend;

/// <summary>Features, configuration space, reset, the channel, and the end of the connection.</summary>
public sealed partial class VhostUserBackend
{
    private bool _isFirstProtocolNegotiation;

    private string? SetFeatures(VirtioFeatures features)
    {
        if ((features & ~OfferedFeatures) != 0)
        {
            return $"the bits 0x{(ulong)(features & ~OfferedFeatures):x} were not offered";
        }

        const VirtioFeatures Changeable = VirtioFeatures.LogAll | VirtioFeatures.ProtocolFeatures;
        VirtioFeatures before = _features ?? VirtioFeatures.None;
        if (((features ^ before) & ~Changeable) != 0 && Array.Exists(_rings, ring => ring.IsRunning))
        {
            return "a ring is running";
        }

        _features = features;
        Log.FeaturesNegotiated(_logger, features);
        if ((features & VirtioFeatures.ProtocolFeatures) == 0)
        {
            // Without that bit there is no SET_VRING_ENABLE.
            foreach (Ring ring in _rings)
            {
                ring.IsEnabled = true;
            }
        }

        _device.OnFeaturesNegotiated(features);
        if (((features ^ before) & VirtioFeatures.LogAll) != 0)
        {
            Publish(_memory, _log, mustDrain: false);
        }

        return null;
    }

    private string? SetProtocolFeatures(VhostUserProtocolFeatures features)
    {
        if ((features & ~OfferedProtocolFeatures) != 0)
        {
            return $"the bits 0x{(ulong)(features & ~OfferedProtocolFeatures):x} were not offered";
        }

        _isFirstProtocolNegotiation = (_protocolFeatures & VhostUserProtocolFeatures.ReplyAcknowledge) == 0;
        _protocolFeatures = features;
        Log.ProtocolFeaturesNegotiated(_logger, features);
        OfferSharedMemory();
        return null;
    }

    private bool AnswerConfig(ConfigHeader part)
    {
        // The decoder compared the size with the message, so it is below its limit.
        int size = (int)part.Size;
        Span<byte> reply = _reply.AsSpan(VhostUserHeader.Length);
        if (size == 0 || part.Offset + (ulong)part.Size > RequestMessage.MaxPayload)
        {
            Report(VhostUserRequest.GetConfig, $"{size} bytes at {part.Offset} are not in any configuration space");
            return SendReply(VhostUserRequest.GetConfig, 0);
        }

        // What lies behind the fields reads as zero: some front ends ask for more than the device has.
        Span<byte> bytes = reply.Slice(ConfigHeader.Length, size);
        bytes.Clear();
        int offset = (int)part.Offset;
        int available = Math.Clamp(_device.ConfigSize - offset, 0, size);
        if (available > 0)
        {
            _device.ReadConfig(offset, bytes[..available]);
        }

        MemoryMarshal.Write(reply, part);
        return SendReply(VhostUserRequest.GetConfig, ConfigHeader.Length + size);
    }

    private static string? SetConfig(ConfigHeader part) =>
        part.Flags == ConfigFlags.Migration ? null : "no field of the configuration space is writable";

    private string? ResetDevice()
    {
        StopRunningRings();
        foreach (Ring ring in _rings)
        {
            ring.Reset();
        }

        _device.Reset();
        return null;
    }

    private string? SetChannel(DescriptorBatch descriptors)
    {
        if ((_protocolFeatures & VhostUserProtocolFeatures.BackendRequests) == 0)
        {
            return "BACKEND_REQ was not negotiated";
        }

        SafeFileHandle socket = descriptors.Take(0);
        int descriptor = (int)socket.DangerousGetHandle();
        if (Sockets.Getsockopt(descriptor, SocketOption.Domain).RawValue != (nint)SocketDomain.Unix
            || Sockets.Getsockopt(descriptor, SocketOption.Type).RawValue != (nint)SocketType.Stream)
        {
            socket.Dispose();
            return "the descriptor is not a Unix stream socket";
        }

        BackendChannel? old = Channel;
        Channel = new BackendChannel(socket);
        OfferSharedMemory();
        old?.Dispose();
        return null;
    }

    private string? AddFuseDevice(FuseDeviceDescription description, DescriptorBatch descriptors)
    {
        if ((_protocolFeatures & VhostUserProtocolFeatures.FuseDevices) == 0)
        {
            return "FUSE_DEVICES was not negotiated";
        }

        var setup = new FuseDeviceSetup
        {
            Looking = descriptors.Take(0),
            Waiting = descriptors.Take(1),
            Ended = descriptors.Take(2),
            Description = description,
        };
        bool isValid = FuseDevice.IsDevice((int)setup.Looking.DangerousGetHandle())
            && FuseDevice.IsDevice((int)setup.Waiting.DangerousGetHandle()) && IsEvent(setup.Ended);
        if (isValid)
        {
            return _device.AddFuseDevice(setup);
        }

        setup.Dispose();
        return "the descriptors are not /dev/fuse twice and an eventfd";
    }

    /// <summary>The end of the connection, for whatever reason: nothing of the front end's stays.</summary>
    private void Release()
    {
        try
        {
            Channel?.Interrupt();
            StopRunningRings();
            Publish(GuestMemory.CreateEmpty(), log: null, mustDrain: true);
            _device.UpdateSharedMemory(null);
            _device.Disconnected();
        }
        finally
        {
            foreach (Ring ring in _rings)
            {
                ring.Dispose();
            }

            Channel?.Dispose();
            _socket.Dispose();
        }
    }
}
