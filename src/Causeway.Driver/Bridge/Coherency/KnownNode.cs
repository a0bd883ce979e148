using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <summary>A node that the kernel knows, and which versions what it knows of it is of. All under the lock of its owner.</summary>
/// <param name="id">Its number.</param>
internal sealed class KnownNode(NodeId id)
{
    /// <summary>Its number.</summary>
    public NodeId Id => id;

    /// <summary>How many lookups of it the kernel has been told of, and has not given back.</summary>
    public ulong Lookups { get; set; }

    /// <summary>How many of those the device does not know of, because they were answered here.</summary>
    public ulong OwnLookups { get; set; }

    /// <summary>Index of its META word; zero as long as none is known.</summary>
    public uint Word { get; set; }

    /// <summary>The version of the attributes that the kernel may have; zero for unknown.</summary>
    public ulong Metadata { get; set; }

    /// <summary>The version of all data, or of the listing, that the kernel may have; zero for unknown.</summary>
    public ulong Content { get; set; }

    /// <summary>The attributes, with <see cref="AttributesVersion"/>.</summary>
    public FuseAttributes Attributes { get; set; }

    /// <summary>The generation that goes with the number.</summary>
    public ulong Generation { get; set; }

    /// <summary>The version of <see cref="Attributes"/>; zero for none.</summary>
    public ulong AttributesVersion { get; set; }

    /// <summary>The epoch in which it was learned.</summary>
    public ulong Epoch { get; set; }

    /// <summary>Requests under way that change it: what the log says of it meanwhile may be our own doing.</summary>
    public int OwnChanges { get; set; }

    /// <summary>For how many turns of the log something was put off for that reason.</summary>
    public int Postponed { get; set; }

    /// <summary>The names that stand for it.</summary>
    public List<KnownName> Names { get; } = [];

    /// <summary>The names in it, also those that stand for nothing.</summary>
    public HashSet<KnownName> Entries { get; } = [];
}

/// <summary>A name that the kernel knows.</summary>
/// <param name="parent">The directory.</param>
/// <param name="text">The name.</param>
internal sealed class KnownName(KnownNode parent, byte[] text)
{
    /// <summary>The directory.</summary>
    public KnownNode Parent => parent;

    /// <summary>The name.</summary>
    public byte[] Text => text;

    /// <summary>What it stands for; null when there is nothing of that name.</summary>
    public KnownNode? Child { get; set; }

    /// <summary>Index of its NAME word.</summary>
    public uint Word { get; set; }

    /// <summary>The version at which it stands for that.</summary>
    public ulong Version { get; set; }

    /// <summary>The version of the directory's entries at which it does, which proves it as well; zero for unknown.</summary>
    public ulong DirectoryContent { get; set; }

    /// <summary>The epoch in which it was learned.</summary>
    public ulong Epoch { get; set; }
}

/// <summary>What names are found by: a directory and bytes.</summary>
internal sealed class NameComparer : IEqualityComparer<(NodeId Parent, byte[] Text)>,
    IAlternateEqualityComparer<NameView, (NodeId Parent, byte[] Text)>
{
    public bool Equals((NodeId Parent, byte[] Text) first, (NodeId Parent, byte[] Text) second) =>
        first.Parent == second.Parent && first.Text.AsSpan().SequenceEqual(second.Text);

    public int GetHashCode((NodeId Parent, byte[] Text) name) => Hash(name.Parent, name.Text);

    public bool Equals(NameView view, (NodeId Parent, byte[] Text) name) =>
        view.Parent == name.Parent && view.Text.SequenceEqual(name.Text);

    public int GetHashCode(NameView view) => Hash(view.Parent, view.Text);

    public (NodeId Parent, byte[] Text) Create(NameView view) => (view.Parent, view.Text.ToArray());

    private static int Hash(NodeId parent, ReadOnlySpan<byte> text)
    {
        var hash = default(HashCode);
        hash.Add(parent.Value);
        hash.AddBytes(text);
        return hash.ToHashCode();
    }
}

/// <summary>A name in the memory of a request.</summary>
internal readonly ref struct NameView(NodeId parent, ReadOnlySpan<byte> text)
{
    public NodeId Parent => parent;

    public ReadOnlySpan<byte> Text { get; } = text;
}
