using Causeway.Linux;

namespace Causeway.Fuse;

/// <content>
/// Requests that the file system did not complete at once, and what ends their wait: INTERRUPT, the end of the session, and a
/// queue that has to come to rest.
/// </content>
/// <remarks>
/// INTERRUPT comes on another queue than its target, so it may be handled before the target has arrived, while it runs, while it
/// waits, or after it is done. Only the third case is simple. In the others the session cannot tell which it is, and remembers the
/// number for a while; a request that begins to wait looks there first. A guest that sends more than can be remembered is told
/// EAGAIN, upon which /dev/fuse asks again.
/// </remarks>
public sealed partial class FuseSession
{
    // Arbitrary: more processes than are killed in the same instant.
    private const int MaxEarlyInterrupts = 64;

    // Arbitrary: a request on its way arrives within this time. After it, the number makes room for another.
    private const long EarlyInterruptMilliseconds = 2000;

    // Guards everything below, the links of waiting requests, and QueueWaits.
    private readonly Lock _waitLock = new();
    private readonly EarlyInterrupt[] _early = new EarlyInterrupt[MaxEarlyInterrupts];
    private FuseRequest? _firstWaiting;
    private int _earlyCount;

    /// <summary>
    /// Ends the wait of every request of a queue, and of each that would wait from now on, until <see cref="AllowWaits"/>. On
    /// return they are on their way to complete.
    /// </summary>
    /// <param name="waits">The queue's.</param>
    public void EndWaits(QueueWaits waits)
    {
        ArgumentNullException.ThrowIfNull(waits);
        lock (_waitLock)
        {
            waits.IsClosed = true;
        }

        EndWaitsOf(waits);
    }

    /// <summary>Requests of the queue may wait again.</summary>
    /// <param name="waits">The queue's.</param>
    public void AllowWaits(QueueWaits waits)
    {
        ArgumentNullException.ThrowIfNull(waits);
        lock (_waitLock)
        {
            waits.IsClosed = false;
        }
    }

    private ValueTask<int> Interrupt(FuseRequest request)
    {
        if (!request.TryRead(out FuseInterruptIn arguments) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        return new(TryInterrupt(arguments.Unique) ? 0 : request.ReplyAgain());
    }

    private bool TryInterrupt(RequestId unique)
    {
        CancellationTokenSource? cancellation;
        lock (_waitLock)
        {
            FuseRequest? target = _firstWaiting;
            while (target is not null && target.Header.Unique != unique)
            {
                target = target.NextWaiting;
            }

            if (target is null)
            {
                return TryRemember(unique);
            }

            cancellation = target.Context.Cancel(isInterrupted: true);
        }

        cancellation?.Cancel();
        return true;
    }

    // The file system has not completed a request at once.
    private void BeginWait(FuseRequest request)
    {
        CancellationTokenSource? cancellation = null;
        lock (_waitLock)
        {
            request.NextWaiting = _firstWaiting;
            request.PreviousWaiting = null;
            if (_firstWaiting is not null)
            {
                _firstWaiting.PreviousWaiting = request;
            }

            _firstWaiting = request;
            request.Waits.Add(1);
            bool isInterrupted = TryRecall(request.Header.Unique);
            // The session that it belongs to may have ended meanwhile. INIT is what begins one.
            bool isOver = request.Header.Opcode != FuseOpcode.Init
                && request.Negotiated != Volatile.Read(ref _negotiated);
            if (isInterrupted || isOver || request.Waits.IsClosed)
            {
                cancellation = request.Context.Cancel(isInterrupted);
            }
        }

        cancellation?.Cancel();
    }

    private void EndWait(FuseRequest request)
    {
        lock (_waitLock)
        {
            if (request.PreviousWaiting is { } previous)
            {
                previous.NextWaiting = request.NextWaiting;
            }
            else
            {
                _firstWaiting = request.NextWaiting;
            }

            if (request.NextWaiting is { } next)
            {
                next.PreviousWaiting = request.PreviousWaiting;
            }

            request.NextWaiting = null;
            request.PreviousWaiting = null;
            request.Waits.Add(-1);
        }
    }

    // Of one queue, or of all.
    private void EndWaitsOf(QueueWaits? waits)
    {
        while (true)
        {
            CancellationTokenSource? cancellation;
            lock (_waitLock)
            {
                FuseRequest? target = _firstWaiting;
                while (target is not null && (target.Context.IsCancelled || (waits is not null && target.Waits != waits)))
                {
                    target = target.NextWaiting;
                }

                if (target is null)
                {
                    return;
                }

                cancellation = target.Context.Cancel(isInterrupted: false);
            }

            cancellation?.Cancel();
        }
    }

    // The session ends.
    private void EndAllWaits()
    {
        lock (_waitLock)
        {
            Array.Clear(_early);
            _earlyCount = 0;
        }

        EndWaitsOf(null);
    }

    private bool TryRemember(RequestId unique)
    {
        long now = Environment.TickCount64;
        int oldest = 0;
        for (int i = 0; i < _early.Length; i++)
        {
            if (!_early[i].IsSet || _early[i].Unique == unique)
            {
                oldest = i;
                break;
            }

            oldest = _early[i].Time < _early[oldest].Time ? i : oldest;
        }

        ref EarlyInterrupt place = ref _early[oldest];
        if (place.IsSet && place.Unique != unique && now - place.Time < EarlyInterruptMilliseconds)
        {
            return false;
        }

        _earlyCount += place.IsSet ? 0 : 1;
        place = new EarlyInterrupt { Unique = unique, Time = now, IsSet = true };
        return true;
    }

    private bool TryRecall(RequestId unique)
    {
        for (int i = 0; i < _early.Length && _earlyCount > 0; i++)
        {
            if (_early[i].IsSet && _early[i].Unique == unique)
            {
                _early[i] = default;
                _earlyCount--;
                return true;
            }
        }

        return false;
    }

    private struct EarlyInterrupt
    {
        public RequestId Unique;
        public long Time;
        public bool IsSet;
    }
}
