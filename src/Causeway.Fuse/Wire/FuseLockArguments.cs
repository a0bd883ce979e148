using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>The arguments of GETLK, SETLK and SETLKW. <c>fuse_lk_in</c>, 48 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseLkIn
{
    /// <summary>The handle.</summary>
    public HandleId Handle;

    /// <summary>Owner of the lock: a process of the guest, or with flock(2) an open file.</summary>
    public ulong Owner;

    /// <summary>First byte.</summary>
    public ulong Start;

    /// <summary>Last byte; 2^63 - 1 means the end of the file, wherever that will be.</summary>
    public ulong End;

    /// <summary>F_*LCK.</summary>
    public FuseLockType Type;

    /// <summary>The owner's process id in the guest.</summary>
    public uint ProcessId;

    /// <summary>FUSE_LK_*.</summary>
    public FuseLockFlags Flags;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>The reply to GETLK: the lock that is in the way, or type unlocked. <c>fuse_lk_out</c>, 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseLkOut
{
    /// <summary>First byte.</summary>
    public ulong Start;

    /// <summary>Last byte.</summary>
    public ulong End;

    /// <summary>F_*LCK.</summary>
    public FuseLockType Type;

    /// <summary>The owner's process id in the guest; zero when the owner is not in this guest.</summary>
    public uint ProcessId;
}

/// <summary>Kinds of locks.</summary>
public enum FuseLockType : uint
{
    /// <summary>F_RDLCK: shared.</summary>
    Read = 0,

    /// <summary>F_WRLCK: exclusive.</summary>
    Write = 1,

    /// <summary>F_UNLCK: none.</summary>
    Unlock = 2,
}

/// <summary>FUSE_LK_*.</summary>
[Flags]
public enum FuseLockFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FUSE_LK_FLOCK: flock(2), which knows no ranges.</summary>
    Flock = 0x1,
}

/// <summary>FUSE_RELEASE_*.</summary>
[Flags]
public enum FuseReleaseFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FUSE_RELEASE_FLUSH: a FLUSH is part of it.</summary>
    Flush = 0x1,

    /// <summary>FUSE_RELEASE_FLOCK_UNLOCK: the open file may hold an flock(2).</summary>
    FlockUnlock = 0x2,
}

/// <summary>The arguments of IOCTL, followed by the data. <c>fuse_ioctl_in</c>, 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseIoctlIn
{
    /// <summary>The handle.</summary>
    public HandleId Handle;

    /// <summary>FUSE_IOCTL_*.</summary>
    public FuseIoctlFlags Flags;

    /// <summary>The request's number in the guest.</summary>
    public uint Command;

    /// <summary>An address in the guest. Of no use here.</summary>
    public ulong Argument;

    /// <summary>How many bytes follow.</summary>
    public uint InputSize;

    /// <summary>How many bytes the reply may have.</summary>
    public uint OutputSize;
}

/// <summary>The reply to IOCTL, followed by the data. <c>fuse_ioctl_out</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseIoctlOut
{
    /// <summary>What ioctl(2) returns.</summary>
    public int Result;

    /// <summary>FUSE_IOCTL_*; none.</summary>
    public FuseIoctlFlags Flags;

    /// <summary>Zero: only unrestricted ioctls say where else to read.</summary>
    public uint InputVectors;

    /// <summary>Zero: only unrestricted ioctls say where else to write.</summary>
    public uint OutputVectors;
}

/// <summary>FUSE_IOCTL_*.</summary>
[Flags]
public enum FuseIoctlFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FUSE_IOCTL_COMPAT: from a program of another word size.</summary>
    Compat = 0x1,

    /// <summary>FUSE_IOCTL_UNRESTRICTED: of character devices only.</summary>
    Unrestricted = 0x2,

    /// <summary>FUSE_IOCTL_RETRY: in replies to unrestricted ones only.</summary>
    Retry = 0x4,

    /// <summary>FUSE_IOCTL_32BIT: from a guest of 32 bits.</summary>
    Guest32 = 0x8,

    /// <summary>FUSE_IOCTL_DIR: the handle is a directory's.</summary>
    Directory = 0x10,

    /// <summary>FUSE_IOCTL_COMPAT_X32: from an x32 program.</summary>
    CompatX32 = 0x20,
}
