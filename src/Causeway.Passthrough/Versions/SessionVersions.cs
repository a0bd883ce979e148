namespace Causeway.Passthrough;

/// <summary>
/// The words that one session holds, for its nodes and for its open files. Of words of their own it gets no more than its part, so
/// that a guest that looks up and opens all it can leaves the others theirs; beyond that its objects get shared ones.
/// </summary>
/// <param name="versions">The registry of the share.</param>
/// <param name="maxOwn">How many nodes and open files may ask for words of their own.</param>
internal sealed class SessionVersions(ObjectVersions versions, long maxOwn)
{
    private long _count;

    /// <summary>How many nodes and open files have words now.</summary>
    public long Count => Volatile.Read(ref _count);

    /// <summary>Finds an object's words or gives it some, see <see cref="ObjectVersions.Acquire"/>.</summary>
    /// <param name="inode">The inode number.</param>
    /// <returns>The META word. To be given back by <see cref="Release"/>.</returns>
    public uint Acquire(ulong inode) => versions.Acquire(inode, mayHaveOwn: Interlocked.Increment(ref _count) <= maxOwn);

    /// <summary>Gives a reference back.</summary>
    /// <param name="inode">The inode number.</param>
    public void Release(ulong inode)
    {
        Interlocked.Decrement(ref _count);
        versions.Release(inode);
    }
}
