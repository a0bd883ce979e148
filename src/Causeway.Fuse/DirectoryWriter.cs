using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>
/// Collects the entries of a READDIR or READDIRPLUS reply (<c>fuse_dirent</c>, <c>fuse_direntplus</c>). Ask
/// <see cref="HasRoomFor"/> before looking an entry up, so that no lookup has to be undone.
/// </summary>
public sealed class DirectoryWriter
{
    // fuse_dirent without its name: ino 8, off 8, namelen 4, type 4.
    private const int EntryHeader = 24;
    private const int Alignment = 8;

    private Memory<byte> _buffer;
    private bool _isPlus;
    private bool _hasTags;

    /// <summary>Bytes written so far.</summary>
    public int Length { get; private set; }

    /// <summary>Whether the reply is one to READDIRPLUS.</summary>
    public bool IsPlus => _isPlus;

    /// <summary>Starts a reply.</summary>
    internal void Reset(Memory<byte> buffer, bool isPlus, bool hasTags = false)
    {
        _buffer = buffer;
        _isPlus = isPlus;
        _hasTags = isPlus && hasTags;
        Length = 0;
    }

    /// <summary>Whether an entry with a name of this length still fits.</summary>
    /// <param name="nameLength">The name's length in bytes.</param>
    public bool HasRoomFor(int nameLength) => _buffer.Length - Length >= SizeOf(nameLength);

    /// <summary>Adds an entry of a READDIR reply, or one of a READDIRPLUS reply that carries no node.</summary>
    /// <param name="name">The name.</param>
    /// <param name="inode">The inode number.</param>
    /// <param name="nextOffset">The cookie from which a later request continues after this entry.</param>
    /// <param name="type">The type, DT_*.</param>
    /// <returns>False when the entry does not fit; nothing was added then.</returns>
    public bool TryAdd(ReadOnlySpan<byte> name, ulong inode, ulong nextOffset, uint type)
    {
        NodeEntry none = default;
        FuseVersionTags nothing = default;
        return TryAddCore(in none, in nothing, name, inode, nextOffset, type);
    }

    /// <summary>
    /// Adds an entry of a READDIRPLUS reply together with its node. The reply counts as a lookup of the node.
    /// </summary>
    /// <param name="entry">The node.</param>
    /// <param name="name">The name.</param>
    /// <param name="nextOffset">The cookie from which a later request continues after this entry.</param>
    /// <returns>False when the entry does not fit; nothing was added then.</returns>
    public bool TryAdd(in NodeEntry entry, ReadOnlySpan<byte> name, ulong nextOffset)
    {
        FuseVersionTags nothing = default;
        return TryAdd(in entry, in nothing, name, nextOffset);
    }

    /// <summary>The same, with versions for guests that want them (<see cref="RequestContext.WantsVersions"/>).</summary>
    /// <param name="entry">The node.</param>
    /// <param name="tags">What is vouched for.</param>
    /// <param name="name">The name.</param>
    /// <param name="nextOffset">The cookie from which a later request continues after this entry.</param>
    /// <returns>False when the entry does not fit; nothing was added then.</returns>
    public bool TryAdd(in NodeEntry entry, in FuseVersionTags tags, ReadOnlySpan<byte> name, ulong nextOffset) =>
        TryAddCore(in entry, in tags, name, entry.Attributes.Inode, nextOffset, entry.Attributes.Mode >> 12);

    private int SizeOf(int nameLength)
    {
        int size = (_hasTags ? FuseVersionTags.Size : 0) + (_isPlus ? Unsafe.SizeOf<NodeEntry>() : 0) + EntryHeader + nameLength;
        return (size + Alignment - 1) & ~(Alignment - 1);
    }

    private bool TryAddCore(
        in NodeEntry entry, in FuseVersionTags tags, ReadOnlySpan<byte> name, ulong inode, ulong nextOffset, uint type)
    {
        int size = SizeOf(name.Length);
        if (_buffer.Length - Length < size)
        {
            return false;
        }

        Span<byte> record = _buffer.Span.Slice(Length, size);
        Length += size;
        if (_hasTags)
        {
            MemoryMarshal.Write(record, in tags);
            record = record[FuseVersionTags.Size..];
        }

        if (_isPlus)
        {
            MemoryMarshal.Write(record, in entry);
            record = record[Unsafe.SizeOf<NodeEntry>()..];
        }

        uint nameLength = (uint)name.Length;
        MemoryMarshal.Write(record, in inode);
        MemoryMarshal.Write(record[8..], in nextOffset);
        MemoryMarshal.Write(record[16..], in nameLength);
        MemoryMarshal.Write(record[20..], in type);
        name.CopyTo(record[EntryHeader..]);
        record[(EntryHeader + name.Length)..].Clear();
        return true;
    }
}
