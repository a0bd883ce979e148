using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Frontend;

/// <summary>
/// The front end's end of the channel for requests of the back end: has files mapped into the shared memory regions that are
/// open, and taken out again (SHMEM_MAP, SHMEM_UNMAP).
/// </summary>
/// <remarks>
/// A thread of its own answers, so that the back end is served also while the front end waits for an answer on the control
/// socket. What the back end asks for is checked like any other stranger's wish: a request that makes no sense is answered with
/// an error and the channel goes on; a message that cannot be understood ends it.
/// </remarks>
internal sealed class SharedMemoryChannel : IDisposable
{
    private readonly MessageSocket _socket;
    private readonly Thread _thread;
    private readonly SharedMemoryRegion?[] _regions = new SharedMemoryRegion?[SharedMemoryConfiguration.MaxRegions];

    internal SharedMemoryChannel(SafeFileHandle channel)
    {
        _socket = new MessageSocket(channel);
        _thread = new Thread(Serve) { IsBackground = true, Name = "shared-memory" };
        _thread.Start();
    }

    /// <summary>From now on the back end can map into a region.</summary>
    internal void Add(byte id, SharedMemoryRegion region) => Volatile.Write(ref _regions[id], region);

    /// <summary>Ends the service. What is mapped stays.</summary>
    public void Dispose()
    {
        _socket.Shutdown();
        _thread.Join();
        _socket.Dispose();
    }

    private void Serve()
    {
        try
        {
            using DescriptorBatch descriptors = new();
            byte[] payload = new byte[RequestMessage.MaxPayload];
            while (_socket.ReceiveHeader(out VhostUserHeader header, descriptors))
            {
                if (RequestMessage.CheckHeader(header) != RequestFault.None)
                {
                    return;
                }

                _socket.ReceiveRest(payload.AsSpan(0, (int)header.Size));
                bool isDone = Handle(header, payload.AsSpan(0, (int)header.Size), descriptors);
                descriptors.Dispose();
                if ((header.Flags & VhostUserHeaderFlags.NeedReply) != 0 && !Reply(header.Request, isDone ? 0UL : 1UL))
                {
                    return;
                }
            }
        }
        catch (Exception exception) when (exception is VhostUserException or ErrnoException)
        {
            // The back end can map nothing any more; what is mapped stays.
            _socket.Shutdown();
        }
    }

    private bool Reply(uint request, ulong code)
    {
        Span<byte> reply = stackalloc byte[VhostUserHeader.Length + sizeof(ulong)];
        MemoryMarshal.Write(reply, new VhostUserHeader(
            request, VhostUserHeaderFlags.Version1 | VhostUserHeaderFlags.Reply, sizeof(ulong)));
        MemoryMarshal.Write(reply[VhostUserHeader.Length..], code);
        return _socket.Send(reply, []);
    }

    private bool Handle(in VhostUserHeader header, ReadOnlySpan<byte> payload, DescriptorBatch descriptors)
    {
        if (payload.Length != Unsafe.SizeOf<SharedMemoryMapping>())
        {
            return false;
        }

        SharedMemoryMapping mapping = MemoryMarshal.Read<SharedMemoryMapping>(payload);
        if (Volatile.Read(ref _regions[mapping.RegionId]) is not { } region)
        {
            return false;
        }

        bool isDone = Handle((BackendRequest)header.Request, region, mapping, descriptors);
        if (!isDone)
        {
            region.CountRefused();
        }

        return isDone;
    }

    private static bool Handle(
        BackendRequest request, SharedMemoryRegion region, in SharedMemoryMapping mapping, DescriptorBatch descriptors)
    {
        switch (request)
        {
            case BackendRequest.SharedMemoryMap when descriptors.Count == 1:
                using (SafeFileHandle file = descriptors.Take(0))
                {
                    return region.Map(mapping, (int)file.DangerousGetHandle());
                }

            case BackendRequest.SharedMemoryUnmap when descriptors.Count == 0:
                return region.Unmap(mapping);

            default:
                return false;
        }
    }
}
