using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.Tests.VhostUser;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Fuzz.Targets;

/// <summary>A front end says anything to a back end over a socket, and hangs up.</summary>
/// <remarks>
/// An input is a number of records: which descriptors go along (a bit each: memory, kick, call, a socket), how long the bytes are (two bytes),
/// and the bytes, which should begin with a header. The device checks the order of what reaches it.
/// </remarks>
internal static class VhostUserTarget
{
    private static readonly TestMemory _memory = new();
    private static readonly TestRing _ring = new(0);
    private static readonly SafeFileHandle _channel = BackendRig.SocketPair().First;
    private static readonly MemoryRegionEntry _entry = new(TestMemory.GuestBase, TestMemory.Size, TestMemory.FrontendBase, 0);

    public static void Run(ReadOnlySpan<byte> input) => Play(input);

    /// <summary>Runs an input.</summary>
    /// <returns>What the device was asked.</returns>
    public static string Play(ReadOnlySpan<byte> input)
    {
        var device = new RecordingDevice { Config = new byte[40], QueueCount = 5 };
        Play(input, device);
        return device.Calls;
    }

    private static void Play(ReadOnlySpan<byte> input, RecordingDevice device)
    {
        // Disposing fails when the connection has ended by anything but its end or a violation.
        using BackendRig rig = new(device);
        int socket = (int)rig.Socket.DangerousGetHandle();
        // Answers are taken, or the back end would wait; and what was said last is heard only if the socket is not closed before.
        var listener = new Thread(() => TakeAnswers(socket));
        listener.Start();
        Send(input, socket);
        _ = Sockets.Shutdown(socket, SocketShutdown.Write);
        _ = rig.Ended();
        _ = Sockets.Shutdown(socket, SocketShutdown.Both);
        listener.Join();
    }

    private static void TakeAnswers(int socket)
    {
        Span<byte> bytes = stackalloc byte[4096];
        while (Pipes.Read(socket, bytes) is { IsError: false, Count: > 0 })
        {
        }
    }

    private static void Send(ReadOnlySpan<byte> input, int socket)
    {
        for (int records = 0; input.Length >= 3 && records < 64; records++)
        {
            int which = input[0];
            int length = Math.Min(BinaryPrimitives.ReadUInt16LittleEndian(input[1..]), input.Length - 3);
            List<int> descriptors = [];
            if ((which & 1) != 0)
            {
                descriptors.Add((int)_memory.File.DangerousGetHandle());
            }

            if ((which & 2) != 0)
            {
                descriptors.Add((int)_ring.Kick.DangerousGetHandle());
            }

            if ((which & 4) != 0)
            {
                descriptors.Add((int)_ring.Call.DangerousGetHandle());
            }

            if ((which & 8) != 0)
            {
                descriptors.Add((int)_channel.DangerousGetHandle());
            }

            // An empty message cannot be sent, and nothing can be sent when the back end has hung up.
            if (length == 0 || Sockets.Sendmsg(socket, input.Slice(3, length), CollectionsMarshal.AsSpan(descriptors)).IsError)
            {
                break;
            }

            input = input[(3 + length)..];
        }
    }

    /// <summary>Connections that QEMU has made, and one that has more kinds of messages; whole and in parts.</summary>
    public static IEnumerable<(string Name, byte[] Input)> Seeds()
    {
        foreach (string name in Recorded.Names.Where(name => name.StartsWith("qemu", StringComparison.Ordinal)))
        {
            List<byte> soFar = [];
            int count = 0;
            foreach (string[] words in Recorded.Read(name))
            {
                soFar.AddRange(Record(words));
                if (++count % 8 == 0)
                {
                    yield return ($"{name}-{count}", [.. soFar]);
                }
            }

            yield return (name, [.. soFar]);
        }

        const VirtioFeatures features = VirtioFeatures.Version1 | VirtioFeatures.ProtocolFeatures;
        (byte[] Record, string Name)[] steps =
        [
            (Record(VhostUserRequest.GetFeatures, 0), "features"),
            (Record(VhostUserRequest.SetFeatures, 0, Bytes((ulong)features)), "set-features"),
            (Record(VhostUserRequest.GetProtocolFeatures, 0), "protocol"),
            (Record(VhostUserRequest.SetProtocolFeatures, 0, Bytes(0xa62bUL)), "set-protocol"),
            (Record(VhostUserRequest.SetMemoryTable, 1, [.. Bytes(new MemoryTableHeader(1, 0)), .. Bytes(_entry)]), "memory"),
            (Record(VhostUserRequest.SetVringNum, 0, Bytes(new VringState(0, 256))), "size"),
            (Record(VhostUserRequest.SetVringBase, 0, Bytes(new VringState(0, 0))), "base"),
            (Record(VhostUserRequest.SetVringAddress, 0, Bytes(TestMemory.WireAddresses(0))), "addresses"),
            (Record(VhostUserRequest.SetVringCall, 4, Bytes(VringEventWord.For(0, hasDescriptor: true))), "call"),
            (Record(VhostUserRequest.SetVringKick, 2, Bytes(VringEventWord.For(0, hasDescriptor: true))), "kick"),
            (Record(VhostUserRequest.SetVringEnable, 0, Bytes(new VringState(0, 1))), "enable"),
            (Record(VhostUserRequest.GetConfig, 0, [.. Bytes(new ConfigHeader(0, 40, 0)), .. new byte[40]]), "config"),
            (Record(VhostUserRequest.SetLogBase, 1, Bytes(new LogArea(4096, 0))), "log"),
            (Record(VhostUserRequest.AddMemoryRegion, 1, Bytes(new SingleMemoryRegion(0, _entry))), "add"),
            (Record(VhostUserRequest.RemoveMemoryRegion, 0, Bytes(new SingleMemoryRegion(0, _entry))), "remove"),
            (Record(VhostUserRequest.GetVringBase, 0, Bytes(new VringState(0, 0))), "stop"),
        ];
        List<byte> all = [];
        foreach ((byte[] record, string name) in steps)
        {
            yield return (name, record);
            all.AddRange(record);
            yield return ("until-" + name, [.. all]);
        }
    }

    // A line of a recording. Memory and rings are where ours are, since theirs is gone; all else is as it was.
    private static byte[] Record(string[] words)
    {
        byte[] message = Convert.FromHexString(string.Concat(words[1..]));
        VhostUserHeader header = MemoryMarshal.Read<VhostUserHeader>(message);
        Span<byte> payload = message.AsSpan(VhostUserHeader.Length);
        int descriptors = words[0] == "0" ? 0 : 4;
        switch ((VhostUserRequest)header.Request)
        {
            case VhostUserRequest.AddMemoryRegion:
                descriptors = 1;
                MemoryMarshal.Write(payload, new SingleMemoryRegion(0, _entry));
                break;

            case VhostUserRequest.SetVringAddress:
                MemoryMarshal.Write(payload, TestMemory.WireAddresses(MemoryMarshal.Read<int>(payload)));
                break;

            case VhostUserRequest.SetVringKick:
                descriptors = 2;
                break;

            case VhostUserRequest.SetBackendRequestChannel:
                descriptors = 8;
                break;
        }

        return [(byte)descriptors, (byte)message.Length, (byte)(message.Length >> 8), .. message];
    }

    private static byte[] Record(VhostUserRequest request, int descriptors, params byte[] payload)
    {
        byte[] header = new byte[VhostUserHeader.Length];
        MemoryMarshal.Write(header, new VhostUserHeader((uint)request, VhostUserHeaderFlags.Version1, (uint)payload.Length));
        int length = header.Length + payload.Length;
        return [(byte)descriptors, (byte)length, (byte)(length >> 8), .. header, .. payload];
    }

    private static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();
}
