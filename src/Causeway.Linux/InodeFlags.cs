using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>The flags of an inode that chattr(1) and xfs_io(8) set (ioctl_iflags(2), ioctl_xfs_fsgetxattr(2)).</summary>
public static unsafe class InodeFlags
{
    /// <summary>FS_IOC_GETFLAGS. Its argument has four bytes, though its number says eight.</summary>
    public const uint GetCommand = 0x8008_6601;

    /// <summary>FS_IOC_SETFLAGS. Its argument has four bytes, though its number says eight.</summary>
    public const uint SetCommand = 0x4008_6602;

    /// <summary>FS_IOC_FSGETXATTR.</summary>
    public const uint GetExtendedCommand = 0x801c_581f;

    /// <summary>FS_IOC_FSSETXATTR.</summary>
    public const uint SetExtendedCommand = 0x401c_5820;

    /// <summary>FS_COMPR_FL: compress.</summary>
    public const uint Compress = 0x4;

    /// <summary>FS_SYNC_FL: write through.</summary>
    public const uint Synchronous = 0x8;

    /// <summary>FS_IMMUTABLE_FL: nothing may change.</summary>
    public const uint Immutable = 0x10;

    /// <summary>FS_APPEND_FL: only appending is possible.</summary>
    public const uint AppendOnly = 0x20;

    /// <summary>FS_NODUMP_FL: leave out of backups.</summary>
    public const uint NoDump = 0x40;

    /// <summary>FS_NOATIME_FL: no time of access.</summary>
    public const uint NoAccessTime = 0x80;

    /// <summary>FS_NOTAIL_FL: do not merge the end of a file.</summary>
    public const uint NoTail = 0x8000;

    /// <summary>FS_DIRSYNC_FL: write names through.</summary>
    public const uint DirectorySynchronous = 0x10000;

    /// <summary>FS_TOPDIR_FL: place subdirectories apart.</summary>
    public const uint TopDirectory = 0x20000;

    /// <summary>FS_NOCOW_FL: overwrite in place.</summary>
    public const uint NoCopyOnWrite = 0x80_0000;

    /// <summary>FS_XFLAG_IMMUTABLE: nothing may change.</summary>
    public const uint ExtendedImmutable = 0x8;

    /// <summary>FS_XFLAG_APPEND: only appending is possible.</summary>
    public const uint ExtendedAppendOnly = 0x10;

    /// <summary>FS_XFLAG_SYNC: write through.</summary>
    public const uint ExtendedSynchronous = 0x20;

    /// <summary>FS_XFLAG_NOATIME: no time of access.</summary>
    public const uint ExtendedNoAccessTime = 0x40;

    /// <summary>FS_XFLAG_NODUMP: leave out of backups.</summary>
    public const uint ExtendedNoDump = 0x80;

    /// <summary>FS_IOC_GETFLAGS.</summary>
    /// <param name="descriptor">An open file or directory.</param>
    /// <param name="flags">Its flags.</param>
    public static SyscallResult Get(int descriptor, out uint flags)
    {
        flags = 0;
        fixed (uint* pointer = &flags)
        {
            return SyscallResult.From(Libc.ioctl(descriptor, GetCommand, pointer));
        }
    }

    /// <summary>FS_IOC_SETFLAGS.</summary>
    /// <param name="descriptor">An open file or directory.</param>
    /// <param name="flags">All its flags.</param>
    public static SyscallResult Set(int descriptor, uint flags) =>
        SyscallResult.From(Libc.ioctl(descriptor, SetCommand, &flags));

    /// <summary>FS_IOC_FSGETXATTR.</summary>
    /// <param name="descriptor">An open file or directory.</param>
    /// <param name="attributes">Its attributes.</param>
    public static SyscallResult GetExtended(int descriptor, out ExtendedFlags attributes)
    {
        attributes = default;
        fixed (ExtendedFlags* pointer = &attributes)
        {
            return SyscallResult.From(Libc.ioctl(descriptor, GetExtendedCommand, pointer));
        }
    }

    /// <summary>FS_IOC_FSSETXATTR.</summary>
    /// <param name="descriptor">An open file or directory.</param>
    /// <param name="attributes">All its attributes.</param>
    public static SyscallResult SetExtended(int descriptor, ExtendedFlags attributes) =>
        SyscallResult.From(Libc.ioctl(descriptor, SetExtendedCommand, &attributes));
}

/// <summary>Flags and extent sizes of an inode. <c>struct fsxattr</c>, 28 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct ExtendedFlags
{
    /// <summary>Flags of <see cref="InodeFlags"/> that begin with Extended.</summary>
    public uint Flags;

    /// <summary>Preferred size of extents in bytes.</summary>
    public uint ExtentSize;

    /// <summary>How many extents there are.</summary>
    public uint Extents;

    /// <summary>The project whose quota the inode counts in.</summary>
    public uint ProjectId;

    /// <summary>Preferred size of extents that are copied on write, in bytes.</summary>
    public uint CopyExtentSize;

    /// <summary>Zero.</summary>
    public uint Padding;

    /// <summary>Zero.</summary>
    public uint Padding2;
}
