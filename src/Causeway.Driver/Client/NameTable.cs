using System.Collections.Concurrent;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;

namespace Causeway.Driver;

/// <summary>What a name in a directory means, as far as we know.</summary>
/// <param name="parent">The directory.</param>
/// <param name="text">The name.</param>
/// <param name="node">The node; null: there is no such name.</param>
internal sealed class KnownName(CachedNode parent, string text, CachedNode? node)
{
    internal CachedNode Parent => parent;

    internal string Text => text;

    internal CachedNode? Node => node;

    /// <summary>Until when it is believed, a time stamp of the clock; for sessions without a version table.</summary>
    internal long Until { get; set; }

    /// <summary>What vouches for it in sessions with one: its own word.</summary>
    internal VersionProof OwnProof { get; init; }

    /// <summary>And that of all entries of the directory.</summary>
    internal VersionProof DirectoryProof { get; init; }

    /// <summary>Used since the last time that somebody looked for one to displace. A race costs at most the wrong one.</summary>
    internal bool WasUsed { get; set; }

    /// <summary>Where it is in the table's list.</summary>
    internal int Place { get; set; }
}

/// <summary>
/// The names of a session. Finding one takes no lock; changes are for who holds the lock of the <see cref="NodeCache"/>.
/// </summary>
/// <remarks>
/// Which name is displaced is found by a hand that goes around (CLOCK): one that was used since the hand came by stays for another
/// round. So finding stores at most a flag, where a list in the order of use would be changed by everybody all the time.
/// </remarks>
internal sealed class NameTable
{
    private readonly ConcurrentDictionary<NameKey, KnownName> _names;
    private readonly ConcurrentDictionary<NameKey, KnownName>.AlternateLookup<NameSpan> _spans;
    private readonly List<KnownName> _places = [];
    private int _hand;

    internal NameTable()
    {
        _names = new ConcurrentDictionary<NameKey, KnownName>(new Comparer());
        _spans = _names.GetAlternateLookup<NameSpan>();
    }

    internal int Count => _places.Count;

    internal bool TryFind(CachedNode parent, ReadOnlySpan<char> text, [NotNullWhen(true)] out KnownName? name) =>
        _spans.TryGetValue(new NameSpan(parent, text), out name);

    /// <summary>Puts a name in, which is not there yet.</summary>
    internal void Add(KnownName name)
    {
        name.Place = _places.Count;
        _places.Add(name);
        _names[new NameKey(name.Parent, name.Text)] = name;
    }

    /// <summary>Puts the same name in another's place.</summary>
    internal void Replace(KnownName old, KnownName name)
    {
        name.Place = old.Place;
        _places[name.Place] = name;
        _names[new NameKey(name.Parent, name.Text)] = name;
    }

    internal void Remove(KnownName name)
    {
        _names.TryRemove(new NameKey(name.Parent, name.Text), out _);
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

    private readonly record struct NameKey(CachedNode Parent, string Text);

    private readonly ref struct NameSpan(CachedNode parent, ReadOnlySpan<char> text)
    {
        internal readonly CachedNode Parent = parent;
        internal readonly ReadOnlySpan<char> Text = text;
    }

    /// <summary>Names are found by a part of a path, without a string of their own.</summary>
    private sealed class Comparer : IEqualityComparer<NameKey>, IAlternateEqualityComparer<NameSpan, NameKey>
    {
        public bool Equals(NameKey x, NameKey y) => x.Parent == y.Parent && x.Text == y.Text;

        public int GetHashCode(NameKey key) => Hash(key.Parent, key.Text);

        public bool Equals(NameSpan alternate, NameKey other) =>
            alternate.Parent == other.Parent && alternate.Text.SequenceEqual(other.Text);

        public int GetHashCode(NameSpan alternate) => Hash(alternate.Parent, alternate.Text);

        public NameKey Create(NameSpan alternate) => new(alternate.Parent, alternate.Text.ToString());

        // Seeded by the runtime: who names files cannot make them collide.
        private static int Hash(CachedNode parent, ReadOnlySpan<char> text) =>
            string.GetHashCode(text) ^ RuntimeHelpers.GetHashCode(parent);
    }
}
