using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Virtio;

/// <summary>
/// The memory of a guest: an immutable table of regions. Adding or removing a region makes a new table that shares the
/// unchanged regions; whoever changes a running device swaps the reference and releases the old table once nobody uses
/// its pointers any more.
/// </summary>
/// <remarks>
/// Three users see the same memory under three numbers: the guest (<see cref="GuestAddress"/>), the front end
/// (<see cref="FrontendAddress"/>) and this process (a pointer). Neither guest nor front-end ranges overlap.
/// </remarks>
public sealed unsafe class GuestMemory
{
    /// <summary>Most regions in a table: what QEMU allows for its own tables (vhost-user.md section 18.5).</summary>
    public const int MaxRegions = 512;

    private readonly Entry[] _entries;
    private int _references = 1;

    private GuestMemory(GuestMemoryRegion[] regions)
    {
        Regions = regions;
        _entries = new Entry[regions.Length];
        for (int i = 0; i < regions.Length; i++)
        {
            GuestMemoryRange range = regions[i].Range;
            _entries[i] = new Entry
            {
                GuestBase = range.GuestBase.Value,
                Size = range.Size,
                Address = regions[i].Address,
            };
        }
    }

    /// <summary>The regions, by rising guest address.</summary>
    public IReadOnlyList<GuestMemoryRegion> Regions { get; }

    /// <summary>Makes a table without regions.</summary>
    public static GuestMemory CreateEmpty() => new([]);

    /// <summary>Makes a table with one more region. This table stays as it is.</summary>
    /// <param name="range">The description; hostile.</param>
    /// <param name="file">The file that backs the region. It is not needed any more afterwards.</param>
    /// <exception cref="GuestMemoryException">The description is wrong, overlaps a region, or cannot be mapped.</exception>
    public GuestMemory Add(GuestMemoryRange range, SafeFileHandle file)
    {
        GuestMemoryRegion.Check(range);
        if (Regions.Count >= MaxRegions)
        {
            throw new GuestMemoryException($"memory region of {range}: there are already {MaxRegions} regions");
        }

        int position = 0;
        foreach (GuestMemoryRegion region in Regions)
        {
            GuestMemoryRange other = region.Range;
            if (Overlap(range.GuestBase.Value, range.Size, other.GuestBase.Value, other.Size))
            {
                throw new GuestMemoryException($"memory region of {range} overlaps the one of {other}");
            }

            if (Overlap(range.FrontendBase.Value, range.Size, other.FrontendBase.Value, other.Size))
            {
                throw new GuestMemoryException(
                    $"memory region of {range} overlaps the one of {other} at front-end address {other.FrontendBase}");
            }

            if (other.GuestBase.Value < range.GuestBase.Value)
            {
                position++;
            }
        }

        var added = GuestMemoryRegion.Map(range, file);
        GuestMemoryRegion[] regions = [.. Regions.Take(position), added, .. Regions.Skip(position)];
        foreach (GuestMemoryRegion region in Regions)
        {
            region.AddReference();
        }

        return new GuestMemory(regions);
    }

    /// <summary>Makes a table without one region. This table stays as it is.</summary>
    /// <param name="range">
    /// The region. Guest address, front-end address and size identify it; the file offset is not compared, because
    /// front ends leave it out (vhost-user REM_MEM_REG).
    /// </param>
    /// <param name="memory">The new table; null when there is no such region.</param>
    /// <returns>Whether there was such a region.</returns>
    public bool TryRemove(GuestMemoryRange range, [NotNullWhen(true)] out GuestMemory? memory)
    {
        GuestMemoryRegion? removed = Regions.FirstOrDefault(region =>
            region.Range.GuestBase == range.GuestBase && region.Range.FrontendBase == range.FrontendBase &&
            region.Range.Size == range.Size);
        if (removed is null)
        {
            memory = null;
            return false;
        }

        GuestMemoryRegion[] regions = [.. Regions.Where(region => region != removed)];
        foreach (GuestMemoryRegion region in regions)
        {
            region.AddReference();
        }

        memory = new GuestMemory(regions);
        return true;
    }

    /// <summary>Takes a reference to the table, for a user that may outlive the one who made it.</summary>
    public void AddReference()
    {
        int references = Interlocked.Increment(ref _references);
        Debug.Assert(references > 1, "a released memory table was used");
    }

    /// <summary>
    /// Gives a reference back. After the last one, mappings that no other table shares end, and pointers into them are
    /// invalid.
    /// </summary>
    public void Release()
    {
        int references = Interlocked.Decrement(ref _references);
        Debug.Assert(references >= 0, "a memory table was released more often than referenced");
        if (references == 0)
        {
            foreach (GuestMemoryRegion region in Regions)
            {
                region.Release();
            }
        }
    }

    /// <summary>Translates a range that lies in one region.</summary>
    /// <param name="address">The start; hostile.</param>
    /// <param name="length">The length in bytes; hostile. Zero asks for the address alone.</param>
    /// <param name="hint">
    /// The index of the region found last, kept by the caller: a table is shared by threads and remembers nothing. Any
    /// value will do.
    /// </param>
    /// <param name="pointer">Where the range is in this process; null when the result is false.</param>
    /// <returns>Whether the whole range lies in one region.</returns>
    public bool TryTranslate(GuestAddress address, ulong length, ref int hint, out byte* pointer)
    {
        if (TryTranslatePiece(address, length, ref hint, out pointer, out ulong available) && available == length)
        {
            return true;
        }

        pointer = null;
        return false;
    }

    /// <summary>Translates a range that lies in one region, without a hint. For control code.</summary>
    /// <param name="address">The start; hostile.</param>
    /// <param name="length">The length in bytes; hostile.</param>
    /// <param name="pointer">Where the range is in this process; null when the result is false.</param>
    /// <returns>Whether the whole range lies in one region.</returns>
    public bool TryTranslate(GuestAddress address, ulong length, out byte* pointer)
    {
        int hint = 0;
        return TryTranslate(address, length, ref hint, out pointer);
    }

    /// <summary>
    /// Translates the start of a range that may continue in the next region. Callers go on at <paramref name="address"/>
    /// + <paramref name="available"/> until they have the whole range.
    /// </summary>
    /// <param name="address">The start; hostile.</param>
    /// <param name="length">The length in bytes; hostile.</param>
    /// <param name="hint">The index of the region found last, kept by the caller. Any value will do.</param>
    /// <param name="pointer">Where the start is in this process; null when the result is false.</param>
    /// <param name="available">
    /// How many bytes of the range follow at <paramref name="pointer"/>: at least one, unless <paramref name="length"/> is
    /// zero.
    /// </param>
    /// <returns>Whether the first byte lies in a region.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool TryTranslatePiece(
        GuestAddress address, ulong length, ref int hint, out byte* pointer, out ulong available)
    {
        Entry[] entries = _entries;
        int index = hint;
        if ((uint)index >= (uint)entries.Length || address.Value - entries[index].GuestBase >= entries[index].Size)
        {
            index = Find(address);
            if (index < 0)
            {
                pointer = null;
                available = 0;
                return false;
            }

            hint = index;
        }

        // Below the region's size, by the test above (an address before its base wraps to a large number) or by Find.
        ulong offset = address.Value - entries[index].GuestBase;
        pointer = entries[index].Address + offset;
        available = Math.Min(length, entries[index].Size - offset);
        return true;
    }

    /// <summary>Translates a range that lies in one region. Rings are named this way. For control code.</summary>
    /// <param name="address">The start; hostile.</param>
    /// <param name="length">The length in bytes; hostile.</param>
    /// <param name="pointer">Where the range is in this process; null when the result is false.</param>
    /// <returns>Whether the whole range lies in one region.</returns>
    public bool TryTranslate(FrontendAddress address, ulong length, out byte* pointer)
    {
        foreach (GuestMemoryRegion region in Regions)
        {
            ulong offset = address.Value - region.Range.FrontendBase.Value;
            if (offset < region.Range.Size && length <= region.Range.Size - offset)
            {
                pointer = region.Address + offset;
                return true;
            }
        }

        pointer = null;
        return false;
    }

    /// <summary>Translates an address of the front end to the guest's. For control code.</summary>
    /// <param name="address">The address; hostile.</param>
    /// <param name="guestAddress">The same byte for the guest.</param>
    /// <returns>Whether the address lies in a region.</returns>
    public bool TryTranslate(FrontendAddress address, out GuestAddress guestAddress)
    {
        foreach (GuestMemoryRegion region in Regions)
        {
            ulong offset = address.Value - region.Range.FrontendBase.Value;
            if (offset < region.Range.Size)
            {
                guestAddress = new GuestAddress(region.Range.GuestBase.Value + offset);
                return true;
            }
        }

        guestAddress = default;
        return false;
    }

    /// <summary>Copies a range out, once, over adjacent regions if need be.</summary>
    /// <param name="address">The start; hostile.</param>
    /// <param name="destination">Where the bytes go.</param>
    /// <param name="hint">The index of the region found last, kept by the caller. Any value will do.</param>
    /// <returns>Whether the whole range lies in guest memory; otherwise what was copied is undefined.</returns>
    internal bool TryCopyFrom(GuestAddress address, Span<byte> destination, ref int hint)
    {
        while (!destination.IsEmpty)
        {
            if (!TryTranslatePiece(address, (ulong)destination.Length, ref hint, out byte* pointer, out ulong available))
            {
                return false;
            }

            // SAFETY: available bytes at pointer are mapped, and it is at most destination.Length.
            new ReadOnlySpan<byte>(pointer, (int)available).CopyTo(destination);
            destination = destination[(int)available..];

            // Does not wrap before the range ends: regions end below 2^64, and beyond them nothing is found.
            address = new GuestAddress(address.Value + available);
        }

        return true;
    }

    private int Find(GuestAddress address)
    {
        int low = 0;
        int high = _entries.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) >>> 1;
            ref Entry entry = ref _entries[middle];
            if (address.Value < entry.GuestBase)
            {
                high = middle - 1;
            }
            else if (address.Value - entry.GuestBase >= entry.Size)
            {
                low = middle + 1;
            }
            else
            {
                return middle;
            }
        }

        return -1;
    }

    private static bool Overlap(ulong start, ulong size, ulong otherStart, ulong otherSize) =>
        start < otherStart + otherSize && otherStart < start + size;

    /// <summary>What a look-up needs of a region, side by side in memory.</summary>
    private struct Entry
    {
        internal ulong GuestBase;
        internal ulong Size;
        internal byte* Address;
    }
}
