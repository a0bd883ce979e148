using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;

namespace Causeway.Virtio;

/// <summary>
/// One buffer that the driver made available: what the device reads and what it writes, as pieces of guest memory. Made
/// once per request in flight and used again for the next one.
/// </summary>
/// <remarks>
/// The lists point into arrays of this object, so it must stay reachable while they are used; and into guest memory, so
/// the <see cref="GuestMemory"/> of the queue must not be released before the chain went back.
/// </remarks>
public sealed unsafe class DescriptorChain
{
    /// <summary>
    /// Most pieces in a chain, readable and writable together, after neighbours were joined: IOV_MAX, what one system call
    /// takes, and the largest queue a front end asks for.
    /// </summary>
    public const int MaxPieces = 1024;

    /// <summary>Most bytes in a chain (virtio 1.4 section 2.7.5: not longer than 2^32 bytes in total).</summary>
    public const long MaxBytes = uint.MaxValue;

    // Pinned: the lists are handed out as pointers. Allocated as memory that is not touched before it is used.
    private readonly IoVector[] _readable = GC.AllocateUninitializedArray<IoVector>(MaxPieces, pinned: true);
    private readonly IoVector[] _writable = GC.AllocateUninitializedArray<IoVector>(MaxPieces, pinned: true);
    private readonly GuestRange[] _writableRanges = GC.AllocateUninitializedArray<GuestRange>(MaxPieces, pinned: true);
    private int _readableCount;
    private int _writableCount;
    private long _readableLength;
    private long _writableLength;
    private ulong _readableEnd;

    /// <summary>
    /// The name under which the chain goes back: the number of its first descriptor, or the buffer id of a packed ring.
    /// </summary>
    public ushort HeadIndex { get; private set; }

    /// <summary>How many descriptors of a packed ring the chain takes.</summary>
    internal int Slots { get; private set; }

    /// <summary>What the device may read: the request. Empty when the chain is malformed.</summary>
    public IoVectorList Readable { get; private set; }

    /// <summary>What the device may write: the room for the reply. Empty when the chain is malformed.</summary>
    public IoVectorList Writable { get; private set; }

    /// <summary>
    /// The guest addresses of the writable pieces, for the dirty log. Always kept: a log may start while the chain is with
    /// the device, and callers shorten the pieces themselves.
    /// </summary>
    internal ReadOnlySpan<GuestRange> WritableRanges => _writableRanges.AsSpan(0, _writableCount);

    /// <summary>Starts a new chain.</summary>
    /// <param name="headIndex">Its first descriptor.</param>
    internal void Begin(ushort headIndex)
    {
        HeadIndex = headIndex;
        Readable = default;
        Writable = default;
        _readableCount = 0;
        _writableCount = 0;
        _readableLength = 0;
        _writableLength = 0;
        _readableEnd = 0;
    }

    /// <summary>Says what is known of a chain of a packed ring only once its last descriptor has been read.</summary>
    /// <param name="id">The buffer id.</param>
    /// <param name="slots">How many descriptors of the ring it takes.</param>
    internal void Name(ushort id, int slots)
    {
        HeadIndex = id;
        Slots = slots;
    }

    /// <summary>Adds a piece; it is joined with the one before where both memories go on.</summary>
    /// <returns>False when the chain has too many pieces or bytes.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool TryAppend(byte* pointer, GuestAddress address, ulong length, bool isWritable)
    {
        // Each length is at most 2^32 - 1 and the sum so far at most MaxBytes: no overflow.
        if (_readableLength + _writableLength + (long)length > MaxBytes)
        {
            return false;
        }

        return isWritable ? TryAppendWritable(pointer, address, length) : TryAppendReadable(pointer, address, length);
    }

    /// <summary>Makes the lists visible once the chain is complete.</summary>
    internal void Complete()
    {
        Readable = new IoVectorList(Pointer(_readable), _readableCount, _readableLength);
        Writable = new IoVectorList(Pointer(_writable), _writableCount, _writableLength);
    }

    /// <summary>Forgets the pieces of a chain that is malformed.</summary>
    internal void Discard() => Begin(HeadIndex);

    private static IoVector* Pointer(IoVector[] pinned) =>
        (IoVector*)Unsafe.AsPointer(ref MemoryMarshal.GetArrayDataReference(pinned));

    private bool TryAppendReadable(byte* pointer, GuestAddress address, ulong length)
    {
        // Neighbours in this process that are none for the guest are two mappings that happen to touch; they are kept
        // apart, so that a piece is one range for both.
        if (_readableCount > 0 && _readableEnd == address.Value)
        {
            ref IoVector last = ref _readable[_readableCount - 1];
            if (last.Address + last.Length == pointer)
            {
                last.Length += (nuint)length;
                _readableEnd += length;
                _readableLength += (long)length;
                return true;
            }
        }

        if (_readableCount + _writableCount == MaxPieces)
        {
            return false;
        }

        _readable[_readableCount++] = new IoVector(pointer, (nuint)length);
        _readableEnd = address.Value + length;
        _readableLength += (long)length;
        return true;
    }

    private bool TryAppendWritable(byte* pointer, GuestAddress address, ulong length)
    {
        if (_writableCount > 0)
        {
            ref GuestRange lastRange = ref _writableRanges[_writableCount - 1];
            ref IoVector last = ref _writable[_writableCount - 1];
            if (lastRange.Address.Value + lastRange.Length == address.Value && last.Address + last.Length == pointer)
            {
                last.Length += (nuint)length;
                lastRange = new GuestRange(lastRange.Address, lastRange.Length + length);
                _writableLength += (long)length;
                return true;
            }
        }

        if (_readableCount + _writableCount == MaxPieces)
        {
            return false;
        }

        _writable[_writableCount] = new IoVector(pointer, (nuint)length);
        _writableRanges[_writableCount++] = new GuestRange(address, length);
        _writableLength += (long)length;
        return true;
    }
}

/// <summary>A range of guest memory.</summary>
/// <param name="Address">The start.</param>
/// <param name="Length">The length in bytes.</param>
public readonly record struct GuestRange(GuestAddress Address, ulong Length);
