using System.Diagnostics;
using System.Runtime.CompilerServices;
using Causeway.Linux;
using Causeway.VhostUser.Backend;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Server.Queues;

/// <content>Threads, and what the control thread does to a queue. Nothing here is on the way of a request.</content>
internal sealed partial class QueueWorker
{
    // Guards who has the turn when nobody is running, and the threads. Held for a few assignments only.
    private readonly object _gate = new();
    private readonly List<Thread> _threads = [];
    private long _countSeenByMonitor;
    private long _seenByMonitor;
    private int _parked;
    private bool _isTurnOffered;
    private bool _lacksThread;
    private bool _hasSaidSo;
    private int _slots;
    private long _missedMemory;
    private bool _lacksMemory;
    private bool _isPaused = true;
    private bool _isPauseRequested = true;
    private bool _isExiting;
    private bool _isBroken;

    /// <summary>Whether the worker has a queue to serve.</summary>
    public bool HasQueue => _queue is not null;

    // Each takes two descriptors where the guest has no indirect ones, and half of the ring has to stay free.
    private int WaitLimit => _queue!.Size / 4;

    /// <summary>Starts to serve a queue.</summary>
    /// <param name="queue">The queue.</param>
    /// <param name="setup">Its events, borrowed until <see cref="Stop"/> returns.</param>
    public void Start(DeviceQueue queue, in RingSetup setup)
    {
        Debug.Assert(_isPaused && _queue is null, "a queue is stopped before it is started again");
        _queue = queue;
        _waits.Limit = WaitLimit;
        _lacksMemory = false;
        _setup = setup;
        _isBroken = false;
        Watch(setup.KickEvent, EpollEvents.In | EpollEvents.EdgeTriggered, KickToken);
        Resume();
    }

    /// <summary>Stops serving: on return nothing is in flight and nothing will be written any more.</summary>
    /// <returns>Where the queue continues.</returns>
    public uint Stop()
    {
        Pause();
        uint next = _queue!.Base;
        // Fails only when the front end gave something that epoll cannot watch; then there is nothing to remove.
        Events.EpollCtl(Number(_epoll), EpollOperation.Delete, Number(_setup.KickEvent), default);
        _queue = null;
        _setup = default;
        Log.QueueStopped(
            _logger, _name, RequestCount, CallCount, StallCount, (_polling.Polls, _polling.Successes, _polling.Disturbances));
        return next;
    }

    /// <summary>Moves the running queue to another place, another view of guest memory or another dirty log.</summary>
    public void Move(in RingLocation location, GuestMemory memory)
    {
        Debug.Assert(_queue is not null, "only a running queue is moved");
        Pause();
        _queue.Rebind(location.Queue, memory);
        _queue.SetDirtyLog(location.Log, location.UsedLogAddress);
        Resume();
    }

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

        if (turn == _seenByMonitor && _queue is { HasAvailable: true })
        {
            lock (_gate)
            {
                // The thread first: a turn that nobody can take would hold up everything. One too many waits for the next time.
                if (!_isTurnOffered && (_parked > 0 || (_threads.Count < MaxThreads && TryStartThread()))
                    && _turn.TryTakeAway(turn))
                {
                    StallCount++;
                    OfferTurn();
                }
            }
        }

        _seenByMonitor = turn;
        return true;
    }

    /// <summary>Whether requests were popped since the last call. Called by the stall monitor.</summary>
    public bool TakeActivity()
    {
        long count = RequestCount;
        bool isActive = count != _countSeenByMonitor;
        _countSeenByMonitor = count;
        return isActive;
    }

    /// <summary>Ends the threads. The queue is stopped.</summary>
    public void Dispose()
    {
        Debug.Assert(_queue is null, "a queue is stopped before its worker goes");
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

        _epoll.Dispose();
        _control.Dispose();
    }

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    private void Watch(SafeFileHandle handle, EpollEvents events, ulong token)
    {
        var interest = new EpollEvent { Events = events, Data = token };
        SyscallResult result = Events.EpollCtl(Number(_epoll), EpollOperation.Add, Number(handle), interest);
        if (result.IsError)
        {
            // A kick event that cannot be watched (a regular file, say) never kicks: the guest's loss.
            Log.EventNotWatched(_logger, _name, result.Error);
        }
    }

    private void Pause()
    {
        Volatile.Write(ref _isPauseRequested, true);
        // What waits for another guest's lock would keep us here for as long. A thread that has seen no pause yet and lets
        // one more request wait has that one ended as well.
        _session.EndWaits(_waits);
        Events.Signal(Number(_control));
        lock (_gate)
        {
            if (_lacksThread)
            {
                // The turn was offered, and there has been nobody to take it.
                _lacksThread = false;
                _isTurnOffered = false;
                _isPaused = true;
            }

            while (!_isPaused)
            {
                Monitor.Wait(_gate);
            }
        }
    }

    private void Resume()
    {
        _session.AllowWaits(_waits);
        lock (_gate)
        {
            _isPaused = false;
            Volatile.Write(ref _isPauseRequested, false);
            _lacksThread = _parked == 0 && !TryStartThread();
            OfferTurn();
        }

        if (Volatile.Read(ref _lacksThread))
        {
            _monitor.EnsureAwake();
        }
    }

    // By the thread with the turn, which gives it up when the result is true.
    private bool TryPause()
    {
        if (_queue!.InFlight > 0)
        {
            return false;
        }

        lock (_gate)
        {
            _isPaused = true;
            Monitor.PulseAll(_gate);
        }

        return true;
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
        var thread = new Thread(Run) { IsBackground = true, Name = _name };
        try
        {
            thread.Start();
        }
        catch (Exception exception) when (exception is OutOfMemoryException or ThreadStartException)
        {
            if (!_hasSaidSo)
            {
                _hasSaidSo = true;
                Log.ThreadRefused(_logger, _name);
            }

            return false;
        }

        _hasSaidSo = false;
        _threads.Add(thread);
        return true;
    }

    // Sees to a free slot, and one more. There may be no memory for them (a control group, DOTNET_GCHeapHardLimit), which is no reason
    // to end: with one left, requests are done one by one, and none may wait for another, as what ends its wait could not be taken any
    // more. Without any the ring has to wait. In a method of its own, so that the loop has no handler of exceptions.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private bool TryProvideSlots()
    {
        if (_lacksMemory && Environment.TickCount64 - _missedMemory < NoMemoryMilliseconds)
        {
            return _free is not null;
        }

        try
        {
            _free ??= MakeSlot();
            _free.Next = MakeSlot();
            if (_lacksMemory)
            {
                _lacksMemory = false;
                _waits.Limit = WaitLimit;
            }
        }
        catch (OutOfMemoryException)
        {
            MissMemory();
        }

        return _free is not null;
    }

    private RequestSlot MakeSlot()
    {
        // Slots must not take the last memory: starting a thread needs some, for example, and ends the process where it gets none.
        if (_slots >= 2)
        {
            GC.KeepAlive(GC.AllocateUninitializedArray<byte>(MemoryToLeave));
        }

        var slot = new RequestSlot(this, _waits);
        _slots++;
        return slot;
    }

    private void MissMemory()
    {
        _missedMemory = Environment.TickCount64;
        if (_lacksMemory)
        {
            return;
        }

        _lacksMemory = true;
        _waits.Limit = 0;
        try
        {
            Log.SlotRefused(_logger, _name);
        }
        catch (OutOfMemoryException)
        {
            // Not even for a line of the log.
        }
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
            Log.WorkerFailed(_logger, exception, _name);
            Environment.FailFast($"queue worker {_name} failed", exception);
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
