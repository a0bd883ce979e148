using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser.Backend;
using Causeway.Virtio;
using Microsoft.Extensions.Logging;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Server.Queues;

/// <summary>
/// Serves one virtqueue: pops requests, has the session execute them on the spot, and returns them with at most one call
/// per batch.
/// </summary>
/// <remarks>
/// <para>One thread has the turn (<see cref="Turn"/>) and with it the queue, the free slots and the counts; nothing of that
/// is locked. Requests that complete elsewhere (on a thread that lost its turn, or asynchronously) come back through
/// <see cref="ReturnLate"/>, a lock-free list that the thread with the turn empties.</para>
/// <para>Configuration changes from the control thread: <see cref="RequestWorker.Pause"/> waits until nothing is in flight and nobody has
/// the turn; then the queue may be changed, and <see cref="RequestWorker.Resume"/> gives the turn out again.</para>
/// </remarks>
internal sealed partial class QueueWorker : RequestWorker
{
    // So that shutdown and replies are never far away (performance reference, 3.2).
    private const int BatchLimit = 32;

    // What moves as much takes several microseconds: a driver that sleeps is not left waiting for those behind it in the batch, but
    // works on it meanwhile. With 1 MiB in each of 16 requests that takes a third off the latency (docs/performance.md).
    private const long EarlyReplyBytes = 16 << 10;

    // Arbitrary: a queue that has no memory for another request tries again after this time. Each try is a garbage collection or two.
    private const int NoMemoryMilliseconds = 500;

    // What there has to be besides a further slot: as much as all queues of a guest can take at the same time, and some more.
    private const int MemoryToLeave = 1 << 20;

    // More than a queue needs whose requests complete in order; up to 190 KiB each.
    private const int MaxLongSlots = 4;

    private const ulong ControlToken = 0;
    private const ulong KickToken = 1;

    private readonly InFlightBudget? _budget;
    private readonly QueueWorker? _neighbour;
    private readonly SafeFileHandle _epoll = Events.CreateEpoll();
    private readonly SafeFileHandle _control = Events.CreateEvent();

    private readonly RingPolling _polling;
    private Gathering _gathering;

    private DeviceQueue? _queue;
    private RingSetup _setup;
    private ChainSlot? _free;
    private LateSlots _late;
    private int _longSlots;

    /// <summary>Makes a worker without a queue. It has no thread until it first gets one.</summary>
    /// <param name="name">What the log and its threads call it.</param>
    /// <param name="session">Who executes the requests.</param>
    /// <param name="budget">What requests may have in work; null where none waits for that.</param>
    /// <param name="monitor">Who looks whether it is stuck.</param>
    /// <param name="polling">Who may look at a ring instead of sleeping; null for a queue whose requests nobody waits for.</param>
    /// <param name="neighbour">Whose requests this one does besides its own while they gather; null for nobody's.</param>
    /// <param name="logger">Hears of broken rings.</param>
    public QueueWorker(
        string name,
        FuseSession session,
        InFlightBudget? budget,
        StallMonitor monitor,
        PollingSeats? polling,
        QueueWorker? neighbour,
        ILogger logger)
        : base(name, session, monitor, logger)
    {
        _polling = new RingPolling(polling ?? new PollingSeats(isOn: false));
        _gathering = new Gathering(isOn: polling is null);
        _budget = budget;
        _neighbour = neighbour;
        Watch(_control, EpollEvents.In, ControlToken);
    }

    /// <summary>How many times the driver was called.</summary>
    public long CallCount { get; private set; }

    /// <inheritdoc/>
    protected override void Serve()
    {
        DeviceQueue queue = _queue!;
        EndGathering();
        // What a stalled thread has given back must not wait for it.
        CallIfNeeded(queue);
        while (true)
        {
            TakeBackLate(queue);
            if (IsPauseRequested && TryPause())
            {
                return;
            }

            BatchResult result = ServeBatch(queue, long.MaxValue);
            if (result is BatchResult.More or BatchResult.Empty)
            {
                CallIfNeeded(queue);
                if (!HelpNeighbour())
                {
                    return;
                }
            }

            switch (result)
            {
                case BatchResult.More:
                    break;

                case BatchResult.Empty:
                    // While pausing or broken nothing is popped, so a ring that is not empty must not keep us awake.
                    if (_isBroken || IsPauseRequested)
                    {
                        Sleep();
                    }
                    else if (_gathering.TryBegin(RequestCount))
                    {
                        if (!TryGather(queue))
                        {
                            return;
                        }
                    }
                    else if (!LookForAWhile(queue) && queue.ArmNotifications())
                    {
                        Sleep();
                    }

                    break;

                case BatchResult.Broken:
                    CallIfNeeded(queue);
                    Break();
                    break;

                case BatchResult.TooMuch:
                    // Woken by bytes that come back, of this queue or another. Kicks are not asked for: the ring has enough.
                    CallIfNeeded(queue);
                    queue.DisarmNotifications();
                    Sleep();
                    break;

                case BatchResult.NoMemory:
                    // Requests stay in the ring. Woken by one that comes back, whose slot can be used again, and else looks again:
                    // nobody says when there is memory.
                    CallIfNeeded(queue);
                    queue.DisarmNotifications();
                    Sleep(NoMemoryMilliseconds);
                    break;

                case BatchResult.LostTurn:
                    return;
            }
        }
    }

    // A request of more bytes than maxLength stays in the ring.
    private BatchResult ServeBatch(DeviceQueue queue, long maxLength)
    {
        if (_isBroken || IsPauseRequested)
        {
            // Nothing new is taken; what is in flight comes back through the late list.
            return BatchResult.Empty;
        }

        for (int i = 0; i < BatchLimit; i++)
        {
            if ((_free is null || _lacksMemory) && !TryProvideSlots())
            {
                return BatchResult.NoMemory;
            }

            ChainSlot slot = _free!;
            switch (queue.TryPop(slot.Chain))
            {
                case PopResult.Popped:
                    break;

                case PopResult.Malformed:
                    queue.Push(slot.Chain, written: 0);
                    continue;

                case PopResult.Empty:
                    return BatchResult.Empty;

                default:
                    return BatchResult.Broken;
            }

            if (slot.Chain.Readable.Length > maxLength || !TryAdmit(slot))
            {
                queue.PutBack(slot.Chain);
                return BatchResult.TooMuch;
            }

            _free = (ChainSlot?)slot.Next;
            slot.Next = null;
            RequestCount++;
            if (!Execute(queue, slot))
            {
                return BatchResult.LostTurn;
            }
        }

        return BatchResult.More;
    }

    // Returns false when the turn was lost; then the queue is somebody else's.
    private bool Execute(DeviceQueue queue, ChainSlot slot)
    {
        slot.Request.Reset(slot.Chain.Readable, slot.Chain.Writable);
        long busy = EnterTurn();
        ValueTask<int> task = Session.DispatchAsync(slot.Request);
        if (!task.IsCompletedSuccessfully)
        {
            // From here on the slot may come back at any time.
            slot.CompleteLater(task);
            return TryLeaveTurn(busy);
        }

        slot.Written = task.Result;
        if (!TryLeaveTurn(busy))
        {
            ReturnLate(slot);
            return false;
        }

        bool isLarge = slot.Chain.Readable.Length + slot.Written >= EarlyReplyBytes;
        Complete(queue, slot);
        if (isLarge)
        {
            CallIfNeeded(queue);
        }

        return true;
    }

    private void Complete(DeviceQueue queue, ChainSlot slot)
    {
        queue.Push(slot.Chain, (uint)slot.Written);
        GiveBack(slot);
        if (slot.Request.HasLongBuffers && !slot.MayBeLong)
        {
            KeepOrShed(slot);
        }

        slot.Next = _free;
        _free = slot;
    }

    // The memory of long requests is kept for the next ones, but not by every slot: a guest can have each of hundreds be used once.
    private void KeepOrShed(ChainSlot slot)
    {
        if (_longSlots < MaxLongSlots)
        {
            _longSlots++;
            slot.MayBeLong = true;
        }
        else
        {
            slot.Request.ShedLongBuffers();
        }
    }

    /// <inheritdoc/>
    public override void ReturnLate(RequestSlot slot)
    {
        if (_late.Add(slot))
        {
            Events.Signal(Number(_control));
        }
    }

    private void TakeBackLate(DeviceQueue queue)
    {
        RequestSlot? slot = _late.TakeAll();
        if (slot is null)
        {
            return;
        }

        while (slot is not null)
        {
            RequestSlot? next = slot.Next;
            Complete(queue, (ChainSlot)slot);
            slot = next;
        }

        CallIfNeeded(queue);
    }

    private void CallIfNeeded(DeviceQueue queue)
    {
        if (queue.NeedsCall())
        {
            CallCount++;
            Call();
        }
    }

    private void Call() => Events.Signal(Number(_setup.CallEvent));

    // Nothing is armed meanwhile, so the driver does not kick.
    private bool LookForAWhile(DeviceQueue queue)
    {
        if (!_polling.TryBegin())
        {
            return false;
        }

        _ = Session.Settle();
        queue.DisarmNotifications();
        bool found;
        do
        {
            found = queue.HasAvailable || !_late.IsEmpty || IsPauseRequested;
        }
        while (!found && _polling.GoOn());

        _polling.End(found);
        return found;
    }

    private void Sleep()
    {
        // Not for as long as it returns: a timer for each sleep is dearer than the monitor, which is awake.
        _ = Session.Settle();
        Sleep(timeoutMilliseconds: -1);
    }

    // The kick event is edge-triggered and never read: each write makes a new edge, one system call per wake-up.
    private void Sleep(int timeoutMilliseconds)
    {
        Span<EpollEvent> events = stackalloc EpollEvent[2];
        int count = Events.EpollWait(Number(_epoll), events, timeoutMilliseconds).Count;
        StallMonitor.EnsureAwake();
        for (int i = 0; i < count; i++)
        {
            if (events[i].Data == ControlToken)
            {
                Events.Drain(Number(_control), out _);
            }
        }
    }

    private void Break()
    {
        if (_isBroken)
        {
            return;
        }

        _isBroken = true;
        Log.QueueBroken(Logger, Name);
        Events.Signal(Number(_setup.ErrorEvent));
    }

    private enum BatchResult
    {
        More,
        Empty,
        Broken,
        TooMuch,
        NoMemory,
        LostTurn,
    }
}
