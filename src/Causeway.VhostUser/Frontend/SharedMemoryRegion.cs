using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Frontend;

/// <summary>
/// The front end's end of shared memory region 0: a range of addresses into which the back end has files mapped
/// (SHMEM_MAP, SHMEM_UNMAP). What is not mapped faults, and so does what lies behind the end of a file that is mapped:
/// that ends the process, or is noted in <see cref="Faults"/>.
/// </summary>
/// <remarks>
/// <para>A thread of its own answers the back end, so that it is served also while the front end waits for an answer on the
/// control socket. A mapping is in place before it is acknowledged, and is read-only unless the back end says otherwise. The
/// last, partial page of a file is mapped like any other, and so are pages behind the end of the file, which are there once the
/// file has grown.</para>
/// <para>What the back end asks for is checked like any other stranger's wish: a request that makes no sense is answered
/// with an error and the channel goes on; a message that cannot be understood ends it.</para>
/// </remarks>
public sealed unsafe class SharedMemoryRegion : IDisposable
{
    /// <summary>The largest region that is accepted: 64 GiB (arbitrary; it costs address space only).</summary>
    public const ulong MaxSize = 64UL << 30;

    // A mapping is one of the kernel's, of which a process has 65530 by default (vm.max_map_count).
    private const int MaxMappings = 16384;

    private readonly MessageSocket _socket;
    private readonly Thread _thread;
    private readonly Lock _lock = new();
    private readonly SortedList<ulong, ulong> _lengths = [];

    // A file without a byte: what is mapped of it can be reserved like anything else and faults like the end of a file, by SIGBUS
    // and not by SIGSEGV, which means something else to the runtime.
    private readonly SafeFileHandle _nothing = Memory.CreateMemoryFile("causeway-window\0"u8, 0, FileSeals.Grow);

    internal SharedMemoryRegion(SafeFileHandle channel, ulong size)
    {
        Size = size;
        Address = (byte*)Memory.Mmap(
            null,
            (nuint)size,
            MemoryProtection.Read | MemoryProtection.Write,
            MapFlags.Shared | MapFlags.NoReserve,
            (int)_nothing.DangerousGetHandle(),
            offset: 0).ThrowIfError($"reserve {size} bytes of addresses").RawValue;
        Faults = FaultGuard.TryCreate(Address, size);
        _socket = new MessageSocket(channel);
        _thread = new Thread(Serve) { IsBackground = true, Name = "shared-memory" };
        _thread.Start();
    }

    /// <summary>Where the region starts in this process. Valid until it is disposed of.</summary>
    public byte* Address { get; }

    /// <summary>Its size in bytes.</summary>
    public ulong Size { get; }

    /// <summary>Which parts have been touched where nothing is; null where that ends the process.</summary>
    public FaultGuard? Faults { get; }

    /// <summary>How many mappings there are now.</summary>
    public int MappingCount
    {
        get
        {
            lock (_lock)
            {
                return _lengths.Count;
            }
        }
    }

    /// <summary>How many requests were refused.</summary>
    public long RefusedCount { get; private set; }

    /// <summary>Ends all mappings, as the reset of a device does. No request of the back end may be under way.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            foreach ((ulong offset, ulong length) in _lengths)
            {
                Reserve(offset, length);
            }

            _lengths.Clear();
        }
    }

    /// <summary>Ends the service and gives the addresses back. Nobody may use them any more.</summary>
    public void Dispose()
    {
        _socket.Shutdown();
        _thread.Join();
        _socket.Dispose();
        // First the guard: the addresses may be somebody else's at once.
        Faults?.Dispose();
        _ = Memory.Munmap(Address, (nuint)Size);
        _nothing.Dispose();
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
                RefusedCount += isDone ? 0 : 1;
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
        if (mapping.RegionId != 0 || (mapping.Flags & ~SharedMemoryFlags.Writable) != 0 || !IsInside(mapping))
        {
            return false;
        }

        switch ((BackendRequest)header.Request)
        {
            case BackendRequest.SharedMemoryMap when descriptors.Count == 1:
                using (SafeFileHandle file = descriptors.Take(0))
                {
                    return Map(mapping, (int)file.DangerousGetHandle());
                }

            case BackendRequest.SharedMemoryUnmap when descriptors.Count == 0:
                return Unmap(mapping);

            default:
                return false;
        }
    }

    private bool IsInside(in SharedMemoryMapping mapping)
    {
        ulong page = (ulong)Environment.SystemPageSize;
        return mapping.Length != 0
            && mapping.Length % page == 0
            && mapping.RegionOffset % page == 0
            && mapping.FileOffset % page == 0
            && mapping.Length <= Size
            && mapping.RegionOffset <= Size - mapping.Length
            && mapping.FileOffset <= (ulong)long.MaxValue - mapping.Length;
    }

    private bool Map(in SharedMemoryMapping mapping, int descriptor)
    {
        MemoryProtection protection = (mapping.Flags & SharedMemoryFlags.Writable) != 0
            ? MemoryProtection.Read | MemoryProtection.Write
            : MemoryProtection.Read;
        lock (_lock)
        {
            if (_lengths.Count == MaxMappings || Overlaps(mapping.RegionOffset, mapping.Length))
            {
                return false;
            }

            // SAFETY: the range was checked to lie in the reservation, which is ours.
            SyscallResult mapped = Memory.Mmap(
                Address + mapping.RegionOffset,
                (nuint)mapping.Length,
                protection,
                MapFlags.Shared | MapFlags.Fixed | MapFlags.NoReserve,
                descriptor,
                (long)mapping.FileOffset);
            if (mapped.IsError)
            {
                return false;
            }

            _lengths.Add(mapping.RegionOffset, mapping.Length);
            return true;
        }
    }

    private bool Unmap(in SharedMemoryMapping mapping)
    {
        lock (_lock)
        {
            if (!_lengths.TryGetValue(mapping.RegionOffset, out ulong length) || length != mapping.Length)
            {
                return false;
            }

            Reserve(mapping.RegionOffset, length);
            return _lengths.Remove(mapping.RegionOffset);
        }
    }

    private bool Overlaps(ulong offset, ulong length)
    {
        // The last mapping that starts before the end of the new one is the only one that can reach into it.
        int low = 0;
        int high = _lengths.Count;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (_lengths.GetKeyAtIndex(middle) < offset + length)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low > 0 && _lengths.GetKeyAtIndex(low - 1) + _lengths.GetValueAtIndex(low - 1) > offset;
    }

    // Never munmap: somebody else's mapping could take the place.
    private void Reserve(ulong offset, ulong length) => _ = Memory.Mmap(
        Address + offset,
        (nuint)length,
        MemoryProtection.Read | MemoryProtection.Write,
        MapFlags.Shared | MapFlags.Fixed | MapFlags.NoReserve,
        (int)_nothing.DangerousGetHandle(),
        (long)offset);
}
