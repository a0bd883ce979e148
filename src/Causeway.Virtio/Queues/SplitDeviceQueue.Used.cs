using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Causeway.Virtio;

/// <content>The used side, and what changes while the queue rests.</content>
public sealed unsafe partial class SplitDeviceQueue
{
    /// <inheritdoc/>
    public override void Push(DescriptorChain chain, uint written)
    {
        Debug.Assert(InFlight > 0, "only a chain that was popped can go back");
        int offset = SplitRing.EntriesOffset + (SplitRing.UsedElementSize * (_nextUsed & (Size - 1)));

        // Plain stores: they become visible with the release store of used.idx.
        Unsafe.AsRef<UsedElement>(_used + offset) = new UsedElement(chain.HeadIndex, written);
        if (LogWritten(chain, written))
        {
            LogDeviceArea(offset, SplitRing.UsedElementSize);
        }

        _nextUsed++;

        // Before used.idx: a driver that uses the descriptors again has seen that index, and then TryPop sees this count.
        Volatile.Write(ref _pushedCount, (ushort)(_pushedCount + 1));

        // Release: pairs with the driver's acquire load of used.idx; the element and all data come before it.
        Volatile.Write(ref Word(_used + SplitRing.IndexOffset), _nextUsed);
        LogDeviceArea(SplitRing.IndexOffset, sizeof(ushort));
    }

    /// <inheritdoc/>
    public override bool NeedsCall()
    {
        ushort old = _judgedUsed;
        ushort now = _nextUsed;
        if (now == old)
        {
            return false;
        }

        _judgedUsed = now;

        // Pairs with the fence between the driver's store of used_event or avail.flags and its load of used.idx: either
        // the driver sees the new index, or we see that it wants a call.
        Interlocked.MemoryBarrier();
        if (!UsesEventIndex)
        {
            return (Volatile.Read(ref Word(_available + SplitRing.FlagsOffset)) & SplitRing.SuppressFlag) == 0;
        }

        ushort usedEvent = Volatile.Read(ref Word(_available + SplitRing.UsedEventOffset(Size)));
        if (_mustCall)
        {
            // What was pushed before this queue was started is not known: the driver may wait for an index before it.
            _mustCall = false;
            return true;
        }

        return SplitRing.NeedsEvent(usedEvent, now, old);
    }

    /// <inheritdoc/>
    private protected override void Move(QueueMemory queue)
    {
        _descriptors = queue.DescriptorArea;
        _available = queue.DriverArea;
        _used = queue.DeviceArea;
        _seenAvailable = _nextAvailable;
        _mustCall = true;
    }
}
