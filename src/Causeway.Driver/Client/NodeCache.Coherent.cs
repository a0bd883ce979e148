using Causeway.Fuse;

namespace Causeway.Driver;

/// <summary>What can be said of a path without asking.</summary>
internal enum PathAnswer
{
    /// <summary>Nothing.</summary>
    Unknown,

    /// <summary>There is such an object.</summary>
    Found,

    /// <summary>There is not.</summary>
    Missing,
}

/// <content>
/// Sessions with a version table: what is kept is checked at each use, and not by the clock. Everything that is kept is an
/// immutable object with its proofs, replaced by one store, so that checking takes no lock.
/// </content>
internal sealed partial class NodeCache
{
    // Symbolic links that are followed here; for more the long way is taken, which counts as Linux does (arbitrary).
    private const int MostLinks = 8;

    // Directories whose listings are kept, the one kept last comes first.
    private readonly LinkedList<CachedNode> _listings = new();
    private int _listedNames;

    /// <summary>The version table; set once, before anything is looked for.</summary>
    internal VersionTableReader? Versions { get; set; }

    internal bool IsCoherent => _mode == CacheMode.Coherent;

    /// <summary>Whether a proof holds now. Without a version table nothing needs one.</summary>
    internal bool Holds(in VersionProof proof)
    {
        if (Versions is not { } table)
        {
            return true;
        }

        var check = new VersionCheck(table);
        return check.Passes(proof) && check.Ends();
    }

    /// <summary>Resolves a path, if all of it is known and true at this moment, and says what is kept of the object.</summary>
    /// <param name="path">The path. Those with ".." are left to the long way.</param>
    /// <param name="links">What to do with a link at its end.</param>
    /// <param name="node">The object, not held.</param>
    /// <param name="attributes">Its attributes; null where that is not asked for.</param>
    internal PathAnswer Resolve(
        ReadOnlySpan<char> path, LinkHandling links, out CachedNode node, out KnownAttributes attributes)
    {
        attributes = KnownAttributes.Nothing;
        node = Root;
        if (Versions is not { } table)
        {
            return PathAnswer.Unknown;
        }

        var check = new VersionCheck(table);
        PathAnswer answer = Walk(path, links == LinkHandling.Follow, MostLinks, ref check, ref node);
        if (answer == PathAnswer.Found)
        {
            attributes = node.Known;
            if (!check.Passes(attributes.Proof))
            {
                return PathAnswer.Unknown;
            }
        }

        return check.Ends() ? answer : PathAnswer.Unknown;
    }

    /// <summary>The same for who does not need attributes.</summary>
    internal PathAnswer Find(ReadOnlySpan<char> path, LinkHandling links, out CachedNode node)
    {
        node = Root;
        if (Versions is not { } table)
        {
            return PathAnswer.Unknown;
        }

        var check = new VersionCheck(table);
        PathAnswer answer = Walk(path, links == LinkHandling.Follow, MostLinks, ref check, ref node);
        return check.Ends() ? answer : PathAnswer.Unknown;
    }

    /// <summary>Where a symbolic link leads, if that is known and true.</summary>
    internal string? TargetOf(CachedNode node) => node.Target is { } target && Holds(target.Proof) ? target.Text : null;

    /// <summary>There is no such name.</summary>
    internal void LearnMissing(CachedNode parent, string name, ReplyNote note)
    {
        if (!IsCoherent)
        {
            return;
        }

        var freed = new List<(CachedNode Node, ulong Lookups)>();
        lock (_gate)
        {
            Remember(parent, name, null, (note.NameOf(note.Tags), note.DirectoryOf(note.Tags)), freed);
        }

        Free(freed);
    }

    /// <summary>Keeps where a symbolic link leads.</summary>
    internal static void LearnTarget(CachedNode node, string target, ReplyNote note)
    {
        VersionProof proof = note.Content;
        if (proof.IsAny && !(node.Target is { } known && proof.IsOlderThan(known.Proof)))
        {
            node.Target = new KnownTarget(target, proof);
        }
    }

    /// <summary>An extended attribute that is kept, and still true; null when there is none.</summary>
    /// <param name="node">The object.</param>
    /// <param name="name">The name; empty for the list of all names.</param>
    internal byte[]? FindXattr(CachedNode node, string name) =>
        node.Xattrs is { } known && known.Find(name) is { } value && Holds(known.Proof) ? value : null;

    /// <summary>Keeps an extended attribute.</summary>
    internal void LearnXattr(CachedNode node, string name, byte[] value, ReplyNote note)
    {
        VersionProof proof = note.Metadata;
        if (!proof.IsAny || value.Length > KnownXattrs.MostBytes)
        {
            return;
        }

        lock (_gate)
        {
            if (node.Xattrs is not { } known)
            {
                node.Xattrs = new KnownXattrs(proof, new KeyValuePair<string, byte[]>(name, value));
            }
            else if (proof == known.Proof)
            {
                node.Xattrs = known.With(name, value);
            }
            else if (!proof.IsOlderThan(known.Proof))
            {
                node.Xattrs = new KnownXattrs(proof, new KeyValuePair<string, byte[]>(name, value));
            }
        }
    }

    /// <summary>Keeps a listing. All listings together have at most as many entries as there may be names.</summary>
    internal void LearnListing(CachedNode node, DirectoryItem[] items, in VersionProof proof)
    {
        if (!proof.IsAny || items.Length > _maxNames)
        {
            return;
        }

        lock (_gate)
        {
            if (node.Listing is { } known && proof.IsOlderThan(known.Proof))
            {
                return;
            }

            ForgetListing(node);
            node.Listing = new KnownListing(items, proof) { Place = _listings.AddFirst(node) };
            _listedNames += items.Length;
            while (_listedNames > _maxNames)
            {
                ForgetListing(_listings.Last!.Value);
            }
        }
    }

    private void ForgetListing(CachedNode node)
    {
        if (node.Listing is { Place: { } place } known)
        {
            _listings.Remove(place);
            _listedNames -= known.Items.Length;
            node.Listing = null;
        }
    }

    // Nothing here may be believed before the check has ended.
    private PathAnswer Walk(
        ReadOnlySpan<char> path, bool followsLast, int links, ref VersionCheck check, ref CachedNode node)
    {
        if (path.StartsWith('/'))
        {
            node = Root;
        }

        path = SkipNothing(path);
        while (!path.IsEmpty)
        {
            int end = path.IndexOf('/');
            ReadOnlySpan<char> name = end < 0 ? path : path[..end];
            path = end < 0 ? default : SkipNothing(path[end..]);
            if (name is ".." || !_names.TryFind(node, name, out KnownName? known) || !Passes(known, ref check))
            {
                return PathAnswer.Unknown;
            }

            MarkUsed(known);
            if (known.Node is not { } next)
            {
                return PathAnswer.Missing;
            }

            if (next.Kind != FileKind.SymbolicLink || (path.IsEmpty && !followsLast))
            {
                node = next;
                continue;
            }

            if (links == 0 || next.Target is not { } target || !check.Passes(target.Proof))
            {
                return PathAnswer.Unknown;
            }

            PathAnswer answer = Walk(target.Text, followsLast: true, links - 1, ref check, ref node);
            if (answer != PathAnswer.Found)
            {
                return answer;
            }
        }

        return PathAnswer.Found;
    }

    // Slashes, and names that stand for where one is already.
    private static ReadOnlySpan<char> SkipNothing(ReadOnlySpan<char> path)
    {
        while (!path.IsEmpty)
        {
            if (path[0] == '/')
            {
                path = path[1..];
            }
            else if (path[0] == '.' && (path.Length == 1 || path[1] == '/'))
            {
                path = path[1..];
            }
            else
            {
                return path;
            }
        }

        return path;
    }

    private bool Passes(KnownName name, ref VersionCheck check)
    {
        if (!check.Passes(name.OwnProof, name.DirectoryProof, out VersionProof renewed))
        {
            return false;
        }

        if (renewed.IsAny)
        {
            Renew(name, renewed);
        }

        return true;
    }

    // Another name of the same word has changed, which is rare: from now on the name's own word vouches for it again.
    private void Renew(KnownName name, in VersionProof proof)
    {
        lock (_gate)
        {
            if (_names.IsIn(name))
            {
                _names.Replace(name, new KnownName(name.Parent, name.Text, name.Node)
                {
                    OwnProof = proof, DirectoryProof = name.DirectoryProof,
                });
            }
        }
    }
}
