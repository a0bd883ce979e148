using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Causeway.Virtio;

/// <summary>What <see cref="SplitDeviceQueue.TryPop"/> found.</summary>
public enum PopResult
{
    /// <summary>Nothing is available.</summary>
    Empty,

    /// <summary>The chain was filled.</summary>
    Popped,

    /// <summary>
    /// The driver made a chain available that cannot be used: only its head index is valid. It must go back with length 0
    /// like any other chain; the queue goes on.
    /// </summary>
    Malformed,

    /// <summary>The ring itself contradicts the specification. Nothing more will be popped.</summary>
    Broken,
}

/// <summary>How a device queue starts.</summary>
/// <param name="Features">Features agreed on.</param>
/// <param name="NextAvailable">
/// The index in the available ring to continue at: the value of SET_VRING_BASE, zero for a new queue.
/// </param>
public readonly record struct DeviceQueueStart(QueueFeatures Features, ushort NextAvailable);

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
///
/// A queue has two sides that may belong to different threads, each used by one thread at a time: the available side
/// (<see cref="TryPop"/>, <see cref="ArmNotifications"/>, <see cref="DisarmNotifications"/>) and the used side
/// (<see cref="Push"/>, <see cref="NeedsCall"/>). <see cref="Rebind"/> and the log may change only while neither is in use.
/// No method allocates or throws, whatever the driver writes.
/// </remarks>
public sealed unsafe partial class SplitDeviceQueue
{
    private readonly bool _usesEventIndex;
    private readonly bool _allowsIndirect;
    private readonly int _size;
    private byte* _descriptors;
    private byte* _available;
    private byte* _used;
    private GuestMemory _memory;
    private DirtyLog? _log;
    private GuestAddress? _usedRingLogAddress;

    // The available side.
    private ushort _nextAvailable;
    private ushort _seenAvailable;
    private ushort _poppedCount;
    private int _regionHint;
    private bool _isKickSuppressed;
    private bool _isBroken;

    // The used side.
    private ushort _nextUsed;
    private ushort _judgedUsed;
    private ushort _pushedCount;
    private bool _mustCall = true;

    /// <summary>Makes the device's half. The used index continues where the used ring in guest memory stands.</summary>
    /// <param name="queue">Where the queue is.</param>
    /// <param name="memory">The guest's memory; the caller keeps it until the queue is out of use.</param>
    /// <param name="start">How the queue starts.</param>
    public SplitDeviceQueue(SplitQueueMemory queue, GuestMemory memory, DeviceQueueStart start)
    {
        ArgumentOutOfRangeException.ThrowIfZero(queue.Size);
        _size = queue.Size;
        _usesEventIndex = start.Features.HasFlag(QueueFeatures.EventIndex);
        _allowsIndirect = start.Features.HasFlag(QueueFeatures.IndirectDescriptors);
        _descriptors = queue.DescriptorTable;
        _available = queue.AvailableRing;
        _used = queue.UsedRing;
        _memory = memory;
        _nextAvailable = start.NextAvailable;
        _seenAvailable = start.NextAvailable;
        _nextUsed = Volatile.Read(ref Word(_used + SplitRing.IndexOffset));
        _judgedUsed = _nextUsed;
    }

    /// <summary>The queue size.</summary>
    public int Size => _size;

    /// <summary>
    /// The index of the next chain in the available ring: the answer to GET_VRING_BASE, once all chains popped so far have
    /// gone back.
    /// </summary>
    public ushort NextAvailable => _nextAvailable;

    /// <summary>The used index as the driver sees it.</summary>
    public ushort NextUsed => _nextUsed;

    /// <summary>How many chains are popped and not pushed. Exact only while no thread works on the queue.</summary>
    public int InFlight => (ushort)(Volatile.Read(ref _poppedCount) - Volatile.Read(ref _pushedCount));

    /// <summary>Whether the ring contradicted the specification. Only a new queue ends that.</summary>
    public bool IsBroken => Volatile.Read(ref _isBroken);

    /// <summary>
    /// Whether chains wait that nobody popped. May be asked by any thread, to judge whether a busy worker needs help.
    /// </summary>
    /// <remarks>Pairs with the driver's release store of avail.idx; nothing is read through the answer.</remarks>
    public bool HasAvailable =>
        !IsBroken && Volatile.Read(ref Word(_available + SplitRing.IndexOffset)) != Volatile.Read(ref _nextAvailable);

    /// <summary>Takes the next chain.</summary>
    /// <param name="chain">The object to fill.</param>
    public PopResult TryPop(DescriptorChain chain)
    {
        if (_nextAvailable == _seenAvailable && !TrySeeMore())
        {
            return _isBroken ? PopResult.Broken : PopResult.Empty;
        }

        // Covered by the acquire in TrySeeMore: the driver stored the entry before it released the index.
        ushort head = Volatile.Read(ref Word(
            _available + SplitRing.EntriesOffset + (2 * (_nextAvailable & (_size - 1)))));

        // A driver has at most one chain per descriptor outstanding. The count of pushed chains cannot be older than the
        // available index just read if the driver waited for them, so that an honest driver never gets here.
        if (head >= _size || (ushort)(_poppedCount - Volatile.Read(ref _pushedCount)) >= _size)
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

    /// <summary>
    /// Undoes the last <see cref="TryPop"/>, whose chain was neither looked at nor pushed: the next one takes it again, as the driver
    /// has it then.
    /// </summary>
    public void PutBack()
    {
        Debug.Assert((ushort)(_poppedCount - Volatile.Read(ref _pushedCount)) > 0, "only what was popped is put back");
        Volatile.Write(ref _nextAvailable, (ushort)(_nextAvailable - 1));
        Volatile.Write(ref _poppedCount, (ushort)(_poppedCount - 1));
    }

    /// <summary>Says that the driver need not kick, because the queue is being looked at anyway.</summary>
    /// <remarks>
    /// With EVENT_IDX nothing has to be done: avail_event keeps the index of the last arming, which the driver passes once
    /// only.
    /// </remarks>
    public void DisarmNotifications()
    {
        if (!_usesEventIndex && !_isKickSuppressed)
        {
            // A hint: a driver that has not seen it yet kicks once too often.
            Volatile.Write(ref Word(_used + SplitRing.FlagsOffset), SplitRing.SuppressFlag);
            LogUsedRing(SplitRing.FlagsOffset, sizeof(ushort));
            _isKickSuppressed = true;
        }
    }

    /// <summary>Asks the driver to kick for the next chain, and looks once more.</summary>
    /// <returns>
    /// Whether the queue is still empty, so that the thread may sleep until a kick. A broken queue is empty for good.
    /// </returns>
    public bool ArmNotifications()
    {
        if (_isBroken)
        {
            return true;
        }

        if (_usesEventIndex)
        {
            SetAvailableEvent(_nextAvailable);
        }
        else
        {
            // Also when it was never suppressed by this object: an earlier device may have left the flag behind.
            Volatile.Write(ref Word(_used + SplitRing.FlagsOffset), 0);
            LogUsedRing(SplitRing.FlagsOffset, sizeof(ushort));
            _isKickSuppressed = false;
        }

        // Pairs with the fence between the driver's store of avail.idx and its load of avail_event or used.flags: one of
        // the two sees the other's store.
        Interlocked.MemoryBarrier();
        return Volatile.Read(ref Word(_available + SplitRing.IndexOffset)) == _nextAvailable;
    }

    /// <summary>
    /// Asks the driver to kick only once more than so many chains wait, for a device that looks by itself after a while. Without
    /// EVENT_IDX it does not kick at all.
    /// </summary>
    /// <param name="count">How many; fewer than the ring can hold, each chain taking as many descriptors as it may.</param>
    /// <returns>Whether no more than that wait now, so that the thread may sleep for a while.</returns>
    public bool ArmNotificationsAfter(int count)
    {
        if (_isBroken)
        {
            return true;
        }

        if (!_usesEventIndex)
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
        int offset = SplitRing.AvailableEventOffset(_size);
        Volatile.Write(ref Word(_used + offset), index);
        LogUsedRing(offset, sizeof(ushort));
    }

    /// <summary>Looks for more chains.</summary>
    private bool TrySeeMore()
    {
        if (_isBroken)
        {
            return false;
        }

        // Acquire: pairs with the driver's release store of avail.idx; the entries and descriptors are read after it.
        ushort index = Volatile.Read(ref Word(_available + SplitRing.IndexOffset));
        if ((ushort)(index - _nextAvailable) > _size)
        {
            Break();
            return false;
        }

        _seenAvailable = index;
        return index != _nextAvailable;
    }

    private void Break()
    {
        Volatile.Write(ref _isBroken, true);

        // What was seen is not trusted any more: TryPop ends up here again, whatever the driver puts in its place.
        _seenAvailable = _nextAvailable;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ref ushort Word(byte* address) => ref Unsafe.AsRef<ushort>(address);

    /// <summary>Notes a write to the used ring, where the front end wants that.</summary>
    private void LogUsedRing(int offset, uint length)
    {
        if (_usedRingLogAddress is GuestAddress start && _log is DirtyLog log)
        {
            log.Mark(new GuestAddress(unchecked(start.Value + (ulong)offset)), length);
        }
    }
}
