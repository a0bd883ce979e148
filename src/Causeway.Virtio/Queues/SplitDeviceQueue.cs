using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Causeway.Virtio;

/// <summary>
/// The device's half of a split virtqueue (virtio 1.4 section 2.7): takes the chains that the driver made available and
/// gives them back.
/// </summary>
/// <remarks>
/// <code>
///   driver                                          device
///   descriptors, avail.ring                         avail.idx  (acquire)          TryPop
///   avail.idx  (release)  ------------------------> avail.ring, descriptors
///   fence; avail_event or used.flags: kick?
///                                                   used.ring
///   used.idx   (acquire)  &lt;------------------------ used.idx   (release)          Push
///   used.ring                                       fence; used_event or avail.flags: call?   NeedsCall
/// </code>
/// Both sides "store, fence, load the other's word", so that at least one of them sees the other: either the device finds
/// the new chain when it looks again after arming, or the driver finds that it has to kick.
/// </remarks>
public sealed unsafe partial class SplitDeviceQueue : DeviceQueue
{
    private byte* _descriptors;
    private byte* _available;
    private byte* _used;

    // The available side.
    private ushort _nextAvailable;
    private ushort _seenAvailable;
    private ushort _poppedCount;
    private bool _isKickSuppressed;

    // The used side.
    private ushort _nextUsed;
    private ushort _judgedUsed;
    private ushort _pushedCount;
    private bool _mustCall = true;

    /// <summary>Makes the device's half. The used index continues where the used ring in guest memory stands.</summary>
    /// <param name="queue">Where the queue is.</param>
    /// <param name="memory">The guest's memory; the caller keeps it until the queue is out of use.</param>
    /// <param name="start">How the queue starts.</param>
    public SplitDeviceQueue(QueueMemory queue, GuestMemory memory, DeviceQueueStart start)
        : base(queue, memory, start)
    {
        _descriptors = queue.DescriptorArea;
        _available = queue.DriverArea;
        _used = queue.DeviceArea;
        _nextAvailable = (ushort)start.Base;
        _seenAvailable = _nextAvailable;
        _nextUsed = Volatile.Read(ref Word(_used + SplitRing.IndexOffset));
        _judgedUsed = _nextUsed;
    }

    /// <summary>The index of the next chain in the available ring.</summary>
    public ushort NextAvailable => _nextAvailable;

    /// <inheritdoc/>
    public override uint Base => _nextAvailable;

    /// <summary>The used index as the driver sees it.</summary>
    public ushort NextUsed => _nextUsed;

    /// <inheritdoc/>
    public override int InFlight => (ushort)(Volatile.Read(ref _poppedCount) - Volatile.Read(ref _pushedCount));

    /// <inheritdoc/>
    /// <remarks>Pairs with the driver's release store of avail.idx; nothing is read through the answer.</remarks>
    public override bool HasAvailable =>
        !IsBroken && Volatile.Read(ref Word(_available + SplitRing.IndexOffset)) != Volatile.Read(ref _nextAvailable);

    /// <inheritdoc/>
    public override int AvailableCount => IsBroken
        ? 0
        : (ushort)(Volatile.Read(ref Word(_available + SplitRing.IndexOffset)) - Volatile.Read(ref _nextAvailable));

    /// <inheritdoc/>
    public override PopResult TryPop(DescriptorChain chain)
    {
        if (_nextAvailable == _seenAvailable && !TrySeeMore())
        {
            return IsBroken ? PopResult.Broken : PopResult.Empty;
        }

        // Covered by the acquire in TrySeeMore: the driver stored the entry before it released the index.
        ushort head = Volatile.Read(ref Word(
            _available + SplitRing.EntriesOffset + (2 * (_nextAvailable & (Size - 1)))));

        // A driver has at most one chain per descriptor outstanding. The count of pushed chains cannot be older than the
        // available index just read if the driver waited for them, so that an honest driver never gets here.
        if (head >= Size || (ushort)(_poppedCount - Volatile.Read(ref _pushedCount)) >= Size)
        {
            Break();
            return PopResult.Broken;
        }

        Volatile.Write(ref _nextAvailable, (ushort)(_nextAvailable + 1));
        Volatile.Write(ref _poppedCount, (ushort)(_poppedCount + 1));
        chain.Begin(head);
        if (!TryCollect(head, chain))
        {
            chain.Discard();
            return PopResult.Malformed;
        }

        chain.Complete();
        return PopResult.Popped;
    }

    /// <inheritdoc/>
    public override void PutBack(DescriptorChain chain)
    {
        Debug.Assert((ushort)(_poppedCount - Volatile.Read(ref _pushedCount)) > 0, "only what was popped is put back");
        Volatile.Write(ref _nextAvailable, (ushort)(_nextAvailable - 1));
        Volatile.Write(ref _poppedCount, (ushort)(_poppedCount - 1));
    }

    /// <inheritdoc/>
    /// <remarks>
    /// With EVENT_IDX nothing has to be done: avail_event keeps the index of the last arming, which the driver passes once
    /// only.
    /// </remarks>
    public override void DisarmNotifications()
    {
        if (!UsesEventIndex && !_isKickSuppressed)
        {
            // A hint: a driver that has not seen it yet kicks once too often.
            Volatile.Write(ref Word(_used + SplitRing.FlagsOffset), SplitRing.SuppressFlag);
            LogDeviceArea(SplitRing.FlagsOffset, sizeof(ushort));
            _isKickSuppressed = true;
        }
    }

    /// <inheritdoc/>
    public override bool ArmNotifications()
    {
        if (IsBroken)
        {
            return true;
        }

        if (UsesEventIndex)
        {
            SetAvailableEvent(_nextAvailable);
        }
        else
        {
            // Also when it was never suppressed by this object: an earlier device may have left the flag behind.
            Volatile.Write(ref Word(_used + SplitRing.FlagsOffset), 0);
            LogDeviceArea(SplitRing.FlagsOffset, sizeof(ushort));
            _isKickSuppressed = false;
        }

        // Pairs with the fence between the driver's store of avail.idx and its load of avail_event or used.flags: one of
        // the two sees the other's store.
        Interlocked.MemoryBarrier();
        return Volatile.Read(ref Word(_available + SplitRing.IndexOffset)) == _nextAvailable;
    }

    /// <inheritdoc/>
    public override bool ArmNotificationsAfter(int count)
    {
        if (IsBroken)
        {
            return true;
        }

        if (!UsesEventIndex)
        {
            DisarmNotifications();
            return true;
        }

        SetAvailableEvent((ushort)(_nextAvailable + count));

        // As in ArmNotifications.
        Interlocked.MemoryBarrier();
        return (ushort)(Volatile.Read(ref Word(_available + SplitRing.IndexOffset)) - _nextAvailable) <= count;
    }

    private void SetAvailableEvent(ushort index)
    {
        int offset = SplitRing.AvailableEventOffset(Size);
        Volatile.Write(ref Word(_used + offset), index);
        LogDeviceArea(offset, sizeof(ushort));
    }

    /// <summary>Looks for more chains.</summary>
    private bool TrySeeMore()
    {
        if (IsBroken)
        {
            return false;
        }

        // Acquire: pairs with the driver's release store of avail.idx; the entries and descriptors are read after it.
        ushort index = Volatile.Read(ref Word(_available + SplitRing.IndexOffset));
        if ((ushort)(index - _nextAvailable) > Size)
        {
            Break();
            return false;
        }

        _seenAvailable = index;
        return index != _nextAvailable;
    }

    private void Break()
    {
        MarkBroken();

        // What was seen is not trusted any more: TryPop ends up here again, whatever the driver puts in its place.
        _seenAvailable = _nextAvailable;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ref ushort Word(byte* address) => ref Unsafe.AsRef<ushort>(address);
}
