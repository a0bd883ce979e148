using System.Runtime.CompilerServices;

namespace Causeway.Virtio;

/// <summary>
/// The driver's half of a split virtqueue (virtio 1.4 section 2.7).
/// </summary>
/// <remarks>
/// The mirror image of <see cref="SplitDeviceQueue"/>, whose remarks explain the order of loads and stores.
/// </remarks>
public sealed unsafe partial class SplitDriverQueue : DriverQueue
{
    private readonly byte* _descriptors;

    // What the driver knows of its descriptors; the table in guest memory could have been changed by the device.
    private readonly ushort[] _next;
    private ushort _firstFree;

    private ushort _nextAvailable;
    private ushort _judgedAvailable;
    private ushort _lastUsed;

    /// <summary>Makes an empty queue, for tests one whose indexes start where they are about to wrap.</summary>
    internal SplitDriverQueue(byte* block, GuestAddress address, DriverQueueOptions options, ushort startIndex = 0)
        : base(block, address, options)
    {
        _descriptors = block;
        _next = new ushort[Size];
        for (int i = 0; i < Size; i++)
        {
            _next[i] = (ushort)(i + 1);
        }

        _nextAvailable = startIndex;
        _judgedAvailable = startIndex;
        _lastUsed = startIndex;
        Word(Available + SplitRing.IndexOffset) = startIndex;
        Word(Used + SplitRing.IndexOffset) = startIndex;
    }

    private byte* Available => DriverPart;

    private byte* Used => DevicePart;

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
        return UsesEventIndex
            ? SplitRing.NeedsEvent(Volatile.Read(ref Word(Used + SplitRing.AvailableEventOffset(Size))), now, old)
            : (Volatile.Read(ref Word(Used + SplitRing.FlagsOffset)) & SplitRing.SuppressFlag) == 0;
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
        ushort index = Volatile.Read(ref Word(Used + SplitRing.IndexOffset));
        if (index == _lastUsed)
        {
            return TakeResult.Empty;
        }

        // Copied once, and only the copies are checked.
        byte* element = Used + SplitRing.EntriesOffset + (SplitRing.UsedElementSize * (_lastUsed & (Size - 1)));
        uint id = Volatile.Read(ref Unsafe.AsRef<uint>(element));
        uint length = Volatile.Read(ref Unsafe.AsRef<uint>(element + 4));
        int descriptors = (ushort)(index - _lastUsed) <= Outstanding ? TakeBack(id, length) : 0;
        if (descriptors == 0)
        {
            IsBroken = true;
            return TakeResult.Broken;
        }

        _lastUsed++;
        head = (ushort)id;
        written = length;
        Free(head, descriptors);
        return TakeResult.Taken;
    }

    /// <inheritdoc/>
    /// <remarks>With EVENT_IDX nothing has to be done, as in <see cref="SplitDeviceQueue.DisarmNotifications"/>.</remarks>
    public override void DisarmCalls()
    {
        if (!UsesEventIndex)
        {
            // A hint: a device that has not seen it yet calls once too often.
            Volatile.Write(ref Word(Available + SplitRing.FlagsOffset), SplitRing.SuppressFlag);
        }
    }

    /// <inheritdoc/>
    public override bool ArmCalls()
    {
        if (UsesEventIndex)
        {
            Volatile.Write(ref Word(Available + SplitRing.UsedEventOffset(Size)), _lastUsed);
        }
        else
        {
            Volatile.Write(ref Word(Available + SplitRing.FlagsOffset), 0);
        }

        // Pairs with the fence between the device's store of used.idx and its load of used_event or avail.flags.
        Interlocked.MemoryBarrier();
        return IsBroken || Volatile.Read(ref Word(Used + SplitRing.IndexOffset)) == _lastUsed;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ref ushort Word(byte* address) => ref Unsafe.AsRef<ushort>(address);
}
