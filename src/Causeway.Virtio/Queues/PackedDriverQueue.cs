using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Virtio;

/// <summary>
/// The driver's half of a packed virtqueue (virtio 1.4 section 2.8).
/// </summary>
/// <remarks>
/// The mirror image of <see cref="PackedDeviceQueue"/>, whose remarks explain the order of loads and stores.
/// </remarks>
public sealed unsafe class PackedDriverQueue : DriverQueue
{
    private readonly DriverQueueOptions _options;
    private readonly bool _usesEventIndex;
    private readonly bool _usesIndirect;
    private readonly int _size;
    private readonly byte* _ring;
    private readonly byte* _driverEvent;
    private readonly byte* _deviceEvent;
    private readonly byte* _tables;
    private readonly GuestAddress _tablesAddress;

    // What the driver knows of its chains, by head; what the device gives back is only compared with it.
    private readonly ushort[] _nextFreeId;
    private readonly ushort[] _slots;
    private readonly uint[] _capacities;
    private ushort _freeId;
    private int _freeCount;
    private int _outstanding;

    private PackedPosition _nextAvailable;
    private PackedPosition _judgedAvailable;
    private int _unjudged;
    private PackedPosition _lastUsed;
    private bool _isCallSuppressed;

    /// <summary>Makes an empty queue. The block is set to zero.</summary>
    /// <param name="block">Guest memory of <see cref="DriverQueue.GetRequiredBytes"/> bytes, aligned to 64 bytes.</param>
    /// <param name="address">Where the block is for the device.</param>
    /// <param name="options">The shape of the queue.</param>
    public PackedDriverQueue(byte* block, GuestAddress address, DriverQueueOptions options)
        : base(block, address, options)
    {
        ulong bytes = RequiredBytes(options);
        Layout layout = Layout.Of(options);
        NativeMemory.Clear(block, (nuint)bytes);
        _options = options;
        _size = options.Size;
        _usesEventIndex = options.Features.HasFlag(QueueFeatures.EventIndex);
        _usesIndirect = options.UsesIndirect;
        _ring = block;
        _driverEvent = block + layout.DriverEvent;
        _deviceEvent = block + layout.DeviceEvent;
        _tables = block + layout.Tables;
        _tablesAddress = new GuestAddress(address.Value + layout.Tables);
        DescriptorArea = address;
        DriverArea = new GuestAddress(address.Value + layout.DriverEvent);
        DeviceArea = new GuestAddress(address.Value + layout.DeviceEvent);

        _nextFreeId = new ushort[_size];
        _slots = new ushort[_size];
        _capacities = new uint[_size];
        for (int i = 0; i < _size; i++)
        {
            _nextFreeId[i] = (ushort)(i + 1);
        }

        _freeCount = _size;
        _nextAvailable = PackedPosition.Start;
        _judgedAvailable = PackedPosition.Start;
        _lastUsed = PackedPosition.Start;
    }

    /// <inheritdoc/>
    public override int FreeDescriptors => _freeCount;

    /// <inheritdoc/>
    public override int Outstanding => _outstanding;

    internal static ulong RequiredBytes(DriverQueueOptions options)
    {
        if (!PackedRing.IsValidSize(options.Size))
        {
            throw new ArgumentOutOfRangeException(nameof(options), options.Size, "not a size a packed queue can have");
        }

        ArgumentOutOfRangeException.ThrowIfNegative(options.IndirectTableEntries);
        return Layout.Of(options).Total;
    }

    /// <inheritdoc/>
    public override bool TryAdd(ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable, out ushort head)
    {
        int count = readable.Length + writable.Length;
        bool isIndirect = _usesIndirect && count > 1 && count <= _options.IndirectTableEntries;
        return TryAdd(readable, writable, isIndirect, out head);
    }

    /// <summary>Adds a chain in the ring or in a table.</summary>
    internal bool TryAdd(
        ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable, bool isIndirect, out ushort head)
    {
        int count = readable.Length + writable.Length;
        Debug.Assert(!isIndirect || (_usesIndirect && count <= _options.IndirectTableEntries));
        ArgumentOutOfRangeException.ThrowIfZero(count);
        int needed = isIndirect ? 1 : count;

        // There are as many ids as descriptors, and a chain takes at least one of each.
        head = _freeId;
        if (needed > _freeCount)
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
            ulong offset = (ulong)head * (ulong)_options.IndirectTableEntries * PackedRing.DescriptorSize;
            capacity = WriteTable(_tables + offset, readable, writable);
            Unsafe.AsRef<ulong>(Descriptor(first)) = _tablesAddress.Value + offset;
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
                PackedPosition position = first.Plus(i, _size);
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

        _nextAvailable = first.Plus(needed, _size);
        _unjudged += needed;
        _freeId = _nextFreeId[head];
        _freeCount -= needed;
        _outstanding++;
        _slots[head] = (ushort)needed;
        _capacities[head] = (uint)Math.Min(capacity, uint.MaxValue);

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
        uint suppression = Volatile.Read(ref Unsafe.AsRef<uint>(_deviceEvent));
        return PackedRing.NeedsEvent(suppression, _usesEventIndex, from, count, _size);
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
        int slots = head < _slots.Length ? _slots[head] : 0;
        if (slots == 0 || written > _capacities[head])
        {
            IsBroken = true;
            head = 0;
            written = 0;
            return TakeResult.Broken;
        }

        _lastUsed = _lastUsed.Plus(slots, _size);
        _slots[head] = 0;
        _nextFreeId[head] = _freeId;
        _freeId = head;
        _freeCount += slots;
        _outstanding--;
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
        SetDriverEvent(_usesEventIndex ? PackedRing.EventDescriptor : PackedRing.EventEnable, _lastUsed);
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
        Volatile.Write(ref Unsafe.AsRef<uint>(_driverEvent), PackedRing.Event(flags, position));

    /// <summary>Where the parts are in the block, in bytes from its start.</summary>
    private readonly record struct Layout(ulong DriverEvent, ulong DeviceEvent, ulong Tables, ulong Total)
    {
        internal static Layout Of(DriverQueueOptions options)
        {
            ulong driverEvent = Align((ulong)options.Size * PackedRing.DescriptorSize);
            ulong deviceEvent = driverEvent + PartAlignment;
            ulong tables = deviceEvent + PartAlignment;
            return new Layout(driverEvent, deviceEvent, tables, Align(tables + options.TableBytes));
        }
    }
}
