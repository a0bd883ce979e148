using System.Diagnostics.CodeAnalysis;
using Causeway.Fuse;

namespace Causeway.Driver;

/// <summary>A node that the device has given us lookups of, and what is known of it.</summary>
internal sealed class CachedNode(NodeId id, ulong generation)
{
    private long _knownLength = -1;

    internal NodeId Id => id;

    internal ulong Generation => generation;

    /// <summary>What it is; that never changes.</summary>
    internal FileKind Kind { get; init; }

    /// <summary>Lookups to give back.</summary>
    internal ulong Lookups { get; set; }

    /// <summary>Calls and open files that use it.</summary>
    internal int Users { get; set; }

    /// <summary>Cached names that stand for it.</summary>
    internal int Names { get; set; }

    internal FuseAttributes Attributes { get; set; }

    /// <summary>
    /// How long the file is as far as we know, whatever the clock says; negative when that has to be asked. Read without a lock.
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
}

/// <summary>
/// The names and nodes of a session: which are known, for how long, and which lookups are to be given back. A node stays as
/// long as a name or a user holds it.
/// </summary>
internal sealed class NodeCache
{
    private readonly Lock _gate = new();
    private readonly Dictionary<NodeId, CachedNode> _nodes = [];
    private readonly Dictionary<(CachedNode Parent, string Name), LinkedListNode<Name>> _names = [];

    // The name used last comes first.
    private readonly LinkedList<Name> _order = new();
    private readonly VirtioFsTransport _transport;
    private readonly CacheMode _mode;
    private readonly TimeProvider _clock;
    private readonly long _lifetime;
    private readonly int _maxNames;
    private readonly Action<CachedNode> _onFreed;

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
        Root = new CachedNode(NodeId.Root, 0) { Kind = FileKind.Directory, Users = 1 };
        _nodes.Add(NodeId.Root, Root);
    }

    internal CachedNode Root { get; }

    /// <summary>
    /// The number of the last change: of attributes, of a name that is found to be too old, or one that the device reports,
    /// which may be of a node of which the reply is still under way. To be read before a request is sent.
    /// </summary>
    internal long Changes => Volatile.Read(ref _changes);

    internal (int Names, int Nodes) Count
    {
        get
        {
            lock (_gate)
            {
                return (_names.Count, _nodes.Count);
            }
        }
    }

    private long Until => _mode switch
    {
        CacheMode.None => 0,
        CacheMode.Auto => _clock.GetTimestamp() + _lifetime,
        _ => long.MaxValue,
    };

    /// <summary>Finds a name that is still believed; the node gets a user.</summary>
    internal bool TryFind(CachedNode parent, string name, [NotNullWhen(true)] out CachedNode? node)
    {
        lock (_gate)
        {
            if (_names.TryGetValue((parent, name), out LinkedListNode<Name>? found)
                && found.Value.Until > _clock.GetTimestamp())
            {
                _order.Remove(found);
                _order.AddFirst(found);
                node = found.Value.Node;
                node.Users++;
                return true;
            }
        }

        node = null;
        return false;
    }

    /// <summary>Takes in a node from a reply, which has added a lookup; it gets a user.</summary>
    /// <param name="entry">The node, checked.</param>
    /// <param name="parent">The directory.</param>
    /// <param name="name">Its name there; null when it is not to be remembered.</param>
    /// <param name="changes">What <see cref="Changes"/> was before the request.</param>
    internal CachedNode Learn(in NodeEntry entry, CachedNode parent, string? name, long changes)
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
            node.Users++;
            bool areNamesCurrent = _lastNameChange <= changes;
            Take(node, entry.Attributes, isCurrent: areNamesCurrent && node.ChangedAt <= changes);
            if (name is not null && _mode != CacheMode.None && areNamesCurrent)
            {
                Remember(parent, name, node, freed);
            }
        }

        Free(freed);
        return node;
    }

    /// <summary>One more user.</summary>
    internal void Use(CachedNode node)
    {
        lock (_gate)
        {
            node.Users++;
        }
    }

    /// <summary>One user less. The last one of a node without names gives its lookups back.</summary>
    internal void Release(params ReadOnlySpan<CachedNode> nodes)
    {
        var freed = new List<(CachedNode Node, ulong Lookups)>();
        lock (_gate)
        {
            foreach (CachedNode node in nodes)
            {
                node.Users--;
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
            if (_names.TryGetValue((parent, name), out LinkedListNode<Name>? found))
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
            while (_order.Last is { } last)
            {
                Remove(last, freed);
            }
        }

        Free(freed);
    }

    /// <summary>Attributes that are still believed.</summary>
    internal bool TryGetAttributes(CachedNode node, out FuseAttributes attributes)
    {
        lock (_gate)
        {
            attributes = node.Attributes;
            return node.AttributesUntil > _clock.GetTimestamp();
        }
    }

    /// <summary>Takes in attributes from a reply.</summary>
    /// <param name="node">The node.</param>
    /// <param name="attributes">Its attributes, checked.</param>
    /// <param name="changes">What <see cref="Changes"/> was before the request.</param>
    internal void LearnAttributes(CachedNode node, in FuseAttributes attributes, long changes)
    {
        lock (_gate)
        {
            bool isCurrent = node.ChangedAt <= changes;
            Take(node, attributes, isCurrent);
            node.KnownLength = isCurrent ? (long)attributes.Size : -1;
        }
    }

    /// <summary>The attributes have changed; the next who wants them asks.</summary>
    internal void ForgetAttributes(CachedNode node)
    {
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
        lock (_gate)
        {
            FuseAttributes attributes = node.Attributes;
            attributes.Size = Math.Max(attributes.Size, (ulong)length);
            node.Attributes = attributes;
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

    // An older reply does not know of what was written since: a length that is too small would have bytes that are there taken
    // for new ones, which are zero.
    private void Take(CachedNode node, FuseAttributes attributes, bool isCurrent)
    {
        if (!isCurrent)
        {
            attributes.Size = Math.Max(attributes.Size, node.Attributes.Size);
        }

        node.Attributes = attributes;
        node.AttributesUntil = isCurrent ? Until : 0;
    }

    private void Remember(CachedNode parent, string name, CachedNode node, List<(CachedNode Node, ulong Lookups)> freed)
    {
        if (_names.TryGetValue((parent, name), out LinkedListNode<Name>? known))
        {
            if (known.Value.Node == node)
            {
                known.Value.Until = Until;
                _order.Remove(known);
                _order.AddFirst(known);
                return;
            }

            Remove(known, freed);
        }

        // The directory is held by the name: its number must not come back for another one meanwhile.
        node.Names++;
        parent.Names++;
        _names.Add((parent, name), _order.AddFirst(new Name(parent, name, node) { Until = Until }));
        while (_names.Count > _maxNames)
        {
            Remove(_order.Last!, freed);
        }
    }

    private void Remove(LinkedListNode<Name> name, List<(CachedNode Node, ulong Lookups)> freed)
    {
        _names.Remove((name.Value.Parent, name.Value.Text));
        _order.Remove(name);
        name.Value.Node.Names--;
        name.Value.Parent.Names--;
        FreeIfUnused(name.Value.Node, freed);
        FreeIfUnused(name.Value.Parent, freed);
    }

    private void FreeIfUnused(CachedNode node, List<(CachedNode Node, ulong Lookups)> freed)
    {
        if (node.Users > 0 || node.Names > 0 || node.Lookups == 0)
        {
            return;
        }

        // Not when another object has the number by now.
        if (_nodes.GetValueOrDefault(node.Id) == node)
        {
            _nodes.Remove(node.Id);
        }

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

    private sealed class Name(CachedNode parent, string text, CachedNode node)
    {
        internal CachedNode Parent => parent;

        internal string Text => text;

        internal CachedNode Node => node;

        internal long Until { get; set; }
    }
}
