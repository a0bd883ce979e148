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
    private protected const int PartAlignment = 64;

    private protected DriverQueue(byte* block, GuestAddress address, DriverQueueOptions options)
    {
        if ((nuint)block % PartAlignment != 0 || address.Value % PartAlignment != 0)
        {
            throw new ArgumentException($"the block must be aligned to {PartAlignment} bytes", nameof(block));
        }

        Size = options.Size;
    }

    /// <summary>The queue size.</summary>
    public int Size { get; }

    /// <summary>Where the descriptor table is, or the packed ring.</summary>
    public GuestAddress DescriptorArea { get; private protected init; }

    /// <summary>Where the available ring is, or the driver event suppression structure.</summary>
    public GuestAddress DriverArea { get; private protected init; }

    /// <summary>Where the used ring is, or the device event suppression structure.</summary>
    public GuestAddress DeviceArea { get; private protected init; }

    /// <summary>How many descriptors are free.</summary>
    public abstract int FreeDescriptors { get; }

    /// <summary>How many chains are with the device.</summary>
    public abstract int Outstanding { get; }

    /// <summary>Whether the device contradicted the specification. Only a new queue ends that.</summary>
    public bool IsBroken { get; private protected set; }

    /// <summary>How many bytes a queue needs.</summary>
    /// <param name="options">The shape of the queue.</param>
    public static ulong GetRequiredBytes(DriverQueueOptions options) =>
        options.IsPacked ? PackedDriverQueue.RequiredBytes(options) : SplitDriverQueue.RequiredBytes(options);

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
    public abstract bool TryAdd(
        ReadOnlySpan<GuestRange> readable, ReadOnlySpan<GuestRange> writable, out ushort head);

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

    /// <summary>The next multiple of the alignment of parts.</summary>
    private protected static ulong Align(ulong offset) => (offset + PartAlignment - 1) / PartAlignment * PartAlignment;

    /// <summary>The length of a buffer as a descriptor has it.</summary>
    private protected static uint Length(GuestRange range)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(range.Length, uint.MaxValue);
        return (uint)range.Length;
    }
}
