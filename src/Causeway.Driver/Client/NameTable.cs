using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;

namespace Causeway.Driver;

/// <summary>What a name in a directory means, as far as we know.</summary>
internal sealed class KnownName
{
    // Fields and no properties with structures, so that what a check looks at lies in one or two lines of the cache.
    private KnownName? _next;
    private KnownAttributes? _attributes;
    private readonly ulong _ownVersion;
    private readonly ulong _directoryVersion;
    private readonly ulong _epoch;
    private readonly uint _ownWord;
    private readonly uint _directoryWord;

    /// <param name="parent">The directory.</param>
    /// <param name="text">The name.</param>
    /// <param name="node">The node; null: there is no such name.</param>
    /// <param name="own">What vouches for it in sessions with a version table: its own word.</param>
    /// <param name="directory">And that of all entries of the directory, of the same epoch.</param>
    internal KnownName(
        CachedNode parent, string text, CachedNode? node, in VersionProof own, in VersionProof directory)
    {
        Parent = parent;
        Text = text;
        Node = node;
        IsLink = node?.Kind == FileKind.SymbolicLink;
        Hash = NameTable.HashOf(parent, text);
        (_ownWord, _ownVersion) = (own.Word, own.Version);
        (_directoryWord, _directoryVersion) = (directory.Word, directory.Version);
        _epoch = own.IsAny ? own.Epoch : directory.Epoch;
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
    internal KnownAttributes? Attributes
    {
        get => Volatile.Read(ref _attributes);
        set => Volatile.Write(ref _attributes, value);
    }

    /// <summary>The next one whose hash ends in the same bits.</summary>
    internal KnownName? Next
    {
        get => Volatile.Read(ref _next);
        set => Volatile.Write(ref _next, value);
    }
}

/// <summary>
/// The names of a session. Finding one takes no lock; changes are for who holds the lock of the <see cref="NodeCache"/>.
/// </summary>
/// <remarks>
/// <para>A table of chains. Who looks for a name while the table grows may be led into another chain and not find it, which is
/// never wrong: then the device is asked. A dictionary of the framework has one object more on the way to each name, and calls
/// through interfaces: a stat of one of 10,000 files at random took 530 ns with one, and takes 280 with this; of one file again and
/// again 65.</para>
/// <para>Which name is displaced is found by a hand that goes around (CLOCK): one that was used since the hand came by stays for
/// another round. So finding stores at most a flag, where a list in the order of use would be changed by everybody all the time.
/// </para>
/// </remarks>
internal sealed class NameTable
{
    private readonly List<KnownName> _places = [];
    private KnownName?[] _chains = new KnownName?[64];
    private int _hand;

    internal int Count => _places.Count;

    /// <summary>Finds a name by a part of a path.</summary>
    internal bool TryFind(CachedNode parent, ReadOnlySpan<char> text, [NotNullWhen(true)] out KnownName? name)
    {
        int hash = HashOf(parent, text);
        KnownName?[] chains = Volatile.Read(ref _chains);
        name = Volatile.Read(ref chains[hash & (chains.Length - 1)]);
        while (name is not null && !(name.Hash == hash && name.Parent == parent && text.SequenceEqual(name.Text)))
        {
            name = name.Next;
        }

        return name is not null;
    }

    /// <summary>Puts a name in, which is not there yet.</summary>
    internal void Add(KnownName name)
    {
        name.Place = _places.Count;
        _places.Add(name);
        if (_places.Count > _chains.Length)
        {
            Grow();
            return;
        }

        Link(_chains, name);
    }

    /// <summary>Puts the same name in another's place.</summary>
    internal void Replace(KnownName old, KnownName name)
    {
        name.Place = old.Place;
        _places[name.Place] = name;
        name.Next = old.Next;
        Relink(old, name);
    }

    internal void Remove(KnownName name)
    {
        // Its own link stays: who looks at it right now goes on from here.
        Relink(name, name.Next);
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

    private static void Link(KnownName?[] chains, KnownName name)
    {
        ref KnownName? chain = ref chains[name.Hash & (chains.Length - 1)];
        name.Next = chain;
        Volatile.Write(ref chain, name);
    }

    private void Relink(KnownName old, KnownName? name)
    {
        ref KnownName? chain = ref _chains[old.Hash & (_chains.Length - 1)];
        if (chain == old)
        {
            Volatile.Write(ref chain, name);
            return;
        }

        KnownName before = chain!;
        while (before.Next != old)
        {
            before = before.Next!;
        }

        before.Next = name;
    }

    private void Grow()
    {
        var chains = new KnownName?[_chains.Length * 2];
        foreach (KnownName name in _places)
        {
            Link(chains, name);
        }

        Volatile.Write(ref _chains, chains);
    }
}
