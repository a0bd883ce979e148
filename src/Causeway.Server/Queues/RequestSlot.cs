using System.Runtime.CompilerServices;
using Causeway.Fuse;

namespace Causeway.Server.Queues;

/// <summary>
/// Everything one request in flight needs, made once and used again: a source has as many as it ever had requests in flight
/// at the same time.
/// </summary>
internal abstract class RequestSlot
{
    private readonly RequestWorker _worker;
    private readonly Action _continuation;
    private ValueTask<int> _pending;

    protected RequestSlot(RequestWorker worker, QueueWaits waits)
    {
        Request = new FuseRequest(worker.Counters, waits);
        _worker = worker;
        _continuation = Complete;
    }

    /// <summary>The request.</summary>
    public FuseRequest Request { get; }

    /// <summary>How many bytes of the reply were written.</summary>
    public int Written { get; set; }

    /// <summary>The next slot in whichever list this one is in.</summary>
    public RequestSlot? Next { get; set; }

    /// <summary>Has the slot return to the worker, from whatever thread, once the request completes.</summary>
    public void CompleteLater(ValueTask<int> pending)
    {
        _pending = pending;
        ConfiguredValueTaskAwaitable<int>.ConfiguredValueTaskAwaiter awaiter =
            pending.ConfigureAwait(false).GetAwaiter();
        awaiter.UnsafeOnCompleted(_continuation);
    }

    // The session turns every failure into a reply, so the task cannot have failed.
    private void Complete()
    {
        Written = _pending.GetAwaiter().GetResult();
        _pending = default;
        _worker.ReturnLate(this);
    }
}

/// <summary>
/// Slots that come back from other threads than the one with the turn, in a list without lock: any thread adds one, and the thread with
/// the turn takes all.
/// </summary>
internal struct LateSlots
{
    private RequestSlot? _head;

    /// <summary>Whether there is none.</summary>
    public readonly bool IsEmpty => Volatile.Read(in _head) is null;

    /// <summary>Adds a slot.</summary>
    /// <returns>Whether it is the first: whoever takes them has to hear of it, and then takes what comes after it as well.</returns>
    public bool Add(RequestSlot slot)
    {
        RequestSlot? head = Volatile.Read(ref _head);
        while (true)
        {
            slot.Next = head;
            RequestSlot? seen = Interlocked.CompareExchange(ref _head, slot, head);
            if (seen == head)
            {
                return head is null;
            }

            head = seen;
        }
    }

    /// <summary>Takes all.</summary>
    /// <returns>The first, by which the others are linked; null for none.</returns>
    public RequestSlot? TakeAll() => IsEmpty ? null : Interlocked.Exchange(ref _head, null);
}
