namespace Causeway.Driver;

/// <summary>
/// A fixed set of things in guest memory, lent out one by one; who finds none waits. The memory stays as long as
/// something is lent out, even when the transport is disposed of meanwhile.
/// </summary>
internal sealed class TransportPool<T>(Action onEmptied)
    where T : class
{
    private readonly Lock _gate = new();
    private readonly Stack<T> _free = new();
    private Queue<TaskCompletionSource<T>>? _waiters;
    private int _total;
    private bool _isClosed;

    /// <summary>How many are lent out.</summary>
    internal int Lent
    {
        get
        {
            lock (_gate)
            {
                return _total - _free.Count;
            }
        }
    }

    internal void Add(T thing)
    {
        _free.Push(thing);
        _total++;
    }

    internal T? TryRent()
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_isClosed, typeof(VirtioFsTransport));

            // The one used last, whose memory is in the caches; those never used take no memory.
            return _free.TryPop(out T? thing) ? thing : null;
        }
    }

    internal ValueTask<T> RentAsync(CancellationToken cancellationToken)
    {
        TaskCompletionSource<T> waiter;
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_isClosed, typeof(VirtioFsTransport));
            if (_free.TryPop(out T? thing))
            {
                return new ValueTask<T>(thing);
            }

            waiter = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
            _waiters ??= new Queue<TaskCompletionSource<T>>();
            _waiters.Enqueue(waiter);
        }

        return cancellationToken.CanBeCanceled
            ? WaitAsync(waiter, cancellationToken)
            : new ValueTask<T>(waiter.Task);
    }

    internal void Return(T thing)
    {
        while (true)
        {
            TaskCompletionSource<T>? waiter = null;
            bool isEmptied = false;
            lock (_gate)
            {
                if (_isClosed || _waiters is null || !_waiters.TryDequeue(out waiter))
                {
                    _free.Push(thing);
                    isEmptied = _isClosed && _free.Count == _total;
                }
            }

            if (waiter is null)
            {
                if (isEmptied)
                {
                    onEmptied();
                }

                return;
            }

            // One that has given up does not take it: on to the next.
            if (waiter.TrySetResult(thing))
            {
                return;
            }
        }
    }

    /// <summary>Lends nothing any more. <c>onEmptied</c> is called when everything is back, possibly at once.</summary>
    internal void Close()
    {
        Queue<TaskCompletionSource<T>>? waiters;
        bool isEmptied;
        lock (_gate)
        {
            _isClosed = true;
            waiters = _waiters;
            _waiters = null;
            isEmptied = _free.Count == _total;
        }

        foreach (TaskCompletionSource<T> waiter in waiters ?? [])
        {
            waiter.TrySetException(new ObjectDisposedException(nameof(VirtioFsTransport)));
        }

        if (isEmptied)
        {
            onEmptied();
        }
    }

    private static async ValueTask<T> WaitAsync(TaskCompletionSource<T> waiter, CancellationToken cancellationToken)
    {
        CancellationTokenRegistration registration = cancellationToken.UnsafeRegister(
            static (state, token) => ((TaskCompletionSource<T>)state!).TrySetCanceled(token), waiter);
        await using (registration.ConfigureAwait(false))
        {
            return await waiter.Task.ConfigureAwait(false);
        }
    }
}
