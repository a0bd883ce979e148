using Causeway.Fuse;
using Causeway.Virtio;

namespace Causeway.Server.Queues;

/// <summary>The slot of a request that came through a virtqueue.</summary>
internal sealed class ChainSlot(QueueWorker worker, QueueWaits waits) : RequestSlot(worker, waits)
{
    /// <summary>The descriptors of the request.</summary>
    public DescriptorChain Chain { get; } = new();

    /// <summary>Whether the request is the one of its queue that needs no room in the session's budget.</summary>
    public bool IsFirst { get; set; }

    /// <summary>What the request has taken of the session's budget, in bytes.</summary>
    public long Cost { get; set; }

    /// <summary>Whether the slot is one of those that keep the memory of long requests.</summary>
    public bool MayBeLong { get; set; }
}
