using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>The arguments of OPEN and OPENDIR. <c>fuse_open_in</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseOpenIn
{
    /// <summary>O_* of the guest's architecture.</summary>
    public uint Flags;

    /// <summary>FUSE_OPEN_*.</summary>
    public FuseOpenInFlags OpenFlags;
}

/// <summary>The arguments of CREATE and TMPFILE, followed by the name. <c>fuse_create_in</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseCreateIn
{
    /// <summary>O_* of the guest's architecture.</summary>
    public uint Flags;

    /// <summary>Type and permissions.</summary>
    public uint Mode;

    /// <summary>The caller's umask.</summary>
    public uint Umask;

    /// <summary>FUSE_OPEN_*.</summary>
    public FuseOpenInFlags OpenFlags;
}

/// <summary>The arguments of RELEASE and RELEASEDIR. <c>fuse_release_in</c>, 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseReleaseIn
{
    /// <summary>The handle that ends.</summary>
    public HandleId Handle;

    /// <summary>O_* the file was opened with.</summary>
    public uint Flags;

    /// <summary>FUSE_RELEASE_*.</summary>
    public FuseReleaseFlags ReleaseFlags;

    /// <summary>Owner of locks.</summary>
    public ulong LockOwner;
}

/// <summary>The arguments of FLUSH. <c>fuse_flush_in</c>, 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseFlushIn
{
    /// <summary>The handle.</summary>
    public HandleId Handle;

    /// <summary>Reserved; zero.</summary>
    public uint Unused;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;

    /// <summary>Owner of locks.</summary>
    public ulong LockOwner;
}

/// <summary>The arguments of READ, READDIR and READDIRPLUS. <c>fuse_read_in</c>, 40 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseReadIn
{
    /// <summary>The handle.</summary>
    public HandleId Handle;

    /// <summary>Position in the file in bytes, or the cookie of the last directory entry seen.</summary>
    public ulong Offset;

    /// <summary>How many bytes are wanted at most.</summary>
    public uint Size;

    /// <summary>FUSE_READ_*.</summary>
    public uint ReadFlags;

    /// <summary>Owner of locks.</summary>
    public ulong LockOwner;

    /// <summary>O_* the file has now.</summary>
    public uint Flags;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>The arguments of WRITE, followed by the data. <c>fuse_write_in</c>, 40 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseWriteIn
{
    /// <summary>The handle.</summary>
    public HandleId Handle;

    /// <summary>Position in the file in bytes.</summary>
    public ulong Offset;

    /// <summary>How many bytes follow.</summary>
    public uint Size;

    /// <summary>FUSE_WRITE_*.</summary>
    public FuseWriteFlags WriteFlags;

    /// <summary>Owner of locks.</summary>
    public ulong LockOwner;

    /// <summary>O_* the file has now.</summary>
    public uint Flags;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>The reply to WRITE and COPY_FILE_RANGE. <c>fuse_write_out</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseWriteOut
{
    /// <summary>How many bytes were written.</summary>
    public uint Size;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>The arguments of FSYNC and FSYNCDIR. <c>fuse_fsync_in</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseFsyncIn
{
    /// <summary>The handle.</summary>
    public HandleId Handle;

    /// <summary>FUSE_FSYNC_*.</summary>
    public FuseFsyncFlags Flags;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>The arguments of FALLOCATE. <c>fuse_fallocate_in</c>, 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseFallocateIn
{
    /// <summary>The handle.</summary>
    public HandleId Handle;

    /// <summary>Start in bytes.</summary>
    public ulong Offset;

    /// <summary>Length in bytes.</summary>
    public ulong Length;

    /// <summary>FALLOC_FL_*.</summary>
    public uint Mode;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>The arguments of LSEEK. <c>fuse_lseek_in</c>, 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseLseekIn
{
    /// <summary>The handle.</summary>
    public HandleId Handle;

    /// <summary>Position in bytes.</summary>
    public ulong Offset;

    /// <summary>SEEK_DATA 3 or SEEK_HOLE 4.</summary>
    public uint Whence;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>The reply to LSEEK. <c>fuse_lseek_out</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseLseekOut
{
    /// <summary>Position in bytes.</summary>
    public ulong Offset;
}

/// <summary>The arguments of COPY_FILE_RANGE and COPY_FILE_RANGE_64; the header names the source node. <c>fuse_copy_file_range_in</c>, 56 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseCopyFileRangeIn
{
    /// <summary>The source handle.</summary>
    public HandleId SourceHandle;

    /// <summary>Position in the source in bytes.</summary>
    public ulong SourceOffset;

    /// <summary>The destination node.</summary>
    public NodeId DestinationNode;

    /// <summary>The destination handle.</summary>
    public HandleId DestinationHandle;

    /// <summary>Position in the destination in bytes.</summary>
    public ulong DestinationOffset;

    /// <summary>How many bytes at most.</summary>
    public ulong Length;

    /// <summary>Zero.</summary>
    public ulong Flags;
}

/// <summary>The reply to COPY_FILE_RANGE_64. <c>fuse_copy_file_range_out</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseCopyFileRangeOut
{
    /// <summary>How many bytes were copied.</summary>
    public ulong BytesCopied;
}

/// <summary>The argument of INTERRUPT. <c>fuse_interrupt_in</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseInterruptIn
{
    /// <summary>The request to interrupt.</summary>
    public RequestId Unique;
}

/// <summary>The argument of SYNCFS. <c>fuse_syncfs_in</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseSyncFsIn
{
    /// <summary>Reserved; zero.</summary>
    public ulong Padding;
}
