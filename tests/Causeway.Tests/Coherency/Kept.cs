using System.Text;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Passthrough;

namespace Causeway.Tests.Coherency;

/// <summary>
/// Something that a guest has learned of a share and keeps together with the versions that came with it, as a cache does: it may
/// be used as long as it is current, and then it has to be the truth.
/// </summary>
/// <param name="What">What it is, for messages and to tell apart.</param>
/// <param name="Value">What was learned.</param>
/// <param name="Epoch">The epoch before it was asked for.</param>
/// <param name="Proofs">Each one alone proves that it is current: a word, and the version it must have.</param>
/// <param name="Ask">Finds out the truth.</param>
internal sealed record Kept(string What, string Value, ulong Epoch, (uint Word, ulong Version)[] Proofs, Func<string> Ask)
{
    public bool IsCurrent(VersionTable table) =>
        Proofs.Any(proof => proof.Word != 0 && proof.Version != 0 && table.Read(proof.Word) == proof.Version)
        && table.Epoch == Epoch && VersionWord.IsVersion(Epoch);

    /// <summary>Learns what a name means.</summary>
    public static Kept Name(Guest guest, NodeId parent, string name) => Learn(
        guest,
        $"name {parent.Value:x}/{name}",
        () => NameNow(guest, parent, name),
        tags => [(tags.NameWord, tags.Name), (tags.DirectoryWord + 1, tags.DirectoryContent)]);

    /// <summary>Learns a name's attributes by looking it up; null when there is no such name.</summary>
    public static Kept? Found(Guest guest, NodeId parent, string name)
    {
        ulong epoch = guest.FileSystem.Versions!.Epoch;
        Result<NodeEntry> found = guest.Versioned().Lookup(parent, name);
        FuseVersionTags tags = guest.Context.Versions;
        if (found.IsError || found.Value.NodeId == NodeId.None)
        {
            return null;
        }

        NodeEntry entry = found.Value;
        return new Kept(
            $"attributes of {entry.NodeId.Value:x}",
            Describe(entry.Attributes),
            epoch,
            [(tags.InodeWord, tags.Metadata)],
            () => AttributesNow(guest, entry.NodeId));
    }

    /// <summary>Learns attributes.</summary>
    public static Kept Attributes(Guest guest, NodeId node) => Learn(
        guest,
        $"attributes of {node.Value:x}",
        () => AttributesNow(guest, node),
        tags => [(tags.InodeWord, tags.Metadata)]);

    /// <summary>Learns the names in a directory.</summary>
    public static Kept Listing(Guest guest, NodeId directory) => Learn(
        guest,
        $"entries of {directory.Value:x}",
        () => ListingNow(guest, directory),
        tags => [(tags.InodeWord + 1, tags.Content)]);

    /// <summary>Learns what an open file contains.</summary>
    public static Kept Content(Guest guest, NodeId file, HandleId handle) => Learn(
        guest,
        $"content of {file.Value:x}",
        () => ContentNow(guest, file, handle),
        tags => [(tags.InodeWord + 1, tags.Content)]);

    /// <summary>Learns an extended attribute.</summary>
    public static Kept Xattr(Guest guest, NodeId node) => Learn(
        guest,
        $"attribute of {node.Value:x}",
        () => XattrNow(guest, node),
        tags => [(tags.InodeWord, tags.Metadata)]);

    private static Kept Learn(
        Guest guest, string what, Func<string> ask, Func<FuseVersionTags, (uint Word, ulong Version)[]> proofs)
    {
        ulong epoch = guest.FileSystem.Versions!.Epoch;
        guest.Versioned();
        string value = ask();
        return new Kept(what, value, epoch, proofs(guest.Context.Versions), ask);
    }

    private static string NameNow(Guest guest, NodeId parent, string name)
    {
        Result<NodeEntry> found = guest.Lookup(parent, name);
        return found.IsError ? found.Error.ToString()
            : found.Value.NodeId == NodeId.None ? Errno.ENOENT.ToString()
            : $"inode {found.Value.Attributes.Inode}";
    }

    private static string AttributesNow(Guest guest, NodeId node)
    {
        Result<FuseAttrOut> got = guest.GetAttr(node);
        return got.IsError ? got.Error.ToString() : Describe(got.Value.Attributes);
    }

    // Without the time of the last access, which no word covers.
    private static string Describe(FuseAttributes attributes)
    {
        attributes.AccessTime = 0;
        attributes.AccessTimeNanoseconds = 0;
        attributes.Flags = FuseAttributeFlags.None;
        return Convert.ToHexString(Fuse.Message.Bytes(attributes));
    }

    private static string ListingNow(Guest guest, NodeId directory)
    {
        Result<FuseOpenOut> opened = guest.OpenDir(directory);
        if (opened.IsError)
        {
            return opened.Error.ToString();
        }

        bool wants = guest.Context.WantsVersions;
        FuseVersionTags tags = default;
        var names = new List<string>();
        while (true)
        {
            if (wants)
            {
                guest.Versioned();
            }

            List<Listed> some = Guest.Good(guest.ReadDir(directory, opened.Value.Handle, names.Count == 0 ? 0 : Last, 4096));
            if (wants)
            {
                tags = Merge(tags, guest.Context.Versions);
            }

            if (some.Count == 0)
            {
                break;
            }

            Last = some[^1].Offset;
            names.AddRange(some.Select(entry => $"{entry.Name}={entry.Inode}"));
        }

        guest.ReleaseDir(directory, opened.Value.Handle);
        if (wants)
        {
            guest.Versioned().Context.Versions = tags;
        }

        return string.Join(' ', names.Where(name => !name.StartsWith('.')).Order());
    }

    [ThreadStatic]
    private static ulong t_last;

    private static ulong Last
    {
        get => t_last;
        set => t_last = value;
    }

    // All parts of a listing have to be of one version.
    private static FuseVersionTags Merge(FuseVersionTags sum, in FuseVersionTags part) => sum.InodeWord == 0 ? part
        : sum with { Content = sum.Content == part.Content ? sum.Content : 0 };

    private static string ContentNow(Guest guest, NodeId file, HandleId handle)
    {
        Result<int> read = guest.Read(file, handle, 0, 4096);
        return read.IsError ? read.Error.ToString() : Convert.ToHexString(guest.Buffer[..read.Value]);
    }

    private static string XattrNow(Guest guest, NodeId node)
    {
        Result<string> got = guest.GetXattr(node, "user.test");
        return got.IsError ? got.Error.ToString() : got.Value;
    }
}
