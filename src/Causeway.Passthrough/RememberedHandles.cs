using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// File handles of objects that the guest has forgotten: who finds one of them by statx(2) need not ask for its handle again.
/// </summary>
/// <remarks>
/// <para>Only handles are given to it of which <see cref="WasOld"/> is true: no later object has the same key then, as long as
/// the clock is not set back. Should one have, the handle is stale, because it has the generation of the inode number, and is dropped by
/// who finds that out. The mounts that keys name stay what they are as long as the session. It is not emptied when the session begins
/// anew: what it says is about the host.</para>
/// <para>An object has one place, which it shares with others; the last one keeps it. The sequence of a place is odd while a thread
/// writes to it. Who writes passes by a place that another thread writes to, and who reads passes by one that has been written to meanwhile:
/// then the object is not remembered, which is always right.</para>
/// </remarks>
internal sealed unsafe class RememberedHandles : IDisposable
{
    /// <summary>The most places there can be: 4 MiB, of which only what was written to takes memory.</summary>
    public const uint MostPlaces = 1 << 16;

    // 256 KiB (arbitrary).
    private const uint FirstPlaces = 1 << 12;

    // There are twice as many when one of so many is taken: objects that come and go in turn are then found again in 75 to 87 of 100
    // cases, with up to half of the places taken in 50 to 75.
    private const int PlacesPerHandle = 4;

    // What has 112 bytes of memory for a node has eight of them left for this (MemoryBudget).
    private const uint NodesPerPlace = 8;

    private const uint PlacesPerPage = 64;

    // A new object's time of creation is that of the last tick of the clock, 10 ms ago at most, and file systems round it down, to
    // two seconds at most (FAT).
    private const long OldAfterSeconds = 2;

    // What was old at some moment in the past is old, and so the clock is looked at only for what was not, and by each thread one of so
    // many times (arbitrary), because it may have been set back. With a look each time LOOKUP of 131,072 files in turn took 1.06 times what
    // it did without remembering any, instead of 1.02.
    private const uint JudgedByOneLook = 64;

    private readonly TimeProvider _clock;
    private readonly Place* _places;
    private readonly uint _mostPlaces;
    private uint _mask;
    private int _taken;
    private long _pastSeconds;
    private bool _isDisposed;

    /// <summary>Makes an empty one.</summary>
    /// <param name="nodes">How many nodes the session may have.</param>
    /// <param name="clock">The clock of the file systems.</param>
    public RememberedHandles(uint nodes, TimeProvider clock)
    {
        _clock = clock;
        _mostPlaces = 1U << BitOperations.Log2(Math.Clamp(nodes / NodesPerPlace, PlacesPerPage, MostPlaces));
        _mask = Math.Min(_mostPlaces, FirstPlaces) - 1;
        _places = (Place*)AddressSpace.Reserve(Bytes);
        AddressSpace.Commit((byte*)_places, Bytes).ThrowIfError("get memory for file handles");
    }

    /// <summary>How many places there are by now.</summary>
    public uint PlaceCount => Volatile.Read(ref _mask) + 1;

    private nuint Bytes => _mostPlaces * (nuint)sizeof(Place);

    /// <summary>
    /// Whether an object that has a handle after this had its inode number for so long that another one that gets the number will have
    /// another time of creation.
    /// </summary>
    /// <param name="mount">The mount it is on.</param>
    /// <param name="status">The object.</param>
    public bool WasOld(Mount mount, in StatxBuffer status)
    {
        if (!mount.HasLastingNumbers || (status.Mask & StatxMask.BirthTime) == 0 || status.BirthTime.Seconds <= 0)
        {
            return false;
        }

        bool isTrusted = ++WorkerThread.Current.AgesJudged % JudgedByOneLook != 0;
        long past = Volatile.Read(ref _pastSeconds);
        if (isTrusted && past - status.BirthTime.Seconds > OldAfterSeconds)
        {
            return true;
        }

        long now = _clock.GetUtcNow().ToUnixTimeSeconds();
        if (now != past)
        {
            Volatile.Write(ref _pastSeconds, now);
        }

        return now - status.BirthTime.Seconds > OldAfterSeconds;
    }

    /// <summary>Keeps a handle.</summary>
    /// <param name="key">The object.</param>
    /// <param name="type">The type of its handle.</param>
    /// <param name="handle">The handle; not kept when it is longer than a node has room for.</param>
    public void Add(in NodeKey key, int type, ReadOnlySpan<byte> handle)
    {
        Place* place = PlaceOf(key);
        if (handle.Length > Node.InlineHandleLength || place->Has(key, type, handle) || !place->TryBegin(out uint sequence))
        {
            return;
        }

        bool isNew = place->HandleLength == 0;
        place->Inode = key.Inode;
        place->BirthSeconds = key.BirthSeconds;
        place->BirthNanoseconds = key.BirthNanoseconds;
        place->Mount = key.Mount;
        place->HandleType = type;
        place->HandleLength = (ushort)handle.Length;
        handle.CopyTo(new Span<byte>(place->Handle, Node.InlineHandleLength));
        place->End(sequence);
        if (isNew)
        {
            CountTaken();
        }
    }

    /// <summary>Finds a handle.</summary>
    /// <param name="key">The object.</param>
    /// <param name="handle">A copy of its handle.</param>
    /// <returns>Whether there is one.</returns>
    public bool TryFind(in NodeKey key, out KernelFileHandle handle)
    {
        Unsafe.SkipInit(out handle);
        Place* place = PlaceOf(key);
        // Pairs with the store in End: what was written before that is seen.
        uint sequence = Volatile.Read(ref place->Sequence);
        int length = place->HandleLength;
        if ((sequence & 1) != 0 || !place->IsOf(key) || length is 0 or > Node.InlineHandleLength)
        {
            return false;
        }

        handle.Set(place->HandleType, new ReadOnlySpan<byte>(place->Handle, length));
        // Pairs with the one in TryBegin.
        Volatile.ReadBarrier();
        return place->Sequence == sequence;
    }

    /// <summary>Drops a handle.</summary>
    /// <param name="key">The object.</param>
    public void Remove(in NodeKey key)
    {
        Place* place = PlaceOf(key);
        if (place->IsOf(key) && place->TryBegin(out uint sequence))
        {
            // It may be another's by now, which is no loss.
            bool wasTaken = place->HandleLength != 0;
            place->HandleLength = 0;
            place->End(sequence);
            if (wasTaken)
            {
                Interlocked.Decrement(ref _taken);
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (!_isDisposed)
        {
            _isDisposed = true;
            _ = AddressSpace.Release((byte*)_places, Bytes);
        }
    }

    private Place* PlaceOf(in NodeKey key) => _places + (key.Hash & Volatile.Read(ref _mask));

    // When there are more places, half of the handles are where nobody looks for them any more.
    private void CountTaken()
    {
        uint mask = Volatile.Read(ref _mask);
        if (Interlocked.Increment(ref _taken) > (int)(mask + 1) / PlacesPerHandle && mask + 1 < _mostPlaces)
        {
            _ = Interlocked.CompareExchange(ref _mask, (2 * mask) + 1, mask);
        }
    }

    /// <summary>A line of the cache, so that a look costs no more than one.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 64)]
    private struct Place
    {
        public uint Sequence;
        public int HandleType;
        public ulong Inode;
        public long BirthSeconds;
        public uint BirthNanoseconds;
        public ushort Mount;
        public ushort HandleLength;
        public fixed byte Handle[Node.InlineHandleLength];

        public readonly bool IsOf(in NodeKey key) =>
            Inode == key.Inode && Mount == key.Mount && BirthSeconds == key.BirthSeconds && BirthNanoseconds == key.BirthNanoseconds;

        // May be wrong while another thread writes, whose handle is kept then.
        public readonly bool Has(in NodeKey key, int type, ReadOnlySpan<byte> handle)
        {
            fixed (byte* bytes = Handle)
            {
                return IsOf(key) && HandleType == type && HandleLength == handle.Length &&
                    handle.SequenceEqual(new ReadOnlySpan<byte>(bytes, handle.Length));
            }
        }

        public bool TryBegin(out uint sequence)
        {
            sequence = Volatile.Read(ref Sequence);
            if ((sequence & 1) != 0 || Interlocked.CompareExchange(ref Sequence, sequence + 1, sequence) != sequence)
            {
                return false;
            }

            // Pairs with the one in TryFind: whoever has read something that is written after this sees the sequence moved.
            Volatile.WriteBarrier();
            return true;
        }

        public void End(uint sequence) => Volatile.Write(ref Sequence, sequence + 2);
    }
}
