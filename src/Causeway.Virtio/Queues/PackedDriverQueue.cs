using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Causeway.Virtio;

/// <summary>
/// The driver's half of a packed virtqueue (virtio 1.4 section 2.8).
/// </summary>
/// <remarks>
/// The mirror image of <see cref="PackedDeviceQueue"/>, whose remarks explain the order of loads and stores.
/// </remarks>
public sealed unsafe class PackedDriverQueue : DriverQueue
{
    private readonly byte* _ring;
    private readonly ushort[] _nextFreeId;
    private ushort _freeId;

    private PackedPosition _nextAvailable;
    private PackedPosition _judgedAvailable;
    private int _unjudged;
    private PackedPosition _lastUsed;
    private bool _isCallSuppressed;

    internal PackedDriverQueue(byte* block, GuestAddress address, DriverQueueOptions options)
        : base(block, address, options)
    {
        _ring = block;
        _nextFreeId = new ushort[Size];
        for (int i = 0; i < Size; i++)
        {
            _nextFreeId[i] = (ushort)(i + 1);
        }

        _nextAvailable = PackedPosition.Start;
        _judgedAvailable = PackedPosition.Start;
        _lastUsed = PackedPosition.Start;
    }

    /// <inheritdoc/>
    internal override bool TryAdd(
        ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable, int directCount, out ushort head)
    {
        int count = readable.Length + writable.Length;
        bool isIndirect = directCount == 0;
        Debug.Assert(isIndirect ? UsesIndirect && count <= Options.IndirectTableEntries : directCount == count);
        int needed = isIndirect ? 1 : count;

        // There are as many ids as descriptors, and a chain takes at least one of each.
        head = _freeId;
        if (needed > FreeDescriptors)
        {
            return false;
        }

        // The first descriptor last: with its flags the device sees the whole chain.
        ulong capacity = 0;
        PackedPosition first = _nextAvailable;
        byte* firstWord = Descriptor(first) + PackedRing.TailOffset;
        ulong firstTail;
        if (isIndirect)
        {
            capacity = WriteTable(Table(head, out GuestAddress table), readable, writable);
            Unsafe.AsRef<ulong>(Descriptor(first)) = table.Value;
            firstTail = PackedRing.Tail(
                (uint)(count * PackedRing.DescriptorSize), head, DescriptorFlags.Indirect | first.AvailableFlags);
        }
        else
        {
            firstTail = 0;
            for (int i = count - 1; i >= 0; i--)
            {
                bool isWritable = i >= readable.Length;
                GuestRange range = isWritable ? writable[i - readable.Length] : readable[i];
                capacity += isWritable ? range.Length : 0;
                PackedPosition position = first.Plus(i, Size);
                firstTail = PackedRing.Tail(
                    Length(range), head,
                    position.AvailableFlags |
                    (isWritable ? DescriptorFlags.Write : DescriptorFlags.None) |
                    (i < count - 1 ? DescriptorFlags.Next : DescriptorFlags.None));
                byte* descriptor = Descriptor(position);
                Unsafe.AsRef<ulong>(descriptor) = range.Address.Value;
                if (i > 0)
                {
                    Unsafe.AsRef<ulong>(descriptor + PackedRing.TailOffset) = firstTail;
                }
            }
        }

        _nextAvailable = first.Plus(needed, Size);
        _unjudged += needed;
        _freeId = _nextFreeId[head];
        Remember(head, needed, capacity);

        // Release: pairs with the device's acquire load of the flags; all else of the chain comes before it.
        Volatile.Write(ref Unsafe.AsRef<ulong>(firstWord), firstTail);
        return true;
    }

    /// <inheritdoc/>
    public override bool NeedsKick()
    {
        int count = _unjudged;
        if (count == 0)
        {
            return false;
        }

        PackedPosition from = _judgedAvailable;
        _judgedAvailable = _nextAvailable;
        _unjudged = 0;

        // Pairs with the fence between the device's store of its event structure and its second look at the flags.
        Interlocked.MemoryBarrier();
        uint suppression = Volatile.Read(ref Unsafe.AsRef<uint>(DevicePart));
        return PackedRing.NeedsEvent(suppression, UsesEventIndex, from, count, Size);
    }

    /// <inheritdoc/>
    public override TakeResult TryTake(out ushort head, out uint written)
    {
        head = 0;
        written = 0;
        if (IsBroken)
        {
            return TakeResult.Broken;
        }

        // Acquire: pairs with the device's release store of the word; the data is read after it. Copied once, and only the
        // copy is checked.
        ulong tail = Volatile.Read(ref Unsafe.AsRef<ulong>(Descriptor(_lastUsed) + PackedRing.TailOffset));
        var flags = (DescriptorFlags)(tail >> 48);
        if ((flags & PackedRing.OwnerFlags) != _lastUsed.UsedFlags)
        {
            return TakeResult.Empty;
        }

        head = (ushort)(tail >> 32);
        written = (flags & DescriptorFlags.Write) != 0 ? (uint)tail : 0;
        int slots = TakeBack(head, written);
        if (slots == 0)
        {
            IsBroken = true;
            head = 0;
            written = 0;
            return TakeResult.Broken;
        }

        _lastUsed = _lastUsed.Plus(slots, Size);
        _nextFreeId[head] = _freeId;
        _freeId = head;
        return TakeResult.Taken;
    }

    /// <inheritdoc/>
    /// <remarks>With EVENT_IDX, too, as in <see cref="PackedDeviceQueue.DisarmNotifications"/>.</remarks>
    public override void DisarmCalls()
    {
        if (!_isCallSuppressed)
        {
            // A hint: a device that has not seen it yet calls once too often.
            SetDriverEvent(PackedRing.EventDisable, default);
            _isCallSuppressed = true;
        }
    }

    /// <inheritdoc/>
    public override bool ArmCalls()
    {
        SetDriverEvent(UsesEventIndex ? PackedRing.EventDescriptor : PackedRing.EventEnable, _lastUsed);
        _isCallSuppressed = false;

        // Pairs with the fence between the device's store of flags and its load of the driver event.
        Interlocked.MemoryBarrier();
        ulong tail = Volatile.Read(ref Unsafe.AsRef<ulong>(Descriptor(_lastUsed) + PackedRing.TailOffset));
        return IsBroken || ((DescriptorFlags)(tail >> 48) & PackedRing.OwnerFlags) != _lastUsed.UsedFlags;
    }

    private static ulong WriteTable(byte* table, ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable)
    {
        ulong capacity = 0;
        byte* entry = table;
        foreach (GuestRange range in readable)
        {
            Unsafe.AsRef<PackedDescriptor>(entry) = new(range.Address, Length(range), 0, DescriptorFlags.None);
            entry += PackedRing.DescriptorSize;
        }

        foreach (GuestRange range in writable)
        {
            Unsafe.AsRef<PackedDescriptor>(entry) = new(range.Address, Length(range), 0, DescriptorFlags.Write);
            entry += PackedRing.DescriptorSize;
            capacity += range.Length;
        }

        return capacity;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private byte* Descriptor(PackedPosition position) => _ring + (PackedRing.DescriptorSize * position.Slot);

    private void SetDriverEvent(uint flags, PackedPosition position) =>
        Volatile.Write(ref Unsafe.AsRef<uint>(DriverPart), PackedRing.Event(flags, position));
}
