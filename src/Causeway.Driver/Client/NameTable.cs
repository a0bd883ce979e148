using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Causeway.Driver;

/// <summary>
/// The names of a session. Finding one takes no lock; changes are for who holds the lock of the <see cref="NodeCache"/>.
/// </summary>
/// <remarks>
/// <para>A table of buckets with four places each, at most five eighths of them full; a name is in the first bucket with a free place
/// from where its hash says. Who looks for a name while others are moved or the table grows may not find it, which is never wrong:
/// then the device is asked.</para>
/// <para>A stat of one of many files is mostly waiting for memory. So there is little of it: places are small, and what is known of a
/// name is one object. It is waited for at once: a place says which word vouches for the attributes, which is a hint only; what is
/// believed is what the name says, and words are loaded in the order that the protocol wants. And a processor begins with the
/// next stat while it waits, as long as it need not guess: so all hashes of a bucket are compared at once, and which place it is
/// decides no branch. What that makes is in docs/client.md.</para>
/// <para>Which name is displaced is found by a hand that goes around (CLOCK): one that was used since the hand came by stays for
/// another round. So finding stores at most a flag, where a list in the order of use would be changed by everybody all the time.
/// </para>
/// </remarks>
internal sealed class NameTable
{
    private readonly List<KnownName> _places = [];
    private Bucket[] _buckets = new Bucket[32];
    private int _hand;

    internal int Count => _places.Count;

    /// <summary>Finds a name by a part of a path.</summary>
    internal KnownName? Find(CachedNode parent, ReadOnlySpan<char> text) => Find(parent, new NameText(text), null);

    /// <summary>The same for who will look at what vouches for it.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="text">The name.</param>
    /// <param name="table">Where the words are that will be looked at; null: nothing needs to be there early.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal KnownName? Find(CachedNode parent, in NameText text, VersionTableReader? table)
    {
        int hash = text.HashIn(parent);
        Bucket[] buckets = Volatile.Read(ref _buckets);
        for (int i = hash & (buckets.Length - 1); ; i = (i + 1) & (buckets.Length - 1))
        {
            ref Bucket bucket = ref buckets[i];
            for (uint matches = bucket.Matches(hash); matches != 0; matches &= matches - 1)
            {
                int place = BitOperations.TrailingZeroCount(matches);
                if (table is not null)
                {
                    bucket.Prefetch(place, table);
                }

                // Null: it is put in or taken out right now.
                if (Volatile.Read(ref bucket.Names[place]) is { } name && name.Is(parent, text))
                {
                    return name;
                }
            }

            if (!bucket.IsFull)
            {
                return null;
            }
        }
    }

    /// <summary>Puts a name in, which is not there yet.</summary>
    internal void Add(KnownName name)
    {
        name.Place = _places.Count;
        _places.Add(name);
        if (_places.Count > _buckets.Length * Bucket.Size / 8 * 5)
        {
            Grow();
            return;
        }

        Enter(_buckets, name);
    }

    /// <summary>Puts the same name in another's place.</summary>
    internal void Replace(KnownName old, KnownName name)
    {
        name.Place = old.Place;
        _places[name.Place] = name;
        (int bucket, int place) = PlaceOf(old);
        _buckets[bucket].Set(place, name);
    }

    internal void Remove(KnownName name)
    {
        (int bucket, int place) = PlaceOf(name);
        CloseGap(bucket, place);
        KnownName last = _places[^1];
        _places[name.Place] = last;
        last.Place = name.Place;
        _places.RemoveAt(_places.Count - 1);
    }

    /// <summary>The name that is to go: one that was not used for longest, about.</summary>
    internal KnownName FindOldest()
    {
        while (true)
        {
            // Past the one that is returned, too: in its place comes the newest, which has a whole round.
            _hand = _hand < _places.Count ? _hand : 0;
            KnownName name = _places[_hand++];
            if (!name.WasUsed)
            {
                return name;
            }

            name.WasUsed = false;
        }
    }

    private static void Enter(Bucket[] buckets, KnownName name)
    {
        int i = name.Hash & (buckets.Length - 1);
        while (buckets[i].IsFull)
        {
            i = (i + 1) & (buckets.Length - 1);
        }

        buckets[i].Set(BitOperations.TrailingZeroCount(buckets[i].Matches(Bucket.Free)), name);
    }

    private (int Bucket, int Place) PlaceOf(KnownName name)
    {
        for (int i = name.Hash & (_buckets.Length - 1); ; i = (i + 1) & (_buckets.Length - 1))
        {
            int place = ((ReadOnlySpan<KnownName?>)_buckets[i].Names).IndexOf(name);
            if (place >= 0)
            {
                return (i, place);
            }
        }
    }

    // Frees a place. One that has found its bucket full comes there, so that it is still found from where its hash says on, and
    // leaves a gap itself; up to a bucket that nobody has passed by. What is to be freed stays until the end: it may be found twice.
    private void CloseGap(int bucket, int place)
    {
        int mask = _buckets.Length - 1;
        int i = bucket;
        while (_buckets[i].IsFull)
        {
            i = (i + 1) & mask;
            for (int j = 0; j < Bucket.Size; j++)
            {
                if (_buckets[i].Names[j] is { } other && ((i - other.Hash) & mask) >= ((i - bucket) & mask))
                {
                    _buckets[bucket].Set(place, other);
                    (bucket, place) = (i, j);
                    break;
                }
            }
        }

        _buckets[bucket].Clear(place);
    }

    private void Grow()
    {
        var buckets = new Bucket[_buckets.Length * 2];
        foreach (KnownName name in _places)
        {
            Enter(buckets, name);
        }

        Volatile.Write(ref _buckets, buckets);
    }

    /// <summary>
    /// Four places of the table. Who reads one while it is set may see parts of two names: all but the name is a hint.
    /// </summary>
    private struct Bucket
    {
        internal const int Size = 4;

        /// <summary>The hash of a free place, which no name has.</summary>
        internal const int Free = 0;

        internal Four<KnownName?> Names;
        private Four<int> _hashes;
        private Four<uint> _words;

        internal readonly bool IsFull => Matches(Free) == 0;

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        internal readonly uint Matches(int hash) =>
            Vector128.Equals(Vector128.Create((ReadOnlySpan<int>)_hashes), Vector128.Create(hash)).ExtractMostSignificantBits();

        internal void Set(int place, KnownName name)
        {
            _words[place] = name.Proof.Word;
            Volatile.Write(ref Names[place], name);
            _hashes[place] = name.Hash;
        }

        internal void Clear(int place)
        {
            _hashes[place] = Free;
            Volatile.Write(ref Names[place], null);
        }

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        internal unsafe void Prefetch(int place, VersionTableReader table)
        {
            if (!Sse.IsSupported)
            {
                return;
            }

            // SAFETY: the address of an object, which may be anywhere else a moment later: it is not read, and fetching into the cache
            // never faults. Its end may be on a fifth line, which is left to whoever reads it.
            byte* name = (byte*)Unsafe.As<KnownName?, nint>(ref Names[place]);
            Sse.Prefetch0(name);
            Sse.Prefetch0(name + 64);
            Sse.Prefetch0(name + 128);
            Sse.Prefetch0(name + 192);
            table.Prefetch(_words[place]);
        }
    }

    [InlineArray(Bucket.Size)]
    private struct Four<T>
    {
        private T _first;
    }
}
