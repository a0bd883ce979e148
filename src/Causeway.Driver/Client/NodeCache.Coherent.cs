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

    /// <summary>Says what a path's object is like, if all of the path is known and true at this moment, and it is, too.</summary>
    /// <param name="path">The path. Those with ".." are left to the long way.</param>
    /// <param name="links">What to do with a link at its end.</param>
    /// <param name="attributes">Its attributes, if it is found.</param>
    internal PathAnswer Resolve(ReadOnlySpan<char> path, LinkHandling links, out KnownAttributes attributes)
    {
        attributes = KnownAttributes.Nothing;
        if (Versions is not { } table)
        {
            return PathAnswer.Unknown;
        }

        var check = new VersionCheck(table);
        if (Walk(path, _root, links == LinkHandling.Follow, MostLinks, ref check, out PathAnswer answer) is { } name)
        {
            KnownAttributes known = name.Newest;
            if (!check.Passes(known.Proof))
            {
                known = name.Node!.Known;
                if (!check.Passes(known.Proof))
                {
                    return PathAnswer.Unknown;
                }

                name.Newest = known;
            }

            attributes = known;
        }

        return check.Ends() ? answer : PathAnswer.Unknown;
    }

    /// <summary>The same for who does not need attributes.</summary>
    /// <param name="path">The path.</param>
    /// <param name="links">What to do with a link at its end.</param>
    /// <param name="node">The object, not held.</param>
    internal PathAnswer Find(ReadOnlySpan<char> path, LinkHandling links, out CachedNode node)
    {
        node = Root;
        if (Versions is not { } table)
        {
            return PathAnswer.Unknown;
        }

        var check = new VersionCheck(table);
        if (Walk(path, _root, links == LinkHandling.Follow, MostLinks, ref check, out PathAnswer answer) is { } name)
        {
            node = name.Node!;
        }

        return check.Ends() ? answer : PathAnswer.Unknown;
    }

    /// <summary>Whether a name and the attributes of what it stands for are known and true.</summary>
    internal bool IsKnown(CachedNode parent, string name) =>
        _names.Find(parent, name) is { } found && IsBelieved(found)
        && found.Node is { } node && TryGetAttributes(node, out _);

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

    // Goes on from a directory; null unless an object is found. Nothing here may be believed before the check has ended.
    private KnownName? Walk(
        ReadOnlySpan<char> path,
        KnownName start,
        bool followsLast,
        int links,
        ref VersionCheck check,
        out PathAnswer answer)
    {
        answer = PathAnswer.Unknown;
        KnownName place = path.StartsWith('/') ? _root : start;
        CachedNode node = place.Node!;
        path = SkipNothing(path);
        while (!path.IsEmpty)
        {
            int end = path.IndexOf('/');
            ReadOnlySpan<char> name = end < 0 ? path : path[..end];
            path = end < 0 ? default : SkipNothing(path[(end + 1)..]);
            if (name is ".."
                || _names.Find(node, new NameText(name), path.IsEmpty ? Versions : null) is not { } known
                || !Passes(known, ref check))
            {
                return null;
            }

            MarkUsed(known);
            if (known.Node is not { } next)
            {
                answer = PathAnswer.Missing;
                return null;
            }

            if (known.IsLink && (followsLast || !path.IsEmpty))
            {
                if (links == 0 || next.Target is not { } target || !check.Passes(target.Proof))
                {
                    return null;
                }

                if (Walk(target.Text, place, followsLast: true, links - 1, ref check, out answer) is not { } endOf)
                {
                    return null;
                }

                answer = PathAnswer.Unknown;
                known = endOf;
                next = endOf.Node!;
            }

            (place, node) = (known, next);
        }

        answer = PathAnswer.Found;
        return place;
    }

    // Slashes, and names that stand for where one is already.
    private static ReadOnlySpan<char> SkipNothing(ReadOnlySpan<char> path)
    {
        int start = 0;
        while (start < path.Length && path[start] is '/' or '.')
        {
            if (path[start] == '.' && start + 1 < path.Length && path[start + 1] != '/')
            {
                break;
            }

            start++;
        }

        return path[start..];
    }

    // By the directory first: names that are asked for have their directory in common with others, so that its word is at hand when
    // another name's own is not.
    private static bool Passes(KnownName name, ref VersionCheck check) =>
        check.Passes(name.DirectoryProof) || PassesByName(name, ref check);

    private static bool PassesByName(KnownName name, ref VersionCheck check)
    {
        if (!check.PassesInstead(name.DirectoryProof, name.OwnProof, out VersionProof renewed))
        {
            return false;
        }

        // Another name in the directory has changed: from now on the directory's word vouches for this one again.
        if (renewed.IsAny)
        {
            name.Renew(renewed);
        }

        return true;
    }
}
