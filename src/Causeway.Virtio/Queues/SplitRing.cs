using System.Runtime.InteropServices;

namespace Causeway.Virtio;

/// <summary>Features of a queue that both sides agreed on. The values are the virtio feature bits.</summary>
[Flags]
public enum QueueFeatures : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>VIRTIO_F_INDIRECT_DESC: a descriptor may stand for a table of descriptors.</summary>
    IndirectDescriptors = 1UL << 28,

    /// <summary>VIRTIO_F_EVENT_IDX: each side says from which index on it wants to be told.</summary>
    EventIndex = 1UL << 29,

    /// <summary>VIRTIO_F_RING_PACKED: the ring is packed.</summary>
    PackedRing = 1UL << 34,
}

/// <summary>One descriptor, <c>struct virtq_desc</c>.</summary>
/// <param name="address">Guest address of the buffer.</param>
/// <param name="length">Its length in bytes.</param>
/// <param name="flags">VIRTQ_DESC_F_*.</param>
/// <param name="next">The next descriptor of the chain, with <see cref="DescriptorFlags.Next"/>.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly struct SplitDescriptor(GuestAddress address, uint length, DescriptorFlags flags, ushort next)
{
    /// <summary>Guest address of the buffer (<c>addr</c>).</summary>
    public readonly GuestAddress Address = address;

    /// <summary>Its length in bytes (<c>len</c>).</summary>
    public readonly uint Length = length;

    /// <summary>VIRTQ_DESC_F_*.</summary>
    public readonly DescriptorFlags Flags = flags;

    /// <summary>The next descriptor of the chain, with <see cref="DescriptorFlags.Next"/>.</summary>
    public readonly ushort Next = next;
}

/// <summary>VIRTQ_DESC_F_*.</summary>
[Flags]
public enum DescriptorFlags : ushort
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>VIRTQ_DESC_F_NEXT: the chain goes on.</summary>
    Next = 0x1,

    /// <summary>VIRTQ_DESC_F_WRITE: the device writes.</summary>
    Write = 0x2,

    /// <summary>VIRTQ_DESC_F_INDIRECT: the buffer is a table of descriptors.</summary>
    Indirect = 0x4,

    /// <summary>Bit VIRTQ_DESC_F_AVAIL, of packed rings: with <see cref="Used"/>, whose the descriptor is.</summary>
    Available = 0x80,

    /// <summary>Bit VIRTQ_DESC_F_USED, of packed rings.</summary>
    Used = 0x8000,
}

/// <summary>One entry of the used ring, <c>struct virtq_used_elem</c>.</summary>
/// <param name="id">The head of the chain.</param>
/// <param name="length">How many bytes the device wrote.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly struct UsedElement(uint id, uint length)
{
    /// <summary>The head of the chain (<c>id</c>).</summary>
    public readonly uint Id = id;

    /// <summary>How many bytes the device wrote (<c>len</c>).</summary>
    public readonly uint Length = length;
}

/// <summary>Layout and arithmetic of the split ring (virtio 1.4 section 2.7), little-endian.</summary>
internal static class SplitRing
{
    /// <summary>Largest queue size (section 2.7).</summary>
    internal const int MaxSize = 32768;

    /// <summary>Size of a descriptor in bytes.</summary>
    internal const int DescriptorSize = 16;

    /// <summary>Size of an element of the used ring in bytes.</summary>
    internal const int UsedElementSize = 8;

    /// <summary>Where the flags word of both rings is.</summary>
    internal const int FlagsOffset = 0;

    /// <summary>Where the index of both rings is.</summary>
    internal const int IndexOffset = 2;

    /// <summary>Where the entries of both rings start.</summary>
    internal const int EntriesOffset = 4;

    /// <summary>VIRTQ_AVAIL_F_NO_INTERRUPT and VIRTQ_USED_F_NO_NOTIFY: the other side need not be told.</summary>
    internal const ushort SuppressFlag = 1;

    internal static bool IsValidSize(int size) => size is >= 2 and <= MaxSize && (size & (size - 1)) == 0;

    internal static ulong DescriptorTableBytes(int size) => (ulong)size * DescriptorSize;

    internal static ulong AvailableRingBytes(int size, QueueFeatures features) =>
        (ulong)UsedEventOffset(size) + (features.HasFlag(QueueFeatures.EventIndex) ? 2UL : 0UL);

    internal static ulong UsedRingBytes(int size, QueueFeatures features) =>
        (ulong)AvailableEventOffset(size) + (features.HasFlag(QueueFeatures.EventIndex) ? 2UL : 0UL);

    /// <summary>Where <c>used_event</c> is in the available ring.</summary>
    internal static int UsedEventOffset(int size) => EntriesOffset + (2 * size);

    /// <summary>Where <c>avail_event</c> is in the used ring.</summary>
    internal static int AvailableEventOffset(int size) => EntriesOffset + (UsedElementSize * size);

    /// <summary>
    /// Whether an index that moved from <paramref name="old"/> to <paramref name="now"/> passed the event the other side
    /// waits for (<c>vring_need_event</c>): whether <paramref name="eventIndex"/> is among old, ..., now - 1.
    /// </summary>
    internal static bool NeedsEvent(ushort eventIndex, ushort now, ushort old) =>
        (ushort)(now - eventIndex - 1) < (ushort)(now - old);
}
