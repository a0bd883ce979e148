using System.Runtime.CompilerServices;
using Causeway.Fuse;
using Causeway.Virtio;

namespace Causeway.Server.Queues;

/// <summary>
/// Everything one request in flight needs, made once and used again: a queue has as many as it ever had requests in flight
/// at the same time.
/// </summary>
internal sealed class RequestSlot
{
    private readonly QueueWorker _worker;
    private readonly Action _continuation;
    private ValueTask<int> _pending;

    public RequestSlot(QueueWorker worker, QueueWaits waits)
    {
        Request = new FuseRequest(worker.Counters, waits);
        _worker = worker;
        _continuation = Complete;
    }

    /// <summary>The descriptors of the request.</summary>
    public DescriptorChain Chain { get; } = new();

    /// <summary>The request.</summary>
    public FuseRequest Request { get; }

    /// <summary>How many bytes of the reply were written; becomes the used length.</summary>
    public int Written { get; set; }

    /// <summary>Whether the request is the one of its queue that needs no room in the session's budget.</summary>
    public bool IsFirst { get; set; }

    /// <summary>What the request has taken of the session's budget, in bytes.</summary>
    public long Cost { get; set; }

    /// <summary>Whether the slot is one of those that keep the memory of long requests.</summary>
    public bool MayBeLong { get; set; }

    /// <summary>The next slot in whichever list this one is in.</summary>
    public RequestSlot? Next { get; set; }

    /// <summary>Has the slot return its chain to the worker, from whatever thread, once the request completes.</summary>
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
