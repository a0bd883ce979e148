using System.Diagnostics;
using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Server.Queues;

/// <summary>
/// The slot of a request that was read from /dev/fuse, in memory of ours (<see cref="DeviceMessage"/>), which is taken as it is touched.
/// </summary>
internal sealed unsafe class BufferSlot : RequestSlot, IDisposable
{
    /// <summary>Bytes that a request may have.</summary>
    public const int Capacity = DeviceMessage.RequestBytes;

    private const int MemoryBytes = 2 * DeviceMessage.HalfBytes;

    // All that others than large READs and WRITEs touch (arbitrary).
    private const int KeptBytes = 64 << 10;

    private readonly byte* _memory;

    // Pinned, because lists of pieces are handed out as pointers.
    private readonly IoVector[] _pieces = GC.AllocateUninitializedArray<IoVector>(2, pinned: true);

    private BufferSlot(RequestWorker worker, QueueWaits waits, byte* memory)
        : base(worker, waits) => _memory = memory;

    /// <summary>Where the request is, or is to be read to.</summary>
    public byte* Message => _memory + DeviceMessage.RequestStart;

    /// <summary>The reply.</summary>
    public byte* Reply => _memory + DeviceMessage.HalfBytes + DeviceMessage.ReplyStart;

    /// <summary>What the reply is about.</summary>
    public ref readonly FuseInHeader Header => ref *(FuseInHeader*)Message;

    /// <summary>The descriptor that it was read from, and that takes the reply.</summary>
    public int Device { get; private set; }

    /// <summary>Makes a slot.</summary>
    /// <returns>Null when there is no memory.</returns>
    public static BufferSlot? TryCreate(RequestWorker worker, QueueWaits waits)
    {
        SyscallResult mapped = Memory.Mmap(
            null,
            MemoryBytes,
            MemoryProtection.Read | MemoryProtection.Write,
            MapFlags.Private | MapFlags.Anonymous | MapFlags.NoReserve,
            -1,
            0);
        if (mapped.IsError)
        {
            return null;
        }

        try
        {
            return new BufferSlot(worker, waits, (byte*)mapped.RawValue);
        }
        catch (OutOfMemoryException)
        {
            Memory.Munmap((void*)mapped.RawValue, MemoryBytes);
            return null;
        }
    }

    /// <summary>Begins a request that was read to <see cref="Message"/>.</summary>
    /// <param name="device">The descriptor that it was read from.</param>
    /// <param name="length">Its length.</param>
    public void Begin(int device, int length)
    {
        Debug.Assert(length <= Capacity, "it was read into this much room");
        Device = device;
        ref IoVector first = ref MemoryMarshal.GetArrayDataReference(_pieces);
        first = new IoVector(Message, (nuint)length);
        _pieces[1] = new IoVector(Reply, DeviceMessage.ReplyBytes);
        var pieces = (IoVector*)Marshal.UnsafeAddrOfPinnedArrayElement(_pieces, 0);
        Request.Reset(new IoVectorList(pieces, 1, length), new IoVectorList(pieces + 1, 1, DeviceMessage.ReplyBytes));
    }

    /// <summary>
    /// Gives the memory of the request back, if it was a large one. For slots that are not the next to be used: those lie around.
    /// </summary>
    public void Shrink()
    {
        Request.ShedLongBuffers();
        if (Header.Length + Written > KeptBytes)
        {
            Memory.Madvise(_memory, MemoryBytes, MemoryAdvice.DontNeed);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Memory.Munmap(_memory, MemoryBytes);
}
