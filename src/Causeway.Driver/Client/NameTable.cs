using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics.X86;

namespace Causeway.Driver;

/// <summary>
/// What a name in a directory means, as far as we know. It is at the same time what was known of the node's attributes when it was
/// made: then all that a stat looks at, but for the words of the version table, is in one object.
/// </summary>
internal sealed class KnownName : KnownAttributes
{
    // Fields and no properties with structures, so that an object has as few lines of the cache as it can.
    private KnownAttributes? _newer;
    private readonly ulong _ownVersion;
    private readonly ulong _directoryVersion;
    private readonly ulong _epoch;
    private readonly uint _ownWord;
    private readonly uint _directoryWord;
    private readonly ShortText _shortText;

    /// <param name="parent">The directory.</param>
    /// <param name="text">The name.</param>
    /// <param name="node">The node; null: there is no such name.</param>
    /// <param name="own">What vouches for it in sessions with a version table: its own word.</param>
    /// <param name="directory">And that of all entries of the directory, of the same epoch.</param>
    internal KnownName(
        CachedNode parent, string text, CachedNode? node, in VersionProof own, in VersionProof directory)
        : base(node?.Known ?? Nothing)
    {
        Parent = parent;
        Text = text;
        Node = node;
        IsLink = node?.Kind == FileKind.SymbolicLink;
        Hash = NameTable.HashOf(parent, text);
        (_ownWord, _ownVersion) = (own.Word, own.Version);
        (_directoryWord, _directoryVersion) = (directory.Word, directory.Version);
        _epoch = own.IsAny ? own.Epoch : directory.Epoch;
        if (text.Length <= ShortText.Capacity)
        {
            _shortText = new ShortText(text);
        }
    }

    internal CachedNode Parent { get; }

    internal string Text { get; }

    internal CachedNode? Node { get; }

    internal bool IsLink { get; }

    internal int Hash { get; }

    /// <summary>Until when it is believed, a time stamp of the clock; for sessions without a version table.</summary>
    internal long Until { get; init; }

    internal VersionProof OwnProof => new(_ownWord, _ownVersion, _epoch);

    internal VersionProof DirectoryProof => new(_directoryWord, _directoryVersion, _epoch);

    /// <summary>Used since the last time that somebody looked for one to displace. A race costs at most the wrong one.</summary>
    internal bool WasUsed { get; set; }

    /// <summary>Where it is in the table's list.</summary>
    internal int Place { get; set; }

    /// <summary>
    /// What was last found to be true of the node's attributes, so that a stat need not go by the node. It has its own proof, so that
    /// it is right whatever became of the node since.
    /// </summary>
    internal KnownAttributes Newest
    {
        get => Volatile.Read(ref _newer) ?? this;
        set => Volatile.Write(ref _newer, value);
    }

    /// <summary>Whether it is what a part of a path names.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool Is(int hash, CachedNode parent, ReadOnlySpan<char> text) =>
        Hash == hash && Parent == parent
        && (_shortText.Length != 0 ? text.SequenceEqual(_shortText.Span) : text.SequenceEqual(Text));

    /// <summary>A name within the object: one line less to wait for.</summary>
    private struct ShortText
    {
        internal const int Capacity = 15;

        private Characters _characters;

        internal ShortText(ReadOnlySpan<char> text)
        {
            text.CopyTo(_characters);
            _characters[Capacity] = (char)text.Length;
        }

        internal readonly int Length => _characters[Capacity];

        [UnscopedRef]
        internal readonly ReadOnlySpan<char> Span => ((ReadOnlySpan<char>)_characters)[..Length];

        [InlineArray(Capacity + 1)]
        private struct Characters
        {
            private char _first;
        }
    }
}

/// <summary>
/// The names of a session. Finding one takes no lock; changes are for who holds the lock of the <see cref="NodeCache"/>.
/// </summary>
/// <remarks>
/// <para>A table of slots, at most three quarters of them full; a name is in the first free one from where its hash says. Who looks
/// for a name while others are moved or the table grows may not find it, which is never wrong: then the device is asked.</para>
/// <para>A stat of one of many files is mostly waiting for memory. So there is little of it: slots are small, and what is known of a name
/// is one object. And it is waited for at once: a slot says which word vouches for the name. That is a hint: what is believed is
/// what the name says, and words are loaded in the order that the protocol wants. With a table of chains, attributes and text in
/// objects of their own and one thing waited for after the other a stat of one of 10,000 files took 396 ns where it takes 272 now
/// (docs/client.md); without fetching early it is a third more.</para>
/// <para>Which name is displaced is found by a hand that goes around (CLOCK): one that was used since the hand came by stays for
/// another round. So finding stores at most a flag, where a list in the order of use would be changed by everybody all the time.
/// </para>
/// </remarks>
internal sealed class NameTable
{
    private readonly List<KnownName> _places = [];
    private Slot[] _slots = new Slot[128];
    private int _hand;

    internal int Count => _places.Count;

    /// <summary>Finds a name by a part of a path.</summary>
    internal bool TryFind(CachedNode parent, ReadOnlySpan<char> text, [NotNullWhen(true)] out KnownName? name) =>
        TryFind(parent, text, null, out name);

    /// <summary>The same for who will look at what vouches for it.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="text">The name.</param>
    /// <param name="table">Where the words are that will be looked at; null: nothing needs to be there early.</param>
    /// <param name="name">The name.</param>
    internal bool TryFind(
        CachedNode parent,
        ReadOnlySpan<char> text,
        VersionTableReader? table,
        [NotNullWhen(true)] out KnownName? name)
    {
        int hash = HashOf(parent, text);
        Slot[] slots = Volatile.Read(ref _slots);
        for (int i = hash & (slots.Length - 1); ; i = (i + 1) & (slots.Length - 1))
        {
            ref Slot slot = ref slots[i];
            name = Volatile.Read(ref slot.Name);
            if (name is null)
            {
                return false;
            }

            if (slot.Hash == hash)
            {
                if (table is not null)
                {
                    slot.Prefetch(table);
                }

                if (name.Is(hash, parent, text))
                {
                    return true;
                }
            }
        }
    }

    /// <summary>Puts a name in, which is not there yet.</summary>
    internal void Add(KnownName name)
    {
        name.Place = _places.Count;
        _places.Add(name);
        if (_places.Count > _slots.Length / 4 * 3)
        {
            Grow();
            return;
        }

        Enter(_slots, name);
    }

    /// <summary>Puts the same name in another's place.</summary>
    internal void Replace(KnownName old, KnownName name)
    {
        name.Place = old.Place;
        _places[name.Place] = name;
        _slots[Find(_slots, old)].Set(name);
    }

    internal void Remove(KnownName name)
    {
        int mask = _slots.Length - 1;
        int hole = Find(_slots, name);

        // Those behind it that are not where their hash says come nearer, so that each is still found from there on.
        for (int i = (hole + 1) & mask; _slots[i].Name is { } other; i = (i + 1) & mask)
        {
            if (((i - other.Hash) & mask) >= ((i - hole) & mask))
            {
                _slots[hole].Set(other);
                hole = i;
            }
        }

        _slots[hole].Clear();
        KnownName last = _places[^1];
        _places[name.Place] = last;
        last.Place = name.Place;
        _places.RemoveAt(_places.Count - 1);
    }

    /// <summary>Whether a name is still what it was.</summary>
    internal bool IsIn(KnownName name) => name.Place < _places.Count && _places[name.Place] == name;

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

    // Seeded by the runtime: who names files cannot make them collide.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static int HashOf(CachedNode parent, ReadOnlySpan<char> text) => string.GetHashCode(text) ^ parent.Hash;

    private static void Enter(Slot[] slots, KnownName name)
    {
        int i = name.Hash & (slots.Length - 1);
        while (slots[i].Name is not null)
        {
            i = (i + 1) & (slots.Length - 1);
        }

        slots[i].Set(name);
    }

    private static int Find(Slot[] slots, KnownName name)
    {
        int i = name.Hash & (slots.Length - 1);
        while (slots[i].Name != name)
        {
            i = (i + 1) & (slots.Length - 1);
        }

        return i;
    }

    private void Grow()
    {
        var slots = new Slot[_slots.Length * 2];
        foreach (KnownName name in _places)
        {
            Enter(slots, name);
        }

        Volatile.Write(ref _slots, slots);
    }

    /// <summary>A place of the table. Who reads it while it is set may see parts of two names: all but the name is a hint.</summary>
    private struct Slot
    {
        internal KnownName? Name;
        internal int Hash;
        private uint _word;

        internal void Set(KnownName name)
        {
            Hash = name.Hash;
            _word = name.OwnProof.Word;
            Volatile.Write(ref Name, name);
        }

        internal void Clear() => Volatile.Write(ref Name, null);

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        internal unsafe void Prefetch(VersionTableReader table)
        {
            if (!Sse.IsSupported)
            {
                return;
            }

            // SAFETY: the address of an object, which may be anywhere else a moment later: it is not read, and fetching into the cache
            // never faults.
            byte* name = (byte*)Unsafe.As<KnownName?, nint>(ref Name);
            Sse.Prefetch0(name);
            Sse.Prefetch0(name + 64);
            Sse.Prefetch0(name + 128);
            Sse.Prefetch0(name + 192);
            table.Prefetch(_word);
        }
    }
}
