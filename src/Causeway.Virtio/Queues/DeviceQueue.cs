using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Virtio;

/// <summary>What <see cref="DeviceQueue.TryPop"/> found.</summary>
public enum PopResult
{
    /// <summary>Nothing is available.</summary>
    Empty,

    /// <summary>The chain was filled.</summary>
    Popped,

    /// <summary>
    /// The driver made a chain available that cannot be used: only its name is valid. It must go back with length 0
    /// like any other chain; the queue goes on.
    /// </summary>
    Malformed,

    /// <summary>The ring itself contradicts the specification. Nothing more will be popped.</summary>
    Broken,
}

/// <summary>How a device queue starts.</summary>
/// <param name="Features">Features agreed on.</param>
/// <param name="Base">
/// The value of SET_VRING_BASE; <see cref="DeviceQueue.FirstBase"/> for a new queue. Of a packed ring it is hostile.
/// </param>
public readonly record struct DeviceQueueStart(QueueFeatures Features, uint Base);

/// <summary>
/// The device's half of a virtqueue, split (<see cref="SplitDeviceQueue"/>) or packed (<see cref="PackedDeviceQueue"/>): takes the
/// chains that the driver made available and gives them back.
/// </summary>
/// <remarks>
/// A queue has two sides that may belong to different threads, each used by one thread at a time: the available side
/// (<see cref="TryPop"/>, <see cref="ArmNotifications"/>, <see cref="DisarmNotifications"/>) and the used side
/// (<see cref="Push"/>, <see cref="NeedsCall"/>). <see cref="Rebind"/> and the log may change only while neither is in use.
/// No method allocates or throws, whatever the driver writes.
/// </remarks>
public abstract unsafe class DeviceQueue
{
    private GuestMemory _memory;
    private DirtyLog? _log;
    private GuestAddress? _deviceAreaLogAddress;
    private int _regionHint;
    private bool _isBroken;

    private protected DeviceQueue(QueueMemory queue, GuestMemory memory, DeviceQueueStart start)
    {
        ArgumentOutOfRangeException.ThrowIfZero(queue.Size);
        Size = queue.Size;
        UsesEventIndex = start.Features.HasFlag(QueueFeatures.EventIndex);
        AllowsIndirect = start.Features.HasFlag(QueueFeatures.IndirectDescriptors);
        _memory = memory;
    }

    /// <summary>The queue size.</summary>
    public int Size { get; }

    /// <summary>
    /// Where the queue continues: the answer to GET_VRING_BASE, once all chains popped so far have gone back.
    /// </summary>
    public abstract uint Base { get; }

    /// <summary>
    /// How many chains are popped and not pushed, of a packed ring how many descriptors. Exact only while no thread works on the queue.
    /// </summary>
    public abstract int InFlight { get; }

    /// <summary>Whether the ring contradicted the specification. Only a new queue ends that.</summary>
    public bool IsBroken => Volatile.Read(ref _isBroken);

    /// <summary>
    /// Whether chains wait that nobody popped. May be asked by any thread, to judge whether a busy worker needs help.
    /// </summary>
    public abstract bool HasAvailable { get; }

    /// <summary>
    /// How many chains wait that nobody popped, as <see cref="HasAvailable"/> sees them. In a packed ring they cannot be counted: two
    /// stand for some.
    /// </summary>
    public abstract int AvailableCount { get; }

    private protected bool UsesEventIndex { get; }

    private protected bool AllowsIndirect { get; }

    /// <summary>Where a new queue starts.</summary>
    /// <param name="features">Features agreed on.</param>
    public static uint FirstBase(QueueFeatures features) =>
        features.HasFlag(QueueFeatures.PackedRing) ? PackedRing.FirstBase : 0;

    /// <summary>Makes the device's half of the kind agreed on.</summary>
    /// <param name="queue">Where the queue is.</param>
    /// <param name="memory">The guest's memory; the caller keeps it until the queue is out of use.</param>
    /// <param name="start">How the queue starts.</param>
    public static DeviceQueue Create(QueueMemory queue, GuestMemory memory, DeviceQueueStart start) =>
        start.Features.HasFlag(QueueFeatures.PackedRing)
            ? new PackedDeviceQueue(queue, memory, start)
            : new SplitDeviceQueue(queue, memory, start);

    /// <summary>Takes the next chain.</summary>
    /// <param name="chain">The object to fill.</param>
    public abstract PopResult TryPop(DescriptorChain chain);

    /// <summary>
    /// Undoes the last <see cref="TryPop"/>, whose chain was neither looked at nor pushed: the next one takes it again, as the driver
    /// has it then.
    /// </summary>
    /// <param name="chain">The chain.</param>
    public abstract void PutBack(DescriptorChain chain);

    /// <summary>Says that the driver need not kick, because the queue is being looked at anyway.</summary>
    public abstract void DisarmNotifications();

    /// <summary>Asks the driver to kick for the next chain, and looks once more.</summary>
    /// <returns>
    /// Whether the queue is still empty, so that the thread may sleep until a kick. A broken queue is empty for good.
    /// </returns>
    public abstract bool ArmNotifications();

    /// <summary>
    /// Asks the driver to kick only once more than so many chains wait, of a packed ring so many descriptors, for a device that looks
    /// by itself after a while. Without EVENT_IDX it does not kick at all.
    /// </summary>
    /// <param name="count">How many; fewer than the ring can hold, each chain taking as many descriptors as it may.</param>
    /// <returns>Whether no more than that wait now, so that the thread may sleep for a while.</returns>
    public abstract bool ArmNotificationsAfter(int count);

    /// <summary>
    /// Gives a chain back. The driver sees it at once, if it looks; whether it has to be called <see cref="NeedsCall"/> says, once for
    /// as many as one likes.
    /// </summary>
    /// <remarks>
    /// A driver that looks by itself works on the first replies of a batch while the device makes the others. If the batch appeared
    /// as a whole, the two would take turns: 4 KiB reads and GETATTR at depth 16 then cost one and a half times as much
    /// (docs/performance.md).
    /// </remarks>
    /// <param name="chain">The chain; free for the next <see cref="TryPop"/> afterwards.</param>
    /// <param name="written">How many bytes were written to its writable pieces, from their start.</param>
    public abstract void Push(DescriptorChain chain, uint written);

    /// <summary>Asks whether the driver is to be called for the chains that were pushed since the last time.</summary>
    /// <returns>Whether it is; once for all of them.</returns>
    public abstract bool NeedsCall();

    /// <summary>
    /// Points the queue at new memory, where it continues: the front end has sent another memory table or other
    /// ring addresses. Only while no thread uses the queue and no chain is in flight that needs the old memory.
    /// </summary>
    /// <param name="queue">Where the queue is now; of the same size.</param>
    /// <param name="memory">The guest's memory; the caller keeps it until the queue is out of use.</param>
    public void Rebind(QueueMemory queue, GuestMemory memory)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(queue.Size, Size);
        _memory = memory;
        Move(queue);
    }

    /// <summary>Starts, changes or ends the noting of written pages. Only while no thread uses the queue.</summary>
    /// <param name="log">The log for everything the device writes (VHOST_F_LOG_ALL); null for none.</param>
    /// <param name="deviceAreaAddress">
    /// The address under which writes to the device area are noted (flag VHOST_VRING_F_LOG of SET_VRING_ADDR and its log
    /// address), and of a packed ring the used descriptors, too, under their own; null when they are not.
    /// </param>
    public void SetDirtyLog(DirtyLog? log, GuestAddress? deviceAreaAddress)
    {
        _log = log;
        _deviceAreaLogAddress = deviceAreaAddress;
    }

    /// <summary>Points the parts of the queue at new memory.</summary>
    private protected abstract void Move(QueueMemory queue);

    /// <summary>Marks the queue as broken, for good.</summary>
    private protected void MarkBroken() => Volatile.Write(ref _isBroken, true);

    /// <summary>Adds the buffer of a descriptor, in pieces where it spans adjacent regions.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private protected bool TryAppend(GuestAddress address, ulong length, DescriptorFlags flags, DescriptorChain chain)
    {
        bool isWritable = (flags & DescriptorFlags.Write) != 0;
        while (length > 0)
        {
            // Regions end below 2^64, so that an address plus what is available of it cannot wrap.
            if (!_memory.TryTranslatePiece(address, length, ref _regionHint, out byte* pointer, out ulong available) ||
                !chain.TryAppend(pointer, address, available, isWritable))
            {
                return false;
            }

            address = new GuestAddress(address.Value + available);
            length -= available;
        }

        return true;
    }

    /// <summary>Finds an indirect table; false when it does not lie in one region.</summary>
    private protected bool TryFindTable(GuestAddress address, uint length, out byte* pointer) =>
        _memory.TryTranslate(address, length, ref _regionHint, out pointer);

    /// <summary>Copies an entry of a table over two regions; no guest is known that has one.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private protected bool TryReadEntry<TDescriptor>(GuestAddress table, uint index, out TDescriptor descriptor)
        where TDescriptor : unmanaged
    {
        Unsafe.SkipInit(out descriptor);

        var address = new GuestAddress(table.Value + ((uint)sizeof(TDescriptor) * index));
        return _memory.TryCopyFrom(
            address, MemoryMarshal.AsBytes(MemoryMarshal.CreateSpan(ref descriptor, 1)), ref _regionHint);
    }

    /// <summary>Notes the pages of what was written to a chain, where the front end wants that.</summary>
    /// <returns>Whether there is a log.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private protected bool LogWritten(DescriptorChain chain, uint written)
    {
        if (_log is not DirtyLog log)
        {
            return false;
        }

        LogWritten(log, chain, written);
        return true;
    }

    /// <summary>Notes a write to the device area, where the front end wants that.</summary>
    private protected void LogDeviceArea(int offset, uint length)
    {
        if (_deviceAreaLogAddress is GuestAddress start && _log is DirtyLog log)
        {
            log.Mark(new GuestAddress(unchecked(start.Value + (ulong)offset)), length);
        }
    }

    /// <summary>Notes a write to the descriptors of a packed ring, where the front end wants the device area noted.</summary>
    private protected void LogDescriptor(GuestAddress address)
    {
        if (_deviceAreaLogAddress is not null && _log is DirtyLog log)
        {
            log.Mark(address, PackedRing.DescriptorSize);
        }
    }

    private static void LogWritten(DirtyLog log, DescriptorChain chain, uint written)
    {
        ulong remaining = written;
        foreach (GuestRange range in chain.WritableRanges)
        {
            if (remaining == 0)
            {
                break;
            }

            ulong length = Math.Min(range.Length, remaining);
            log.Mark(range.Address, length);
            remaining -= length;
        }
    }
}
