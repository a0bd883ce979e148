using System.Diagnostics;
using Causeway.Fuse;
using Microsoft.Extensions.Logging;

namespace Causeway.Server.Queues;

/// <summary>
/// Has the requests of one source executed, by one thread at a time: the one that has the turn (<see cref="Turn"/>). Where the
/// requests come from, and how they are answered, is the business of who derives from this.
/// </summary>
/// <remarks>
/// The source changes from the control thread: <see cref="Pause"/> waits until nothing is in flight and nobody has the turn; then it
/// may be changed, and <see cref="Resume"/> gives the turn out again. When one request takes long, the stall monitor gives the turn
/// to another thread. Nothing here is on the way of a request.
/// </remarks>
internal abstract class RequestWorker : IDisposable, IRequestSource
{
    // A thread that is stalled holds a request; beyond this many the source waits (performance reference, 3.3).
    private const int MaxThreads = 9;

    // Guards who has the turn when nobody is running, and the threads. Held for a few assignments only.
    private readonly object _gate = new();
    private readonly List<Thread> _threads = [];
    private Turn _turn;
    private long _countSeenByMonitor;
    private long _seenByMonitor;
    private int _parked;
    private bool _isTurnOffered;
    private bool _lacksThread;
    private bool _hasSaidSo;
    private bool _isPauseRequested = true;
    private bool _isExiting;

    /// <summary>Makes a worker without a source. It has no thread until it first gets one.</summary>
    /// <param name="name">What the log and its threads call it.</param>
    /// <param name="session">Who executes the requests.</param>
    /// <param name="monitor">Who looks whether it is stuck.</param>
    /// <param name="logger">Hears of what goes wrong.</param>
    protected RequestWorker(string name, FuseSession session, StallMonitor monitor, ILogger logger)
    {
        Name = name;
        Session = session;
        StallMonitor = monitor;
        Logger = logger;
        Waits = new QueueWaits { Source = this };
    }

    /// <summary>What the requests were.</summary>
    public FuseCounters Counters { get; } = new();

    /// <summary>Requests taken so far, for whoever asks. Written by the thread with the turn only.</summary>
    public long RequestCount { get; protected set; }

    /// <summary>How many times a request took so long that another thread took over.</summary>
    public long StallCount { get; private set; }

    /// <summary>What the log and the threads call it.</summary>
    protected string Name { get; }

    /// <summary>Who executes the requests.</summary>
    protected FuseSession Session { get; }

    /// <summary>Who looks whether it is stuck.</summary>
    protected StallMonitor StallMonitor { get; }

    /// <summary>Hears of what goes wrong.</summary>
    protected ILogger Logger { get; }

    /// <summary>The requests of the source that wait.</summary>
    protected QueueWaits Waits { get; }

    /// <summary>Whether no thread has the turn, so that the source may be changed.</summary>
    protected bool IsPaused { get; private set; } = true;

    /// <summary>Whether the thread with the turn is to take no more requests, and to give the turn up when none is in flight.</summary>
    protected bool IsPauseRequested => Volatile.Read(ref _isPauseRequested);

    /// <inheritdoc/>
    public abstract int Waiting { get; }

    /// <summary>Whether there is something to do for a thread that takes over. Called by the stall monitor.</summary>
    protected abstract bool HasMore { get; }

    /// <summary>Whether nothing is in flight.</summary>
    protected abstract bool IsAtRest { get; }

    /// <summary>Takes back a request that completed on a thread without the turn. Any thread may call it.</summary>
    public abstract void ReturnLate(RequestSlot slot);

    /// <summary>
    /// Has another thread take over when the one with the turn has been executing the same request since the last look and
    /// others wait. Called by the stall monitor.
    /// </summary>
    /// <returns>Whether a request was being executed, or is to be by a thread that could not be had so far.</returns>
    public bool RelieveIfStalled()
    {
        if (Volatile.Read(ref _lacksThread))
        {
            lock (_gate)
            {
                _lacksThread = _lacksThread && !TryStartThread();
            }

            return true;
        }

        long turn = _turn.Read();
        if (!Turn.IsBusy(turn))
        {
            return false;
        }

        if (turn == _seenByMonitor && HasMore)
        {
            lock (_gate)
            {
                // The thread first: a turn that nobody can take would hold up everything. One too many waits for the next time.
                if (!_isTurnOffered && (_parked > 0 || (_threads.Count < MaxThreads && TryStartThread())))
                {
                    TakeTurnAway(turn);
                }
            }
        }

        _seenByMonitor = turn;
        return true;
    }

    /// <summary>Whether requests were taken since the last call. Called by the stall monitor.</summary>
    public bool TakeActivity()
    {
        long count = RequestCount;
        bool isActive = count != _countSeenByMonitor;
        _countSeenByMonitor = count;
        return isActive;
    }

    /// <summary>Ends the threads. The worker is stopped.</summary>
    public virtual void Dispose()
    {
        Debug.Assert(IsPaused, "a worker is stopped before it goes");
        Thread[] threads;
        lock (_gate)
        {
            _isExiting = true;
            Monitor.PulseAll(_gate);
            threads = [.. _threads];
        }

        foreach (Thread thread in threads)
        {
            thread.Join();
        }
    }

    /// <summary>Serves the source, with the turn, until that is lost or given up.</summary>
    protected abstract void Serve();

    /// <summary>
    /// Has the thread with the turn look whether a pause is requested, wherever it waits. Called without the gate, by the control
    /// thread, again and again while <see cref="Patience"/> is finite.
    /// </summary>
    protected abstract void Wake();

    /// <summary>After how many milliseconds a thread is woken once more that is to pause; without end where one time is enough.</summary>
    protected virtual int Patience => Timeout.Infinite;

    /// <summary>The monitor takes the turn from a thread, or has failed to after all.</summary>
    /// <param name="isTaken">Called with true before, and with false when it failed.</param>
    protected virtual void OnTurnTaken(bool isTaken)
    {
    }

    /// <summary>The thread with the turn begins to execute a request.</summary>
    protected long EnterTurn() => _turn.Enter();

    /// <summary>The thread has executed a request.</summary>
    /// <param name="busy">What <see cref="EnterTurn"/> returned.</param>
    /// <returns>False when the turn was taken away: the source is somebody else's.</returns>
    protected bool TryLeaveTurn(long busy) => _turn.TryLeave(busy);

    /// <summary>Has the source come to rest: on return nothing is in flight, and no thread has the turn.</summary>
    protected void Pause()
    {
        Volatile.Write(ref _isPauseRequested, true);
        // What waits for another guest's lock would keep us here for as long. A thread that has seen no pause yet and lets
        // one more request wait has that one ended as well.
        Session.EndWaits(Waits);
        while (!TryWaitForPause())
        {
            // It was about to wait when it was woken.
        }
    }

    /// <summary>Gives the turn out again.</summary>
    protected void Resume()
    {
        Session.AllowWaits(Waits);
        lock (_gate)
        {
            IsPaused = false;
            Volatile.Write(ref _isPauseRequested, false);
            _lacksThread = _parked == 0 && !TryStartThread();
            OfferTurn();
        }

        if (Volatile.Read(ref _lacksThread))
        {
            StallMonitor.EnsureAwake();
        }
    }

    /// <summary>Gives the turn up if nothing is in flight any more. By the thread with the turn, when a pause is requested.</summary>
    /// <returns>Whether it was given up.</returns>
    protected bool TryPause()
    {
        if (!IsAtRest)
        {
            return false;
        }

        lock (_gate)
        {
            IsPaused = true;
            Monitor.PulseAll(_gate);
        }

        return true;
    }

    /// <summary>Gives the turn to another thread. By the one that has it.</summary>
    protected void PassTurn()
    {
        lock (_gate)
        {
            OfferTurn();
        }
    }

    /// <summary>Waits, with the turn, for a pause to be requested: there is nothing to do until then.</summary>
    protected void AwaitPause()
    {
        lock (_gate)
        {
            while (!_isPauseRequested)
            {
                Monitor.Wait(_gate);
            }
        }
    }

    private bool TryWaitForPause()
    {
        Wake();
        lock (_gate)
        {
            if (_lacksThread)
            {
                // The turn was offered, and there has been nobody to take it.
                _lacksThread = false;
                _isTurnOffered = false;
                IsPaused = true;
            }

            // For who awaits it.
            Monitor.PulseAll(_gate);
            while (!IsPaused)
            {
                if (!Monitor.Wait(_gate, Patience))
                {
                    return IsPaused;
                }
            }

            return true;
        }
    }

    // Under the gate.
    private void TakeTurnAway(long turn)
    {
        OnTurnTaken(isTaken: true);
        if (!_turn.TryTakeAway(turn))
        {
            OnTurnTaken(isTaken: false);
            return;
        }

        StallCount++;
        OfferTurn();
    }

    // Under the gate.
    private void OfferTurn()
    {
        _isTurnOffered = true;
        Monitor.PulseAll(_gate);
    }

    // Under the gate. The system may refuse another thread (ulimit -u, a control group, memory): that is no reason to end, as the
    // stall monitor asks again.
    private bool TryStartThread()
    {
        var thread = new Thread(Run) { IsBackground = true, Name = Name };
        try
        {
            thread.Start();
        }
        catch (Exception exception) when (exception is OutOfMemoryException or ThreadStartException)
        {
            if (!_hasSaidSo)
            {
                _hasSaidSo = true;
                Log.ThreadRefused(Logger, Name);
            }

            return false;
        }

        _hasSaidSo = false;
        _threads.Add(thread);
        return true;
    }

    private void Run()
    {
        try
        {
            while (TryTakeTurn())
            {
                Serve();
            }
        }
        catch (Exception exception)
        {
            // A defect of ours. Requests may be lost or half done, so no guest may go on as if nothing had happened.
            Log.WorkerFailed(Logger, exception, Name);
            Environment.FailFast($"queue worker {Name} failed", exception);
        }
    }

    private bool TryTakeTurn()
    {
        lock (_gate)
        {
            _parked++;
            while (!_isTurnOffered && !_isExiting)
            {
                Monitor.Wait(_gate);
            }

            _parked--;
            bool isMine = _isTurnOffered && !_isExiting;
            _isTurnOffered = false;
            _lacksThread = false;
            return isMine;
        }
    }
}
