using Causeway.Fuse;
using Causeway.Virtio;

namespace Causeway.Driver;

/// <summary>
/// One queue of the device with the buffers of its requests. It belongs to one thread at a time; several threads take
/// turns by a lock of their own, or better use a queue each.
/// </summary>
/// <remarks>
/// Every request in flight has a slot: a piece of shared memory with room for the longest request and the longest reply.
/// What the device writes is hostile: lengths are checked by the ring, and replies are to be copied before they are
/// checked.
/// </remarks>
public sealed unsafe class VirtioFsQueue : IDisposable
{
    /// <summary>Pieces of a request: itself, and the room for its reply.</summary>
    internal const int MaxPieces = 2;

    private readonly DriverQueue _ring;
    private readonly QueueShape _shape;
    private readonly byte* _slots;
    private readonly GuestAddress _slotsAddress;
    private readonly Stack<int> _freeSlots;
    private readonly int[] _slotOfHead;
    private readonly TimeSpan _replyTimeout;

    internal VirtioFsQueue(DriverRing ring, GuestArena arena, QueueShape shape, TimeSpan replyTimeout)
    {
        Ring = ring;
        _ring = ring.Queue;
        _shape = shape;
        _replyTimeout = replyTimeout;
        _slots = arena.Cut(shape.Bytes, out _slotsAddress);
        _freeSlots = new Stack<int>(Enumerable.Range(0, shape.Slots));
        _slotOfHead = new int[ring.Queue.Size];
    }

    /// <summary>How many requests the device has.</summary>
    public int InFlight => _shape.Slots - _freeSlots.Count;

    /// <summary>How many requests it can have in flight.</summary>
    internal int Slots => _shape.Slots;

    /// <summary>The queue with its events.</summary>
    internal DriverRing Ring { get; }

    /// <summary>Adds a request. The device sees it at once, if it looks; <see cref="Kick"/> wakes one that sleeps.</summary>
    /// <param name="request">The bytes of the request.</param>
    /// <param name="replyCapacity">Room for the reply in bytes; zero when there is none.</param>
    /// <param name="slot">The name of the request until its reply is released.</param>
    /// <returns>False when the queue is full.</returns>
    public bool TrySubmit(ReadOnlySpan<byte> request, int replyCapacity, out int slot)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(request.Length, _shape.MaxMessage);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(replyCapacity, _shape.MaxMessage);
        if (!_freeSlots.TryPeek(out slot))
        {
            return false;
        }

        // SAFETY: a slot has room for MaxMessage bytes twice, and lies in the mapping, which outlives the queue.
        request.CopyTo(new Span<byte>(_slots + _shape.RequestOffset(slot), request.Length));
        Span<GuestRange> ranges =
        [
            new GuestRange(At(_shape.RequestOffset(slot)), (ulong)request.Length),
            new GuestRange(At(_shape.ReplyOffset(slot)), (ulong)replyCapacity),
        ];
        if (!_ring.TryAdd(ranges[..1], replyCapacity == 0 ? [] : ranges[1..], out ushort head))
        {
            return false;
        }

        _freeSlots.Pop();
        _slotOfHead[head] = slot;
        return true;
    }

    /// <summary>Takes a free slot whose request is then written in place.</summary>
    /// <param name="slot">The slot; given back by <see cref="Release"/>.</param>
    /// <returns>False when every slot is taken.</returns>
    internal bool TryAcquire(out int slot) => _freeSlots.TryPop(out slot);

    /// <summary>
    /// The memory of a slot: twice the longest message, each on a page. The device can read and change it at any time.
    /// </summary>
    internal byte* Memory(int slot) => _slots + _shape.RequestOffset(slot);

    /// <summary>Adds a request that stands in the memory of its slot already.</summary>
    /// <param name="slot">What <see cref="TryAcquire"/> gave.</param>
    /// <param name="request">Where the request is; may be empty.</param>
    /// <param name="reply">Where the reply goes; may be empty.</param>
    /// <returns>False when there are no descriptors left.</returns>
    internal bool TrySubmit(int slot, SlotPart request, SlotPart reply)
    {
        Span<GuestRange> ranges =
        [
            new GuestRange(At(_shape.RequestOffset(slot) + (ulong)request.Offset), (ulong)request.Length),
            new GuestRange(At(_shape.RequestOffset(slot) + (ulong)reply.Offset), (ulong)reply.Length),
        ];
        if (!_ring.TryAdd(request.Length == 0 ? [] : ranges[..1], reply.Length == 0 ? [] : ranges[1..], out ushort head))
        {
            return false;
        }

        _slotOfHead[head] = slot;
        return true;
    }

    /// <summary>Adds a chain of any shape, for tests of the device: it takes a slot and ignores its buffers.</summary>
    internal bool TrySubmit(ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable, out int slot)
    {
        if (!_freeSlots.TryPeek(out slot) || !_ring.TryAdd(readable, writable, out ushort head))
        {
            return false;
        }

        _freeSlots.Pop();
        _slotOfHead[head] = slot;
        return true;
    }

    /// <summary>Asks for a call, as <see cref="Take"/> does before it waits; for tests that count calls.</summary>
    internal bool ArmCalls() => _ring.ArmCalls();

    /// <summary>The buffers of a slot that is free, for tests of the device.</summary>
    internal (GuestAddress Request, GuestAddress Reply) Buffers(int slot) =>
        (At(_shape.RequestOffset(slot)), At(_shape.ReplyOffset(slot)));

    /// <summary>Wakes the device for what was submitted, if it wants to be woken.</summary>
    public void Kick() => Ring.KickIfNeeded();

    /// <summary>Takes a request that the device has completed, in whatever order.</summary>
    /// <param name="slot">The request; to be given back by <see cref="Release"/>.</param>
    /// <param name="length">How many bytes of the reply the device wrote.</param>
    /// <returns>Whether there was one.</returns>
    /// <exception cref="VirtioFsDeviceException">The device contradicts the specification.</exception>
    public bool TryTake(out int slot, out int length)
    {
        TakeResult result = _ring.TryTake(out ushort head, out uint written);
        if (result == TakeResult.Broken)
        {
            throw DeviceConnection.Broken(Ring.Index);
        }

        slot = _slotOfHead[head];
        length = (int)written;
        return result == TakeResult.Taken;
    }

    /// <summary>Waits for a request that the device has completed.</summary>
    /// <param name="slot">The request; to be given back by <see cref="Release"/>.</param>
    /// <returns>How many bytes of the reply the device wrote.</returns>
    /// <exception cref="VirtioFsDeviceException">The device contradicts the specification.</exception>
    /// <exception cref="TimeoutException">The device does not answer.</exception>
    public int Take(out int slot)
    {
        while (true)
        {
            if (TryTake(out slot, out int length))
            {
                return length;
            }

            if (_ring.ArmCalls() && !Ring.WaitForCall((int)_replyTimeout.TotalMilliseconds))
            {
                throw new TimeoutException($"the device did not answer within {_replyTimeout.TotalSeconds:F0} seconds");
            }
        }
    }

    /// <summary>The bytes of a reply, in memory that the device can still change: to be copied before they are checked.</summary>
    /// <param name="slot">A request that was taken and not released.</param>
    /// <param name="length">What the device wrote.</param>
    public ReadOnlySpan<byte> Reply(int slot, int length) => new(_slots + _shape.ReplyOffset(slot), length);

    /// <summary>Gives a slot back.</summary>
    /// <param name="slot">A request that was taken.</param>
    public void Release(int slot) => _freeSlots.Push(slot);

    /// <inheritdoc/>
    public void Dispose() => Ring.Dispose();

    private GuestAddress At(ulong offset) => new(_slotsAddress.Value + offset);
}

/// <summary>A part of a slot's memory.</summary>
internal readonly record struct SlotPart(int Offset, int Length);

/// <summary>The size of a queue's buffers.</summary>
internal readonly record struct QueueShape(int Slots, int MaxMessage)
{
    private const ulong Page = 4096;

    /// <summary>Bytes of all buffers.</summary>
    public ulong Bytes => (ulong)Slots * SlotBytes;

    private ulong MessageBytes => ((ulong)MaxMessage + Page - 1) / Page * Page;

    private ulong SlotBytes => (2 * MessageBytes) + Page;

    /// <summary>Where the request of a slot is, counted from the first buffer.</summary>
    public ulong RequestOffset(int slot) => (ulong)slot * SlotBytes;

    /// <summary>
    /// Where the reply of a slot is, counted from the first buffer: such that what follows its header begins on a page, as a Linux guest has
    /// it and O_DIRECT wants it.
    /// </summary>
    public ulong ReplyOffset(int slot) => RequestOffset(slot) + MessageBytes + DeviceMessage.ReplyStart;
}
