namespace Causeway.Linux;

/// <summary>Locks on open files: flock(2).</summary>
public static class FileLocks
{
    // LOCK_NB.
    private const int DoNotWait = 4;

    /// <summary>flock(2) without waiting.</summary>
    /// <param name="descriptor">The open file that owns the lock.</param>
    /// <param name="operation">What to do.</param>
    /// <returns>EAGAIN when another lock is in its way.</returns>
    public static SyscallResult Flock(int descriptor, FlockOperation operation) =>
        SyscallResult.From(Libc.flock(descriptor, (int)operation | DoNotWait));
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
