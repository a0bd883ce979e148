using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>Flags of open(2), O_*. Some differ between architectures, so this is not an enumeration.</summary>
public static class OpenFlags
{
    private static readonly bool s_isArm64 = RuntimeInformation.ProcessArchitecture == Architecture.Arm64;

    /// <summary>O_RDONLY.</summary>
    public const int ReadOnly = 0;

    /// <summary>O_WRONLY.</summary>
    public const int WriteOnly = 0x1;

    /// <summary>O_RDWR.</summary>
    public const int ReadWrite = 0x2;

    /// <summary>O_ACCMODE: the bits that say how the file is accessed.</summary>
    public const int AccessMode = 0x3;

    /// <summary>O_CREAT.</summary>
    public const int Create = 0x40;

    /// <summary>O_EXCL.</summary>
    public const int Exclusive = 0x80;

    /// <summary>O_TRUNC.</summary>
    public const int Truncate = 0x200;

    /// <summary>O_APPEND.</summary>
    public const int Append = 0x400;

    /// <summary>O_NONBLOCK.</summary>
    public const int NonBlocking = 0x800;

    /// <summary>O_DSYNC.</summary>
    public const int DataSync = 0x1000;

    /// <summary>O_SYNC.</summary>
    public const int Sync = 0x101000;

    /// <summary>O_NOATIME.</summary>
    public const int NoAccessTime = 0x40000;

    /// <summary>O_CLOEXEC.</summary>
    public const int CloseOnExec = 0x80000;

    /// <summary>O_PATH.</summary>
    public const int Path = 0x200000;

    /// <summary>O_DIRECT.</summary>
    public static int Direct => s_isArm64 ? 0x10000 : 0x4000;

    /// <summary>O_LARGEFILE as the kernel knows it.</summary>
    public static int LargeFile => s_isArm64 ? 0x20000 : 0x8000;

    /// <summary>O_DIRECTORY.</summary>
    public static int Directory => s_isArm64 ? 0x4000 : 0x10000;

    /// <summary>O_NOFOLLOW.</summary>
    public static int NoFollow => s_isArm64 ? 0x8000 : 0x20000;

    /// <summary>O_TMPFILE.</summary>
    public static int TemporaryFile => 0x400000 | Directory;
}

/// <summary>How openat2(2) may resolve a path, RESOLVE_*.</summary>
[Flags]
public enum ResolveFlags : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>RESOLVE_NO_XDEV: no mount point may be crossed.</summary>
    NoCrossing = 0x1,

    /// <summary>RESOLVE_NO_MAGICLINKS.</summary>
    NoMagicLinks = 0x2,

    /// <summary>RESOLVE_NO_SYMLINKS; a last component that is one may still be opened with O_PATH and O_NOFOLLOW.</summary>
    NoSymlinks = 0x4,

    /// <summary>RESOLVE_BENEATH: the path may not leave the directory it starts in.</summary>
    Beneath = 0x8,
}

/// <summary>Flags of the calls that take a directory and a name, AT_*.</summary>
[Flags]
public enum AtFlags
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>AT_SYMLINK_NOFOLLOW.</summary>
    NoFollow = 0x100,

    /// <summary>AT_REMOVEDIR.</summary>
    RemoveDirectory = 0x200,

    /// <summary>AT_SYMLINK_FOLLOW.</summary>
    Follow = 0x400,

    /// <summary>AT_NO_AUTOMOUNT.</summary>
    NoAutomount = 0x800,

    /// <summary>AT_EMPTY_PATH: the empty name means the descriptor itself.</summary>
    EmptyPath = 0x1000,
}

/// <summary>What posix_fadvise(2) is told, POSIX_FADV_*.</summary>
public enum FileAdvice
{
    /// <summary>POSIX_FADV_DONTNEED: what is cached and clean may go.</summary>
    DontNeed = 4,
}

/// <summary>What statx(2) is asked for and says it filled in, STATX_*; values are combined.</summary>
public enum StatxMask : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>STATX_TYPE: what it is.</summary>
    Type = 0x1,

    /// <summary>STATX_MODE: the permissions.</summary>
    Mode = 0x2,

    /// <summary>STATX_BASIC_STATS: everything stat(2) has.</summary>
    Basic = 0x7ff,

    /// <summary>STATX_BTIME: the time of creation.</summary>
    BirthTime = 0x800,

    /// <summary>STATX_MNT_ID: the mount's number, which the kernel uses again after an unmount.</summary>
    MountId = 0x1000,

    /// <summary>STATX_MNT_ID_UNIQUE: the mount's number, never used again (Linux 6.8).</summary>
    MountIdUnique = 0x4000,
}

/// <summary>A time in <see cref="StatxBuffer"/>, <c>struct statx_timestamp</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct StatxTime
{
    /// <summary>Seconds since 1970 (<c>tv_sec</c>).</summary>
    public long Seconds;

    /// <summary>Nanoseconds (<c>tv_nsec</c>).</summary>
    public uint Nanoseconds;

    /// <summary>Reserved.</summary>
    public int Reserved;
}

/// <summary>What statx(2) tells of a file, <c>struct statx</c>, 256 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct StatxBuffer
{
    /// <summary>Which fields are valid (<c>stx_mask</c>).</summary>
    public StatxMask Mask;

    /// <summary>Preferred size of I/O in bytes (<c>stx_blksize</c>).</summary>
    public uint BlockSize;

    /// <summary>STATX_ATTR_* (<c>stx_attributes</c>).</summary>
    public ulong Attributes;

    /// <summary>Number of hard links (<c>stx_nlink</c>).</summary>
    public uint LinkCount;

    /// <summary>Owner (<c>stx_uid</c>).</summary>
    public uint UserId;

    /// <summary>Group (<c>stx_gid</c>).</summary>
    public uint GroupId;

    /// <summary>Type and permissions (<c>stx_mode</c>).</summary>
    public ushort Mode;

    private ushort _spare0;

    /// <summary>Inode number (<c>stx_ino</c>).</summary>
    public ulong Inode;

    /// <summary>Size in bytes (<c>stx_size</c>).</summary>
    public ulong Size;

    /// <summary>Space used, in units of 512 bytes (<c>stx_blocks</c>).</summary>
    public ulong Blocks;

    /// <summary>Which attributes mean anything (<c>stx_attributes_mask</c>).</summary>
    public ulong AttributesMask;

    /// <summary>Time of last access (<c>stx_atime</c>).</summary>
    public StatxTime AccessTime;

    /// <summary>Time of creation (<c>stx_btime</c>).</summary>
    public StatxTime BirthTime;

    /// <summary>Time of last change of attributes (<c>stx_ctime</c>).</summary>
    public StatxTime ChangeTime;

    /// <summary>Time of last modification (<c>stx_mtime</c>).</summary>
    public StatxTime ModificationTime;

    /// <summary>Major number of a device node (<c>stx_rdev_major</c>).</summary>
    public uint NodeDeviceMajor;

    /// <summary>Minor number of a device node (<c>stx_rdev_minor</c>).</summary>
    public uint NodeDeviceMinor;

    /// <summary>Major number of the file system's device (<c>stx_dev_major</c>).</summary>
    public uint DeviceMajor;

    /// <summary>Minor number of the file system's device (<c>stx_dev_minor</c>).</summary>
    public uint DeviceMinor;

    /// <summary>Number of the mount (<c>stx_mnt_id</c>).</summary>
    public ulong MountId;

    private fixed ulong _spare1[13];
}

/// <summary>What fstatfs(2) tells of a file system, <c>struct statfs</c> of 64-bit architectures, 120 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct StatfsBuffer
{
    /// <summary>Magic number of the file system's type (<c>f_type</c>).</summary>
    public long Type;

    /// <summary>Preferred size of I/O in bytes (<c>f_bsize</c>).</summary>
    public long BlockSize;

    /// <summary>Size, in units of <see cref="FragmentSize"/> (<c>f_blocks</c>).</summary>
    public ulong Blocks;

    /// <summary>Free blocks (<c>f_bfree</c>).</summary>
    public ulong BlocksFree;

    /// <summary>Free blocks for ordinary users (<c>f_bavail</c>).</summary>
    public ulong BlocksAvailable;

    /// <summary>Number of inodes (<c>f_files</c>).</summary>
    public ulong Files;

    /// <summary>Free inodes (<c>f_ffree</c>).</summary>
    public ulong FilesFree;

    /// <summary>Identity of the file system (<c>f_fsid</c>).</summary>
    public ulong FileSystemId;

    /// <summary>Longest name in bytes (<c>f_namelen</c>).</summary>
    public long NameLength;

    /// <summary>Size of a block in bytes (<c>f_frsize</c>).</summary>
    public long FragmentSize;

    /// <summary>Mount flags (<c>f_flags</c>).</summary>
    public long Flags;

    private fixed long _spare[4];
}

/// <summary>A time for utimensat(2), <c>struct timespec</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct TimeSpecification
{
    /// <summary>UTIME_NOW, in place of the nanoseconds: the current time.</summary>
    public const long Now = 0x3fffffff;

    /// <summary>UTIME_OMIT, in place of the nanoseconds: leave this time alone.</summary>
    public const long Omit = 0x3ffffffe;

    /// <summary>Seconds since 1970 (<c>tv_sec</c>).</summary>
    public long Seconds;

    /// <summary>Nanoseconds, <see cref="Now"/> or <see cref="Omit"/> (<c>tv_nsec</c>).</summary>
    public long Nanoseconds;
}

/// <summary>
/// A file handle with room for the longest one, <c>struct file_handle</c> of name_to_handle_at(2): it names an inode of a
/// file system even after the inode lost its name, and never names another one.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct KernelFileHandle
{
    /// <summary>The longest handle, MAX_HANDLE_SZ.</summary>
    public const int MaxLength = 128;

    /// <summary>Length in bytes; before name_to_handle_at(2), the room there is (<c>handle_bytes</c>).</summary>
    public uint Length;

    /// <summary>What the bytes mean, chosen by the file system (<c>handle_type</c>).</summary>
    public int Type;

    private fixed byte _bytes[MaxLength];

    /// <summary>The bytes (<c>f_handle</c>).</summary>
    /// <param name="handle">The handle.</param>
    public static Span<byte> BytesOf(ref KernelFileHandle handle) =>
        MemoryMarshal.CreateSpan(ref handle._bytes[0], (int)Math.Min(handle.Length, MaxLength));

    /// <summary>Sets type and bytes.</summary>
    /// <param name="type">The type.</param>
    /// <param name="bytes">The bytes; at most <see cref="MaxLength"/>.</param>
    public void Set(int type, ReadOnlySpan<byte> bytes)
    {
        Type = type;
        Length = (uint)bytes.Length;
        fixed (byte* destination = _bytes)
        {
            bytes.CopyTo(new Span<byte>(destination, MaxLength));
        }
    }
}
