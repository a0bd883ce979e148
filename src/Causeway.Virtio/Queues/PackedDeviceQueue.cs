using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Causeway.Virtio;

/// <summary>
/// The device's half of a packed virtqueue (virtio 1.4 section 2.8): takes the chains that the driver made available and
/// gives them back.
/// </summary>
/// <remarks>
/// <code>
///   driver                                          device
///   descriptors but the first one's flags
///   first one's flags (release) ------------------> flags (acquire), descriptors             TryPop
///   fence; device event: kick?
///   flags (acquire)  &lt;----------------------------- id, length, flags in one word (release)  Push
///                                                   fence; driver event: call?               NeedsCall
/// </code>
/// All is in one ring: a descriptor is the driver's or the device's by its AVAIL and USED bits, whose meaning turns over with
/// each lap. The device writes its answers over descriptors that it has copied: of none more are pushed than were popped.
///
/// A descriptor's length, id and flags are one aligned word, loaded and stored at once: what was checked is what is used, and
/// both sides together write to fewer cache lines than in a split ring (docs/performance.md has what that is worth).
/// </remarks>
public sealed unsafe partial class PackedDeviceQueue : DeviceQueue
{
    private byte* _ring;
    private byte* _driverEvent;
    private byte* _deviceEvent;
    private GuestAddress _ringAddress;

    // The available side.
    private ushort _nextAvailable;
    private ushort _poppedSlots;
    private bool _isKickSuppressed;

    // The used side.
    private PackedPosition _nextUsed;
    private PackedPosition _judgedUsed;
    private int _unjudged;
    private ushort _pushedSlots;
    private bool _mustCall = true;

    /// <summary>Makes the device's half.</summary>
    /// <param name="queue">Where the queue is.</param>
    /// <param name="memory">The guest's memory; the caller keeps it until the queue is out of use.</param>
    /// <param name="start">How the queue starts. A base outside the ring makes a queue that is broken.</param>
    public PackedDeviceQueue(QueueMemory queue, GuestMemory memory, DeviceQueueStart start)
        : base(queue, memory, start)
    {
        var available = new PackedPosition((ushort)start.Base);
        var used = new PackedPosition((ushort)(start.Base >> 16));
        if (available.Slot >= Size || used.Slot >= Size)
        {
            MarkBroken();
            available = PackedPosition.Start;
            used = PackedPosition.Start;
        }

        _nextAvailable = available.Value;
        _nextUsed = used;
        _judgedUsed = used;
        Move(queue);
    }

    /// <inheritdoc/>
    public override uint Base => (uint)(_nextUsed.Value << 16) | _nextAvailable;

    /// <inheritdoc/>
    public override int InFlight => (ushort)(Volatile.Read(ref _poppedSlots) - Volatile.Read(ref _pushedSlots));

    /// <inheritdoc/>
    /// <remarks>Pairs with the driver's release store of flags; nothing is read through the answer.</remarks>
    public override bool HasAvailable => !IsBroken && IsNextAvailable(new PackedPosition(Volatile.Read(ref _nextAvailable)));

    /// <inheritdoc/>
    public override int AvailableCount => HasAvailable ? 2 : 0;

    /// <inheritdoc/>
    public override PopResult TryPop(DescriptorChain chain)
    {
        if (IsBroken)
        {
            return PopResult.Broken;
        }

        // Acquire: pairs with the driver's release store of the flags; the address, the other descriptors of the chain and what
        // they describe are read after it.
        var position = new PackedPosition(_nextAvailable);
        ulong tail = Tail(position);
        if (!IsAvailable(tail, position))
        {
            return PopResult.Empty;
        }

        // A driver has at most as many descriptors outstanding as the ring has. The count of pushed ones cannot be older than the
        // flags just read if the driver waited for them, so that an honest driver never fails here.
        int room = Size - (ushort)(_poppedSlots - Volatile.Read(ref _pushedSlots));
        chain.Begin(headIndex: 0);
        bool isGood = true;
        int slots = 0;
        while (true)
        {
            if (slots == room)
            {
                return Break();
            }

            slots++;
            ulong address = Volatile.Read(ref Unsafe.AsRef<ulong>(Descriptor(position)));
            var flags = (DescriptorFlags)(tail >> 48);
            isGood = isGood && TryCollect(new GuestAddress(address), (uint)tail, flags, slots, chain);
            if ((flags & DescriptorFlags.Next) == 0)
            {
                break;
            }

            // The rest of the chain was written before its first descriptor. Where a chain that is malformed ends has to be found, too:
            // its last descriptor has the id, and what follows it is the next chain.
            position = position.Plus(1, Size);
            tail = Tail(position);
            if (!IsAvailable(tail, position))
            {
                return Break();
            }
        }

        Volatile.Write(ref _nextAvailable, position.Plus(1, Size).Value);
        Volatile.Write(ref _poppedSlots, (ushort)(_poppedSlots + slots));
        chain.Name((ushort)(tail >> 32), slots);
        if (!isGood)
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
        Debug.Assert(InFlight >= chain.Slots, "only what was popped is put back");
        Volatile.Write(ref _nextAvailable, new PackedPosition(_nextAvailable).Minus(chain.Slots, Size).Value);
        Volatile.Write(ref _poppedSlots, (ushort)(_poppedSlots - chain.Slots));
    }

    /// <inheritdoc/>
    /// <remarks>
    /// With EVENT_IDX, too: a place comes back every two laps, so that an old one would be passed again and again.
    /// </remarks>
    public override void DisarmNotifications()
    {
        if (!_isKickSuppressed)
        {
            // A hint: a driver that has not seen it yet kicks once too often.
            SetDeviceEvent(PackedRing.EventDisable, default);
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

        var next = new PackedPosition(_nextAvailable);
        SetDeviceEvent(UsesEventIndex ? PackedRing.EventDescriptor : PackedRing.EventEnable, next);
        _isKickSuppressed = false;

        // Pairs with the fence between the driver's store of flags and its load of the device event: one of the two sees
        // the other's store.
        Interlocked.MemoryBarrier();
        return !IsNextAvailable(next);
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

        PackedPosition last = new PackedPosition(_nextAvailable).Plus(count, Size);
        SetDeviceEvent(PackedRing.EventDescriptor, last);
        _isKickSuppressed = false;

        // As in ArmNotifications.
        Interlocked.MemoryBarrier();
        return !IsNextAvailable(last);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool IsAvailable(ulong tail, PackedPosition position) =>
        ((DescriptorFlags)(tail >> 48) & PackedRing.OwnerFlags) == position.AvailableFlags;

    private bool IsNextAvailable(PackedPosition position) => IsAvailable(Tail(position), position);

    private byte* Descriptor(PackedPosition position) => _ring + (PackedRing.DescriptorSize * position.Slot);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private ulong Tail(PackedPosition position) =>
        Volatile.Read(ref Unsafe.AsRef<ulong>(Descriptor(position) + PackedRing.TailOffset));

    private void SetDeviceEvent(uint flags, PackedPosition position)
    {
        Volatile.Write(ref Unsafe.AsRef<uint>(_deviceEvent), PackedRing.Event(flags, position));
        LogDeviceArea(0, PackedRing.EventSize);
    }

    private PopResult Break()
    {
        MarkBroken();
        return PopResult.Broken;
    }
}
