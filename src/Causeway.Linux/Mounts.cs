using System.Diagnostics;

namespace Causeway.Linux;

/// <summary>Mounting. Each method is the system call of that name; its contract is the man page. Text ends with a NUL.</summary>
public static unsafe class Mounts
{
    /// <summary>mount(2).</summary>
    /// <param name="source">What is shown as the source.</param>
    /// <param name="target">The directory, with NUL.</param>
    /// <param name="type">The type of the file system, with NUL.</param>
    /// <param name="flags">Flags for every type.</param>
    /// <param name="data">Options of the type, with NUL.</param>
    public static SyscallResult Mount(
        ReadOnlySpan<byte> source, ReadOnlySpan<byte> target, ReadOnlySpan<byte> type, MountFlags flags, ReadOnlySpan<byte> data)
    {
        Debug.Assert(source[^1] == 0 && target[^1] == 0 && type[^1] == 0 && data[^1] == 0, "text ends with a NUL");
        fixed (byte* sourcePointer = source, targetPointer = target, typePointer = type, dataPointer = data)
        {
            return SyscallResult.From(Libc.mount(sourcePointer, targetPointer, typePointer, (nuint)flags, dataPointer));
        }
    }

    /// <summary>umount2(2).</summary>
    /// <param name="target">The directory, with NUL.</param>
    /// <param name="flags">How.</param>
    public static SyscallResult Umount2(ReadOnlySpan<byte> target, UnmountFlags flags)
    {
        Debug.Assert(target[^1] == 0, "a path ends with a NUL");
        fixed (byte* pointer = target)
        {
            return SyscallResult.From(Libc.umount2(pointer, (int)flags));
        }
    }
}

/// <summary>MS_* of mount(2).</summary>
[Flags]
public enum MountFlags : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>MS_RDONLY: nothing can be changed.</summary>
    ReadOnly = 1,

    /// <summary>MS_NOSUID: set-user-id bits have no effect.</summary>
    NoSetUserId = 2,

    /// <summary>MS_NODEV: device files cannot be opened.</summary>
    NoDevices = 4,

    /// <summary>MS_NOEXEC: nothing can be executed.</summary>
    NoExecute = 8,

    /// <summary>MS_SYNCHRONOUS: writes are pushed at once.</summary>
    Synchronous = 16,

    /// <summary>MS_DIRSYNC: changes of directories are pushed at once.</summary>
    DirectorySynchronous = 128,

    /// <summary>MS_NOATIME: times of access are not kept.</summary>
    NoAccessTime = 1024,

    /// <summary>MS_NODIRATIME: times of access of directories are not kept.</summary>
    NoDirectoryAccessTime = 2048,

    /// <summary>MS_RELATIME: times of access are kept roughly.</summary>
    RelativeAccessTime = 1 << 21,

    /// <summary>MS_STRICTATIME: times of access are kept exactly.</summary>
    StrictAccessTime = 1 << 24,
}

/// <summary>Flags of umount2(2).</summary>
[Flags]
public enum UnmountFlags
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>MNT_FORCE: ends what is in flight.</summary>
    Force = 1,

    /// <summary>MNT_DETACH: takes it out of the tree at once, whoever uses it.</summary>
    Detach = 2,

    /// <summary>UMOUNT_NOFOLLOW: the target is no symbolic link.</summary>
    NoFollow = 8,
}
