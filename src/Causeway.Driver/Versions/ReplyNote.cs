using Causeway.Fuse;

namespace Causeway.Driver;

/// <summary>
/// What is to be remembered from before a request is sent, and what its reply then vouches for. Whatever the reply says may be kept
/// with the proofs from here.
/// </summary>
/// <param name="table">The version table; null in sessions without.</param>
/// <param name="changes">What <see cref="NodeCache.Changes"/> is.</param>
internal sealed class ReplyNote(VersionTableReader? table, long changes)
{
    // Before the request, never after the reply: an epoch that began in between does not vouch for it.
    private readonly ulong _epoch = table?.Epoch ?? 0;

    /// <summary>The number of the last change before the request.</summary>
    internal long Changes => changes;

    /// <summary>The tags of the reply; all zero, which is nothing, where it has none.</summary>
    internal FuseVersionTags Tags { get; set; }

    /// <summary>For attributes, access control lists and extended attributes.</summary>
    internal VersionProof Metadata => MetadataOf(Tags);

    /// <summary>For data, or a directory's entries, or where a symbolic link leads.</summary>
    internal VersionProof Content => Pair(Tags.InodeWord, 1, Tags.Content);

    /// <summary>What was a proof for data before the change that the reply is about, if nobody else has changed them since.</summary>
    internal VersionProof ContentBefore => Pair(Tags.InodeWord, 1, Tags.ContentBefore);

    /// <summary>The same as <see cref="Metadata"/>, by tags that stand elsewhere in the reply.</summary>
    internal VersionProof MetadataOf(in FuseVersionTags tags) => Pair(tags.InodeWord, 0, tags.Metadata);

    /// <summary>For the binding of a name: by its own word.</summary>
    internal VersionProof NameOf(in FuseVersionTags tags) =>
        table is null ? default : VersionProof.Of(table.IsName(tags.NameWord), tags.NameWord, tags.Name, _epoch);

    /// <summary>For the binding of a name: by the entries of its directory.</summary>
    internal VersionProof DirectoryOf(in FuseVersionTags tags) => Pair(tags.DirectoryWord, 1, tags.DirectoryContent);

    private VersionProof Pair(uint word, uint which, ulong version) =>
        table is null ? default : VersionProof.Of(table.IsPair(word), word + which, version, _epoch);
}
