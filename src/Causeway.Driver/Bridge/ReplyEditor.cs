using System.Runtime.CompilerServices;
using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <summary>
/// Changes in replies what says how long the kernel may keep something: by the cache mode of the mount, and not at all when
/// a notification may have overtaken the reply. Marks node ids and handles when the mount may outlive the daemon.
/// </summary>
/// <remarks>
/// It writes to memory that the device can write to as well. That harms nobody but the device's own mount: the kernel checks
/// what it is given, and bounds are those of the reply that was checked.
/// </remarks>
/// <param name="cache">The cache mode of the mount.</param>
/// <param name="tag">How to mark numbers; null for not at all.</param>
internal sealed unsafe class ReplyEditor(BridgeCache cache, SessionTag? tag)
{
    // A day: what is kept that long is kept until it is replaced or invalidated.
    private const ulong Long = 24 * 60 * 60;

    private readonly ulong _seconds = cache switch
    {
        BridgeCache.Auto => 1,
        BridgeCache.Always => Long,
        _ => 0,
    };

    /// <summary>Whether there is anything to change in an ordinary reply.</summary>
    public bool IsNeeded { get; } = cache != BridgeCache.Device || tag is not null;

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
        return tag is null || entry->NodeId.Value == 0 || tag.Value.TryMark(ref *(ulong*)&entry->NodeId);
    }

    private void Edit(ref ulong seconds, ref uint nanoseconds, bool isStale)
    {
        if (isStale)
        {
            (seconds, nanoseconds) = (0, 0);
        }
        else if (cache != BridgeCache.Device)
        {
            (seconds, nanoseconds) = (_seconds, 0);
        }
    }

    private bool Edit(FuseOpenOut* open, bool isDirectory)
    {
        OpenReplyFlags keep = OpenReplyFlags.KeepCache | (isDirectory ? OpenReplyFlags.CacheDir : OpenReplyFlags.None);
        open->Flags = cache switch
        {
            BridgeCache.None => (open->Flags & ~(OpenReplyFlags.KeepCache | OpenReplyFlags.CacheDir))
                | (isDirectory ? OpenReplyFlags.None : OpenReplyFlags.DirectIo),
            BridgeCache.Auto => open->Flags & ~(OpenReplyFlags.DirectIo | OpenReplyFlags.CacheDir),
            BridgeCache.Always => (open->Flags & ~OpenReplyFlags.DirectIo) | keep,
            _ => open->Flags,
        };
        return tag is null || tag.Value.TryMark(ref *(ulong*)&open->Handle);
    }
}
