using System.Runtime.InteropServices;

namespace Causeway.Virtio;

/// <summary>What <see cref="DriverQueue.TryTake"/> found.</summary>
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
/// <param name="Size">The queue size: a power of two from 2 to 32768; of a packed ring anything from 1 to 32768.</param>
/// <param name="Features">Features agreed on.</param>
/// <param name="IndirectTableEntries">
/// Entries of the table that each descriptor has for indirect chains; zero for none. Longer chains use the ring itself.
/// </param>
public readonly record struct DriverQueueOptions(int Size, QueueFeatures Features, int IndirectTableEntries)
{
    internal bool IsPacked => Features.HasFlag(QueueFeatures.PackedRing);

    internal bool UsesIndirect => Features.HasFlag(QueueFeatures.IndirectDescriptors) && IndirectTableEntries > 0;

    /// <summary>Bytes of all indirect tables.</summary>
    internal ulong TableBytes =>
        UsesIndirect ? (ulong)Size * (ulong)IndirectTableEntries * SplitRing.DescriptorSize : 0;
}

/// <summary>
/// The driver's half of a virtqueue, split (<see cref="SplitDriverQueue"/>) or packed (<see cref="PackedDriverQueue"/>): makes
/// buffers available and takes them back. It lives in a block of guest memory, which the device may read and write; nothing that
/// is read back from it is believed.
/// </summary>
/// <remarks>Used by one thread at a time. No method allocates once the queue is made.</remarks>
public abstract unsafe class DriverQueue
{
    /// <summary>Parts on cache lines of their own, because one side writes to each of them.</summary>
    private const int PartAlignment = 64;

    // What the driver knows of its chains, by head; what the device gives back is only compared with it.
    private readonly ushort[] _chainLengths;
    private readonly uint[] _capacities;
    private readonly byte* _tables;
    private readonly GuestAddress _tablesAddress;

    private protected DriverQueue(byte* block, GuestAddress address, DriverQueueOptions options)
    {
        ulong bytes = GetRequiredBytes(options);
        if ((nuint)block % PartAlignment != 0 || address.Value % PartAlignment != 0)
        {
            throw new ArgumentException($"the block must be aligned to {PartAlignment} bytes", nameof(block));
        }

        NativeMemory.Clear(block, (nuint)bytes);
        Options = options;
        Size = options.Size;
        UsesEventIndex = options.Features.HasFlag(QueueFeatures.EventIndex);
        UsesIndirect = options.UsesIndirect;
        FreeDescriptors = options.Size;
        _chainLengths = new ushort[options.Size];
        _capacities = new uint[options.Size];

        Layout layout = Layout.Of(options);
        DescriptorArea = address;
        DriverArea = new GuestAddress(address.Value + layout.DriverArea);
        DeviceArea = new GuestAddress(address.Value + layout.DeviceArea);
        DriverPart = block + layout.DriverArea;
        DevicePart = block + layout.DeviceArea;
        _tables = block + layout.Tables;
        _tablesAddress = new GuestAddress(address.Value + layout.Tables);
    }

    /// <summary>The queue size.</summary>
    public int Size { get; }

    /// <summary>Where the descriptor table is, or the packed ring.</summary>
    public GuestAddress DescriptorArea { get; }

    /// <summary>Where the available ring is, or the driver event suppression structure.</summary>
    public GuestAddress DriverArea { get; }

    /// <summary>Where the used ring is, or the device event suppression structure.</summary>
    public GuestAddress DeviceArea { get; }

    /// <summary>How many descriptors are free.</summary>
    public int FreeDescriptors { get; private set; }

    /// <summary>How many chains are with the device.</summary>
    public int Outstanding { get; private set; }

    /// <summary>Whether the device contradicted the specification. Only a new queue ends that.</summary>
    public bool IsBroken { get; private protected set; }

    private protected DriverQueueOptions Options { get; }

    private protected bool UsesEventIndex { get; }

    private protected bool UsesIndirect { get; }

    /// <summary>The memory of <see cref="DriverArea"/>.</summary>
    private protected byte* DriverPart { get; }

    /// <summary>The memory of <see cref="DeviceArea"/>.</summary>
    private protected byte* DevicePart { get; }

    /// <summary>How many bytes a queue needs.</summary>
    /// <param name="options">The shape of the queue.</param>
    public static ulong GetRequiredBytes(DriverQueueOptions options)
    {
        if (!(options.IsPacked ? PackedRing.IsValidSize(options.Size) : SplitRing.IsValidSize(options.Size)))
        {
            throw new ArgumentOutOfRangeException(
                nameof(options), options.Size, $"not a size a {(options.IsPacked ? "packed" : "split")} queue can have");
        }

        ArgumentOutOfRangeException.ThrowIfNegative(options.IndirectTableEntries);
        return Layout.Of(options).Total;
    }

    /// <summary>Makes an empty queue of the kind agreed on. The block is set to zero.</summary>
    /// <param name="block">Guest memory of <see cref="GetRequiredBytes"/> bytes, aligned to 64 bytes.</param>
    /// <param name="address">Where the block is for the device.</param>
    /// <param name="options">The shape of the queue.</param>
    public static DriverQueue Create(byte* block, GuestAddress address, DriverQueueOptions options) =>
        options.IsPacked
            ? new PackedDriverQueue(block, address, options)
            : new SplitDriverQueue(block, address, options);

    /// <summary>
    /// Adds a chain. The device sees it at once, if it looks; whether it has to be kicked <see cref="NeedsKick"/> says, once for as
    /// many as one likes. The chain takes one descriptor when there are indirect tables and it fits one, else as many as it has
    /// buffers.
    /// </summary>
    /// <param name="readable">Buffers the device reads; none longer than 2^32 - 1 bytes.</param>
    /// <param name="writable">Buffers the device writes; none longer than 2^32 - 1 bytes.</param>
    /// <param name="head">The name of the chain until it comes back; less than the queue size.</param>
    /// <returns>False when there are not enough free descriptors; some will be after <see cref="TryTake"/>.</returns>
    public bool TryAdd(ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable, out ushort head)
    {
        int count = readable.Length + writable.Length;
        ArgumentOutOfRangeException.ThrowIfZero(count);
        bool isIndirect = UsesIndirect && count > 1 && count <= Options.IndirectTableEntries;
        return TryAdd(readable, writable, isIndirect ? 0 : count, out head);
    }

    /// <summary>Asks whether the device is to be kicked for the chains that were added since the last time.</summary>
    /// <returns>Whether it is; once for all of them.</returns>
    public abstract bool NeedsKick();

    /// <summary>Takes the next chain that the device gave back; its descriptors are free afterwards.</summary>
    /// <param name="head">The chain.</param>
    /// <param name="written">How many bytes the device says it wrote; at most as many as there was room for.</param>
    public abstract TakeResult TryTake(out ushort head, out uint written);

    /// <summary>Says that the device need not call, because the queue is being looked at anyway.</summary>
    public abstract void DisarmCalls();

    /// <summary>Asks the device to call for the next chain it gives back, and looks once more.</summary>
    /// <returns>Whether there is still none, so that the thread may sleep until a call.</returns>
    public abstract bool ArmCalls();

    /// <summary>Adds a chain whose first buffers are in the ring and whose others are in one indirect table.</summary>
    /// <param name="readable">Buffers the device reads.</param>
    /// <param name="writable">Buffers the device writes.</param>
    /// <param name="directCount">
    /// How many buffers are in the ring; all of them for a chain without a table. A packed ring has all or none there.
    /// </param>
    /// <param name="head">The name of the chain until it comes back.</param>
    /// <returns>False when there are not enough free descriptors.</returns>
    internal abstract bool TryAdd(
        ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable, int directCount, out ushort head);

    /// <summary>The length of a buffer as a descriptor has it.</summary>
    private protected static uint Length(GuestRange range)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(range.Length, uint.MaxValue);
        return (uint)range.Length;
    }

    /// <summary>The indirect table that belongs to a head.</summary>
    private protected byte* Table(ushort head, out GuestAddress address)
    {
        ulong offset = (ulong)head * (ulong)Options.IndirectTableEntries * SplitRing.DescriptorSize;
        address = new GuestAddress(_tablesAddress.Value + offset);
        return _tables + offset;
    }

    /// <summary>Remembers a chain that the device is about to see.</summary>
    /// <param name="head">Its name.</param>
    /// <param name="descriptors">How many descriptors of the ring it takes.</param>
    /// <param name="capacity">How many bytes the device may write.</param>
    private protected void Remember(ushort head, int descriptors, ulong capacity)
    {
        FreeDescriptors -= descriptors;
        Outstanding++;
        _chainLengths[head] = (ushort)descriptors;
        _capacities[head] = (uint)Math.Min(capacity, uint.MaxValue);
    }

    /// <summary>Forgets a chain that the device says it gives back.</summary>
    /// <param name="head">Its name, as the device has it.</param>
    /// <param name="written">How many bytes the device says it wrote.</param>
    /// <returns>How many descriptors it took; none when no such chain is with the device, or not with so much room.</returns>
    private protected int TakeBack(uint head, uint written)
    {
        int descriptors = head < _chainLengths.Length ? _chainLengths[head] : 0;
        if (descriptors == 0 || written > _capacities[head])
        {
            return 0;
        }

        _chainLengths[head] = 0;
        FreeDescriptors += descriptors;
        Outstanding--;
        return descriptors;
    }

    /// <summary>Where the parts are in the block, in bytes from its start.</summary>
    private readonly record struct Layout(ulong DriverArea, ulong DeviceArea, ulong Tables, ulong Total)
    {
        internal static Layout Of(DriverQueueOptions options)
        {
            int size = options.Size;
            ulong driverArea = Align((ulong)size * SplitRing.DescriptorSize);
            ulong deviceArea = Align(driverArea + (options.IsPacked
                ? PackedRing.EventSize
                : SplitRing.AvailableRingBytes(size, QueueFeatures.EventIndex)));
            ulong tables = Align(deviceArea + (options.IsPacked
                ? PackedRing.EventSize
                : SplitRing.UsedRingBytes(size, QueueFeatures.EventIndex)));
            return new Layout(driverArea, deviceArea, tables, Align(tables + options.TableBytes));
        }

        private static ulong Align(ulong offset) => (offset + PartAlignment - 1) / PartAlignment * PartAlignment;
    }
}
