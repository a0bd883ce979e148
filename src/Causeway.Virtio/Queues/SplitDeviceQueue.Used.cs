using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Causeway.Virtio;

/// <content>The used side, and what changes while the queue rests.</content>
public sealed unsafe partial class SplitDeviceQueue
{
    /// <summary>
    /// Gives a chain back. The driver sees it at once, if it looks; whether it has to be called <see cref="NeedsCall"/> says, once for
    /// as many as one likes.
    /// </summary>
    /// <remarks>
    /// A driver that looks by itself works on the first replies of a batch while the device makes the others. If the batch appeared
    /// as a whole, the two would take turns: 4 KiB reads and GETATTR at depth 16 then cost 1.6 and 1.4 times as much
    /// (docs/performance.md).
    /// </remarks>
    /// <param name="chain">The chain; free for the next <see cref="TryPop"/> afterwards.</param>
    /// <param name="written">How many bytes were written to its writable pieces, from their start.</param>
    public void Push(DescriptorChain chain, uint written)
    {
        Debug.Assert(InFlight > 0, "only a chain that was popped can go back");
        int offset = SplitRing.EntriesOffset + (SplitRing.UsedElementSize * (_nextUsed & (_size - 1)));

        // Plain stores: they become visible with the release store of used.idx.
        Unsafe.AsRef<UsedElement>(_used + offset) = new UsedElement(chain.HeadIndex, written);
        if (_log is DirtyLog log)
        {
            LogWritten(log, chain, written);
            LogUsedRing(offset, SplitRing.UsedElementSize);
        }

        _nextUsed++;

        // Before used.idx: a driver that uses the descriptors again has seen that index, and then TryPop sees this count.
        Volatile.Write(ref _pushedCount, (ushort)(_pushedCount + 1));

        // Release: pairs with the driver's acquire load of used.idx; the element and all data come before it.
        Volatile.Write(ref Word(_used + SplitRing.IndexOffset), _nextUsed);
        LogUsedRing(SplitRing.IndexOffset, sizeof(ushort));
    }

    /// <summary>Asks whether the driver is to be called for the chains that were pushed since the last time.</summary>
    /// <returns>Whether it is; once for all of them.</returns>
    public bool NeedsCall()
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
        if (!_usesEventIndex)
        {
            return (Volatile.Read(ref Word(_available + SplitRing.FlagsOffset)) & SplitRing.SuppressFlag) == 0;
        }

        ushort usedEvent = Volatile.Read(ref Word(_available + SplitRing.UsedEventOffset(_size)));
        if (_mustCall)
        {
            // What was pushed before this queue was started is not known: the driver may wait for an index before it.
            _mustCall = false;
            return true;
        }

        return SplitRing.NeedsEvent(usedEvent, now, old);
    }

    /// <summary>
    /// Points the queue at new memory, where all indexes continue: the front end has sent another memory table or other
    /// ring addresses. Only while no thread uses the queue and no chain is in flight that needs the old memory.
    /// </summary>
    /// <param name="queue">Where the queue is now; of the same size.</param>
    /// <param name="memory">The guest's memory; the caller keeps it until the queue is out of use.</param>
    public void Rebind(SplitQueueMemory queue, GuestMemory memory)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(queue.Size, _size);
        _descriptors = queue.DescriptorTable;
        _available = queue.AvailableRing;
        _used = queue.UsedRing;
        _memory = memory;
        _seenAvailable = _nextAvailable;
        _mustCall = true;
    }

    /// <summary>Starts, changes or ends the noting of written pages. Only while no thread uses the queue.</summary>
    /// <param name="log">The log for everything the device writes (VHOST_F_LOG_ALL); null for none.</param>
    /// <param name="usedRingAddress">
    /// The address under which writes to the used ring are noted (flag VHOST_VRING_F_LOG of SET_VRING_ADDR and its log
    /// address); null when they are not.
    /// </param>
    public void SetDirtyLog(DirtyLog? log, GuestAddress? usedRingAddress)
    {
        _log = log;
        _usedRingLogAddress = usedRingAddress;
    }

    /// <summary>Notes the pages of what was written to a chain.</summary>
    private static void LogWritten(DirtyLog log, DescriptorChain chain, uint written)
    {
        ulong remaining = written;
        foreach (GuestRange range in chain.WritableRanges)
        {
            if (remaining == 0)
            {
                break;
            }

            ulong length = Math.Min(range.Length, remaining);
            log.Mark(range.Address, length);
            remaining -= length;
        }
    }
}
