using Causeway.Linux;
using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Frontend;

/// <summary>How a front end shows a shared memory region to its process.</summary>
public enum SharedMemoryUse
{
    /// <summary>As the back end says: a DAX window. What is not mapped faults, see <see cref="SharedMemoryRegion.Faults"/>.</summary>
    Window,

    /// <summary>
    /// To read from, whatever the back end says, and never with a fault: what is not mapped reads as zero, and only memory files
    /// that are sealed against shrinking are mapped.
    /// </summary>
    ReadOnly,
}

/// <summary>
/// One of the device's shared memory regions: a range of addresses into which the back end has files mapped
/// (SHMEM_MAP, SHMEM_UNMAP). In a window, what is not mapped faults, and so does what lies behind the end of a file that is
/// mapped: that ends the process, or is noted in <see cref="Faults"/>.
/// </summary>
/// <remarks>
/// A mapping is in place before it is acknowledged, and is read-only unless the back end says otherwise. The last, partial page of
/// a file is mapped like any other, and so are pages behind the end of the file, which are there once the file has grown.
/// </remarks>
public sealed unsafe class SharedMemoryRegion : IDisposable
{
    /// <summary>The largest region that is accepted: 64 GiB (arbitrary; it costs address space only).</summary>
    public const ulong MaxSize = 64UL << 30;

    // A mapping is one of the kernel's, of which a process has 65530 by default (vm.max_map_count).
    private const int MaxMappings = 16384;

    private readonly Lock _lock = new();
    private readonly SortedList<ulong, ulong> _lengths = [];
    private readonly SharedMemoryUse _use;

    // A file without a byte: what is mapped of it can be reserved like anything else and faults like the end of a file, by SIGBUS
    // and not by SIGSEGV, which means something else to the runtime. Null where nothing may fault.
    private readonly SafeFileHandle? _nothing;
    private bool _isDisposed;

    internal SharedMemoryRegion(ulong size, SharedMemoryUse use)
    {
        Size = size;
        _use = use;
        _nothing = use == SharedMemoryUse.Window ? Memory.CreateMemoryFile("causeway-window\0"u8, 0, FileSeals.Grow) : null;
        Address = (byte*)Reserve(null, 0, size).ThrowIfError($"reserve {size} bytes of addresses").RawValue;
        // Also where nothing should fault: huge pages can be missing even so.
        Faults = FaultGuard.TryCreate(Address, size);
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

    /// <summary>How many requests for it were refused.</summary>
    public long RefusedCount { get; private set; }

    /// <summary>Ends all mappings, as the reset of a device does. No request of the back end may be under way.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            foreach ((ulong offset, ulong length) in _lengths)
            {
                Reserve(Address, offset, length);
            }

            _lengths.Clear();
        }
    }

    /// <summary>Gives the addresses back. Nobody may use them any more; the back end finds that there is no such region.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            if (_isDisposed)
            {
                return;
            }

            _isDisposed = true;
            // First the guard: the addresses may be somebody else's at once.
            Faults?.Dispose();
            _ = Memory.Munmap(Address, (nuint)Size);
        }

        _nothing?.Dispose();
    }

    /// <summary>A request for it was refused. For the thread of the channel.</summary>
    internal void CountRefused() => RefusedCount++;

    /// <summary>SHMEM_MAP.</summary>
    /// <returns>Whether it was done.</returns>
    internal bool Map(in SharedMemoryMapping mapping, int descriptor)
    {
        MemoryProtection protection = _use == SharedMemoryUse.Window && (mapping.Flags & SharedMemoryFlags.Writable) != 0
            ? MemoryProtection.Read | MemoryProtection.Write
            : MemoryProtection.Read;
        if (!IsSound(mapping) || (_use == SharedMemoryUse.ReadOnly && !StaysLong(mapping, descriptor)))
        {
            return false;
        }

        lock (_lock)
        {
            if (_isDisposed || _lengths.Count == MaxMappings || Overlaps(mapping.RegionOffset, mapping.Length))
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

    /// <summary>SHMEM_UNMAP.</summary>
    /// <returns>Whether it was done.</returns>
    internal bool Unmap(in SharedMemoryMapping mapping)
    {
        if (!IsSound(mapping))
        {
            return false;
        }

        lock (_lock)
        {
            if (_isDisposed || !_lengths.TryGetValue(mapping.RegionOffset, out ulong length) || length != mapping.Length)
            {
                return false;
            }

            Reserve(Address, mapping.RegionOffset, length);
            return _lengths.Remove(mapping.RegionOffset);
        }
    }

    private bool IsSound(in SharedMemoryMapping mapping)
    {
        ulong page = (ulong)Environment.SystemPageSize;
        return (mapping.Flags & ~SharedMemoryFlags.Writable) == 0
            && mapping.Length != 0
            && mapping.Length % page == 0
            && mapping.RegionOffset % page == 0
            && mapping.FileOffset % page == 0
            && mapping.Length <= Size
            && mapping.RegionOffset <= Size - mapping.Length
            && mapping.FileOffset <= (ulong)long.MaxValue - mapping.Length;
    }

    // Whether all that is to be mapped is there, and nobody can take it away. First the seal: after that it holds.
    private static bool StaysLong(in SharedMemoryMapping mapping, int descriptor)
    {
        SyscallResult seals = Memory.GetSeals(descriptor);
        if (seals.IsError || ((FileSeals)seals.Count & FileSeals.Shrink) == 0)
        {
            return false;
        }

        return !Memory.GetFileStatus(descriptor, out MappableFileStatus status).IsError
            && mapping.FileOffset + mapping.Length <= (ulong)status.Size;
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
    private SyscallResult Reserve(byte* start, ulong offset, ulong length)
    {
        MapFlags place = start == null ? MapFlags.None : MapFlags.Fixed;
        return _nothing is { } nothing
            ? Memory.Mmap(
                start + offset,
                (nuint)length,
                MemoryProtection.Read | MemoryProtection.Write,
                MapFlags.Shared | MapFlags.NoReserve | place,
                (int)nothing.DangerousGetHandle(),
                (long)offset)
            : Memory.Mmap(
                start + offset,
                (nuint)length,
                MemoryProtection.Read,
                MapFlags.Private | MapFlags.Anonymous | MapFlags.NoReserve | place,
                descriptor: -1,
                offset: 0);
    }
}
