using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Frontend;

/// <summary>Sending requests, and matching answers to them.</summary>
public sealed partial class VhostUserFrontend
{
    private Span<byte> Payload => _message.AsSpan(VhostUserHeader.Length);

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    private static MemoryRegionEntry Describe(GuestMemoryRange range) =>
        new(range.GuestBase, range.Size, range.FrontendBase, range.FileOffset);

    private void Request(VhostUserRequest request) => SendAndConfirm(request, 0, []);

    private void Request<T>(VhostUserRequest request, T payload)
        where T : unmanaged
    {
        WritePayload(payload);
        SendAndConfirm(request, Unsafe.SizeOf<T>(), []);
    }

    private T Ask<T>(VhostUserRequest request)
        where T : unmanaged
    {
        Send(request, 0, []);
        return ReceiveReply<T>(request);
    }

    private int Count(VhostUserRequest request)
    {
        ulong count = Ask<ulong>(request);
        return count <= int.MaxValue
            ? (int)count
            : throw Broken($"answered {VhostUserRequestNames.Of(request)} with 0x{count:x}");
    }

    private void SendEvent(VhostUserRequest request, int index, SafeFileHandle? handle)
    {
        WritePayload(VringEventWord.For(index, handle is not null));
        SendAndConfirm(request, Unsafe.SizeOf<VringEventWord>(), handle is null ? [] : [Number(handle)]);
    }

    private void SendAndConfirm(VhostUserRequest request, int payloadLength, ReadOnlySpan<int> descriptors)
    {
        bool isConfirmed = (NegotiatedProtocolFeatures & VhostUserProtocolFeatures.ReplyAcknowledge) != 0;
        Send(request, payloadLength, descriptors, isConfirmed);
        if (isConfirmed)
        {
            ulong code = ReceiveReply<ulong>(request);
            if (code != 0)
            {
                throw new VhostUserRefusedException(request, code);
            }
        }
    }

    private void Send(
        VhostUserRequest request, int payloadLength, ReadOnlySpan<int> descriptors, bool needsReply = false)
    {
        VhostUserHeaderFlags flags = VhostUserHeaderFlags.Version1
            | (needsReply ? VhostUserHeaderFlags.NeedReply : VhostUserHeaderFlags.None);
        MemoryMarshal.Write(_message, new VhostUserHeader((uint)request, flags, (uint)payloadLength));
        if (!_socket.Send(_message.AsSpan(0, VhostUserHeader.Length + payloadLength), descriptors))
        {
            throw Broken($"closed the connection before {VhostUserRequestNames.Of(request)}");
        }
    }

    private T ReceiveReply<T>(VhostUserRequest request)
        where T : unmanaged
    {
        int length = ReceiveReply(request);
        return length == Unsafe.SizeOf<T>()
            ? ReadPayload<T>()
            : throw Broken(
                $"answered {VhostUserRequestNames.Of(request)} with {length} bytes instead of {Unsafe.SizeOf<T>()}");
    }

    /// <summary>Receives the answer to a request into <see cref="Payload"/>.</summary>
    /// <returns>How many bytes of payload it has.</returns>
    private int ReceiveReply(VhostUserRequest request)
    {
        string name = VhostUserRequestNames.Of(request);
        PollDescriptor wait = new(Number(_socket.Handle), PollEvents.Readable);
        int timeout = (int)Math.Min(ReplyTimeout.TotalMilliseconds, int.MaxValue);
        if (Poll.Wait(new Span<PollDescriptor>(ref wait), timeout).ThrowIfError("wait for the back end").Count == 0)
        {
            throw Broken($"did not answer {name} within {ReplyTimeout.TotalSeconds:0.###} s");
        }

        using DescriptorBatch descriptors = new();
        if (!_socket.ReceiveHeader(out VhostUserHeader header, descriptors))
        {
            throw Broken($"closed the connection instead of answering {name}");
        }

        if (header.Request != (uint)request)
        {
            throw Broken($"answered {VhostUserRequestNames.Of((VhostUserRequest)header.Request)} instead of {name}");
        }

        if (header.Flags != ReplyFlags || header.Size > RequestMessage.MaxPayload || descriptors.Count != 0)
        {
            throw Broken(
                $"answered {name} with flags 0x{(uint)header.Flags:x}, {header.Size} bytes and "
                + $"{descriptors.Count} descriptors");
        }

        _socket.ReceiveRest(Payload[..(int)header.Size]);
        return (int)header.Size;
    }

    /// <summary>
    /// The connection cannot be used any more: what comes next could answer anything. Shutting it down makes that certain.
    /// </summary>
    private VhostUserException Broken(string what)
    {
        _socket.Shutdown();
        return new VhostUserException($"the back end {what}");
    }

    private void WritePayload<T>(T payload)
        where T : unmanaged => MemoryMarshal.Write(Payload, payload);

    private T ReadPayload<T>()
        where T : unmanaged => MemoryMarshal.Read<T>(Payload);

    private Span<byte> WriteConfig(ConfigHeader part, int length)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, RequestMessage.MaxPayload - ConfigHeader.Length);
        WritePayload(part);
        return Payload.Slice(ConfigHeader.Length, length);
    }
}
