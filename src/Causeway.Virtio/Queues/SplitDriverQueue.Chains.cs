using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Causeway.Virtio;

/// <content>Writing chains and freeing their descriptors.</content>
public sealed unsafe partial class SplitDriverQueue
{
    /// <inheritdoc/>
    internal override bool TryAdd(
        ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable, int directCount, out ushort head)
    {
        int count = readable.Length + writable.Length;
        bool hasTable = directCount < count;
        Debug.Assert(!hasTable || (UsesIndirect && count - directCount <= Options.IndirectTableEntries));
        int needed = directCount + (hasTable ? 1 : 0);
        head = _firstFree;
        if (needed > FreeDescriptors)
        {
            return false;
        }

        // The chain takes the first descriptors of the free list, which is linked already.
        ulong capacity = 0;
        ushort slot = head;
        ushort last = head;
        for (int i = 0; i < needed; i++)
        {
            last = slot;
            DescriptorFlags flags = i + 1 < needed ? DescriptorFlags.Next : DescriptorFlags.None;
            if (i < directCount)
            {
                GuestRange range = Buffer(readable, writable, i, ref flags, ref capacity);
                Write(_descriptors, slot, new SplitDescriptor(range.Address, Length(range), flags, _next[slot]));
            }
            else
            {
                Write(_descriptors, slot, WriteTable(head, readable, writable, directCount, ref capacity));
            }

            slot = _next[last];
        }

        _firstFree = slot;
        Remember(head, needed, capacity);

        // Plain stores: they become visible with the release store of avail.idx, as Linux makes it for each chain.
        Unsafe.AsRef<ushort>(Available + SplitRing.EntriesOffset + (2 * (_nextAvailable & (Size - 1)))) = head;
        _nextAvailable++;

        // Release: pairs with the device's acquire load of avail.idx; descriptors and entries come before it.
        Volatile.Write(ref Word(Available + SplitRing.IndexOffset), _nextAvailable);
        return true;
    }

    private static GuestRange Buffer(
        ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable, int index, ref DescriptorFlags flags,
        ref ulong capacity)
    {
        GuestRange range = index < readable.Length ? readable[index] : writable[index - readable.Length];
        if (index >= readable.Length)
        {
            flags |= DescriptorFlags.Write;
            capacity += range.Length;
        }

        return range;
    }

    private static void Write(byte* table, int index, SplitDescriptor descriptor) =>
        Unsafe.AsRef<SplitDescriptor>(table + (SplitRing.DescriptorSize * index)) = descriptor;

    /// <summary>Fills the table that belongs to a head, and describes it.</summary>
    private SplitDescriptor WriteTable(
        ushort head, ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable, int first,
        ref ulong capacity)
    {
        int entries = readable.Length + writable.Length - first;
        byte* table = Table(head, out GuestAddress address);
        for (int i = 0; i < entries; i++)
        {
            DescriptorFlags flags = i + 1 < entries ? DescriptorFlags.Next : DescriptorFlags.None;
            GuestRange range = Buffer(readable, writable, first + i, ref flags, ref capacity);
            Write(table, i, new SplitDescriptor(
                range.Address, Length(range), flags, i + 1 < entries ? (ushort)(i + 1) : (ushort)0));
        }

        return new SplitDescriptor(
            address, (uint)(entries * SplitRing.DescriptorSize),
            DescriptorFlags.Indirect, next: 0);
    }

    /// <summary>Puts the descriptors of a chain back on the free list.</summary>
    private void Free(ushort head, int length)
    {
        ushort last = head;
        for (int i = 1; i < length; i++)
        {
            last = _next[last];
        }

        _next[last] = _firstFree;
        _firstFree = head;
    }
}
