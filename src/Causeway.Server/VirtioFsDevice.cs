using System.Diagnostics;
using Causeway.Fuse;
using Causeway.Server.Queues;
using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Extensions.Logging;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Server;

/// <summary>
/// The virtio-fs device (virtio 1.4, 5.11): one high-priority queue, the request queues, and the guest's FUSE session.
/// Queues are configured by the control thread and served by their own.
/// </summary>
internal sealed class VirtioFsDevice : IVhostUserDevice, IDisposable
{
    // One high-priority queue, one for notifications when it is offered, and the request queues.
    private const int MaxQueues = 1 + VirtioFsServerOptions.MaxRequestQueues;

    private const int HighPriorityQueueIndex = 0;

    // Of the notification queue, with a driver that accepted the feature; else this is the first request queue.
    private const int NotificationQueueIndex = 1;

    // With this many descriptors a guest can send requests of 1 MiB; QEMU's device allows no more (its VIRTQUEUE_MAX_SIZE).
    private const int MaxDescriptors = 1024;

    private readonly FuseSession _session;
    private readonly string _name;
    private readonly byte[] _configuration;
    private readonly InFlightBudget _budget;
    private readonly StallMonitor _monitor;
    private readonly PollingSeats _polling;
    private readonly ILogger _logger;
    private readonly NotificationSender? _notifications;
    private readonly FuseFileSystem _fileSystem;
    private bool _hasNotifications;
    private readonly DaxWindow? _window;
    private readonly VersionRegion? _versions;
    private int _runningRings;

    // Made when a queue is first used, and then kept: front ends come and go, threads and descriptors stay the same.
    private readonly QueueWorker?[] _workers;
    private readonly FuseDeviceWorker?[] _connections = new FuseDeviceWorker?[FuseDeviceDescription.Most];

    /// <summary>Makes a device.</summary>
    /// <param name="name">What its queues are called after, or nothing when there is only one device.</param>
    /// <param name="session">The guest's session.</param>
    /// <param name="fileSystem">What the session serves.</param>
    /// <param name="window">Its DAX window, if it has one.</param>
    /// <param name="versions">The version table as the guest sees it; null for none.</param>
    /// <param name="options">How it is offered.</param>
    /// <param name="polling">How many threads may look at rings, all devices together.</param>
    /// <param name="logger">Where messages go.</param>
    public VirtioFsDevice(
        string name,
        FuseSession session,
        FuseFileSystem fileSystem,
        DaxWindow? window,
        VersionRegion? versions,
        VirtioFsServerOptions options,
        PollingSeats polling,
        ILogger logger)
    {
        _name = name;
        _session = session;
        _fileSystem = fileSystem;
        _window = window;
        _versions = versions;
        ulong windowSize = window?.Size ?? 0;
        SharedMemorySizes = [windowSize, versions?.SizeBeside(windowSize) ?? 0];
        _configuration = options.Tag is { } tag
            ? DeviceConfiguration.Create(tag, options.RequestQueues, options.Notifications)
            : [];
        _logger = logger;
        _notifications = options.Notifications ? new NotificationSender(logger) : null;
        _polling = polling;
        _workers = new QueueWorker?[QueueCount];
        _budget = new InFlightBudget(options.MaxInFlightBytes, _workers);
        _monitor = new StallMonitor([_workers, _connections], _session, logger);
    }

    /// <inheritdoc/>
    public VirtioFeatures DeviceFeatures =>
        VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex | VirtioFeatures.PackedRing
        | (_notifications is null ? VirtioFeatures.None : VirtioFeatures.FsNotification);

    /// <inheritdoc/>
    public int QueueCount => _notifications is null ? MaxQueues : MaxQueues + 1;

    /// <inheritdoc/>
    public int MaxQueueSize => MaxDescriptors;

    /// <inheritdoc/>
    public int ConfigSize => _configuration.Length;

    /// <inheritdoc/>
    public void ReadConfig(int offset, Span<byte> destination) =>
        _configuration.AsSpan(offset, destination.Length).CopyTo(destination);

    /// <inheritdoc/>
    public IReadOnlyList<ulong> SharedMemorySizes { get; }

    /// <inheritdoc/>
    public void UpdateSharedMemory(BackendChannel? channel)
    {
        _window?.Connect(channel, isRunning: _runningRings > 0);
        _versions?.Connect(channel, isRunning: _runningRings > 0);
    }

    /// <inheritdoc/>
    public bool IsSharedMemory(SafeFileHandle file, ulong offset) => _window?.Recognizes(file, offset) ?? false;

    /// <summary>What the queues' requests were, most frequent first, for an operator.</summary>
    public string DescribeCounters()
    {
        IEnumerable<string> counts =
            from opcode in Enum.GetValues<FuseOpcode>()
            let count = CountRequests(opcode)
            where count != 0
            orderby count descending
            select $"{opcode} {count}";
        return string.Join(", ", counts.DefaultIfEmpty("none"));
    }

    /// <inheritdoc/>
    // Each ring brings its own features along when it starts; this one says what ring 1 is.
    public void OnFeaturesNegotiated(VirtioFeatures features) =>
        _hasNotifications = _notifications is not null && (features & VirtioFeatures.FsNotification) != 0;

    /// <inheritdoc/>
    public void StartRing(in RingSetup setup)
    {
        RingLocation location = setup.Location;
        var start = new DeviceQueueStart(ToQueueFeatures(setup.Features), setup.Base);
        DeviceQueue queue = DeviceQueue.Create(location.Queue, setup.Memory, start);
        queue.SetDirtyLog(location.Log, location.UsedLogAddress);
        _window?.Open();
        _versions?.Open();
        _runningRings++;
        if (IsNotificationQueue(location.Index))
        {
            _notifications!.Start(queue, setup);
            _fileSystem.StartNotifications(_notifications);
            return;
        }

        WorkerOf(location.Index).Start(queue, setup);
    }

    /// <inheritdoc/>
    public uint StopRing(int index)
    {
        _runningRings--;
        _window?.Close(isLast: _runningRings == 0);
        _versions?.Close(isLast: _runningRings == 0);
        if (!IsNotificationQueue(index))
        {
            uint nextRequest = WorkerOf(index).Stop();
            Debug.Assert(_runningRings > 0 || _budget.Used == 0, "what is not in work takes nothing");
            return nextRequest;
        }

        // First the queue, so that a thread that waits for room in it gets on.
        uint next = _notifications!.Stop();
        _fileSystem.StopNotifications();
        return next;
    }

    /// <inheritdoc/>
    public void UpdateMemory(in MemoryUpdate update)
    {
        foreach (RingLocation location in update.RunningRings)
        {
            if (IsNotificationQueue(location.Index))
            {
                _notifications!.Move(location, update.Memory);
            }
            else
            {
                WorkerOf(location.Index).Move(location, update.Memory);
            }
        }
    }

    /// <inheritdoc/>
    public bool TakesFuseDevices => true;

    /// <inheritdoc/>
    public string? AddFuseDevice(FuseDeviceSetup setup)
    {
        int index = Array.FindIndex(_connections, connection => connection is not { IsStarted: true });
        string? refusal = index < 0 ? $"it serves {FuseDeviceDescription.Most} already"
            : setup.Description.Caching > (uint)ReplyCaching.Always ? $"there is no cache mode {setup.Description.Caching}"
            : (setup.Description.Flags & ~FuseDeviceFlags.NeverPolls) != 0 ? $"the flags {setup.Description.Flags} are not known"
            : null;
        if (refusal is not null)
        {
            setup.Dispose();
            return refusal;
        }

        string name = $"{_name}fuse:{index}";
        FuseDeviceWorker worker = _connections[index] ??= new FuseDeviceWorker(name, _session, _monitor, _polling, _logger);
        worker.Start(setup);
        Log.ConnectionStarted(_logger, name);
        return null;
    }

    /// <inheritdoc/>
    public void Reset()
    {
        StopConnections();
        _session.Reset();
    }

    /// <inheritdoc/>
    public void Disconnected()
    {
        StopConnections();
        _session.Reset();
        _window?.Disconnect();
        _versions?.Disconnect();
    }

    /// <summary>How many requests of a kind the queues have seen.</summary>
    public long CountRequests(FuseOpcode opcode)
    {
        long sum = 0;
        foreach (RequestWorker? worker in (IEnumerable<RequestWorker?>)[.. _workers, .. _connections])
        {
            sum += worker?.Counters.Requests(opcode) ?? 0;
        }

        return sum;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _monitor.Dispose();
        foreach (RequestWorker? worker in (IEnumerable<RequestWorker?>)[.. _workers, .. _connections])
        {
            worker?.Dispose();
        }

        _notifications?.Dispose();
    }

    private void StopConnections()
    {
        foreach (FuseDeviceWorker? connection in _connections)
        {
            connection?.Stop();
        }
    }

    private bool IsNotificationQueue(int index) => _hasNotifications && index == NotificationQueueIndex;

    // The high-priority queue never waits: FORGET and INTERRUPT end what others wait for.
    private QueueWorker WorkerOf(int index)
    {
        bool isHighPriority = index == HighPriorityQueueIndex;
        return _workers[index] ??= new QueueWorker(
            $"{_name}vq:{index}",
            _session,
            isHighPriority ? null : _budget,
            _monitor,
            isHighPriority ? null : _polling,
            isHighPriority ? null : WorkerOf(HighPriorityQueueIndex),
            _logger);
    }

    private static QueueFeatures ToQueueFeatures(VirtioFeatures features) =>
        (QueueFeatures)features & (QueueFeatures.IndirectDescriptors | QueueFeatures.EventIndex | QueueFeatures.PackedRing);
}
