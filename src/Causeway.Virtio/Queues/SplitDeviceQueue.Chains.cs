using System.Runtime.CompilerServices;

namespace Causeway.Virtio;

/// <content>
/// Walking a chain. Every descriptor is copied once, in two loads of eight bytes, and only the copy is looked at: the
/// driver may change the original at any time.
/// </content>
public sealed unsafe partial class SplitDeviceQueue
{
    /// <summary>Most entries of an indirect table: <c>next</c> has 16 bits.</summary>
    private const uint MaxTableEntries = 65536;

    /// <summary>Collects the pieces of a chain.</summary>
    /// <returns>False when the chain is malformed.</returns>
    private bool TryCollect(ushort head, DescriptorChain chain)
    {
        // Bounds loops by count, not by remembering what was seen. The specification allows as many descriptors as the
        // queue has; small queues get as many as a chain has pieces, because drivers are known to be less strict.
        int remaining = Math.Max(Size, DescriptorChain.MaxPieces);
        int index = head;
        while (true)
        {
            SplitDescriptor descriptor = ReadDescriptor(_descriptors + (SplitRing.DescriptorSize * index));
            if ((descriptor.Flags & DescriptorFlags.Indirect) != 0)
            {
                // Nothing may follow a table (virtio 1.4 section 2.7.5.3.1).
                return (descriptor.Flags & DescriptorFlags.Next) == 0 &&
                    AllowsIndirect &&
                    TryCollectTable(descriptor, remaining, chain);
            }

            remaining--;
            if (!TryAppend(descriptor.Address, descriptor.Length, descriptor.Flags, chain))
            {
                return false;
            }

            if ((descriptor.Flags & DescriptorFlags.Next) == 0)
            {
                return true;
            }

            index = descriptor.Next;
            if (index >= Size || remaining == 0)
            {
                return false;
            }
        }
    }

    /// <summary>Collects the pieces that an indirect table lists.</summary>
    private bool TryCollectTable(SplitDescriptor table, int remaining, DescriptorChain chain)
    {
        uint entries = table.Length / SplitRing.DescriptorSize;
        if (table.Length % SplitRing.DescriptorSize != 0 || entries is 0 or > MaxTableEntries ||
            table.Address.Value > ulong.MaxValue - table.Length)
        {
            return false;
        }

        // A table over two regions is read entry by entry.
        bool isContiguous = TryFindTable(table.Address, table.Length, out byte* pointer);
        uint index = 0;
        while (remaining > 0)
        {
            SplitDescriptor descriptor;
            if (isContiguous)
            {
                descriptor = ReadDescriptor(pointer + (SplitRing.DescriptorSize * index));
            }
            else if (!TryReadEntry(table.Address, index, out descriptor))
            {
                return false;
            }

            remaining--;
            if ((descriptor.Flags & DescriptorFlags.Indirect) != 0 || !TryAppend(descriptor.Address, descriptor.Length, descriptor.Flags, chain))
            {
                return false;
            }

            if ((descriptor.Flags & DescriptorFlags.Next) == 0)
            {
                return true;
            }

            index = descriptor.Next;
            if (index >= entries)
            {
                return false;
            }
        }

        return false;
    }

    /// <summary>Copies a descriptor: two loads, each of them once. A table may have any alignment.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static SplitDescriptor ReadDescriptor(byte* source)
    {
        ulong address = Unsafe.ReadUnaligned<ulong>(source);
        ulong rest = Unsafe.ReadUnaligned<ulong>(source + 8);
        return new SplitDescriptor(
            new GuestAddress(address), (uint)rest, (DescriptorFlags)(ushort)(rest >> 32), (ushort)(rest >> 48));
    }
}
