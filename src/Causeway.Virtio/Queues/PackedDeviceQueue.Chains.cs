using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Causeway.Virtio;

/// <content>The buffers of a chain, and the used side.</content>
public sealed unsafe partial class PackedDeviceQueue
{
    /// <inheritdoc/>
    public override void Push(DescriptorChain chain, uint written)
    {
        Debug.Assert(InFlight >= chain.Slots, "only a chain that was popped can go back");
        int slots = chain.Slots;
        PackedPosition position = _nextUsed;
        DescriptorFlags flags = position.UsedFlags | (written > 0 ? DescriptorFlags.Write : DescriptorFlags.None);
        _nextUsed = position.Plus(slots, Size);
        _unjudged += slots;
        LogWritten(chain, written);

        // Before the flags: a driver that uses the slots again has seen them, and then TryPop sees this count.
        Volatile.Write(ref _pushedSlots, (ushort)(_pushedSlots + slots));

        // Release: pairs with the driver's acquire load of the flags; all data comes before it. The slots behind it stay as they are: the
        // driver knows how many to pass over.
        Volatile.Write(
            ref Unsafe.AsRef<ulong>(Descriptor(position) + PackedRing.TailOffset),
            PackedRing.Tail(written, chain.HeadIndex, flags));
        LogDescriptor(new GuestAddress(_ringAddress.Value + (ulong)(PackedRing.DescriptorSize * position.Slot)));
    }

    /// <inheritdoc/>
    public override bool NeedsCall()
    {
        int count = _unjudged;
        if (count == 0)
        {
            return false;
        }

        PackedPosition from = _judgedUsed;
        _judgedUsed = _nextUsed;
        _unjudged = 0;

        // Pairs with the fence between the driver's store of its event structure and its second look at the flags: either the driver sees
        // the used descriptor, or we see that it wants a call.
        Interlocked.MemoryBarrier();
        uint suppression = Volatile.Read(ref Unsafe.AsRef<uint>(_driverEvent));
        if (_mustCall)
        {
            // What was pushed before this queue was started is not known: the driver may wait for a place before it.
            _mustCall = false;
            count = 2 * Size;
        }

        return PackedRing.NeedsEvent(suppression, UsesEventIndex, from, count, Size);
    }

    /// <inheritdoc/>
    private protected override void Move(QueueMemory queue)
    {
        _ring = queue.DescriptorArea;
        _driverEvent = queue.DriverArea;
        _deviceEvent = queue.DeviceArea;
        _ringAddress = queue.DescriptorAddress;
        _mustCall = true;
        _isKickSuppressed = false;
    }

    /// <summary>Adds what a descriptor of the ring stands for.</summary>
    /// <returns>False when the chain is malformed.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private bool TryCollect(GuestAddress address, uint length, DescriptorFlags flags, int number, DescriptorChain chain)
    {
        if ((flags & DescriptorFlags.Indirect) == 0)
        {
            return TryAppend(address, length, flags, chain);
        }

        // A list has descriptors of one kind only (virtio 1.4 section 2.8.4), and one table is all of it.
        return number == 1 && (flags & DescriptorFlags.Next) == 0 && AllowsIndirect && TryCollectTable(address, length, chain);
    }

    /// <summary>Collects the pieces that an indirect table lists: all its entries in order, whatever their other flags say.</summary>
    private bool TryCollectTable(GuestAddress table, uint length, DescriptorChain chain)
    {
        // No longer than a chain may be, as in a split ring.
        uint entries = length / PackedRing.DescriptorSize;
        if (length % PackedRing.DescriptorSize != 0 || entries == 0 ||
            entries > Math.Max(Size, DescriptorChain.MaxPieces) || table.Value > ulong.MaxValue - length)
        {
            return false;
        }

        // A table over two regions is read entry by entry.
        bool isContiguous = TryFindTable(table, length, out byte* pointer);
        for (uint index = 0; index < entries; index++)
        {
            // Two loads, each of them once. A table may have any alignment.
            PackedDescriptor descriptor;
            if (isContiguous)
            {
                byte* entry = pointer + (PackedRing.DescriptorSize * index);
                ulong address = Unsafe.ReadUnaligned<ulong>(entry);
                ulong tail = Unsafe.ReadUnaligned<ulong>(entry + PackedRing.TailOffset);
                descriptor = new PackedDescriptor(
                    new GuestAddress(address), (uint)tail, (ushort)(tail >> 32), (DescriptorFlags)(tail >> 48));
            }
            else if (!TryReadEntry(table, index, out descriptor))
            {
                return false;
            }

            if (!TryAppend(descriptor.Address, descriptor.Length, descriptor.Flags, chain))
            {
                return false;
            }
        }

        return true;
    }
}
