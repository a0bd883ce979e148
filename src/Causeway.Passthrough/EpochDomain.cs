using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// Tells when nobody can be using something any more that was taken out of a table.
/// </summary>
/// <remarks>
/// <para>An operation enters by a plain store of the current epoch into its thread's slot and leaves by storing zero: no
/// fence and no shared cache line. What is taken out of the tables meanwhile is not freed but retired. To free, the
/// reclaimer advances the epoch, makes every running thread execute a full barrier (membarrier(2)), and looks at the
/// slots.</para>
/// <para>Why that suffices: the barrier falls either before or after a thread's store to its slot. If after, the reclaimer
/// sees the store and waits for the thread. If before, all the thread's loads that follow its store also follow the
/// barrier, and so see that the thing is gone from the table.</para>
/// </remarks>
internal sealed unsafe class EpochDomain : IDisposable
{
    // One cache line pair per slot, so that neighbours do not share one.
    private const int SlotStride = 16;

    private const nuint SlotBytes = WorkerThread.MaxThreads * SlotStride * sizeof(long);

    private readonly long* _slots;
    private long _epoch = 1;
    private bool _isDisposed;

    public EpochDomain()
    {
        // Zeros, and without memory behind them until a thread comes that has the slot.
        byte* slots = AddressSpace.Reserve(SlotBytes);
        _slots = (long*)slots;
        AddressSpace.Commit(slots, SlotBytes).ThrowIfError("get memory for the epochs of threads");
    }

    /// <summary>An operation begins on this thread. It must not be inside one already.</summary>
    /// <param name="thread">The thread.</param>
    public void Enter(WorkerThread thread) =>
        Volatile.Write(ref _slots[thread.Index * SlotStride], Volatile.Read(ref _epoch));

    /// <summary>An operation begins on this thread unless it is inside one already.</summary>
    /// <param name="thread">The thread.</param>
    /// <returns>Whether one has begun, which is to be ended.</returns>
    public bool TryEnter(WorkerThread thread)
    {
        if (_slots[thread.Index * SlotStride] != 0)
        {
            return false;
        }

        Enter(thread);
        return true;
    }

    /// <summary>The operation ends.</summary>
    /// <param name="thread">The thread.</param>
    public void Exit(WorkerThread thread) => Volatile.Write(ref _slots[thread.Index * SlotStride], 0);

    /// <summary>Begins a new epoch and makes sure that every operation of an older one is visible.</summary>
    /// <returns>The epoch that ended: to be given to <see cref="HasPassed"/>.</returns>
    public long Advance()
    {
        long ended = Interlocked.Increment(ref _epoch) - 1;
        Interlocked.MemoryBarrierProcessWide();
        return ended;
    }

    /// <summary>Whether every operation that began in an epoch, or before, is over.</summary>
    /// <param name="epoch">The epoch.</param>
    public bool HasPassed(long epoch)
    {
        int threads = WorkerThread.HighestIndex + 1;
        for (int i = 0; i < threads; i++)
        {
            long entered = Volatile.Read(ref _slots[i * SlotStride]);
            if (entered != 0 && entered <= epoch)
            {
                return false;
            }
        }

        return true;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (!_isDisposed)
        {
            _isDisposed = true;
            _ = AddressSpace.Release((byte*)_slots, SlotBytes);
        }
    }
}
