using System.Diagnostics;

namespace Causeway.Server.Queues;

/// <summary>
/// Says who may touch a queue. The thread whose turn it is pops, executes and returns requests without any lock. Before it
/// executes a request it marks the turn as busy; when one request takes long, the stall monitor takes the turn away and
/// gives it to another thread, and the late thread notices when it is done.
/// </summary>
/// <remarks>
/// <code>
/// owner            24 ── Enter ──▶ 25 ── TryLeave ──▶ 26 ── Enter ──▶ 27 ── ...
/// monitor                          25 ── TryTakeAway ──▶ 26, which is now the next owner's
/// late owner                                             TryLeave finds 26 instead of 25: it lost the turn
/// </code>
/// Every value occurs once, so that a turn taken away and given on is never mistaken for one's own. Both ways out of a busy
/// turn are a compare-exchange, a full fence: what the old owner did before is visible to the new one.
/// </remarks>
internal struct Turn
{
    private long _value;

    /// <summary>Whether a request is being executed.</summary>
    public static bool IsBusy(long value) => (value & 1) != 0;

    /// <summary>The value at this moment, for the monitor.</summary>
    public long Read() => Volatile.Read(ref _value);

    /// <summary>The owner begins to execute a request.</summary>
    public long Enter()
    {
        Debug.Assert(!IsBusy(_value), "only the owner enters, and one request at a time");
        long busy = _value + 1;
        // Pairs with Read in the monitor: what the owner staged before is there when the mark is seen.
        Volatile.Write(ref _value, busy);
        return busy;
    }

    /// <summary>The owner has executed a request.</summary>
    /// <param name="busy">What <see cref="Enter"/> returned.</param>
    /// <returns>False when the turn was taken away: the caller must not touch the queue any more.</returns>
    public bool TryLeave(long busy) => Interlocked.CompareExchange(ref _value, busy + 1, busy) == busy;

    /// <summary>Takes the turn from an owner that has been busy for too long.</summary>
    /// <param name="busy">The value that was seen.</param>
    /// <returns>True when the turn was taken; it belongs to the caller, who gives it on.</returns>
    public bool TryTakeAway(long busy) => Interlocked.CompareExchange(ref _value, busy + 1, busy) == busy;
}
