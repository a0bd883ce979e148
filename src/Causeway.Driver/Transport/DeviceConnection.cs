using System.Buffers.Binary;
using System.Text;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver;

/// <summary>What becomes of the DAX window (shared memory) that a device may have.</summary>
internal enum WindowUse
{
    /// <summary>It is not asked for.</summary>
    None,

    /// <summary>It is opened before the queues start, and the back end can have files mapped into it.</summary>
    Open,

    /// <summary>It is negotiated, and the rest is left to who has the control connection.</summary>
    Negotiate,
}

/// <summary>What a driver wants of a device.</summary>
internal readonly record struct ConnectionOptions
{
    /// <summary>What becomes of the device's DAX window.</summary>
    public required WindowUse Window { get; init; }

    /// <summary>Whether to open the region of the device's version table, if it has one.</summary>
    public bool OpensVersionTable { get; init; }

    /// <summary>Takes notifications; null: their queue is not negotiated.</summary>
    public required FuseNotificationHandler? OnNotification { get; init; }

    /// <summary>How long the device may take for each step of setting up.</summary>
    public required TimeSpan SetUpTimeout { get; init; }

    /// <summary>Descriptors per queue.</summary>
    public required int QueueSize { get; init; }

    /// <summary>Whether queues are packed rings where the device offers them.</summary>
    public required bool UsesPackedRings { get; init; }

    /// <summary>The most pieces a request is made of.</summary>
    public required int MaxPieces { get; init; }
}

/// <summary>
/// The connection of a driver with its device (virtio 1.4, 5.11), whoever the driver is: features, configuration space,
/// guest memory, the notification queue, the threads, and the loss of the device.
/// </summary>
/// <remarks>
/// Request queues belong to its two users, because they differ in who waits for what: <see cref="VirtioFsTransport"/> has
/// many threads that submit and one per queue that completes; <see cref="VirtioFsDriver"/> has one per queue that does both.
/// </remarks>
internal sealed class DeviceConnection : IDisposable
{
    // struct virtio_fs_config (virtio 1.4, 5.11.4): the tag, then the number of request queues, little-endian.
    private const int TagBytes = 36;
    private const int ConfigBytes = TagBytes + sizeof(uint);

    private const VirtioFeatures RingFeatures =
        VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex | VirtioFeatures.PackedRing;

    private readonly ConnectionOptions _options;
    private readonly SafeFileHandle _errorEvent = Events.CreateEvent();
    private readonly SafeFileHandle _lossEvent = Events.CreateEvent();
    private readonly List<Thread> _threads = [];
    private readonly Lock _lossGate = new();
    private readonly string _where;
    private NotificationQueue? _notifications;
    private SharedMemoryRegion? _window;
    private SharedMemoryRegion? _versionTable;
    private volatile VirtioFsDeviceException? _loss;
    private Action<VirtioFsDeviceException>? _whenLost;

    private DeviceConnection(VhostUserFrontend frontend, string where, ConnectionOptions options)
    {
        Frontend = frontend;
        _where = where;
        _options = options;
        Negotiate();
        AvailableRequestQueues = CountQueues();
        Ring = new DriverQueueOptions(
            options.QueueSize, (QueueFeatures)(frontend.NegotiatedFeatures & RingFeatures), options.MaxPieces);

        // Last, because it is more than the connection: what fails before has only that to close.
        _window = options.Window == WindowUse.Open ? frontend.OpenSharedMemory() : null;
        try
        {
            _versionTable = options.OpensVersionTable
                ? frontend.OpenSharedMemory(VersionTableLayout.RegionId, SharedMemoryUse.ReadOnly)
                : null;
        }
        catch
        {
            _window?.Dispose();
            throw;
        }
    }

    /// <summary>The control connection.</summary>
    internal VhostUserFrontend Frontend { get; }

    /// <summary>The tag the device announces; null when it leaves naming to the front end.</summary>
    internal string? Tag { get; private set; }

    /// <summary>Whether the device has a notification queue and it is in use.</summary>
    internal bool HasNotifications { get; private set; }

    /// <summary>How many request queues the device has.</summary>
    internal int AvailableRequestQueues { get; }

    /// <summary>The number of the first request queue at the device.</summary>
    internal int FirstRequestQueue => HasNotifications ? 2 : 1;

    /// <summary>The shape of the queues.</summary>
    internal DriverQueueOptions Ring { get; }

    /// <summary>Whether the device has a DAX window, and it was to be opened.</summary>
    internal bool HasWindow => _window is not null;

    /// <summary>Whether the device has a version table, and its region was to be opened.</summary>
    internal bool HasVersionTable => _versionTable is not null;

    /// <summary>Why the device is lost; null while it is not.</summary>
    internal VirtioFsDeviceException? Loss => _loss;

    /// <summary>Connects to a daemon that listens, and negotiates.</summary>
    /// <exception cref="VirtioFsDeviceException">What answers is no virtio-fs device.</exception>
    internal static DeviceConnection Connect(string socketPath, ConnectionOptions options) =>
        Open(VhostUserFrontend.Connect(socketPath), $"'{socketPath}'", options);

    /// <summary>Negotiates over a connection that exists; it is owned from here on.</summary>
    internal static DeviceConnection Open(VhostUserFrontend frontend, string where, ConnectionOptions options)
    {
        try
        {
            frontend.ReplyTimeout = options.SetUpTimeout;
            return new DeviceConnection(frontend, where, options);
        }
        catch (VhostUserException exception)
        {
            frontend.Dispose();
            throw NotADevice(where, exception);
        }
        catch
        {
            frontend.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Closes the connection and waits for the threads; the thread that calls may be one of them. Guest memory stays.
    /// </summary>
    public void Dispose()
    {
        Lose(Closed());
        foreach (Thread thread in _threads)
        {
            if (thread != Thread.CurrentThread)
            {
                thread.Join();
            }
        }

        Frontend.Dispose();
        TakeWindow()?.Dispose();
        TakeVersionTable()?.Dispose();
        _notifications?.Dispose();
        _errorEvent.Dispose();
        _lossEvent.Dispose();
    }

    /// <summary>Makes guest memory: what the caller needs, and what the notification queue does.</summary>
    /// <param name="bytes">What the caller needs.</param>
    /// <param name="hugePages">Whether to try huge pages.</param>
    /// <returns>The memory, which the caller owns, and which outlives the connection.</returns>
    internal GuestArena MakeMemory(ulong bytes, HugePageUse hugePages)
    {
        ulong notifications = HasNotifications ? DriverRing.Footprint(Ring) + NotificationQueue.BufferFootprint : 0;
        var arena = new GuestArena(bytes + notifications, hugePages);
        if (HasNotifications)
        {
            _notifications = new NotificationQueue(new DriverRing(arena, 1, Ring), arena, _options.OnNotification!);
        }

        return arena;
    }

    /// <summary>Shares the memory with the device, and starts the queues.</summary>
    /// <param name="arena">The memory.</param>
    /// <param name="rings">The queues, except that of notifications.</param>
    /// <exception cref="VirtioFsDeviceException">What answers is no virtio-fs device.</exception>
    internal void Start(GuestArena arena, IEnumerable<DriverRing> rings)
    {
        try
        {
            Frontend.ShareMemory(arena.Region);
            foreach (DriverRing ring in rings)
            {
                Frontend.StartRing(ring.Describe(arena, _errorEvent));
            }

            if (_notifications is { } notifications)
            {
                notifications.Post();
                Frontend.StartRing(notifications.Ring.Describe(arena, _errorEvent));
            }
        }
        catch (VhostUserException exception)
        {
            throw NotADevice(_where, exception);
        }

        // Stopping a ring waits for its requests.
        Frontend.ReplyTimeout = TimeSpan.FromSeconds(60);
    }

    /// <summary>Starts to handle notifications, once everybody is there who may be told of the loss of the device.</summary>
    internal void StartNotifications()
    {
        if (_notifications is { } notifications)
        {
            StartThread("vfs-notify", () => LoseIfBroken(notifications.Run(), notifications.Ring.Index));
        }
    }

    /// <summary>Takes the DAX window over, which from then on is the caller's to dispose of.</summary>
    internal SharedMemoryRegion? TakeWindow() => Interlocked.Exchange(ref _window, null);

    /// <summary>Takes the region of the version table over, which from then on is the caller's to dispose of.</summary>
    internal SharedMemoryRegion? TakeVersionTable() => Interlocked.Exchange(ref _versionTable, null);

    /// <summary>Starts a queue again that was stopped.</summary>
    internal void Restart(GuestArena arena, DriverRing ring, uint start) =>
        Frontend.StartRing(ring.Describe(arena, _errorEvent) with { Base = start });

    /// <summary>Stops the notification queue at the device; notifications that it has told of are still handled.</summary>
    internal void StopNotifications()
    {
        if (_notifications is not null)
        {
            Frontend.StopRing(_notifications.Ring.Index);
        }
    }

    /// <summary>Starts a thread that belongs to the connection; it is to end when the device is lost.</summary>
    /// <remarks>One that ends by an exception takes the device along: waiting for it would be without end.</remarks>
    internal void StartThread(string name, Action run)
    {
        var thread = new Thread(() => RunGuarded(run)) { IsBackground = true, Name = name };
        _threads.Add(thread);
        thread.Start();
    }

    /// <summary>Whether the current thread is one of the connection's.</summary>
    internal bool IsOnOwnThread() => _threads.Contains(Thread.CurrentThread);

    /// <summary>Loses the device unless a thread that watched a queue ended because it was told to.</summary>
    internal void LoseIfBroken(bool wasStopped, int queue)
    {
        if (!wasStopped)
        {
            Lose(Broken(queue));
        }
    }

    /// <summary>The loss of a device that is not needed any more.</summary>
    internal static VirtioFsDeviceException Closed() =>
        new(DeviceFailure.Closed, "the connection to the device was closed by this side");

    /// <summary>The loss of a device that contradicts the virtio specification.</summary>
    internal static VirtioFsDeviceException Broken(int queue) => new(
        DeviceFailure.BrokenQueue,
        $"the device broke queue {queue}: its used ring contradicts what was submitted; restart the daemon");

    /// <summary>The device is not used any more. The first reason counts; who wants to is told of it.</summary>
    internal void Lose(VirtioFsDeviceException loss)
    {
        Action<VirtioFsDeviceException>? whenLost;
        lock (_lossGate)
        {
            if (_loss is not null)
            {
                return;
            }

            _loss = loss;
            whenLost = _whenLost;

            // Inside, so that nobody closes these who finds the device lost already.
            Events.Signal(Number(_lossEvent));
            _notifications?.Stop();
        }

        whenLost?.Invoke(loss);
    }

    /// <summary>Names who is told why the device is lost: once, on the thread that noticed; now when it is lost already.</summary>
    internal void WhenLost(Action<VirtioFsDeviceException> handler)
    {
        VirtioFsDeviceException? loss;
        lock (_lossGate)
        {
            loss = _loss;
            _whenLost = handler;
        }

        if (loss is not null)
        {
            handler(loss);
        }
    }

    /// <summary>Sleeps until the device is lost, or something else happens.</summary>
    /// <param name="other">An event; who calls sets it back.</param>
    /// <param name="timeoutMilliseconds">How long at most; <see cref="Poll.Forever"/> for without end.</param>
    /// <returns>Why the device is lost; null when it is not.</returns>
    internal VirtioFsDeviceException? Watch(SafeFileHandle other, int timeoutMilliseconds)
    {
        Span<PollDescriptor> waits =
        [
            new PollDescriptor(Number(_lossEvent), PollEvents.Readable),
            new PollDescriptor(Number(Frontend.Socket), PollEvents.PeerClosed),
            new PollDescriptor(Number(_errorEvent), PollEvents.Readable),
            new PollDescriptor(Number(other), PollEvents.Readable),
        ];
        if (_loss is null)
        {
            Poll.Wait(waits, timeoutMilliseconds).ThrowIfError("wait for the device");
            if (waits[1].Returned != 0)
            {
                Lose(new VirtioFsDeviceException(
                    DeviceFailure.Disconnected,
                    $"the daemon at {_where} has closed the connection; pending requests may or may not have been carried out"));
            }
            else if (waits[2].Returned != 0)
            {
                Lose(new VirtioFsDeviceException(
                    DeviceFailure.BrokenQueue,
                    $"the device at {_where} reports that it cannot go on with a queue; see its log"));
            }
        }

        return _loss;
    }

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    private static VirtioFsDeviceException NotADevice(string where, VhostUserException exception) => new(
        DeviceFailure.NotVirtioFs,
        $"{where} is not a vhost-user device: {exception.Message}; give the socket of a virtio-fs daemon that no "
        + "virtual machine uses",
        exception);

    private void RunGuarded(Action run)
    {
        try
        {
            run();
        }
        catch (Exception exception)
        {
            Lose(new VirtioFsDeviceException(
                DeviceFailure.Closed,
                $"{Thread.CurrentThread.Name} ended by an exception, so the device is not used any more: {exception.Message}",
                exception));
        }
    }

    private void Negotiate()
    {
        var wanted = new FrontendOptions();

        // Where nobody would read what the back end asks for, it is not to ask.
        VhostUserProtocolFeatures unwanted = _options.Window == WindowUse.None && !_options.OpensVersionTable
            ? VhostUserProtocolFeatures.BackendRequests | VhostUserProtocolFeatures.BackendSendsDescriptors
            : VhostUserProtocolFeatures.None;
        Frontend.Negotiate(wanted with
        {
            Features = (_options.UsesPackedRings ? wanted.Features : wanted.Features & ~VirtioFeatures.PackedRing)
                | (_options.OnNotification is null ? VirtioFeatures.None : VirtioFeatures.FsNotification),
            ProtocolFeatures = wanted.ProtocolFeatures & ~unwanted,
        });
        if ((Frontend.NegotiatedFeatures & VirtioFeatures.Version1) == 0)
        {
            throw new VirtioFsDeviceException(
                DeviceFailure.NotVirtioFs, "the device does not offer VIRTIO_F_VERSION_1, so it is not a virtio-fs device");
        }

        HasNotifications = (Frontend.NegotiatedFeatures & VirtioFeatures.FsNotification) != 0;
    }

    /// <summary>Reads the configuration space, and says how many request queues there are.</summary>
    private int CountQueues()
    {
        // A back end that does not tell has at least one of each kind.
        int others = FirstRequestQueue;
        int available = Frontend.QueueCount == 0 ? 1 : Frontend.QueueCount - others;
        if (available < 1)
        {
            throw new VirtioFsDeviceException(
                DeviceFailure.NotVirtioFs,
                $"the device has {Frontend.QueueCount} queues, and a virtio-fs device has at least {others + 1}");
        }

        return TryReadConfig() is { } announced ? (int)Math.Min((uint)available, announced) : available;
    }

    /// <returns>How many request queues the device announces; null when it has no configuration space.</returns>
    private uint? TryReadConfig()
    {
        if ((Frontend.NegotiatedProtocolFeatures & VhostUserProtocolFeatures.Config) == 0)
        {
            return null;
        }

        Span<byte> config = stackalloc byte[ConfigBytes];
        try
        {
            Frontend.GetConfig(0, config);
        }
        catch (VhostUserRefusedException)
        {
            // The daemon leaves tag and number of queues to the front end.
            return null;
        }

        ReadOnlySpan<byte> tag = config[..TagBytes];
        int end = tag.IndexOf((byte)0);
        tag = end < 0 ? tag : tag[..end];
        uint queues = BinaryPrimitives.ReadUInt32LittleEndian(config[TagBytes..]);
        if (tag.IsEmpty && queues == 0)
        {
            // Some back ends answer with zeros instead of refusing.
            return null;
        }

        if (tag.IsEmpty || tag.ContainsAnyInRange((byte)1, (byte)0x1F) || queues == 0)
        {
            throw new VirtioFsDeviceException(
                DeviceFailure.NotVirtioFs,
                $"the configuration space is not that of a virtio-fs device: tag of {tag.Length} bytes, {queues} queues");
        }

        Tag = Encoding.UTF8.GetString(tag);
        return queues;
    }
}
