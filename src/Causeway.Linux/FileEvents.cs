using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>
/// Events about files: inotify(7) and fanotify(7). Each method is the system call of that name; its contract is the man
/// page.
/// </summary>
public static unsafe class FileEvents
{
    /// <summary>inotify_init1(2) with IN_NONBLOCK and IN_CLOEXEC.</summary>
    /// <returns>A descriptor to read events from, owned by the caller.</returns>
    public static SyscallResult InotifyInit() =>
        SyscallResult.From(Libc.inotify_init1(OpenFlags.NonBlocking | OpenFlags.CloseOnExec));

    /// <summary>inotify_add_watch(2).</summary>
    /// <param name="descriptor">The inotify descriptor.</param>
    /// <param name="path">What to watch, with NUL.</param>
    /// <param name="events">Which events.</param>
    /// <returns>The number of the watch.</returns>
    public static SyscallResult InotifyAddWatch(int descriptor, ReadOnlySpan<byte> path, InotifyEvents events)
    {
        Debug.Assert(path[^1] == 0, "a path ends with a NUL");
        fixed (byte* pointer = path)
        {
            return SyscallResult.From(Libc.inotify_add_watch(descriptor, pointer, (uint)events));
        }
    }

    /// <summary>inotify_rm_watch(2).</summary>
    /// <param name="descriptor">The inotify descriptor.</param>
    /// <param name="watch">The number of the watch.</param>
    public static SyscallResult InotifyRemoveWatch(int descriptor, int watch) =>
        SyscallResult.From(Libc.inotify_rm_watch(descriptor, watch));

    /// <summary>fanotify_init(2); the descriptor does not block and is not inherited.</summary>
    /// <param name="flags">What events are to tell.</param>
    /// <returns>A descriptor to read events from, owned by the caller.</returns>
    public static SyscallResult FanotifyInit(FanotifyFlags flags) => SyscallResult.From(Libc.fanotify_init(
        (uint)(flags | FanotifyFlags.CloseOnExec | FanotifyFlags.NonBlocking), (uint)OpenFlags.ReadOnly));

    /// <summary>fanotify_mark(2) of what a descriptor means.</summary>
    /// <param name="descriptor">The fanotify descriptor.</param>
    /// <param name="marks">What is marked, and how.</param>
    /// <param name="events">Which events.</param>
    /// <param name="file">A descriptor of it, or of anything on the file system or mount, not one of O_PATH.</param>
    public static SyscallResult FanotifyMark(int descriptor, FanotifyMarks marks, FanotifyEvents events, int file) =>
        SyscallResult.From(Libc.fanotify_mark(descriptor, (uint)marks, (ulong)events, file, null));

    /// <summary>fanotify_mark(2) of what a path means.</summary>
    /// <param name="descriptor">The fanotify descriptor.</param>
    /// <param name="marks">What is marked, and how.</param>
    /// <param name="events">Which events.</param>
    /// <param name="path">The path, with NUL.</param>
    public static SyscallResult FanotifyMark(
        int descriptor, FanotifyMarks marks, FanotifyEvents events, ReadOnlySpan<byte> path)
    {
        Debug.Assert(path[^1] == 0, "a path ends with a NUL");
        fixed (byte* pointer = path)
        {
            return SyscallResult.From(
                Libc.fanotify_mark(descriptor, (uint)marks, (ulong)events, Files.WorkingDirectory, pointer));
        }
    }

    /// <summary>read(2): takes events.</summary>
    /// <param name="descriptor">A descriptor of either kind.</param>
    /// <param name="events">Where they go.</param>
    /// <returns>How many bytes; EAGAIN when there are none.</returns>
    public static SyscallResult Read(int descriptor, Span<byte> events)
    {
        fixed (byte* pointer = events)
        {
            while (true)
            {
                SyscallResult result = SyscallResult.From(Libc.read(descriptor, pointer, (nuint)events.Length));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }
}

/// <summary>What an inotify event starts with, <c>struct inotify_event</c>; the name follows, padded with NUL.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct InotifyEvent
{
    /// <summary>The watch (<c>wd</c>).</summary>
    public int Watch;

    /// <summary>What happened (<c>mask</c>).</summary>
    public InotifyEvents Events;

    /// <summary>The same number for both halves of a rename (<c>cookie</c>).</summary>
    public uint Cookie;

    /// <summary>Bytes of the name with its padding (<c>len</c>).</summary>
    public uint NameLength;
}

/// <summary>What a fanotify event starts with, <c>struct fanotify_event_metadata</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FanotifyEvent
{
    /// <summary>Bytes of the event with all that follows (<c>event_len</c>).</summary>
    public uint Length;

    /// <summary>The version of the structure (<c>vers</c>).</summary>
    public byte Version;

    /// <summary>Reserved.</summary>
    public byte Reserved;

    /// <summary>Bytes of this structure (<c>metadata_len</c>).</summary>
    public ushort MetadataLength;

    /// <summary>What happened (<c>mask</c>).</summary>
    public FanotifyEvents Events;

    /// <summary>No descriptor: -1 (<c>fd</c>).</summary>
    public int Descriptor;

    /// <summary>The process that did it (<c>pid</c>).</summary>
    public int ProcessId;
}

/// <summary>
/// What a record of a fanotify event starts with, <c>struct fanotify_event_info_header</c>. In records about files, the
/// number of the file system follows, then a file handle, then perhaps a name with NUL.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public struct FanotifyInfoHeader
{
    /// <summary>What the record is.</summary>
    public FanotifyInfoType Type;

    /// <summary>Reserved.</summary>
    public byte Padding;

    /// <summary>Bytes of the record.</summary>
    public ushort Length;
}

/// <summary>Kinds of records of fanotify events.</summary>
public enum FanotifyInfoType : byte
{
    /// <summary>FAN_EVENT_INFO_TYPE_FID: the object.</summary>
    File = 1,

    /// <summary>FAN_EVENT_INFO_TYPE_DFID_NAME: the directory, and the name in it.</summary>
    DirectoryAndName = 2,

    /// <summary>FAN_EVENT_INFO_TYPE_DFID: the directory.</summary>
    Directory = 3,

    /// <summary>FAN_EVENT_INFO_TYPE_OLD_DFID_NAME: the directory and the name that something was moved from.</summary>
    OldDirectoryAndName = 10,

    /// <summary>FAN_EVENT_INFO_TYPE_NEW_DFID_NAME: the directory and the name that something was moved to.</summary>
    NewDirectoryAndName = 12,
}

/// <summary>IN_* of inotify(7).</summary>
[Flags]
public enum InotifyEvents : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>IN_MODIFY: data were written or cut off.</summary>
    Modify = 0x2,

    /// <summary>IN_ATTRIB: attributes changed.</summary>
    Attributes = 0x4,

    /// <summary>IN_MOVED_FROM: a name went elsewhere.</summary>
    MovedFrom = 0x40,

    /// <summary>IN_MOVED_TO: a name came from elsewhere.</summary>
    MovedTo = 0x80,

    /// <summary>IN_CREATE: a name was made.</summary>
    Create = 0x100,

    /// <summary>IN_DELETE: a name was removed.</summary>
    Delete = 0x200,

    /// <summary>IN_DELETE_SELF: the watched object is gone.</summary>
    DeleteSelf = 0x400,

    /// <summary>IN_Q_OVERFLOW: events were lost.</summary>
    Overflow = 0x4000,

    /// <summary>IN_IGNORED: the watch is gone.</summary>
    Ignored = 0x8000,

    /// <summary>IN_ONLYDIR: only directories are watched.</summary>
    OnlyDirectories = 0x1000000,
}

/// <summary>FAN_* of fanotify_init(2).</summary>
[Flags]
public enum FanotifyFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FAN_CLOEXEC.</summary>
    CloseOnExec = 0x1,

    /// <summary>FAN_NONBLOCK.</summary>
    NonBlocking = 0x2,

    /// <summary>FAN_REPORT_FID: events tell the object by its file handle.</summary>
    ReportFile = 0x200,

    /// <summary>FAN_REPORT_DIR_FID: and the directory.</summary>
    ReportDirectory = 0x400,

    /// <summary>FAN_REPORT_NAME: and the name.</summary>
    ReportName = 0x800,

    /// <summary>FAN_REPORT_TARGET_FID: and, when a name changes, what it stands for.</summary>
    ReportTarget = 0x1000,
}

/// <summary>FAN_MARK_* of fanotify_mark(2).</summary>
[Flags]
public enum FanotifyMarks : uint
{
    /// <summary>An inode.</summary>
    None = 0,

    /// <summary>FAN_MARK_ADD.</summary>
    Add = 0x1,

    /// <summary>FAN_MARK_REMOVE.</summary>
    Remove = 0x2,

    /// <summary>FAN_MARK_ONLYDIR: only directories.</summary>
    OnlyDirectories = 0x8,

    /// <summary>FAN_MARK_MOUNT: all of a mount.</summary>
    Mount = 0x10,

    /// <summary>FAN_MARK_IGNORED_SURV_MODIFY: what is ignored stays so when it is written.</summary>
    SurvivesModify = 0x40,

    /// <summary>FAN_MARK_FLUSH: all marks of the kind are taken away.</summary>
    Flush = 0x80,

    /// <summary>FAN_MARK_FILESYSTEM: all of a file system.</summary>
    FileSystem = 0x100,

    /// <summary>FAN_MARK_IGNORE: of what is marked the events are not told, whatever else is marked.</summary>
    Ignore = 0x400,
}

/// <summary>FAN_* of the events of fanotify_mark(2).</summary>
[Flags]
public enum FanotifyEvents : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FAN_MODIFY: data were written or cut off.</summary>
    Modify = 0x2,

    /// <summary>FAN_ATTRIB: attributes changed.</summary>
    Attributes = 0x4,

    /// <summary>FAN_CREATE: a name was made.</summary>
    Create = 0x100,

    /// <summary>FAN_DELETE: a name was removed.</summary>
    Delete = 0x200,

    /// <summary>FAN_Q_OVERFLOW: events were lost.</summary>
    Overflow = 0x4000,

    /// <summary>FAN_EVENT_ON_CHILD: of what is in the marked directory as well.</summary>
    OnChildren = 0x8000000,

    /// <summary>FAN_RENAME: a name became another, perhaps elsewhere.</summary>
    Rename = 0x10000000,

    /// <summary>FAN_ONDIR: directories as well.</summary>
    OnDirectories = 0x40000000,
}
