using System.Diagnostics;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// Threads that wait in the host's kernel for locks, one for each request that waits, so that no queue does; and one that looks
/// after them.
/// </summary>
/// <remarks>
/// <code>
/// queue worker     Start ──▶ _ready ──▶ waiter: fcntl or flock, until granted or called back ──▶ answers the request
/// whoever ends it  End: marks it, interrupts the thread                keeper: interrupts again until the thread is back,
///                                                                      ends what has waited for too long, starts threads
/// </code>
/// Threads are started by the keeper only: a new thread has the ids of the one that starts it, and those of a queue worker may be a
/// guest's.
/// </remarks>
internal sealed class LockWaiters : IDisposable
{
    // What is lost (a signal before the thread is in the kernel) is made up for after this time.
    private const int RepeatMilliseconds = 1;

    // Arbitrary: a thread without work is kept for as long, for a lock that is contended now will be so again.
    private const int IdleMilliseconds = 10_000;

    // Arbitrary: the waits of a guest end in the kernel, which needs little.
    private const int StackBytes = 256 << 10;

    private readonly int _maximum;
    private readonly long _limitMilliseconds;
    private readonly Action<LockWait, Errno> _onEnd;

    // Guards everything below.
    private readonly object _gate = new();
    private readonly List<LockWait> _waits = [];
    private readonly Queue<LockWait> _ready = new();
    private readonly Stack<LockWait> _free = new();
    private readonly SemaphoreSlim _available = new(0);
    private Thread? _keeper;
    private long _nextLook = long.MaxValue;
    private int _idle;
    private int _threads;
    private int _starting;
    private int _endedCount;
    private bool _isKeeperNeeded;
    private bool _isExiting;

    /// <summary>Makes waiters; there is no thread until the first request waits.</summary>
    /// <param name="maximum">Most requests that wait at a time.</param>
    /// <param name="limit">How long each may wait; zero or less is without end.</param>
    /// <param name="onEnd">
    /// Called on a waiter's thread with what came out, before the request is answered. The lock was taken if it is success.
    /// </param>
    public LockWaiters(int maximum, TimeSpan limit, Action<LockWait, Errno> onEnd)
    {
        _maximum = maximum;
        _limitMilliseconds = limit > TimeSpan.Zero ? (long)limit.TotalMilliseconds : 0;
        _onEnd = onEnd;
    }

    /// <summary>How many requests wait.</summary>
    public int Count
    {
        get
        {
            lock (_gate)
            {
                return _waits.Count;
            }
        }
    }

    /// <summary>Has a request wait for a lock.</summary>
    /// <param name="arguments">The lock.</param>
    /// <param name="owner">Of a record lock: its owner, with a use that goes to the wait.</param>
    /// <param name="file">Of an flock(2): the open file, with a use that goes to the wait.</param>
    /// <param name="context">The request's.</param>
    /// <param name="task">What it is answered.</param>
    /// <returns>False when too many wait already, or there is no memory or thread for one more.</returns>
    public unsafe bool TryStart(
        in FuseLkIn arguments, LockOwner? owner, OpenFile* file, RequestContext context, out ValueTask<Errno> task)
    {
        LockWait? wait;
        task = default;
        lock (_gate)
        {
            wait = _waits.Count >= _maximum || _isExiting ? null : FindFree();
            if (wait is null)
            {
                return false;
            }

            wait.Deadline = _limitMilliseconds == 0 ? long.MaxValue : Environment.TickCount64 + _limitMilliseconds;
            wait.Thread = 0;
            task = wait.Begin(arguments, owner, file, context);
            // Its place is taken; it is made ready once it can be ended.
            _waits.Add(wait);
        }

        if (!TryWatch(wait))
        {
            return false;
        }

        lock (_gate)
        {
            _ready.Enqueue(wait);
            if (_idle < _ready.Count || wait.Deadline < _nextLook)
            {
                WakeKeeper();
            }

            _ = _available.Release();
        }

        return true;
    }

    /// <summary>Ends a wait soon. Any thread may call it.</summary>
    public void End(LockWait wait)
    {
        lock (_gate)
        {
            EndUnderGate(wait);
        }
    }

    /// <summary>Ends all waits soon.</summary>
    public void EndAll()
    {
        lock (_gate)
        {
            foreach (LockWait wait in _waits)
            {
                EndUnderGate(wait);
            }
        }
    }

    /// <summary>A wait was answered.</summary>
    public void Free(LockWait wait)
    {
        lock (_gate)
        {
            _free.Push(wait);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate)
        {
            _isExiting = true;
            foreach (LockWait wait in _waits)
            {
                EndUnderGate(wait);
            }

            while (_threads > 0 || _waits.Count > 0)
            {
                _ = _available.Release(_threads + 1);
                Monitor.PulseAll(_gate);
                Monitor.Wait(_gate);
            }

            Monitor.PulseAll(_gate);
        }

        _keeper?.Join();
        _available.Dispose();
    }

    private void EndUnderGate(LockWait wait)
    {
        if (wait.IsEnded)
        {
            return;
        }

        wait.IsEnded = true;
        if (wait.Thread != 0)
        {
            _endedCount++;
            _ = ThreadInterruption.Interrupt(wait.Thread);
            WakeKeeper();
        }
    }

    // Under the gate. Null: there is no memory, or no thread to look after it. After this nothing is allocated that could fail.
    private LockWait? FindFree()
    {
        try
        {
            _ = _waits.EnsureCapacity(_waits.Count + 1);
            _ = _ready.EnsureCapacity(_waits.Count + 1);
            _ = _free.EnsureCapacity(_waits.Count + 1);
            if (_keeper is null)
            {
                var keeper = new Thread(Keep, StackBytes) { IsBackground = true, Name = "lock-keeper" };
                keeper.Start();
                _keeper = keeper;
            }

            return _free.TryPop(out LockWait? wait) ? wait : new LockWait(this);
        }
        catch (Exception exception) when (exception is OutOfMemoryException or ThreadStartException)
        {
            return null;
        }
    }

    private bool TryWatch(LockWait wait)
    {
        try
        {
            wait.Watch();
            return true;
        }
        catch (OutOfMemoryException)
        {
            lock (_gate)
            {
                _ = _waits.Remove(wait);
                Monitor.PulseAll(_gate);
            }

            return false;
        }
    }

    // Under the gate.
    private void WakeKeeper()
    {
        _isKeeperNeeded = true;
        Monitor.PulseAll(_gate);
    }

    private void Keep()
    {
        try
        {
            // Takes back the daemon's own ids, and so its threads have them, too.
            _ = WorkerThread.Current;
            while (TryLookAfter(out LockWait? refused))
            {
                if (refused is not null)
                {
                    // As it would have been with too many. Threads that there are may be needed for as long as they please.
                    Finish(refused, refused.IsEnded ? Errno.EINTR : Errno.ENOLCK);
                }
            }
        }
        catch (Exception exception)
        {
            Environment.FailFast("the keeper of lock waits failed", exception);
        }
    }

    // False at the end. A wait that there is no thread for is the caller's.
    private bool TryLookAfter(out LockWait? refused)
    {
        lock (_gate)
        {
            refused = null;
            if (_isExiting && _threads == 0 && _waits.Count == 0)
            {
                return false;
            }

            _isKeeperNeeded = false;
            refused = StartThreads();
            int patience = Look();
            if (refused is null && !_isKeeperNeeded)
            {
                Monitor.Wait(_gate, patience);
            }

            return true;
        }
    }

    // Under the gate, though it starts threads: they are few, and a waiting request is not in a hurry. The system may refuse one
    // (ulimit -u, a control group, memory); then this returns the wait that was to have it.
    private LockWait? StartThreads()
    {
        for (int missing = _ready.Count - _idle - _starting; missing > 0 && _threads < _maximum; missing--)
        {
            try
            {
                new Thread(Serve, StackBytes) { IsBackground = true, Name = "lock-waiter" }.Start();
            }
            catch (Exception exception) when (exception is OutOfMemoryException or ThreadStartException)
            {
                LockWait wait = _ready.Dequeue();
                // One place in the semaphore for each that is ready.
                _ = _available.Wait(0);
                return wait;
            }

            _threads++;
            _starting++;
        }

        return null;
    }

    // Interrupts once more who is to come back, ends who has waited for too long, and says when to look again.
    private int Look()
    {
        long now = Environment.TickCount64;
        long next = long.MaxValue;
        foreach (LockWait wait in _waits)
        {
            if (wait.IsEnded)
            {
                if (wait.Thread != 0)
                {
                    _ = ThreadInterruption.Interrupt(wait.Thread);
                }
            }
            else if (wait.Deadline <= now)
            {
                EndUnderGate(wait);
            }
            else
            {
                next = Math.Min(next, wait.Deadline - now);
            }
        }

        if (_endedCount > 0)
        {
            next = RepeatMilliseconds;
        }

        _nextLook = next == long.MaxValue ? next : now + next;
        return next == long.MaxValue ? Timeout.Infinite : (int)Math.Min(next, int.MaxValue);
    }

    private void Serve()
    {
        try
        {
            int thread = ThreadInterruption.PrepareThread();
            lock (_gate)
            {
                _starting--;
            }

            while (TryTake(thread) is { } wait)
            {
                Execute(wait);
            }
        }
        catch (Exception exception)
        {
            Environment.FailFast("a thread that waits for locks failed", exception);
        }
    }

    private LockWait? TryTake(int thread)
    {
        bool isIdle = false;
        while (true)
        {
            bool hasWaited = isIdle && _available.Wait(IdleMilliseconds);
            lock (_gate)
            {
                _idle -= isIdle ? 1 : 0;
                if (_ready.TryDequeue(out LockWait? wait))
                {
                    // One place in the semaphore for each that is ready.
                    _ = hasWaited || _available.Wait(0);
                    wait.Thread = thread;
                    _endedCount += wait.IsEnded ? 1 : 0;
                    return wait;
                }

                if (_isExiting || (isIdle && !hasWaited))
                {
                    _threads--;
                    Monitor.PulseAll(_gate);
                    return null;
                }

                _idle++;
                isIdle = true;
            }
        }
    }

    private void Execute(LockWait wait)
    {
        Errno error;
        do
        {
            error = wait.IsEnded ? Errno.EINTR : wait.WaitHere().Error;
        }
        while (error == Errno.EINTR && !wait.IsEnded);

        lock (_gate)
        {
            wait.Thread = 0;
            _endedCount -= wait.IsEnded ? 1 : 0;
        }

        Finish(wait, error);
    }

    private void Finish(LockWait wait, Errno error)
    {
        _onEnd(wait, error);
        lock (_gate)
        {
            // From here on it can not be ended any more.
            wait.IsEnded = true;
            _ = _waits.Remove(wait);
            Monitor.PulseAll(_gate);
        }

        wait.Complete(error);
    }
}
