using System.Diagnostics;
using Causeway.Fuse;
using Causeway.Virtio;

namespace Causeway.Server.Queues;

/// <summary>
/// How many bytes the requests that one guest has in work may have together. A queue takes from it for every request but one:
/// so that a request costs nothing here as long as each queue has one at a time, and a queue whose requests come to their end always
/// gets on, whatever the others do.
/// </summary>
/// <remarks>
/// No lock, and nothing lost: a queue that finds too little announces that it waits and looks once more; who gives back adds first
/// and looks for announcements then. Each is a full fence, so that one of the two sees the other.
/// </remarks>
/// <param name="limit">The limit in bytes, more than <see cref="MaxCost"/>.</param>
/// <param name="workers">The queues that may wait; null where there is none yet.</param>
internal sealed class InFlightBudget(long limit, QueueWorker?[] workers)
{
    /// <summary>
    /// What a request costs besides its bytes: the memory that our side touches for even the shortest one, rounded up (chain,
    /// copy of the arguments, reply buffer).
    /// </summary>
    public const long FixedCost = 32 << 10;

    /// <summary>The most that one request costs.</summary>
    public const long MaxCost = FixedCost + (2 * MaxMoved);

    // More is never read or written of a buffer, however long the guest makes it.
    private const long MaxMoved = FuseSession.MaxTransfer + 4096;

    private long _used;
    private int _isAnyWaiting;

    /// <summary>What has been taken and not been given back.</summary>
    public long Used => Volatile.Read(ref _used);

    /// <summary>What a request costs.</summary>
    public static long CostOf(DescriptorChain chain) =>
        FixedCost + Math.Min(chain.Readable.Length, MaxMoved) + Math.Min(chain.Writable.Length, MaxMoved);

    /// <summary>Takes bytes, if so many are left.</summary>
    public bool TryTake(long bytes)
    {
        long used = Volatile.Read(ref _used);
        while (used + bytes <= limit)
        {
            long seen = Interlocked.CompareExchange(ref _used, used + bytes, used);
            if (seen == used)
            {
                return true;
            }

            used = seen;
        }

        return false;
    }

    /// <summary>To be called by a queue that marked itself as waiting, before it looks once more.</summary>
    public void Announce() => Interlocked.Exchange(ref _isAnyWaiting, 1);

    /// <summary>Gives bytes back, and wakes the queues that wait for some.</summary>
    public void Return(long bytes)
    {
        long left = Interlocked.Add(ref _used, -bytes);
        Debug.Assert(left >= 0, "what is given back was taken");
        if (Volatile.Read(ref _isAnyWaiting) == 0)
        {
            return;
        }

        Interlocked.Exchange(ref _isAnyWaiting, 0);
        foreach (QueueWorker? worker in workers)
        {
            worker?.WakeIfWaitingForBytes();
        }
    }
}
