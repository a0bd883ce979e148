using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>
/// Locks on open files: record locks that belong to the open file description (fcntl(2), F_OFD_*), and flock(2). The calls
/// that wait return EINTR when a signal comes (<see cref="ThreadInterruption"/>): whether to go on is the caller's decision.
/// </summary>
public static unsafe class FileLocks
{
    private const int OfdGetLock = 36;
    private const int OfdSetLock = 37;
    private const int OfdSetLockWait = 38;

    // LOCK_NB.
    private const int DoNotWait = 4;

    /// <summary>F_OFD_GETLK: finds a record lock that is in the way of one.</summary>
    /// <param name="descriptor">The open file; locks of its own are in nobody's way.</param>
    /// <param name="record">The lock that is wanted; afterwards the one in its way, or type unlocked.</param>
    public static SyscallResult GetRecord(int descriptor, ref RecordLock record)
    {
        fixed (RecordLock* pointer = &record)
        {
            return SyscallResult.From(Libc.fcntl(descriptor, OfdGetLock, (nint)pointer));
        }
    }

    /// <summary>F_OFD_SETLK: takes or gives back a record lock without waiting.</summary>
    /// <param name="descriptor">The open file that owns the lock.</param>
    /// <param name="record">The lock.</param>
    /// <returns>EAGAIN when another is in its way.</returns>
    public static SyscallResult SetRecord(int descriptor, RecordLock record) =>
        SyscallResult.From(Libc.fcntl(descriptor, OfdSetLock, (nint)(&record)));

    /// <summary>F_OFD_SETLKW: takes a record lock, waiting for it.</summary>
    /// <param name="descriptor">The open file that owns the lock.</param>
    /// <param name="record">The lock.</param>
    /// <returns>EINTR after a signal.</returns>
    public static SyscallResult SetRecordWait(int descriptor, RecordLock record) =>
        SyscallResult.From(Libc.fcntl(descriptor, OfdSetLockWait, (nint)(&record)));

    /// <summary>flock(2) without waiting.</summary>
    /// <param name="descriptor">The open file that owns the lock.</param>
    /// <param name="operation">What to do.</param>
    /// <returns>EAGAIN when another lock is in its way.</returns>
    public static SyscallResult Flock(int descriptor, FlockOperation operation) =>
        SyscallResult.From(Libc.flock(descriptor, (int)operation | DoNotWait));

    /// <summary>flock(2), waiting for the lock.</summary>
    /// <param name="descriptor">The open file that owns the lock.</param>
    /// <param name="operation">What to do.</param>
    /// <returns>EINTR after a signal.</returns>
    public static SyscallResult FlockWait(int descriptor, FlockOperation operation) =>
        SyscallResult.From(Libc.flock(descriptor, (int)operation));
}

/// <summary>A record lock. <c>struct flock</c> of 64-bit machines, 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct RecordLock
{
    /// <summary>Its kind.</summary>
    public RecordLockType Type;

    /// <summary>Where it counts from: zero, the start of the file.</summary>
    public short Whence;

    /// <summary>First byte.</summary>
    public long Start;

    /// <summary>How many bytes; zero means to the end of the file, wherever that will be.</summary>
    public long Length;

    /// <summary>Zero. In an answer the owner's process, or -1 when an open file description owns the lock.</summary>
    public int ProcessId;
}

/// <summary>Kinds of record locks.</summary>
public enum RecordLockType : short
{
    /// <summary>F_RDLCK: shared with other readers.</summary>
    Read = 0,

    /// <summary>F_WRLCK: exclusive.</summary>
    Write = 1,

    /// <summary>F_UNLCK: none.</summary>
    Unlock = 2,
}

/// <summary>What flock(2) is to do.</summary>
public enum FlockOperation
{
    /// <summary>LOCK_SH.</summary>
    Shared = 1,

    /// <summary>LOCK_EX.</summary>
    Exclusive = 2,

    /// <summary>LOCK_UN.</summary>
    Unlock = 8,
}
