namespace Causeway.Fuse;

/// <summary>Features negotiated by INIT: <c>flags</c> in bits 0 to 31, <c>flags2</c> in bits 32 to 63.</summary>
[Flags]
public enum FuseFeatures : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>FUSE_ASYNC_READ: several READs of one file in flight.</summary>
    AsyncRead = 1UL << 0,

    /// <summary>FUSE_POSIX_LOCKS: record locks are the server's.</summary>
    PosixLocks = 1UL << 1,

    /// <summary>FUSE_ATOMIC_O_TRUNC: O_TRUNC comes with OPEN.</summary>
    AtomicOTrunc = 1UL << 3,

    /// <summary>FUSE_EXPORT_SUPPORT: LOOKUP of "." and "..".</summary>
    ExportSupport = 1UL << 4,

    /// <summary>FUSE_BIG_WRITES: WRITEs over one page.</summary>
    BigWrites = 1UL << 5,

    /// <summary>FUSE_DONT_MASK: the server applies the umask.</summary>
    DontMask = 1UL << 6,

    /// <summary>FUSE_SPLICE_WRITE: only over /dev/fuse.</summary>
    SpliceWrite = 1UL << 7,

    /// <summary>FUSE_SPLICE_MOVE: only over /dev/fuse.</summary>
    SpliceMove = 1UL << 8,

    /// <summary>FUSE_SPLICE_READ: only over /dev/fuse.</summary>
    SpliceRead = 1UL << 9,

    /// <summary>FUSE_FLOCK_LOCKS: flock(2) is the server's.</summary>
    FlockLocks = 1UL << 10,

    /// <summary>FUSE_HAS_IOCTL_DIR: ioctl(2) on directories.</summary>
    HasIoctlDir = 1UL << 11,

    /// <summary>FUSE_AUTO_INVAL_DATA: cached pages are dropped when size or time changed.</summary>
    AutoInvalData = 1UL << 12,

    /// <summary>FUSE_DO_READDIRPLUS: READDIRPLUS instead of READDIR.</summary>
    DoReadDirPlus = 1UL << 13,

    /// <summary>FUSE_READDIRPLUS_AUTO: only where lookups follow.</summary>
    ReadDirPlusAuto = 1UL << 14,

    /// <summary>FUSE_ASYNC_DIO: direct I/O in parallel pieces.</summary>
    AsyncDio = 1UL << 15,

    /// <summary>FUSE_WRITEBACK_CACHE: the guest delays writes and owns size and times.</summary>
    WritebackCache = 1UL << 16,

    /// <summary>FUSE_NO_OPEN_SUPPORT: ENOSYS to OPEN is understood.</summary>
    NoOpenSupport = 1UL << 17,

    /// <summary>FUSE_PARALLEL_DIROPS: parallel LOOKUP and READDIR in one directory.</summary>
    ParallelDirOps = 1UL << 18,

    /// <summary>FUSE_HANDLE_KILLPRIV: the server clears setuid, setgid and capabilities.</summary>
    HandleKillPriv = 1UL << 19,

    /// <summary>FUSE_POSIX_ACL: the guest enforces ACLs.</summary>
    PosixAcl = 1UL << 20,

    /// <summary>FUSE_ABORT_ERROR: only over /dev/fuse.</summary>
    AbortError = 1UL << 21,

    /// <summary>FUSE_MAX_PAGES: <c>max_pages</c> is valid.</summary>
    MaxPages = 1UL << 22,

    /// <summary>FUSE_CACHE_SYMLINKS: READLINK is cached.</summary>
    CacheSymlinks = 1UL << 23,

    /// <summary>FUSE_NO_OPENDIR_SUPPORT: ENOSYS to OPENDIR is understood.</summary>
    NoOpenDirSupport = 1UL << 24,

    /// <summary>FUSE_EXPLICIT_INVAL_DATA: cached pages are dropped only on notice.</summary>
    ExplicitInvalData = 1UL << 25,

    /// <summary>FUSE_MAP_ALIGNMENT: <c>map_alignment</c> is valid.</summary>
    MapAlignment = 1UL << 26,

    /// <summary>FUSE_SUBMOUNTS: mount points can be announced.</summary>
    Submounts = 1UL << 27,

    /// <summary>FUSE_HANDLE_KILLPRIV_V2: requests say when to clear setuid, setgid and capabilities.</summary>
    HandleKillPrivV2 = 1UL << 28,

    /// <summary>FUSE_SETXATTR_EXT: 16 bytes of SETXATTR arguments.</summary>
    SetXattrExt = 1UL << 29,

    /// <summary>FUSE_INIT_EXT: <c>flags2</c> is valid.</summary>
    InitExt = 1UL << 30,

    /// <summary>FUSE_SECURITY_CTX: creations carry a security context.</summary>
    SecurityContext = 1UL << 32,

    /// <summary>FUSE_HAS_INODE_DAX: DAX is decided per file.</summary>
    HasInodeDax = 1UL << 33,

    /// <summary>FUSE_CREATE_SUPP_GROUP: creations carry a supplementary group.</summary>
    CreateSuppGroup = 1UL << 34,

    /// <summary>FUSE_HAS_EXPIRE_ONLY: INVAL_ENTRY may only expire.</summary>
    HasExpireOnly = 1UL << 35,

    /// <summary>FUSE_DIRECT_IO_ALLOW_MMAP: shared mappings of files open with DIRECT_IO.</summary>
    DirectIoAllowMmap = 1UL << 36,

    /// <summary>FUSE_PASSTHROUGH: only over /dev/fuse.</summary>
    Passthrough = 1UL << 37,

    /// <summary>FUSE_NO_EXPORT_SUPPORT: no NFS export.</summary>
    NoExportSupport = 1UL << 38,

    /// <summary>FUSE_HAS_RESEND: only over /dev/fuse.</summary>
    HasResend = 1UL << 39,

    /// <summary>FUSE_ALLOW_IDMAP: idmapped mounts.</summary>
    AllowIdmap = 1UL << 40,

    /// <summary>FUSE_OVER_IO_URING: only over /dev/fuse; on virtio-fs it hangs the mount.</summary>
    OverIoUring = 1UL << 41,

    /// <summary>FUSE_REQUEST_TIMEOUT: <c>request_timeout</c> is valid.</summary>
    RequestTimeout = 1UL << 42,

    /// <summary>FUSE_HAS_IO_URING_BUFPOOL: only over /dev/fuse.</summary>
    IoUringBufferPool = 1UL << 43,

    /// <summary>
    /// Causeway's own: replies carry versions of the version table (docs/coherency.md). Only together with a magic number, so that
    /// another meaning of the bit is not taken for it.
    /// </summary>
    VersionTable = 1UL << 60,
}
