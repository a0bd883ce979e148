using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Causeway.Fuse;

namespace Causeway.Driver;

/// <summary>A node that the device has given us lookups of, and what is known of it.</summary>
internal sealed class CachedNode(NodeId id, ulong generation)
{
    private const int Ended = int.MinValue;

    private static readonly ulong s_secret = MemoryMarshal.Read<ulong>(RandomNumberGenerator.GetBytes(sizeof(ulong)));

    private long _knownLength = -1;
    private int _holders;
    private volatile KnownAttributes _known = KnownAttributes.Nothing;

    internal NodeId Id => id;

    internal ulong Generation => generation;

    /// <summary>Tells it apart from other nodes, in hashes of the names in it; nobody else can know it.</summary>
    internal ulong HashKey { get; } = (id.Value * 0x9E37_79B9_7F4A_7C15) ^ s_secret;

    /// <summary>What it is; that never changes.</summary>
    internal FileKind Kind { get; init; }

    /// <summary>Lookups to give back.</summary>
    internal ulong Lookups { get; set; }

    /// <summary>What was last said of its attributes; an immutable object, replaced as a whole.</summary>
    internal KnownAttributes Known
    {
        get => _known;
        set => _known = value;
    }

    internal FuseAttributes Attributes => _known.Attributes;

    /// <summary>
    /// How long the file is as far as we know, whatever the clock says; negative when that has to be asked. Read without a lock, by
    /// <see cref="NodeCache.LengthOf"/>.
    /// </summary>
    internal long KnownLength
    {
        get => Volatile.Read(ref _knownLength);
        set => Volatile.Write(ref _knownLength, value);
    }

    /// <summary>The file as memory; null when it is not used so.</summary>
    internal MappedNode? Mapped { get; set; }

    /// <summary>Until when the attributes are believed, a time stamp of the clock.</summary>
    internal long AttributesUntil { get; set; }

    /// <summary>The number of the last change of it: a reply that was under way is too old to be remembered.</summary>
    internal long ChangedAt { get; set; }

    /// <summary>Its data; null as long as none was cached.</summary>
    internal FileData? Data { get; set; }

    /// <summary>Its open files.</summary>
    internal int Opens { get; set; }

    /// <summary>Where it leads, if it is a symbolic link and that is kept. Immutable, as the following.</summary>
    internal KnownTarget? Target { get; set; }

    /// <summary>Its entries, if it is a directory and they are kept.</summary>
    internal KnownListing? Listing { get; set; }

    /// <summary>Its extended attributes that are kept, all fetched with the same version.</summary>
    internal KnownXattrs? Xattrs { get; set; }

    /// <summary>One more holds it: a call, an open file, or a name. False when it was given back to the device already.</summary>
    internal bool TryHold()
    {
        int holders = Volatile.Read(ref _holders);
        while (holders != Ended)
        {
            int seen = Interlocked.CompareExchange(ref _holders, holders + 1, holders);
            if (seen == holders)
            {
                return true;
            }

            holders = seen;
        }

        return false;
    }

    /// <summary>One more holds it that is held already.</summary>
    internal void Hold()
    {
        bool isHeld = TryHold();
        Debug.Assert(isHeld, "who holds a node keeps it from being given back");
    }

    /// <summary>One less.</summary>
    /// <returns>Whether nobody does any more, as it seems: somebody may find it right now.</returns>
    internal bool LetGo() => Interlocked.Decrement(ref _holders) == 0;

    /// <summary>It is given back to the device, if nobody holds it.</summary>
    internal bool TryEnd() => Interlocked.CompareExchange(ref _holders, Ended, 0) == 0;
}

/// <summary>Attributes of a node, and what vouches for them.</summary>
internal class KnownAttributes(in FuseAttributes attributes, VersionProof proof)
{
    internal static readonly KnownAttributes Nothing = new(default, default);

    // First, because it says which word to look at, which takes longer than the rest.
    internal readonly VersionProof Proof = proof;

    internal readonly FuseAttributes Attributes = attributes;

    protected KnownAttributes(KnownAttributes other)
        : this(other.Attributes, other.Proof)
    {
    }
}

/// <summary>Where a symbolic link leads.</summary>
internal sealed class KnownTarget(string text, VersionProof proof)
{
    internal string Text => text;

    internal VersionProof Proof => proof;
}

/// <summary>The entries of a directory, all of them.</summary>
internal sealed class KnownListing(DirectoryItem[] items, VersionProof proof)
{
    internal DirectoryItem[] Items => items;

    internal VersionProof Proof => proof;

    /// <summary>Its place in the list of all listings, for who holds the lock of the cache.</summary>
    internal LinkedListNode<CachedNode>? Place { get; set; }
}

/// <summary>Extended attributes of a node. The list of their names is under the empty name.</summary>
internal sealed class KnownXattrs(VersionProof proof, params ReadOnlySpan<KeyValuePair<string, byte[]>> values)
{
    // What is kept of one node: more, or more bytes, is fetched each time (arbitrary).
    private const int MostValues = 8;
    internal const int MostBytes = 4096;

    private readonly KeyValuePair<string, byte[]>[] _values = values.ToArray();

    internal VersionProof Proof => proof;

    internal byte[]? Find(string name)
    {
        foreach (KeyValuePair<string, byte[]> value in _values)
        {
            if (value.Key == name)
            {
                return value.Value;
            }
        }

        return null;
    }

    /// <summary>The same and one more; without the oldest when they are too many.</summary>
    internal KnownXattrs With(string name, byte[] value)
    {
        List<KeyValuePair<string, byte[]>> values = [.. _values.Where(known => known.Key != name), new(name, value)];
        if (values.Count > MostValues)
        {
            values.RemoveAt(0);
        }

        return new KnownXattrs(proof, CollectionsMarshal.AsSpan(values));
    }
}
