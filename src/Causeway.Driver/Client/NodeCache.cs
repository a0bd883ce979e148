using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using Causeway.Fuse;

namespace Causeway.Driver;

/// <summary>
/// The names and nodes of a session: which are known, for how long, and which lookups are to be given back. A node stays as
/// long as a name or a user holds it. Finding takes no lock.
/// </summary>
internal sealed partial class NodeCache
{
    private readonly Lock _gate = new();
    private readonly Dictionary<NodeId, CachedNode> _nodes = [];
    private readonly NameTable _names = new();
    private readonly VirtioFsTransport _transport;
    private readonly CacheMode _mode;
    private readonly TimeProvider _clock;
    private readonly long _lifetime;
    private readonly int _maxNames;
    private readonly Action<CachedNode> _onFreed;
    private readonly KnownName _root;

    // The changes so far are numbered. Of any name, or one that the device has reported, counts for all nodes.
    private long _changes;
    private long _lastNameChange;

    internal NodeCache(VirtioFsTransport transport, VirtioFsClientOptions options, Action<CachedNode> onFreed)
    {
        _transport = transport;
        _mode = options.Cache;
        _clock = options.Clock;
        _lifetime = (long)(options.Lifetime.TotalSeconds * _clock.TimestampFrequency);
        _maxNames = options.MaxCachedNames;
        _onFreed = onFreed;

        // The root has no lookups, and never goes.
        Root = new CachedNode(NodeId.Root, 0) { Kind = FileKind.Directory };
        Root.Hold();
        _root = new KnownName(Root, "", Root, default, default);
        _nodes.Add(NodeId.Root, Root);
    }

    internal CachedNode Root { get; }

    /// <summary>
    /// The number of the last change: of attributes, of a name that is found to be too old, or one that the device reports,
    /// which may be of a node of which the reply is still under way. To be read before a request is sent.
    /// </summary>
    internal long Changes => Volatile.Read(ref _changes);

    /// <summary>What the reply to a request that is sent after this may be kept by.</summary>
    internal ReplyNote Note() => new(Versions, Changes);

    internal (int Names, int Nodes, int ListedNames) Count
    {
        get
        {
            lock (_gate)
            {
                return (_names.Count, _nodes.Count, _listedNames);
            }
        }
    }

    private long Until => _mode switch
    {
        CacheMode.Auto => _clock.GetTimestamp() + _lifetime,
        CacheMode.Always => long.MaxValue,
        _ => 0,
    };

    /// <summary>Finds a name that is still believed; the node gets a user.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name.</param>
    /// <param name="node">The node; null: there is no such name.</param>
    internal bool TryFind(CachedNode parent, string name, out CachedNode? node)
    {
        node = null;
        if (_names.Find(parent, name) is not { } found || !IsBelieved(found))
        {
            return false;
        }

        MarkUsed(found);
        if (found.Node is not { } known)
        {
            return true;
        }

        // It may be on its way back to the device, because the name was displaced right now.
        if (!known.TryHold())
        {
            return false;
        }

        node = known;
        return true;
    }

    /// <summary>Takes in a node from a reply, which has added a lookup; it gets a user.</summary>
    /// <param name="entry">The node, checked.</param>
    /// <param name="tags">What the reply says that vouches for it.</param>
    /// <param name="parent">The directory.</param>
    /// <param name="name">Its name there; null when it is not to be remembered.</param>
    /// <param name="note">From before the request.</param>
    internal CachedNode Learn(
        in NodeEntry entry, in FuseVersionTags tags, CachedNode parent, string? name, ReplyNote note)
    {
        var freed = new List<(CachedNode Node, ulong Lookups)>();
        CachedNode node;
        lock (_gate)
        {
            if (_nodes.TryGetValue(entry.NodeId, out CachedNode? known)
                && known.Generation == entry.Generation
                && known.Kind == (FileKind)(entry.Attributes.Mode >> 12))
            {
                node = known;

                // The reply may be older than what is known: whoever needs the length asks.
                node.KnownLength = node.KnownLength == (long)entry.Attributes.Size ? node.KnownLength : -1;
            }
            else
            {
                // The same number for another object: what is known under it is the old one's.
                node = new CachedNode(entry.NodeId, entry.Generation)
                {
                    Kind = (FileKind)(entry.Attributes.Mode >> 12),
                    KnownLength = (long)entry.Attributes.Size,
                };
                _nodes[entry.NodeId] = node;
            }

            node.Lookups++;
            node.Hold();
            bool areNamesCurrent = _lastNameChange <= note.Changes;
            Take(node, entry.Attributes, note.MetadataOf(tags), areNamesCurrent && node.ChangedAt <= note.Changes);
            if (name is not null && _mode != CacheMode.None && (areNamesCurrent || IsCoherent))
            {
                Remember(parent, name, node, (note.NameOf(tags), note.DirectoryOf(tags)), freed);
            }
        }

        Free(freed);
        return node;
    }

    /// <summary>One more user of a node that has one.</summary>
    internal static void Use(CachedNode node) => node.Hold();

    /// <summary>One user less. The last one of a node without names gives its lookups back.</summary>
    internal void Release(params ReadOnlySpan<CachedNode> nodes)
    {
        bool isAnyUnused = false;
        foreach (CachedNode node in nodes)
        {
            isAnyUnused |= node.LetGo();
        }

        if (!isAnyUnused)
        {
            return;
        }

        var freed = new List<(CachedNode Node, ulong Lookups)>();
        lock (_gate)
        {
            foreach (CachedNode node in nodes)
            {
                FreeIfUnused(node, freed);
            }
        }

        Free(freed);
    }

    /// <summary>Counts an open file of a node.</summary>
    /// <returns>How many there are now.</returns>
    internal int CountOpen(CachedNode node, int change)
    {
        lock (_gate)
        {
            return node.Opens += change;
        }
    }

    /// <summary>The device has reported a change: what a reply under way says may be older.</summary>
    internal void CountChange()
    {
        lock (_gate)
        {
            CountNameChange();
        }
    }

    /// <summary>A name is not valid any more, because we or somebody else has changed the directory.</summary>
    internal void ForgetName(CachedNode parent, string name)
    {
        var freed = new List<(CachedNode Node, ulong Lookups)>();
        lock (_gate)
        {
            CountNameChange();
            if (_names.Find(parent, name) is { } found)
            {
                Remove(found, freed);
            }
        }

        Free(freed);
    }

    /// <summary>The same for a directory that only its number is known of. Unknown numbers are ignored.</summary>
    internal void ForgetName(NodeId parent, string name)
    {
        if (Find(parent) is { } directory)
        {
            ForgetName(directory, name);
            ForgetAttributes(directory);
        }
    }

    /// <summary>No name is valid any more.</summary>
    internal void ForgetNames()
    {
        var freed = new List<(CachedNode Node, ulong Lookups)>();
        lock (_gate)
        {
            CountNameChange();
            while (_names.Count > 0)
            {
                Remove(_names.FindOldest(), freed);
            }
        }

        Free(freed);
    }

    /// <summary>Attributes that are still believed.</summary>
    internal bool TryGetAttributes(CachedNode node, out FuseAttributes attributes)
    {
        if (Versions is { } table)
        {
            KnownAttributes known = node.Known;
            attributes = known.Attributes;
            var check = new VersionCheck(table);
            return check.Passes(known.Proof) && check.Ends();
        }

        lock (_gate)
        {
            attributes = node.Attributes;
            return node.AttributesUntil > _clock.GetTimestamp();
        }
    }

    /// <summary>How long a file is, without asking; negative when that has to be asked.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)] // Of each read from memory: see ClientWindow.TryReadInline.
    internal long LengthOf(CachedNode node) => IsCoherent ? CertainLengthOf(node) : node.KnownLength;

    // Apart, because room for attributes is cleared.
    private long CertainLengthOf(CachedNode node) =>
        TryGetAttributes(node, out FuseAttributes attributes) ? (long)attributes.Size : -1;

    /// <summary>Takes in attributes from a reply.</summary>
    /// <param name="node">The node.</param>
    /// <param name="attributes">Its attributes, checked.</param>
    /// <param name="note">From before the request.</param>
    internal void LearnAttributes(CachedNode node, in FuseAttributes attributes, ReplyNote note)
    {
        lock (_gate)
        {
            bool isCurrent = node.ChangedAt <= note.Changes;
            Take(node, attributes, note.Metadata, isCurrent);
            node.KnownLength = isCurrent ? (long)attributes.Size : -1;
        }
    }

    /// <summary>
    /// The attributes have changed; the next who wants them asks. With a version table the word has changed before the reply came,
    /// and what a reply has brought since is not to be thrown away.
    /// </summary>
    internal void ForgetAttributes(CachedNode node)
    {
        if (IsCoherent)
        {
            return;
        }

        lock (_gate)
        {
            node.ChangedAt = ++_changes;
            node.AttributesUntil = 0;
            node.KnownLength = -1;
        }
    }

    /// <summary>Bytes were stored in a file's memory: its times have changed, its length has not.</summary>
    internal void Touch(CachedNode node)
    {
        // Seldom: attributes are asked for again only when somebody wants them.
        if (node.AttributesUntil != 0)
        {
            lock (_gate)
            {
                node.AttributesUntil = 0;
            }
        }
    }

    /// <summary>A write has made a file longer, as far as we know.</summary>
    internal void Grow(CachedNode node, long length)
    {
        if (IsCoherent)
        {
            return;
        }

        lock (_gate)
        {
            FuseAttributes attributes = node.Attributes;
            attributes.Size = Math.Max(attributes.Size, (ulong)length);
            node.Known = new KnownAttributes(attributes, default);
            node.ChangedAt = ++_changes;
            node.AttributesUntil = 0;
            node.KnownLength = node.KnownLength < 0 ? -1 : Math.Max(node.KnownLength, length);
        }
    }

    /// <summary>The node of a number, if it is known.</summary>
    internal CachedNode? Find(NodeId id)
    {
        lock (_gate)
        {
            return _nodes.GetValueOrDefault(id);
        }
    }

    private void CountNameChange() => _lastNameChange = ++_changes;

    private static void MarkUsed(KnownName name)
    {
        // Looked at first: a line that nobody changes is in every processor's cache.
        if (!name.WasUsed)
        {
            name.WasUsed = true;
        }
    }

    private bool IsBelieved(KnownName name)
    {
        if (Versions is not { } table)
        {
            return name.Until > _clock.GetTimestamp();
        }

        var check = new VersionCheck(table);
        return Passes(name, ref check) && check.Ends();
    }

    private void Take(CachedNode node, FuseAttributes attributes, in VersionProof proof, bool isCurrent)
    {
        if (IsCoherent)
        {
            // What nothing vouches for is of no use but for the size that somebody reads ahead by.
            KnownAttributes known = node.Known;
            if (proof.IsAny ? !proof.IsOlderThan(known.Proof) : !known.Proof.IsAny)
            {
                node.Known = new KnownAttributes(attributes, proof);
            }

            return;
        }

        // An older reply does not know of what was written since: a length that is too small would have bytes that are there taken
        // for new ones, which are zero.
        if (!isCurrent)
        {
            attributes.Size = Math.Max(attributes.Size, node.Attributes.Size);
        }

        node.Known = new KnownAttributes(attributes, default);
        node.AttributesUntil = isCurrent ? Until : 0;
    }

    private void Remember(
        CachedNode parent,
        string name,
        CachedNode? node,
        (VersionProof Own, VersionProof Directory) proofs,
        List<(CachedNode Node, ulong Lookups)> freed)
    {
        if (IsCoherent && !proofs.Own.IsAny && !proofs.Directory.IsAny)
        {
            return;
        }

        var fresh = new KnownName(parent, name, node, proofs.Own, proofs.Directory) { Until = Until };
        if (_names.Find(parent, name) is { } known)
        {
            if (fresh.OwnProof.IsOlderThan(known.OwnProof))
            {
                return;
            }

            if (known.Node == node)
            {
                _names.Replace(known, fresh);
                return;
            }

            Remove(known, freed);
        }

        // The directory is held by the name: its number must not come back for another one meanwhile.
        node?.Hold();
        parent.Hold();
        _names.Add(fresh);
        while (_names.Count > _maxNames)
        {
            Remove(_names.FindOldest(), freed);
        }
    }

    private void Remove(KnownName name, List<(CachedNode Node, ulong Lookups)> freed)
    {
        _names.Remove(name);
        if (name.Node is { } node && node.LetGo())
        {
            FreeIfUnused(node, freed);
        }

        if (name.Parent.LetGo())
        {
            FreeIfUnused(name.Parent, freed);
        }
    }

    private void FreeIfUnused(CachedNode node, List<(CachedNode Node, ulong Lookups)> freed)
    {
        if (node.Lookups == 0 || !node.TryEnd())
        {
            return;
        }

        // Not when another object has the number by now.
        if (_nodes.GetValueOrDefault(node.Id) == node)
        {
            _nodes.Remove(node.Id);
        }

        ForgetListing(node);
        freed.Add((node, node.Lookups));
        node.Lookups = 0;
    }

    private void Free(List<(CachedNode Node, ulong Lookups)> freed)
    {
        if (freed.Count == 0)
        {
            return;
        }

        var forgets = new List<FuseForgetOne>(freed.Count);
        foreach ((CachedNode node, ulong lookups) in freed)
        {
            _onFreed(node);
            forgets.Add(new FuseForgetOne { NodeId = node.Id, LookupCount = lookups });
        }

        _transport.Forget([.. forgets]);
    }
}
