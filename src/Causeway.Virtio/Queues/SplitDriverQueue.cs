using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Virtio;

/// <summary>What <see cref="SplitDriverQueue.TryTake"/> found.</summary>
public enum TakeResult
{
    /// <summary>The device gave nothing back.</summary>
    Empty,

    /// <summary>A chain came back.</summary>
    Taken,

    /// <summary>The device contradicts the specification. Nothing more will be taken.</summary>
    Broken,
}

/// <summary>The shape of a driver queue.</summary>
/// <param name="Size">The queue size: a power of two from 2 to 32768.</param>
/// <param name="Features">Features agreed on.</param>
/// <param name="IndirectTableEntries">
/// Entries of the table that each descriptor has for indirect chains; zero for none. Longer chains use the ring itself.
/// </param>
public readonly record struct DriverQueueOptions(int Size, QueueFeatures Features, int IndirectTableEntries)
{
    internal bool UsesIndirect => Features.HasFlag(QueueFeatures.IndirectDescriptors) && IndirectTableEntries > 0;
}

/// <summary>
/// The driver's half of a split virtqueue (virtio 1.4 section 2.7): makes buffers available and takes them back. It lives
/// in a block of guest memory, which the device may read and write; nothing that is read back from it is believed.
/// </summary>
/// <remarks>
/// The mirror image of <see cref="SplitDeviceQueue"/>, whose remarks explain the order of loads and stores. Used by one
/// thread at a time. No method allocates once the queue is made.
/// </remarks>
public sealed unsafe partial class SplitDriverQueue
{
    private const int PartAlignment = 64;

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
    /// <param name="block">Guest memory of <see cref="GetRequiredBytes"/> bytes, aligned to 64 bytes.</param>
    /// <param name="address">Where the block is for the device.</param>
    /// <param name="options">The shape of the queue.</param>
    public SplitDriverQueue(byte* block, GuestAddress address, DriverQueueOptions options)
        : this(block, address, options, startIndex: 0)
    {
    }

    /// <summary>Makes an empty queue whose indexes start where they are about to wrap, for tests.</summary>
    internal SplitDriverQueue(byte* block, GuestAddress address, DriverQueueOptions options, ushort startIndex)
    {
        ulong size = GetRequiredBytes(options);
        if ((nuint)block % PartAlignment != 0 || address.Value % PartAlignment != 0)
        {
            throw new ArgumentException($"the block must be aligned to {PartAlignment} bytes", nameof(block));
        }

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
        DescriptorTable = address;
        AvailableRing = new GuestAddress(address.Value + layout.Available);
        UsedRing = new GuestAddress(address.Value + layout.Used);

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

    /// <summary>The queue size.</summary>
    public int Size => _options.Size;

    /// <summary>Where the descriptor table is.</summary>
    public GuestAddress DescriptorTable { get; }

    /// <summary>Where the available ring is.</summary>
    public GuestAddress AvailableRing { get; }

    /// <summary>Where the used ring is.</summary>
    public GuestAddress UsedRing { get; }

    /// <summary>How many descriptors are free.</summary>
    public int FreeDescriptors => _freeCount;

    /// <summary>How many chains are with the device.</summary>
    public int Outstanding => _outstanding;

    /// <summary>Whether the device contradicted the specification. Only a new queue ends that.</summary>
    public bool IsBroken { get; private set; }

    /// <summary>How many bytes a queue needs.</summary>
    /// <param name="options">The shape of the queue.</param>
    public static ulong GetRequiredBytes(DriverQueueOptions options)
    {
        if (!SplitRing.IsValidSize(options.Size))
        {
            throw new ArgumentOutOfRangeException(nameof(options), options.Size, "not a size a split queue can have");
        }

        ArgumentOutOfRangeException.ThrowIfNegative(options.IndirectTableEntries);
        return Layout.Of(options).Total;
    }

    /// <summary>
    /// Adds a chain. The device sees it at once, if it looks; whether it has to be kicked <see cref="NeedsKick"/> says, once for as
    /// many as one likes. The chain takes one descriptor when there are indirect tables and it fits one, else as many as it has
    /// buffers.
    /// </summary>
    /// <param name="readable">Buffers the device reads; none longer than 2^32 - 1 bytes.</param>
    /// <param name="writable">Buffers the device writes; none longer than 2^32 - 1 bytes.</param>
    /// <param name="head">The name of the chain until it comes back.</param>
    /// <returns>False when there are not enough free descriptors; some will be after <see cref="TryTake"/>.</returns>
    public bool TryAdd(ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable, out ushort head)
    {
        int count = readable.Length + writable.Length;
        bool isIndirect = _usesIndirect && count > 1 && count <= _options.IndirectTableEntries;
        return TryAdd(readable, writable, isIndirect ? 0 : count, out head);
    }

    /// <summary>Asks whether the device is to be kicked for the chains that were added since the last time.</summary>
    /// <returns>Whether it is; once for all of them.</returns>
    public bool NeedsKick()
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

    /// <summary>Takes the next chain that the device gave back; its descriptors are free afterwards.</summary>
    /// <param name="head">The chain.</param>
    /// <param name="written">How many bytes the device says it wrote; at most as many as there was room for.</param>
    public TakeResult TryTake(out ushort head, out uint written)
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

    /// <summary>Says that the device need not call, because the queue is being looked at anyway.</summary>
    /// <remarks>With EVENT_IDX nothing has to be done, as in <see cref="SplitDeviceQueue.DisarmNotifications"/>.</remarks>
    public void DisarmCalls()
    {
        if (!_usesEventIndex)
        {
            // A hint: a device that has not seen it yet calls once too often.
            Volatile.Write(ref Word(_available + SplitRing.FlagsOffset), SplitRing.SuppressFlag);
        }
    }

    /// <summary>Asks the device to call for the next chain it gives back, and looks once more.</summary>
    /// <returns>Whether there is still none, so that the thread may sleep until a call.</returns>
    public bool ArmCalls()
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
            // Parts on cache lines of their own: each is written by one side.
            ulong available = Align(SplitRing.DescriptorTableBytes(options.Size));
            ulong used = Align(available + SplitRing.AvailableRingBytes(options.Size, QueueFeatures.EventIndex));
            ulong tables = Align(used + SplitRing.UsedRingBytes(options.Size, QueueFeatures.EventIndex));
            ulong tableBytes = options.UsesIndirect
                ? (ulong)options.Size * (ulong)options.IndirectTableEntries * SplitRing.DescriptorSize
                : 0;
            return new Layout(available, used, tables, Align(tables + tableBytes));
        }

        private static ulong Align(ulong offset) => (offset + PartAlignment - 1) / PartAlignment * PartAlignment;
    }
}
