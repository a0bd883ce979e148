using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Virtio;

/// <summary>
/// The driver's half of a split virtqueue (virtio 1.4 section 2.7).
/// </summary>
/// <remarks>
/// The mirror image of <see cref="SplitDeviceQueue"/>, whose remarks explain the order of loads and stores.
/// </remarks>
public sealed unsafe partial class SplitDriverQueue : DriverQueue
{
    private readonly DriverQueueOptions _options;
    private readonly bool _usesEventIndex;
    private readonly bool _usesIndirect;
    private readonly byte* _descriptors;
    private readonly byte* _available;
    private readonly byte* _used;
    private readonly byte* _tables;
    private readonly GuestAddress _tablesAddress;

    // What the driver knows of its descriptors; the table in guest memory could have been changed by the device.
    private readonly ushort[] _next;
    private readonly ushort[] _chainLengths;
    private readonly uint[] _capacities;
    private ushort _firstFree;
    private int _freeCount;
    private int _outstanding;

    private ushort _nextAvailable;
    private ushort _judgedAvailable;
    private ushort _lastUsed;

    /// <summary>Makes an empty queue. The block is set to zero.</summary>
    /// <param name="block">Guest memory of <see cref="DriverQueue.GetRequiredBytes"/> bytes, aligned to 64 bytes.</param>
    /// <param name="address">Where the block is for the device.</param>
    /// <param name="options">The shape of the queue.</param>
    public SplitDriverQueue(byte* block, GuestAddress address, DriverQueueOptions options)
        : this(block, address, options, startIndex: 0)
    {
    }

    /// <summary>Makes an empty queue whose indexes start where they are about to wrap, for tests.</summary>
    internal SplitDriverQueue(byte* block, GuestAddress address, DriverQueueOptions options, ushort startIndex)
        : base(block, address, options)
    {
        ulong size = RequiredBytes(options);
        Layout layout = Layout.Of(options);
        NativeMemory.Clear(block, (nuint)size);
        _options = options;
        _usesEventIndex = options.Features.HasFlag(QueueFeatures.EventIndex);
        _usesIndirect = options.UsesIndirect;
        _descriptors = block;
        _available = block + layout.Available;
        _used = block + layout.Used;
        _tables = block + layout.Tables;
        _tablesAddress = new GuestAddress(address.Value + layout.Tables);
        DescriptorArea = address;
        DriverArea = new GuestAddress(address.Value + layout.Available);
        DeviceArea = new GuestAddress(address.Value + layout.Used);

        _next = new ushort[options.Size];
        _chainLengths = new ushort[options.Size];
        _capacities = new uint[options.Size];
        for (int i = 0; i < options.Size; i++)
        {
            _next[i] = (ushort)(i + 1);
        }

        _freeCount = options.Size;
        _nextAvailable = startIndex;
        _judgedAvailable = startIndex;
        _lastUsed = startIndex;
        Word(_available + SplitRing.IndexOffset) = startIndex;
        Word(_used + SplitRing.IndexOffset) = startIndex;
    }

    /// <inheritdoc/>
    public override int FreeDescriptors => _freeCount;

    /// <inheritdoc/>
    public override int Outstanding => _outstanding;

    internal static ulong RequiredBytes(DriverQueueOptions options)
    {
        if (!SplitRing.IsValidSize(options.Size))
        {
            throw new ArgumentOutOfRangeException(nameof(options), options.Size, "not a size a split queue can have");
        }

        ArgumentOutOfRangeException.ThrowIfNegative(options.IndirectTableEntries);
        return Layout.Of(options).Total;
    }

    /// <inheritdoc/>
    public override bool TryAdd(ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable, out ushort head)
    {
        int count = readable.Length + writable.Length;
        bool isIndirect = _usesIndirect && count > 1 && count <= _options.IndirectTableEntries;
        return TryAdd(readable, writable, isIndirect ? 0 : count, out head);
    }

    /// <inheritdoc/>
    public override bool NeedsKick()
    {
        ushort old = _judgedAvailable;
        ushort now = _nextAvailable;
        if (now == old)
        {
            return false;
        }

        _judgedAvailable = now;

        // Pairs with the fence between the device's store of avail_event or used.flags and its second look at avail.idx.
        Interlocked.MemoryBarrier();
        return _usesEventIndex
            ? SplitRing.NeedsEvent(Volatile.Read(ref Word(_used + SplitRing.AvailableEventOffset(Size))), now, old)
            : (Volatile.Read(ref Word(_used + SplitRing.FlagsOffset)) & SplitRing.SuppressFlag) == 0;
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

        // Acquire: pairs with the device's release store of used.idx; the element and the data are read after it.
        ushort index = Volatile.Read(ref Word(_used + SplitRing.IndexOffset));
        if (index == _lastUsed)
        {
            return TakeResult.Empty;
        }

        // Copied once, and only the copies are checked.
        byte* element = _used + SplitRing.EntriesOffset + (SplitRing.UsedElementSize * (_lastUsed & (Size - 1)));
        uint id = Volatile.Read(ref Unsafe.AsRef<uint>(element));
        uint length = Volatile.Read(ref Unsafe.AsRef<uint>(element + 4));
        if ((ushort)(index - _lastUsed) > _outstanding || id >= Size || _chainLengths[id] == 0 ||
            length > _capacities[id])
        {
            IsBroken = true;
            return TakeResult.Broken;
        }

        _lastUsed++;
        head = (ushort)id;
        written = length;
        Free(head);
        return TakeResult.Taken;
    }

    /// <inheritdoc/>
    /// <remarks>With EVENT_IDX nothing has to be done, as in <see cref="SplitDeviceQueue.DisarmNotifications"/>.</remarks>
    public override void DisarmCalls()
    {
        if (!_usesEventIndex)
        {
            // A hint: a device that has not seen it yet calls once too often.
            Volatile.Write(ref Word(_available + SplitRing.FlagsOffset), SplitRing.SuppressFlag);
        }
    }

    /// <inheritdoc/>
    public override bool ArmCalls()
    {
        if (_usesEventIndex)
        {
            Volatile.Write(ref Word(_available + SplitRing.UsedEventOffset(Size)), _lastUsed);
        }
        else
        {
            Volatile.Write(ref Word(_available + SplitRing.FlagsOffset), 0);
        }

        // Pairs with the fence between the device's store of used.idx and its load of used_event or avail.flags.
        Interlocked.MemoryBarrier();
        return IsBroken || Volatile.Read(ref Word(_used + SplitRing.IndexOffset)) == _lastUsed;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ref ushort Word(byte* address) => ref Unsafe.AsRef<ushort>(address);

    /// <summary>Where the parts are in the block, in bytes from its start.</summary>
    private readonly record struct Layout(ulong Available, ulong Used, ulong Tables, ulong Total)
    {
        internal static Layout Of(DriverQueueOptions options)
        {
            ulong available = Align(SplitRing.DescriptorTableBytes(options.Size));
            ulong used = Align(available + SplitRing.AvailableRingBytes(options.Size, QueueFeatures.EventIndex));
            ulong tables = Align(used + SplitRing.UsedRingBytes(options.Size, QueueFeatures.EventIndex));
            return new Layout(available, used, tables, Align(tables + options.TableBytes));
        }
    }
}
