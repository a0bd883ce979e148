namespace Causeway.Linux;

/// <summary>Reading and writing of files. Each method is the system call of that name; its contract is the man page.</summary>
public static unsafe class FileIO
{
    /// <summary>preadv2(2): reads at an offset into pieces of memory.</summary>
    /// <param name="descriptor">The open file.</param>
    /// <param name="destination">Where the bytes go; at most 1024 pieces (IOV_MAX).</param>
    /// <param name="offset">The position in the file, in bytes.</param>
    /// <param name="flags">RWF_* flags.</param>
    public static SyscallResult Preadv2(
        int descriptor, ReadOnlySpan<IoVector> destination, long offset, ReadWriteFlags flags)
    {
        while (true)
        {
            fixed (IoVector* vectors = destination)
            {
                SyscallResult result = SyscallResult.From(
                    Libc.preadv2(descriptor, vectors, destination.Length, offset, (int)flags));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }

    /// <summary>pwritev2(2): writes pieces of memory at an offset.</summary>
    /// <param name="descriptor">The open file.</param>
    /// <param name="source">The bytes; at most 1024 pieces (IOV_MAX).</param>
    /// <param name="offset">The position in the file, in bytes; ignored with <see cref="ReadWriteFlags.Append"/>.</param>
    /// <param name="flags">RWF_* flags.</param>
    public static SyscallResult Pwritev2(
        int descriptor, ReadOnlySpan<IoVector> source, long offset, ReadWriteFlags flags)
    {
        while (true)
        {
            fixed (IoVector* vectors = source)
            {
                SyscallResult result = SyscallResult.From(
                    Libc.pwritev2(descriptor, vectors, source.Length, offset, (int)flags));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }

    /// <summary>pread(2): reads at an offset into one piece of memory. Cheaper than <see cref="Preadv2"/> of one piece.</summary>
    /// <param name="descriptor">The open file.</param>
    /// <param name="destination">Where the bytes go.</param>
    /// <param name="offset">The position in the file, in bytes.</param>
    public static SyscallResult Pread(int descriptor, in IoVector destination, long offset)
    {
        while (true)
        {
            SyscallResult result = SyscallResult.From(
                Libc.pread(descriptor, destination.Address, destination.Length, offset));
            if (result.Error != Errno.EINTR)
            {
                return result;
            }
        }
    }

    /// <summary>pwrite(2): writes one piece of memory at an offset. Cheaper than <see cref="Pwritev2"/> of one piece.</summary>
    /// <param name="descriptor">The open file.</param>
    /// <param name="source">The bytes.</param>
    /// <param name="offset">The position in the file, in bytes.</param>
    public static SyscallResult Pwrite(int descriptor, in IoVector source, long offset)
    {
        while (true)
        {
            SyscallResult result = SyscallResult.From(
                Libc.pwrite(descriptor, source.Address, source.Length, offset));
            if (result.Error != Errno.EINTR)
            {
                return result;
            }
        }
    }

    /// <summary>close(2). Never retried: after EINTR the descriptor is gone all the same.</summary>
    /// <param name="descriptor">The descriptor; no longer the caller's afterwards, whatever the result.</param>
    public static SyscallResult Close(int descriptor) => SyscallResult.From(Libc.close(descriptor));
}

/// <summary>Flags of preadv2(2) and pwritev2(2).</summary>
[Flags]
public enum ReadWriteFlags
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>RWF_HIPRI: poll for completion.</summary>
    HighPriority = 0x1,

    /// <summary>RWF_DSYNC: as if the file were open with O_DSYNC.</summary>
    DataSync = 0x2,

    /// <summary>RWF_SYNC: as if the file were open with O_SYNC.</summary>
    Sync = 0x4,

    /// <summary>RWF_NOWAIT: EAGAIN instead of waiting for data that is not in the page cache.</summary>
    NoWait = 0x8,

    /// <summary>RWF_APPEND: write at the end of the file, wherever that is by then.</summary>
    Append = 0x10,
}
