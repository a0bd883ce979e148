using Causeway.Fuse;
using Causeway.Server.Queues;
using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Extensions.Logging;

namespace Causeway.Server;

/// <summary>
/// The virtio-fs device (virtio 1.4, 5.11): one high-priority queue, the request queues, and the guest's FUSE session.
/// Queues are configured by the control thread and served by their own.
/// </summary>
internal sealed class VirtioFsDevice : IVhostUserDevice, IDisposable
{
    // One high-priority queue and the request queues. There is no notification queue yet.
    private const int MaxQueues = 1 + VirtioFsServerOptions.MaxRequestQueues;

    // With this many descriptors a guest can send requests of 1 MiB; QEMU's device allows no more (its VIRTQUEUE_MAX_SIZE).
    private const int MaxDescriptors = 1024;

    private readonly FuseSession _session;
    private readonly byte[] _configuration;
    private readonly StallMonitor _monitor;
    private readonly ILogger _logger;

    // Made when a queue is first used, and then kept: front ends come and go, threads and descriptors stay the same.
    private readonly QueueWorker?[] _workers = new QueueWorker?[MaxQueues];

    public VirtioFsDevice(FuseSession session, VirtioFsServerOptions options, ILogger logger)
    {
        _session = session;
        _configuration = options.Tag is { } tag ? DeviceConfiguration.Create(tag, options.RequestQueues) : [];
        _logger = logger;
        _monitor = new StallMonitor(_workers, logger);
    }

    /// <inheritdoc/>
    public VirtioFeatures DeviceFeatures =>
        VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex;

    /// <inheritdoc/>
    public int QueueCount => MaxQueues;

    /// <inheritdoc/>
    public int MaxQueueSize => MaxDescriptors;

    /// <inheritdoc/>
    public int ConfigSize => _configuration.Length;

    /// <inheritdoc/>
    public void ReadConfig(int offset, Span<byte> destination) =>
        _configuration.AsSpan(offset, destination.Length).CopyTo(destination);

    /// <inheritdoc/>
    public void OnFeaturesNegotiated(VirtioFeatures features)
    {
        // Each ring brings its features along when it starts.
    }

    /// <inheritdoc/>
    public void StartRing(in RingSetup setup)
    {
        RingLocation location = setup.Location;
        var start = new DeviceQueueStart(ToQueueFeatures(setup.Features), setup.NextAvailable);
        var queue = new SplitDeviceQueue(location.Queue, setup.Memory, start);
        queue.SetDirtyLog(location.Log, location.UsedLogAddress);
        WorkerOf(location.Index).Start(queue, setup);
    }

    /// <inheritdoc/>
    public ushort StopRing(int index) => WorkerOf(index).Stop();

    /// <inheritdoc/>
    public void UpdateMemory(in MemoryUpdate update)
    {
        foreach (RingLocation location in update.RunningRings)
        {
            WorkerOf(location.Index).Move(location, update.Memory);
        }
    }

    /// <inheritdoc/>
    public void Reset() => _session.Reset();

    /// <inheritdoc/>
    public void Disconnected() => _session.Reset();

    /// <inheritdoc/>
    public void Dispose()
    {
        _monitor.Dispose();
        foreach (QueueWorker? worker in _workers)
        {
            worker?.Dispose();
        }
    }

    private QueueWorker WorkerOf(int index) =>
        _workers[index] ??= new QueueWorker($"vq:{index}", _session, _monitor, _logger);

    private static QueueFeatures ToQueueFeatures(VirtioFeatures features) =>
        (QueueFeatures)features & (QueueFeatures.IndirectDescriptors | QueueFeatures.EventIndex);
}
