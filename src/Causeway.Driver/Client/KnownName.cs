using System.Runtime.CompilerServices;
using Causeway.Fuse;

namespace Causeway.Driver;

/// <summary>
/// What a name in a directory means, as far as we know. It is at the same time what was known of the node's attributes when it was
/// made: then all that a stat looks at, but for the words of the version table, is in one object.
/// </summary>
internal sealed class KnownName : KnownAttributes
{
    // Fields and no properties with structures, so that an object has as few lines of the cache as it can.
    private KnownAttributes? _newer;
    private ulong _directoryVersion;
    private readonly ulong _ownVersion;
    private readonly ulong _epoch;
    private readonly uint _ownWord;
    private readonly uint _directoryWord;
    private readonly int _length;
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
        var name = new NameText(text);
        Hash = name.HashIn(parent);
        _length = text.Length;
        _shortText = name.Short;
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

    internal VersionProof DirectoryProof => new(_directoryWord, Volatile.Read(ref _directoryVersion), _epoch);

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
    internal bool Is(CachedNode parent, in NameText text) =>
        _length == text.Length && Parent == parent
        && (text.IsShort ? _shortText.Equals(text.Short) : text.Characters.SequenceEqual(Text));

    /// <summary>
    /// The directory's word vouches for it again, by another version. Whichever of several is kept, each is one that it was true by.
    /// </summary>
    internal void Renew(in VersionProof directory) => Volatile.Write(ref _directoryVersion, directory.Version);
}
