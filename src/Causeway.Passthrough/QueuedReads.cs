using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Passthrough;

/// <summary>
/// Reads that a disk has to answer, many at a time: a thread with a ring of io_uring(7) has them done, while those who serve queues go
/// on with other requests. One for all sessions of a share.
/// </summary>
/// <remarks>
/// <code>
/// who serves a queue   TryStart ──▶ _added ──▶ reader: submits them, waits for the first that completes
///                                              ──▶ answers the request
/// </code>
/// The ring belongs to a thread of its own, and not to those who serve queues: what has been read is copied by the thread that
/// submitted it, when that next looks, and one that serves a queue may be busy for long with something else.
/// </remarks>
internal sealed unsafe class QueuedReads : IDisposable
{
    // Arbitrary: as many as are submitted in one go.
    private const uint SubmissionEntries = 64;

    // Arbitrary: after this time there may be memory.
    private const int NoMemoryMilliseconds = 1;

    private const ulong WakeToken = ulong.MaxValue;

    private readonly IoUring _ring;
    private readonly SafeFileHandle _wake = Events.CreateEvent();
    private readonly Lock _gate = new();
    private readonly QueuedRead?[] _reads;
    private QueuedRead? _free;
    private QueuedRead? _added;
    private Thread? _thread;
    private int _made;
    private int _inFlight;
    private long _started;
    private int _isAsleep;
    private bool _isExiting;

    private QueuedReads(IoUring ring, int most)
    {
        _ring = ring;
        _reads = new QueuedRead?[most];
    }

    /// <summary>How many have been started and not completed.</summary>
    public int InFlight => Volatile.Read(ref _inFlight);

    /// <summary>How many have been started.</summary>
    public long StartedCount => Volatile.Read(ref _started);

    /// <summary>Makes a ring that nothing but files can be read by. Threads that are to use it may be confined afterwards.</summary>
    /// <param name="most">Most reads at a time.</param>
    /// <param name="ring">The ring; null after an error.</param>
    /// <returns>ENOSYS or EPERM where io_uring is not to be had; EINVAL when the kernel is too old.</returns>
    public static SyscallResult TryCreateRing(int most, out IoUring? ring)
    {
        // And one for what wakes the reader.
        uint completions = System.Numerics.BitOperations.RoundUpToPowerOf2((uint)Math.Max(most, SubmissionEntries) + 1);
        SyscallResult result = IoUring.TryCreate(SubmissionEntries, completions, out ring);
        if (result.IsError)
        {
            return result;
        }

        result = ring!.RestrictToReads();
        if (result.IsError)
        {
            ring.Dispose();
            ring = null;
        }

        return result;
    }

    /// <summary>Starts a reader.</summary>
    /// <param name="ring">What <see cref="TryCreateRing"/> made; the reader's from now on.</param>
    /// <param name="most">Most reads at a time.</param>
    /// <returns>Null when the system refuses a thread.</returns>
    public static QueuedReads? TryStart(IoUring ring, int most)
    {
        var reads = new QueuedReads(ring, most);
        var thread = new Thread(reads.Run, StackBytes) { IsBackground = true, Name = "reader" };
        try
        {
            thread.Start();
        }
        catch (Exception exception) when (exception is OutOfMemoryException or ThreadStartException)
        {
            reads.Dispose();
            return null;
        }

        reads._thread = thread;
        return reads;
    }

    /// <summary>Starts a read.</summary>
    /// <param name="file">The file; a use goes to the read when it is started.</param>
    /// <param name="files">Where it is from.</param>
    /// <param name="destination">Where the bytes go; at most 1024 pieces (IOV_MAX).</param>
    /// <param name="offset">The position in the file, in bytes.</param>
    /// <param name="task">How many bytes were read.</param>
    /// <returns>False when there are too many, or no memory for one more.</returns>
    public bool TryStart(
        OpenFile* file, OpenFileTable files, IoVectorList destination, long offset, out ValueTask<Result<int>> task)
    {
        task = default;
        if (TryTake() is not { } read)
        {
            return false;
        }

        Interlocked.Increment(ref _inFlight);
        task = read.Begin(file, files, destination, offset);
        Add(read);
        // Pairs with the reader's: either it sees what was added, or we see that it sleeps. Adding was a full fence.
        if (Volatile.Read(ref _isAsleep) != 0 && Interlocked.Exchange(ref _isAsleep, 0) != 0)
        {
            Events.Signal(Number(_wake));
        }

        return true;
    }

    /// <summary>Takes back a read that has been answered.</summary>
    public void Free(QueuedRead read)
    {
        lock (_gate)
        {
            read.Next = _free;
            _free = read;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Volatile.Write(ref _isExiting, true);
        Events.Signal(Number(_wake));
        _thread?.Join();
        _ring.Dispose();
        _wake.Dispose();
    }

    // Arbitrary: it only passes on.
    private const int StackBytes = 256 << 10;

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    private QueuedRead? TryTake()
    {
        lock (_gate)
        {
            if (_free is { } read)
            {
                _free = read.Next;
                read.Next = null;
                _started++;
                return read;
            }

            if (_made == _reads.Length)
            {
                return null;
            }

            try
            {
                read = new QueuedRead(this, (uint)_made);
            }
            catch (OutOfMemoryException)
            {
                return null;
            }

            _started++;
            return _reads[_made++] = read;
        }
    }

    private void Add(QueuedRead read)
    {
        QueuedRead? head = Volatile.Read(ref _added);
        while (true)
        {
            read.Next = head;
            QueuedRead? seen = Interlocked.CompareExchange(ref _added, read, head);
            if (seen == head)
            {
                return;
            }

            head = seen;
        }
    }

    private void Run()
    {
        try
        {
            _ring.Enable().ThrowIfError("begin to use a ring of io_uring");
            _ring.PrepareWatch(Number(_wake), WakeToken);
            while (!Volatile.Read(ref _isExiting) || InFlight != 0)
            {
                PrepareAdded();
                Interlocked.Exchange(ref _isAsleep, 1);
                if (Volatile.Read(ref _added) is null)
                {
                    Check(_ring.Wait(Poll.Forever));
                }

                Volatile.Write(ref _isAsleep, 0);
                TakeCompleted();
            }
        }
        catch (Exception exception)
        {
            // A defect of ours. Guests wait for what is in the ring, and would for ever.
            Environment.FailFast("the thread that reads files failed", exception);
        }
    }

    // The kernel may have no memory for another request, and then has taken fewer than there are: it is asked again.
    private static void Check(SyscallResult result)
    {
        if (result.Error is Errno.EAGAIN or Errno.EBUSY or Errno.ENOMEM)
        {
            Thread.Sleep(NoMemoryMilliseconds);
            return;
        }

        result.ThrowIfError("use a ring of io_uring");
    }

    // In their order.
    private void PrepareAdded()
    {
        QueuedRead? newest = Interlocked.Exchange(ref _added, null);
        QueuedRead? oldest = null;
        while (newest is not null)
        {
            QueuedRead? next = newest.Next;
            newest.Next = oldest;
            oldest = newest;
            newest = next;
        }

        while (oldest is not null)
        {
            QueuedRead? next = oldest.Next;
            oldest.Next = null;
            while (!_ring.HasRoom)
            {
                Check(_ring.Submit());
            }

            _ring.PrepareRead(oldest.Descriptor, oldest.Pieces, oldest.PieceCount, oldest.Offset, oldest.Token);
            oldest = next;
        }
    }

    private void TakeCompleted()
    {
        while (_ring.TryTake(out IoCompletion completion))
        {
            if (completion.Token == WakeToken)
            {
                if (!completion.IsMoreToCome)
                {
                    _ring.PrepareWatch(Number(_wake), WakeToken);
                }

                continue;
            }

            QueuedRead read = _reads[completion.Token]!;
            Interlocked.Decrement(ref _inFlight);
            read.Complete(completion.Result);
        }
    }
}
