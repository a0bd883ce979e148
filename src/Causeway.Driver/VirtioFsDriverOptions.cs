namespace Causeway.Driver;

/// <summary>How a driver uses a device.</summary>
public sealed record VirtioFsDriverOptions
{
    /// <summary>How many request queues to use; fewer when the device has fewer. Default 1.</summary>
    public int RequestQueues { get; init; } = 1;

    /// <summary>Descriptors per queue, a power of two from 2 to 1024. Default 256.</summary>
    public int QueueSize { get; init; } = 256;

    /// <summary>
    /// Whether queues are packed rings (VIRTIO_F_RING_PACKED) where the device offers them: with fewer cache lines to move, which is
    /// worth most when both sides look by themselves and little is in flight. Default true.
    /// </summary>
    public bool UsesPackedRings { get; init; } = true;

    /// <summary>How many requests a queue can have in flight. Default 64. Each reserves 2 MiB, touched as used.</summary>
    public int RequestsPerQueue { get; init; } = 64;

    /// <summary>
    /// The longest request and the longest reply, in bytes. Default: 1 MiB of data and the structures around it.
    /// </summary>
    public int MaxMessage { get; init; } = (1 << 20) + 4096;

    /// <summary>How long to wait for a reply before the device counts as dead. Default one minute.</summary>
    public TimeSpan ReplyTimeout { get; init; } = TimeSpan.FromMinutes(1);

    /// <summary>How long the device may take for each step of setting up. Default 10 seconds.</summary>
    public TimeSpan SetUpTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>
    /// Whether the device may send requests of its own, which is how it maps files into shared memory. What they ask for is
    /// done by who has <see cref="VirtioFsDriver.Frontend"/>. Default true.
    /// </summary>
    public bool OffersBackendRequests { get; init; } = true;

    /// <summary>
    /// Takes the device's notifications, on a thread of its own. Default null: the notification queue is not negotiated.
    /// </summary>
    public FuseNotificationHandler? OnNotification { get; init; }

    /// <summary>Whether to open the region of the device's version table, if it has one. Default: no.</summary>
    internal bool OpensVersionTable { get; init; }
}
