using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Virtio;

/// <summary>One descriptor of a packed ring, <c>struct pvirtq_desc</c>.</summary>
/// <param name="address">Guest address of the buffer.</param>
/// <param name="length">Its length in bytes; in a used descriptor, how many bytes the device wrote.</param>
/// <param name="id">The buffer id: the name of the chain, in its last descriptor.</param>
/// <param name="flags">VIRTQ_DESC_F_*.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly struct PackedDescriptor(GuestAddress address, uint length, ushort id, DescriptorFlags flags)
{
    /// <summary>Guest address of the buffer (<c>addr</c>).</summary>
    public readonly GuestAddress Address = address;

    /// <summary>Its length in bytes (<c>len</c>).</summary>
    public readonly uint Length = length;

    /// <summary>The buffer id (<c>id</c>).</summary>
    public readonly ushort Id = id;

    /// <summary>VIRTQ_DESC_F_*.</summary>
    public readonly DescriptorFlags Flags = flags;
}

/// <summary>
/// A place in a packed ring: the slot in bits 0 to 14, and in bit 15 the ring wrap counter, as both SET_VRING_BASE and the
/// event suppression structures have it.
/// </summary>
/// <param name="Value">Slot and wrap counter.</param>
internal readonly record struct PackedPosition(ushort Value)
{
    private const int WrapBit = 0x8000;

    /// <summary>Where both sides of a new ring begin.</summary>
    internal static PackedPosition Start => new(WrapBit);

    /// <summary>The number of the descriptor.</summary>
    internal int Slot => Value & ~WrapBit;

    /// <summary>AVAIL and USED of a descriptor here that the driver made available in this lap.</summary>
    internal DescriptorFlags AvailableFlags =>
        (Value & WrapBit) != 0 ? DescriptorFlags.Available : DescriptorFlags.Used;

    /// <summary>AVAIL and USED of a descriptor here that the device used in this lap.</summary>
    internal DescriptorFlags UsedFlags =>
        (Value & WrapBit) != 0 ? DescriptorFlags.Available | DescriptorFlags.Used : DescriptorFlags.None;

    /// <summary>The place some descriptors on; at most as many as the ring has.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal PackedPosition Plus(int count, int size)
    {
        int slot = Slot + count;
        return slot < size
            ? new PackedPosition((ushort)(Value + count))
            : new PackedPosition((ushort)((slot - size) | (~Value & WrapBit)));
    }

    /// <summary>The place some descriptors back; at most as many as the ring has.</summary>
    internal PackedPosition Minus(int count, int size)
    {
        int slot = Slot - count;
        return slot >= 0
            ? new PackedPosition((ushort)(Value - count))
            : new PackedPosition((ushort)((slot + size) | (~Value & WrapBit)));
    }

    /// <summary>How many descriptors come before this place, counted from the start of a lap whose wrap counter is 1.</summary>
    internal int Linear(int size) => (Value & WrapBit) != 0 ? Slot : Slot + size;
}

/// <summary>Layout and arithmetic of the packed ring (virtio 1.4 section 2.8), little-endian.</summary>
internal static class PackedRing
{
    /// <summary>Largest queue size (section 2.8).</summary>
    internal const int MaxSize = 32768;

    /// <summary>The base of a new ring, as SET_VRING_BASE has it: both sides at slot 0, with both wrap counters 1.</summary>
    internal const uint FirstBase = 0x8000_8000;

    /// <summary>Size of a descriptor in bytes.</summary>
    internal const int DescriptorSize = 16;

    /// <summary>Where id, length and flags are in a descriptor: one aligned word of eight bytes.</summary>
    internal const int TailOffset = 8;

    /// <summary>Size of an event suppression structure in bytes.</summary>
    internal const int EventSize = 4;

    /// <summary>VRING_PACKED_EVENT_FLAG_ENABLE: tell me.</summary>
    internal const uint EventEnable = 0;

    /// <summary>VRING_PACKED_EVENT_FLAG_DISABLE: do not.</summary>
    internal const uint EventDisable = 1;

    /// <summary>VRING_PACKED_EVENT_FLAG_DESC: tell me when you get to the place named.</summary>
    internal const uint EventDescriptor = 2;

    /// <summary>AVAIL and USED.</summary>
    internal const DescriptorFlags OwnerFlags = DescriptorFlags.Available | DescriptorFlags.Used;

    private const int EventFlagsShift = 16;
    private const uint EventFlagsMask = 3;

    internal static bool IsValidSize(int size) => size is >= 1 and <= MaxSize;

    /// <summary>An event suppression structure: le16 place, le16 flags.</summary>
    internal static uint Event(uint flags, PackedPosition position) => (flags << EventFlagsShift) | position.Value;

    /// <summary>
    /// Whether the other side, whose event suppression structure was read as <paramref name="suppression"/>, is to be told
    /// of so many descriptors from a place on.
    /// </summary>
    internal static bool NeedsEvent(uint suppression, bool usesEventIndex, PackedPosition from, int count, int size)
    {
        uint flags = (suppression >> EventFlagsShift) & EventFlagsMask;
        if (flags != EventDescriptor || !usesEventIndex)
        {
            // The reserved value, and a place that was not agreed on, get an event rather than a hang.
            return flags != EventDisable;
        }

        // A slot beyond the ring is the other side's mistake: whatever comes out harms nobody else.
        int distance = new PackedPosition((ushort)suppression).Linear(size) - from.Linear(size);
        return (distance < 0 ? distance + (2 * size) : distance) < count;
    }

    /// <summary>The second word of a descriptor.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static ulong Tail(uint length, ushort id, DescriptorFlags flags) =>
        length | ((ulong)id << 32) | ((ulong)flags << 48);
}
