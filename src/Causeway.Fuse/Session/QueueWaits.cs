namespace Causeway.Fuse;

/// <summary>Where the requests of a queue come from.</summary>
public interface IRequestSource
{
    /// <summary>
    /// How many requests are there that nobody has begun; where they cannot be counted, two stand for some. To be asked by a thread
    /// that executes one.
    /// </summary>
    int Waiting { get; }
}

/// <summary>
/// The requests of one queue that wait for something that may never come, such as a lock: they keep their places in the ring.
/// One object for the slots of a queue.
/// </summary>
/// <remarks>
/// When they take all places, the request that would end their wait (an unlock, say) cannot be sent any more; hence the limit.
/// And whoever wants the queue to come to rest has to end them first.
/// </remarks>
public sealed class QueueWaits
{
    private int _limit = int.MaxValue;
    private int _count;

    /// <summary>
    /// How many requests may wait at a time. Default: any number. Threads that serve the same queue at the same time may go beyond
    /// it by one each.
    /// </summary>
    public int Limit
    {
        get => Volatile.Read(ref _limit);
        set => Volatile.Write(ref _limit, value);
    }

    /// <summary>How many wait.</summary>
    public int Count => Volatile.Read(ref _count);

    /// <summary>Whether none may wait at the moment. Changed under the session's lock.</summary>
    internal bool IsClosed { get; set; }

    /// <summary>Says whether further requests of the queue are there that nobody has begun; null where nobody can say.</summary>
    public IRequestSource? Source { get; init; }

    internal bool HasRoom => Count < Limit;

    // Under the session's lock.
    internal void Add(int difference) => Volatile.Write(ref _count, _count + difference);
}
