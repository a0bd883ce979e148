namespace Causeway.Fuse;

/// <summary>Flags of <see cref="FuseAttributes"/>, FUSE_ATTR_*.</summary>
[Flags]
public enum FuseAttributeFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FUSE_ATTR_SUBMOUNT: a mount point of the share.</summary>
    Submount = 0x1,

    /// <summary>FUSE_ATTR_DAX: the file is to be mapped.</summary>
    Dax = 0x2,
}

/// <summary>FUSE_GETATTR_*.</summary>
[Flags]
public enum FuseGetAttrFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FUSE_GETATTR_FH: the handle is valid.</summary>
    Handle = 0x1,
}

/// <summary>Which attributes SETATTR sets, FATTR_*.</summary>
[Flags]
public enum SetAttrValid : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FATTR_MODE.</summary>
    Mode = 0x1,

    /// <summary>FATTR_UID.</summary>
    UserId = 0x2,

    /// <summary>FATTR_GID.</summary>
    GroupId = 0x4,

    /// <summary>FATTR_SIZE.</summary>
    Size = 0x8,

    /// <summary>FATTR_ATIME.</summary>
    AccessTime = 0x10,

    /// <summary>FATTR_MTIME.</summary>
    ModificationTime = 0x20,

    /// <summary>FATTR_FH: the handle is valid.</summary>
    Handle = 0x40,

    /// <summary>FATTR_ATIME_NOW.</summary>
    AccessTimeNow = 0x80,

    /// <summary>FATTR_MTIME_NOW.</summary>
    ModificationTimeNow = 0x100,

    /// <summary>FATTR_LOCKOWNER.</summary>
    LockOwner = 0x200,

    /// <summary>FATTR_CTIME.</summary>
    ChangeTime = 0x400,

    /// <summary>FATTR_KILL_SUIDGID: clear setuid and setgid.</summary>
    KillSuidGid = 0x800,
}

/// <summary>How the guest may cache an open file, FOPEN_*.</summary>
[Flags]
public enum OpenReplyFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FOPEN_DIRECT_IO: no page cache.</summary>
    DirectIo = 0x1,

    /// <summary>FOPEN_KEEP_CACHE: cached pages stay valid.</summary>
    KeepCache = 0x2,

    /// <summary>FOPEN_NONSEEKABLE.</summary>
    NonSeekable = 0x4,

    /// <summary>FOPEN_CACHE_DIR: the listing may be cached.</summary>
    CacheDir = 0x8,

    /// <summary>FOPEN_STREAM: no position.</summary>
    Stream = 0x10,

    /// <summary>FOPEN_NOFLUSH: no FLUSH on close.</summary>
    NoFlush = 0x20,

    /// <summary>FOPEN_PARALLEL_DIRECT_WRITES.</summary>
    ParallelDirectWrites = 0x40,

    /// <summary>FOPEN_PASSTHROUGH: only over /dev/fuse.</summary>
    Passthrough = 0x80,
}

/// <summary>FUSE_OPEN_*.</summary>
[Flags]
public enum FuseOpenInFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FUSE_OPEN_KILL_SUIDGID: clear setuid and setgid when truncating.</summary>
    KillSuidGid = 0x1,
}

/// <summary>FUSE_WRITE_*.</summary>
[Flags]
public enum FuseWriteFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FUSE_WRITE_CACHE: delayed write from the page cache; the handle is a guess.</summary>
    Cache = 0x1,

    /// <summary>FUSE_WRITE_LOCKOWNER: the lock owner is valid.</summary>
    LockOwner = 0x2,

    /// <summary>FUSE_WRITE_KILL_SUIDGID: clear setuid and setgid.</summary>
    KillSuidGid = 0x4,
}

/// <summary>FUSE_FSYNC_*.</summary>
[Flags]
public enum FuseFsyncFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FUSE_FSYNC_FDATASYNC: data only.</summary>
    DataOnly = 0x1,
}

/// <summary>FUSE_SETXATTR_*.</summary>
[Flags]
public enum SetXattrFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FUSE_SETXATTR_ACL_KILL_SGID: clear setgid.</summary>
    AclKillSgid = 0x1,
}

/// <summary>RENAME_* of renameat2(2).</summary>
[Flags]
public enum RenameFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>RENAME_NOREPLACE.</summary>
    NoReplace = 0x1,

    /// <summary>RENAME_EXCHANGE.</summary>
    Exchange = 0x2,

    /// <summary>RENAME_WHITEOUT.</summary>
    Whiteout = 0x4,
}
