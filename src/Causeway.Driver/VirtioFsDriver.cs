using Causeway.Linux;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver;

/// <summary>
/// The driver's end of a virtio-fs device (virtio 1.4, 5.11), in user space: connects to a vhost-user-fs daemon as its front
/// end, shares a block of memory with it as guest memory, and sets up the high-priority queue and the request queues.
/// </summary>
public sealed class VirtioFsDriver : IDisposable
{
    // The high-priority queue carries FORGET and INTERRUPT only, which are short.
    private const int HighPriorityMessage = 4096;

    private readonly VhostUserFrontend _frontend;
    private readonly GuestArena _arena;
    private readonly VirtioFsQueue[] _queues;
    private readonly NotificationQueue? _notifications;
    private readonly Thread? _notificationThread;
    private readonly SafeFileHandle _errorEvent = Events.CreateEvent();

    private VirtioFsDriver(VhostUserFrontend frontend, VirtioFsDriverOptions options)
    {
        _frontend = frontend;
        var wanted = new FrontendOptions();
        frontend.Negotiate(options.OnNotification is null
            ? wanted
            : wanted with { Features = wanted.Features | VirtioFeatures.FsNotification });
        HasNotifications = (frontend.NegotiatedFeatures & VirtioFeatures.FsNotification) != 0;
        int others = HasNotifications ? 2 : 1;
        if (frontend.QueueCount > others && options.RequestQueues > frontend.QueueCount - others)
        {
            options = options with { RequestQueues = frontend.QueueCount - others };
        }

        var features = (QueueFeatures)frontend.NegotiatedFeatures
            & (QueueFeatures.IndirectDescriptors | QueueFeatures.EventIndex);
        QueueShape[] shapes = Shapes(options, features);
        DriverQueueOptions ring = shapes[0].Ring with { IndirectTableEntries = 0 };
        ulong size = 0;
        foreach (QueueShape shape in shapes)
        {
            size += GuestArena.Footprint(shape.Bytes);
        }

        if (HasNotifications)
        {
            size += GuestArena.Footprint(SplitDriverQueue.GetRequiredBytes(ring)) + NotificationQueue.BufferFootprint;
        }

        _arena = new GuestArena(size, HugePageUse.Never);
        frontend.ShareMemory(_arena.Region);
        _queues = StartQueues(shapes, options);
        if (HasNotifications)
        {
            _notifications = new NotificationQueue(_arena, 1, ring, options.OnNotification!);
            _notifications.Post();
            frontend.StartRing(_notifications.Describe(_arena, _errorEvent));
            _notificationThread = new Thread(() => _notifications.Run()) { IsBackground = true, Name = "vfs-notify" };
            _notificationThread.Start();
        }
    }

    /// <summary>Whether the device tells of changes by itself: it offers that, and a handler was given.</summary>
    public bool HasNotifications { get; }

    /// <summary>The queue for FORGET, BATCH_FORGET and INTERRUPT.</summary>
    public VirtioFsQueue HighPriorityQueue => _queues[0];

    /// <summary>The request queues.</summary>
    public ReadOnlySpan<VirtioFsQueue> RequestQueues => _queues.AsSpan(1);

    /// <summary>The control connection, for what the driver does not do itself.</summary>
    public VhostUserFrontend Frontend => _frontend;

    /// <summary>Connects to a daemon and starts all queues.</summary>
    /// <param name="socketPath">The daemon's socket.</param>
    /// <param name="options">How to use the device.</param>
    /// <exception cref="IOException">Connecting or setting up failed; the message says what and why.</exception>
    public static VirtioFsDriver Connect(string socketPath, VirtioFsDriverOptions? options = null)
    {
        VhostUserFrontend frontend = VhostUserFrontend.Connect(socketPath);
        try
        {
            return new VirtioFsDriver(frontend, options ?? new VirtioFsDriverOptions());
        }
        catch
        {
            frontend.Dispose();
            throw;
        }
    }

    /// <summary>Stops the queues, as a front end does whose guest shuts down; requests in flight complete first.</summary>
    public void Stop()
    {
        for (int i = 0; i < _queues.Length; i++)
        {
            _frontend.StopRing(Number(i));
        }

        if (_notifications is not null)
        {
            _frontend.StopRing(_notifications.Index);
        }
    }

    /// <summary>Starts a queue again that the front end has stopped.</summary>
    /// <param name="index">The queue, counted from the high-priority queue.</param>
    /// <param name="nextAvailable">What stopping it returned.</param>
    public void RestartQueue(int index, ushort nextAvailable) =>
        _frontend.StartRing(_queues[index].Describe(Number(index), _arena.ToFrontendAddress) with { NextAvailable = nextAvailable });

    /// <summary>Closes the connection, whatever is in flight.</summary>
    public void Dispose()
    {
        _frontend.Dispose();
        if (_notifications is not null)
        {
            _notifications.Stop();
            _notificationThread!.Join();
            _notifications.Dispose();
        }

        foreach (VirtioFsQueue queue in _queues)
        {
            queue.Dispose();
        }

        _arena.Dispose();
        _errorEvent.Dispose();
    }

    // The number of a queue at the device: with notifications, theirs comes second.
    private int Number(int index) => HasNotifications && index > 0 ? index + 1 : index;

    private static QueueShape[] Shapes(VirtioFsDriverOptions options, QueueFeatures features)
    {
        var shapes = new QueueShape[1 + options.RequestQueues];
        var ring = new DriverQueueOptions(options.QueueSize, features, IndirectTableEntries: 2);
        shapes[0] = new QueueShape(ring, options.RequestsPerQueue, HighPriorityMessage);
        Array.Fill(shapes, new QueueShape(ring, options.RequestsPerQueue, options.MaxMessage), 1, options.RequestQueues);
        return shapes;
    }

    private unsafe VirtioFsQueue[] StartQueues(QueueShape[] shapes, VirtioFsDriverOptions options)
    {
        var queues = new VirtioFsQueue[shapes.Length];
        for (int i = 0; i < shapes.Length; i++)
        {
            byte* memory = _arena.Cut(shapes[i].Bytes, out GuestAddress address);
            queues[i] = new VirtioFsQueue(memory, address, shapes[i], options.ReplyTimeout);
            _frontend.StartRing(queues[i].Describe(Number(i), _arena.ToFrontendAddress));
        }

        return queues;
    }
}
