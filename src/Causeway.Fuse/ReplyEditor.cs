using System.Runtime.CompilerServices;

namespace Causeway.Fuse;

/// <summary>What a kernel may cache of a share, whatever the file system says.</summary>
public enum ReplyCaching : uint
{
    /// <summary>What the file system says.</summary>
    AsGiven,

    /// <summary>Nothing.</summary>
    None,

    /// <summary>Names and attributes for a second; data while the file is open.</summary>
    Auto,

    /// <summary>Everything until it is replaced or invalidated.</summary>
    Always,
}

/// <summary>Marks the numbers of nodes and handles, so that those of one session can be told from those of another.</summary>
public interface INumberMarks
{
    /// <summary>Marks a number.</summary>
    /// <param name="id">The number; changed.</param>
    /// <returns>False when it is too large to be marked.</returns>
    bool TryMark(ref ulong id);
}

/// <summary>
/// Changes in replies to a kernel what says how long it may keep something: by the cache mode of the mount, and not at all when
/// a notification may have overtaken the reply. Marks node ids and handles when the mount may outlive the daemon.
/// </summary>
/// <remarks>
/// It may write to memory that a device can write to as well. That harms nobody but the device's own mount: the kernel checks
/// what it is given, and bounds are those of the reply that was checked.
/// </remarks>
/// <param name="cache">The cache mode of the mount.</param>
/// <param name="marks">How to mark numbers; null for not at all.</param>
public sealed unsafe class ReplyEditor(ReplyCaching cache, INumberMarks? marks)
{
    // A day: what is kept that long is kept until it is replaced or invalidated.
    private const ulong Long = 24 * 60 * 60;

    private readonly ulong _seconds = cache switch
    {
        ReplyCaching.Auto => 1,
        ReplyCaching.Always => Long,
        _ => 0,
    };

    /// <summary>Whether there is anything to change in an ordinary reply.</summary>
    public bool IsNeeded { get; } = cache != ReplyCaching.AsGiven || marks is not null;

    /// <summary>Changes the body of a successful reply.</summary>
    /// <param name="opcode">What was asked.</param>
    /// <param name="body">The body.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <param name="isStale">Whether the reply may be older than an invalidation that the kernel knows already.</param>
    /// <returns>False when a number cannot be marked.</returns>
    public bool Edit(FuseOpcode opcode, byte* body, int length, bool isStale)
    {
        switch (opcode)
        {
            case FuseOpcode.Lookup or FuseOpcode.Mknod or FuseOpcode.Mkdir or FuseOpcode.Symlink or FuseOpcode.Link
                when length >= sizeof(NodeEntry):
                return Edit((NodeEntry*)body, isStale);

            case FuseOpcode.Create or FuseOpcode.Tmpfile when length >= sizeof(FuseCreateOut):
                return Edit(&((FuseCreateOut*)body)->Entry, isStale)
                    & Edit(&((FuseCreateOut*)body)->Open, isDirectory: false);

            // fuse_attr_out and fuse_statx_out begin alike: seconds, then nanoseconds.
            case FuseOpcode.GetAttr or FuseOpcode.SetAttr or FuseOpcode.Statx when length >= 12:
                Edit(ref *(ulong*)body, ref *(uint*)(body + 8), isStale);
                return true;

            case FuseOpcode.Open or FuseOpcode.OpenDir when length >= sizeof(FuseOpenOut):
                return Edit((FuseOpenOut*)body, isDirectory: opcode == FuseOpcode.OpenDir);

            case FuseOpcode.ReadDirPlus:
                return EditDirectory(body, length, isStale);

            default:
                return true;
        }
    }

    private bool EditDirectory(byte* body, int length, bool isStale)
    {
        // fuse_direntplus: the entry, then ino 8, off 8, namelen 4, type 4, name, padded to 8.
        const int direntSize = 24;
        int offset = 0;
        bool isMarked = true;
        while (length - offset >= sizeof(NodeEntry) + direntSize)
        {
            byte* entry = body + offset;
            uint nameLength = Volatile.Read(ref Unsafe.AsRef<uint>(entry + sizeof(NodeEntry) + 16));
            if (nameLength > 4096)
            {
                // The kernel refuses it.
                return isMarked;
            }

            isMarked &= Edit((NodeEntry*)entry, isStale);
            offset += (sizeof(NodeEntry) + direntSize + (int)nameLength + 7) & ~7;
        }

        return isMarked;
    }

    private bool Edit(NodeEntry* entry, bool isStale)
    {
        Edit(ref entry->EntryLifetimeSeconds, ref entry->EntryLifetimeNanoseconds, isStale);
        Edit(ref entry->AttributeLifetimeSeconds, ref entry->AttributeLifetimeNanoseconds, isStale);

        // Zero stands for "no such name", and in listings for "." and "..".
        return marks is null || entry->NodeId.Value == 0 || marks.TryMark(ref *(ulong*)&entry->NodeId);
    }

    private void Edit(ref ulong seconds, ref uint nanoseconds, bool isStale)
    {
        if (isStale)
        {
            (seconds, nanoseconds) = (0, 0);
        }
        else if (cache != ReplyCaching.AsGiven)
        {
            (seconds, nanoseconds) = (_seconds, 0);
        }
    }

    private bool Edit(FuseOpenOut* open, bool isDirectory)
    {
        OpenReplyFlags keep = OpenReplyFlags.KeepCache | (isDirectory ? OpenReplyFlags.CacheDir : OpenReplyFlags.None);
        open->Flags = cache switch
        {
            ReplyCaching.None => (open->Flags & ~(OpenReplyFlags.KeepCache | OpenReplyFlags.CacheDir))
                | (isDirectory ? OpenReplyFlags.None : OpenReplyFlags.DirectIo),
            ReplyCaching.Auto => open->Flags & ~(OpenReplyFlags.DirectIo | OpenReplyFlags.CacheDir),
            ReplyCaching.Always => (open->Flags & ~OpenReplyFlags.DirectIo) | keep,
            _ => open->Flags,
        };
        return marks is null || marks.TryMark(ref *(ulong*)&open->Handle);
    }
}
