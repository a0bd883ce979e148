using System.Diagnostics;
using Causeway.Linux;
using Causeway.Virtio;

namespace Causeway.Driver;

/// <summary>
/// One virtqueue and the calls the device has on it. Many threads submit; one takes what comes back.
/// </summary>
/// <remarks>
/// The lock is held for the few stores of adding or taking a chain, never across a system call or foreign code.
/// </remarks>
internal sealed class TransportQueue : IDisposable
{
    /// <summary>Pieces of a call: control area and payload, twice.</summary>
    internal const int MaxPieces = 4;

    // How many completions are taken under one hold of the lock (arbitrary).
    private const int Batch = 32;

    private readonly Lock _gate = new();
    private readonly DriverQueue _ring;
    private readonly FuseCall?[] _callOfHead;
    private readonly (FuseCall Call, uint Length)[] _taken = new (FuseCall, uint)[Batch];

    // Calls for which the ring had no descriptors, in the order they came.
    private FuseCall? _firstWaiting;
    private FuseCall? _lastWaiting;
    private bool _isClosed;
    private bool _isStopping;

    internal TransportQueue(DriverRing ring)
    {
        Ring = ring;
        _ring = ring.Queue;
        _callOfHead = new FuseCall?[ring.Queue.Size];
    }

    /// <summary>The queue with its events.</summary>
    internal DriverRing Ring { get; }

    /// <summary>How many calls the device has, or are waiting for room.</summary>
    internal int Outstanding
    {
        get
        {
            lock (_gate)
            {
                int waiting = 0;
                for (FuseCall? call = _firstWaiting; call is not null; call = call.Next)
                {
                    waiting++;
                }

                return _ring.Outstanding + waiting;
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Ring.Dispose();

    /// <summary>Gives a call to the device, or keeps it until the ring has room. A closed queue loses it at once.</summary>
    internal void Submit(FuseCall call)
    {
        bool isToKick = false;
        lock (_gate)
        {
            if (!_isClosed)
            {
                if (_firstWaiting is not null || !TryAdd(call))
                {
                    Keep(call);
                }
                else
                {
                    isToKick = _ring.NeedsKick();
                }

                call = null!;
            }
        }

        if (isToKick)
        {
            Ring.Kick();
        }

        call?.Lose();
    }

    /// <summary>Completes what the device has given back until nothing is left, then asks to be called.</summary>
    /// <returns>False when the device broke the queue.</returns>
    internal bool CompleteAll()
    {
        while (true)
        {
            int count = Take(out bool isBroken, out bool isToKick);
            if (isToKick)
            {
                Ring.Kick();
            }

            for (int i = 0; i < count; i++)
            {
                (FuseCall call, uint length) = _taken[i];
                _taken[i] = default;
                call.Complete(length);
            }

            if (isBroken)
            {
                return false;
            }

            // A closed queue takes nothing, whatever the device still gives back.
            if (count == 0 && (Volatile.Read(ref _isClosed) || _ring.ArmCalls()))
            {
                return true;
            }
        }
    }

    /// <summary>The life of the thread that completes the queue's calls.</summary>
    /// <returns>Whether it ends because it was told to; false when the device broke the queue.</returns>
    internal bool Run()
    {
        while (!Volatile.Read(ref _isStopping))
        {
            if (!CompleteAll())
            {
                return false;
            }

            Ring.WaitForCall(Poll.Forever);
        }

        return true;
    }

    /// <summary>Makes <see cref="Run"/> return.</summary>
    internal void Stop()
    {
        Volatile.Write(ref _isStopping, true);
        Ring.WakeUp();
    }

    /// <summary>How long the device has had the request that it has had longest, in milliseconds.</summary>
    internal long OldestAge(long now)
    {
        long oldest = now;
        lock (_gate)
        {
            foreach (FuseCall? call in _callOfHead)
            {
                oldest = Math.Min(oldest, call?.SubmittedAt ?? now);
            }
        }

        return now - oldest;
    }

    /// <summary>Takes no calls any more, and loses those that the device has.</summary>
    internal void Close()
    {
        FuseCall? lost;
        lock (_gate)
        {
            _isClosed = true;
            lost = _firstWaiting;
            _firstWaiting = null;
            _lastWaiting = null;
            for (int head = 0; head < _callOfHead.Length; head++)
            {
                if (_callOfHead[head] is { } call)
                {
                    _callOfHead[head] = null;
                    call.Next = lost;
                    lost = call;
                }
            }
        }

        while (lost is not null)
        {
            FuseCall call = lost;
            lost = call.Next;
            call.Next = null;
            call.Lose();
        }
    }

    private bool TryAdd(FuseCall call)
    {
        Debug.Assert(_gate.IsHeldByCurrentThread, "the ring belongs to who holds the lock");
        Span<GuestRange> ranges = stackalloc GuestRange[MaxPieces];
        call.Describe(ranges, out ReadOnlySpan<GuestRange> readable, out ReadOnlySpan<GuestRange> writable);
        if (!_ring.TryAdd(readable, writable, out ushort head))
        {
            return false;
        }

        _callOfHead[head] = call;
        call.SubmittedAt = Math.Max(1, Environment.TickCount64);
        return true;
    }

    private void Keep(FuseCall call)
    {
        call.Next = null;
        if (_lastWaiting is null)
        {
            _firstWaiting = call;
        }
        else
        {
            _lastWaiting.Next = call;
        }

        _lastWaiting = call;
    }

    private int Take(out bool isBroken, out bool isToKick)
    {
        int count = 0;
        isBroken = false;
        isToKick = false;
        lock (_gate)
        {
            while (count < Batch && !_isClosed && !isBroken)
            {
                TakeResult result = _ring.TryTake(out ushort head, out uint written);
                isBroken = result == TakeResult.Broken;
                if (result != TakeResult.Taken)
                {
                    break;
                }

                // The ring has checked that the head is one that was submitted.
                _taken[count++] = (_callOfHead[head]!, written);
                _callOfHead[head] = null;
            }

            while (!_isClosed && _firstWaiting is { } waiting && TryAdd(waiting))
            {
                _firstWaiting = waiting.Next;
                _lastWaiting = _firstWaiting is null ? null : _lastWaiting;
                waiting.Next = null;
            }

            isToKick = !_isClosed && _ring.NeedsKick();
        }

        return count;
    }
}
