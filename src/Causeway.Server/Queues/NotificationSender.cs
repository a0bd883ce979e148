using System.Diagnostics;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser.Backend;
using Causeway.Virtio;
using Microsoft.Extensions.Logging;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Server.Queues;

/// <summary>
/// The notification queue (virtio 1.4, 5.11.2): buffers that the driver posts, and that the device fills on its own
/// account.
/// </summary>
/// <remarks>
/// One thread of the file system sends; the control thread starts and stops. The lock is held while the ring is touched,
/// never while waiting for a buffer.
/// </remarks>
internal sealed class NotificationSender : FuseNotifier, IDisposable
{
    private const ulong KickToken = 0;
    private const ulong WakeToken = 1;

    private readonly ILogger _logger;
    private readonly Lock _gate = new();
    private readonly DescriptorChain _chain = new();
    private readonly SafeFileHandle _epoll = Events.CreateEpoll();
    private readonly SafeFileHandle _wake = Events.CreateEvent();
    private DeviceQueue? _queue;
    private RingSetup _setup;
    private bool _isBroken;

    public NotificationSender(ILogger logger)
    {
        _logger = logger;
        Watch(_wake, EpollEvents.In, WakeToken);
    }

    /// <summary>Notifications sent so far.</summary>
    public long SentCount { get; private set; }

    public void Start(DeviceQueue queue, in RingSetup setup)
    {
        lock (_gate)
        {
            Debug.Assert(_queue is null, "a queue is stopped before it is started again");
            _queue = queue;
            _setup = setup;
            _isBroken = false;
        }

        // Edge-triggered and never read: each kick is a new edge.
        Watch(setup.KickEvent, EpollEvents.In | EpollEvents.EdgeTriggered, KickToken);
    }

    /// <returns>Where the queue continues.</returns>
    public uint Stop()
    {
        uint next;
        SafeFileHandle kick;
        lock (_gate)
        {
            next = _queue!.Base;
            kick = _setup.KickEvent;
            _queue = null;
            _setup = default;
        }

        // Fails only when the front end gave something that epoll cannot watch; then there is nothing to remove.
        Events.EpollCtl(Number(_epoll), EpollOperation.Delete, Number(kick), default);
        Events.Signal(Number(_wake));
        return next;
    }

    public void Move(in RingLocation location, GuestMemory memory)
    {
        lock (_gate)
        {
            _queue!.Rebind(location.Queue, memory);
            _queue.SetDirtyLog(location.Log, location.UsedLogAddress);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _epoll.Dispose();
        _wake.Dispose();
    }

    /// <inheritdoc/>
    protected override bool Send(ReadOnlySpan<byte> message)
    {
        Span<EpollEvent> events = stackalloc EpollEvent[2];
        while (true)
        {
            lock (_gate)
            {
                if (_queue is null || _isBroken)
                {
                    return false;
                }

                if (TryFill(_queue, message) is { } isSent)
                {
                    return isSent;
                }

                if (!_queue.ArmNotifications())
                {
                    continue;
                }
            }

            int count = Events.EpollWait(Number(_epoll), events, timeoutMilliseconds: -1).Count;
            for (int i = 0; i < count; i++)
            {
                if (events[i].Data == WakeToken)
                {
                    Events.Drain(Number(_wake), out _);
                }
            }
        }
    }

    // Null: there is no buffer.
    private bool? TryFill(DeviceQueue queue, ReadOnlySpan<byte> message)
    {
        while (true)
        {
            switch (queue.TryPop(_chain))
            {
                case PopResult.Popped when _chain.Writable.Length >= message.Length:
                    _chain.Writable.CopyFrom(0, message);
                    queue.Push(_chain, (uint)message.Length);
                    SentCount++;
                    CallIfNeeded(queue);
                    return true;

                // Too short for the message, or not a buffer at all: back with it, the next one may do.
                case PopResult.Popped or PopResult.Malformed:
                    queue.Push(_chain, written: 0);
                    CallIfNeeded(queue);
                    continue;

                case PopResult.Empty:
                    return null;

                default:
                    _isBroken = true;
                    Log.QueueBroken(_logger, "notifications");
                    Events.Signal(Number(_setup.ErrorEvent));
                    return false;
            }
        }
    }

    private void CallIfNeeded(DeviceQueue queue)
    {
        if (queue.NeedsCall())
        {
            Events.Signal(Number(_setup.CallEvent));
        }
    }

    private void Watch(SafeFileHandle handle, EpollEvents events, ulong token)
    {
        SyscallResult result = Events.EpollCtl(
            Number(_epoll), EpollOperation.Add, Number(handle), new EpollEvent { Events = events, Data = token });
        if (result.IsError)
        {
            Log.EventNotWatched(_logger, "notifications", result.Error);
        }
    }

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();
}
