using Causeway.Fuse;

namespace Causeway.Driver;

/// <summary>Whether guest memory is made of huge pages.</summary>
public enum HugePageUse
{
    /// <summary>Huge pages when the host has enough of them reserved (vm.nr_hugepages), ordinary pages otherwise.</summary>
    WhenAvailable,

    /// <summary>Ordinary pages.</summary>
    Never,
}

/// <summary>Takes a notification of the device, on a thread of its own, one after the other.</summary>
/// <param name="code">What it is about; any number is possible.</param>
/// <param name="payload">What follows the header; hostile, but a private copy. Valid during the call.</param>
public delegate void FuseNotificationHandler(FuseNotifyCode code, ReadOnlySpan<byte> payload);

/// <summary>How a <see cref="VirtioFsTransport"/> uses a device.</summary>
public sealed record VirtioFsTransportOptions
{
    /// <summary>
    /// Most request queues to use; the device may have fewer. Default: one per processor, at most 8. Each has a thread
    /// that completes its requests.
    /// </summary>
    public int MaxRequestQueues { get; init; } = Math.Min(Environment.ProcessorCount, 8);

    /// <summary>Descriptors per queue, a power of two from 4 to 1024. Default 256.</summary>
    public int QueueSize { get; init; } = 256;

    /// <summary>
    /// Whether queues are packed rings (VIRTIO_F_RING_PACKED) where the device offers them: with fewer cache lines to move, which is
    /// worth most when both sides look by themselves and little is in flight. Default true.
    /// </summary>
    public bool UsesPackedRings { get; init; } = true;

    /// <summary>How many requests can be in flight, all queues together. Default 256; 8 KiB of guest memory each.</summary>
    public int Calls { get; init; } = 256;

    /// <summary>How many payload buffers there are. Default 32. Memory is used once a buffer has been.</summary>
    public int PayloadBuffers { get; init; } = 32;

    /// <summary>
    /// Bytes of a payload buffer, a multiple of 4096: the longest READ and WRITE, at most. Default 1 MiB, what Linux guests
    /// send.
    /// </summary>
    public int PayloadBytes { get; init; } = 1 << 20;

    /// <summary>How many cache buffers there are besides: smaller ones, that the caller keeps for long. Default none.</summary>
    public int CacheBuffers { get; init; }

    /// <summary>Bytes of a cache buffer, a multiple of 4096. Default 128 KiB.</summary>
    public int CacheBufferBytes { get; init; } = 128 << 10;

    /// <summary>Whether to use huge pages. Default: when the host has reserved enough.</summary>
    public HugePageUse HugePages { get; init; } = HugePageUse.WhenAvailable;

    /// <summary>Whether to open the device's DAX window, if it has one. Default: no.</summary>
    internal bool OpensWindow { get; init; }

    /// <summary>Whether to open the region of the device's version table, if it has one. Default: no.</summary>
    internal bool OpensVersionTable { get; init; }

    /// <summary>
    /// Takes the device's notifications. Default null: the notification queue is not negotiated. It may block, and it may
    /// send requests.
    /// </summary>
    public FuseNotificationHandler? OnNotification { get; init; }

    /// <summary>
    /// Called once when the device is lost, after every pending request has failed, on a thread of the transport. Default
    /// null.
    /// </summary>
    public Action<VirtioFsDeviceException>? OnLost { get; init; }

    /// <summary>How long the device may take for each step of setting up. Default 10 seconds.</summary>
    public TimeSpan SetUpTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>
    /// How long the device may take for a reply before it counts as dead; at least a second, checked every second. Default
    /// null: without end, because a lock may be waited for without end.
    /// </summary>
    public TimeSpan? ReplyTimeout { get; init; }

    internal void Validate()
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxRequestQueues, 1);
        if (QueueSize is < 4 or > 1024 || !int.IsPow2(QueueSize))
        {
            throw new ArgumentException($"{nameof(QueueSize)} has to be a power of two from 4 to 1024.");
        }

        if (PayloadBytes < 4096 || PayloadBytes % 4096 != 0)
        {
            throw new ArgumentException($"{nameof(PayloadBytes)} has to be a multiple of 4096.");
        }

        if (CacheBufferBytes < 4096 || CacheBufferBytes % 4096 != 0)
        {
            throw new ArgumentException($"{nameof(CacheBufferBytes)} has to be a multiple of 4096.");
        }

        ArgumentOutOfRangeException.ThrowIfNegative(CacheBuffers);
        ArgumentOutOfRangeException.ThrowIfLessThan(Calls, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(PayloadBuffers, 1);
    }
}
