using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <summary>
/// What the kernel knows of a share: nodes and names, found by number, by name, and by the words of the version table that speak of
/// them. Not thread-safe.
/// </summary>
internal sealed class KnownNodes
{
    // Names of nothing are not given back by the kernel; arbitrary, some 10 MB.
    private const int MaxNegative = 65_536;

    private readonly Dictionary<NodeId, KnownNode> _nodes = [];
    private readonly Dictionary<(NodeId Parent, byte[] Text), KnownName> _names = new(new NameComparer());
    private readonly Dictionary<(NodeId Parent, byte[] Text), KnownName>.AlternateLookup<NameView> _byView;
    private readonly Dictionary<uint, List<KnownNode>> _nodesOfWord = [];
    private readonly Dictionary<uint, List<KnownName>> _namesOfWord = [];
    private int _negative;

    /// <summary>Knows the root, which never goes.</summary>
    public KnownNodes()
    {
        _byView = _names.GetAlternateLookup<NameView>();
        Add(NodeId.Root).Lookups = ulong.MaxValue;
    }

    /// <summary>How many nodes are known.</summary>
    public int Count => _nodes.Count;

    /// <summary>How many names.</summary>
    public int NameCount => _names.Count;

    /// <summary>All nodes.</summary>
    public IEnumerable<KnownNode> All => _nodes.Values;

    /// <summary>All names.</summary>
    public IEnumerable<KnownName> AllNames => _names.Values;

    /// <summary>The nodes that a word speaks of, META or CONTENT.</summary>
    public IReadOnlyList<KnownNode> NodesOf(uint word) => _nodesOfWord.GetValueOrDefault(word & ~1U) ?? [];

    /// <summary>The names that a word speaks of.</summary>
    public IReadOnlyList<KnownName> NamesOf(uint word) => _namesOfWord.GetValueOrDefault(word) ?? [];

    /// <summary>Finds a node.</summary>
    public KnownNode? Find(NodeId id) => _nodes.GetValueOrDefault(id);

    /// <summary>Finds a name.</summary>
    public KnownName? Find(NodeId parent, ReadOnlySpan<byte> text) =>
        _byView.TryGetValue(new NameView(parent, text), out KnownName? name) ? name : null;

    /// <summary>Finds a node, or adds it.</summary>
    public KnownNode Add(NodeId id)
    {
        if (!_nodes.TryGetValue(id, out KnownNode? node))
        {
            node = new KnownNode(id);
            _nodes.Add(id, node);
        }

        return node;
    }

    /// <summary>Says by which word a node is covered.</summary>
    public void SetWord(KnownNode node, uint word)
    {
        if (node.Word == word)
        {
            return;
        }

        Leave(_nodesOfWord, node.Word, node);
        (node.Word, node.Metadata, node.Content, node.AttributesVersion) = (word, 0, 0, 0);
        Enter(_nodesOfWord, word, node);
    }

    /// <summary>Adds a name, or changes what it stands for.</summary>
    /// <returns>The name; null when there is no room for one more that stands for nothing.</returns>
    public KnownName? Add(KnownNode parent, ReadOnlySpan<byte> text, KnownNode? child, uint word)
    {
        if (Find(parent.Id, text) is { } known)
        {
            Remove(known);
        }

        if (child is null && _negative >= MaxNegative)
        {
            return null;
        }

        var name = new KnownName(parent, text.ToArray()) { Child = child, Word = word };
        _names.Add((parent.Id, name.Text), name);
        parent.Entries.Add(name);
        child?.Names.Add(name);
        _negative += child is null ? 1 : 0;
        Enter(_namesOfWord, word, name);
        return name;
    }

    /// <summary>Forgets a name.</summary>
    public void Remove(KnownName name)
    {
        if (!_names.Remove((name.Parent.Id, name.Text)))
        {
            return;
        }

        name.Parent.Entries.Remove(name);
        name.Child?.Names.Remove(name);
        _negative -= name.Child is null ? 1 : 0;
        Leave(_namesOfWord, name.Word, name);
    }

    /// <summary>Forgets a node that the kernel has forgotten, with all names in it and of it.</summary>
    public void Remove(KnownNode node)
    {
        foreach (KnownName name in node.Entries.ToArray())
        {
            Remove(name);
        }

        foreach (KnownName name in node.Names.ToArray())
        {
            Remove(name);
        }

        Leave(_nodesOfWord, node.Word, node);
        _nodes.Remove(node.Id);
    }

    private static void Enter<T>(Dictionary<uint, List<T>> index, uint word, T item)
    {
        if (word == 0)
        {
            return;
        }

        if (!index.TryGetValue(word, out List<T>? items))
        {
            items = new List<T>(1);
            index.Add(word, items);
        }

        items.Add(item);
    }

    private static void Leave<T>(Dictionary<uint, List<T>> index, uint word, T item)
    {
        if (word != 0 && index.TryGetValue(word, out List<T>? items))
        {
            items.Remove(item);
            if (items.Count == 0)
            {
                index.Remove(word);
            }
        }
    }
}
