using Causeway.VhostUser.Frontend;

namespace Causeway.Driver;

/// <summary>
/// The driver's end of a virtio-fs device (virtio 1.4, 5.11), in user space: connects to a vhost-user-fs daemon as its front
/// end, shares a block of memory with it as guest memory, and sets up the high-priority queue and the request queues. The
/// plain form, in which a queue belongs to one thread, as the bridge has it; for many threads there is
/// <see cref="VirtioFsTransport"/>.
/// </summary>
public sealed class VirtioFsDriver : IDisposable
{
    // The high-priority queue carries FORGET and INTERRUPT only, which are short.
    private const int HighPriorityMessage = 4096;

    private readonly DeviceConnection _connection;
    private readonly GuestArena _arena;
    private readonly VirtioFsQueue[] _queues;

    private VirtioFsDriver(DeviceConnection connection, VirtioFsDriverOptions options)
    {
        _connection = connection;
        int requestQueues = Math.Min(connection.AvailableRequestQueues, options.RequestQueues);
        QueueShape highPriority = new(options.RequestsPerQueue, HighPriorityMessage);
        QueueShape requests = new(options.RequestsPerQueue, options.MaxMessage);
        ulong ringBytes = DriverRing.Footprint(connection.Ring);
        _arena = connection.MakeMemory(
            ringBytes + highPriority.Bytes + ((ulong)requestQueues * (ringBytes + requests.Bytes)), HugePageUse.Never);
        _queues = new VirtioFsQueue[1 + requestQueues];
        for (int i = 0; i < _queues.Length; i++)
        {
            int number = i == 0 ? 0 : connection.FirstRequestQueue + i - 1;
            _queues[i] = new VirtioFsQueue(
                new DriverRing(_arena, number, connection.Ring), _arena, i == 0 ? highPriority : requests, options.ReplyTimeout);
        }
    }

    /// <summary>Whether the device tells of changes by itself: it offers that, and a handler was given.</summary>
    public bool HasNotifications => _connection.HasNotifications;

    /// <summary>The queue for FORGET, BATCH_FORGET and INTERRUPT.</summary>
    public VirtioFsQueue HighPriorityQueue => _queues[0];

    /// <summary>The request queues.</summary>
    public ReadOnlySpan<VirtioFsQueue> RequestQueues => _queues.AsSpan(1);

    /// <summary>The control connection, for what the driver does not do itself.</summary>
    public VhostUserFrontend Frontend => _connection.Frontend;

    /// <summary>What the driver shares with every other user of a device.</summary>
    internal DeviceConnection Connection => _connection;

    /// <summary>Connects to a daemon and starts all queues.</summary>
    /// <param name="socketPath">The daemon's socket.</param>
    /// <param name="options">How to use the device.</param>
    /// <exception cref="IOException">Connecting or setting up failed; the message says what and why.</exception>
    public static VirtioFsDriver Connect(string socketPath, VirtioFsDriverOptions? options = null)
    {
        options ??= new VirtioFsDriverOptions();
        DeviceConnection connection = DeviceConnection.Connect(socketPath, new ConnectionOptions
        {
            Window = options.OffersBackendRequests ? WindowUse.Negotiate : WindowUse.None,
            OpensVersionTable = options.OpensVersionTable,
            OnNotification = options.OnNotification,
            SetUpTimeout = options.SetUpTimeout,
            QueueSize = options.QueueSize,
            UsesPackedRings = options.UsesPackedRings,
            MaxPieces = VirtioFsQueue.MaxPieces,
        });
        VirtioFsDriver? driver = null;
        try
        {
            driver = new VirtioFsDriver(connection, options);
            connection.Start(driver._arena, driver._queues.Select(queue => queue.Ring));
            connection.StartNotifications();
            return driver;
        }
        catch
        {
            if (driver is null)
            {
                connection.Dispose();
            }
            else
            {
                driver.Dispose();
            }

            throw;
        }
    }

    /// <summary>Stops the queues, as a front end does whose guest shuts down; requests in flight complete first.</summary>
    public void Stop()
    {
        foreach (VirtioFsQueue queue in _queues)
        {
            Frontend.StopRing(queue.Ring.Index);
        }

        _connection.StopNotifications();
    }

    /// <summary>Starts a queue again that the front end has stopped.</summary>
    /// <param name="index">The queue, counted from the high-priority queue.</param>
    /// <param name="start">What stopping it returned.</param>
    public void RestartQueue(int index, uint start) =>
        _connection.Restart(_arena, _queues[index].Ring, start);

    /// <summary>Closes the connection, whatever is in flight.</summary>
    public void Dispose()
    {
        _connection.Dispose();
        foreach (VirtioFsQueue queue in _queues)
        {
            queue.Dispose();
        }

        _arena.Dispose();
    }
}
