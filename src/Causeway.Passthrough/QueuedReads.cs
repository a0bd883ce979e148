using System.Numerics;
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
/// who serves a queue   TryStart ──▶ _first ... _last ──▶ reader: submits them, waits for what completes,
///                                                        answers the requests
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

    // Arbitrary: the reader only passes on.
    private const int StackBytes = 256 << 10;

    private const ulong WakeToken = ulong.MaxValue;

    private readonly IoUring _ring;
    private readonly SafeFileHandle _wake = Events.CreateEvent();
    private readonly QueuedRead?[] _reads;
    private Thread? _thread;
    private bool _isExiting;
    private int _inFlight;

    // Guards everything below. Held for a few assignments only.
    private readonly Lock _gate = new();
    private QueuedRead? _free;
    private QueuedRead? _first;
    private QueuedRead? _last;
    private int _made;
    private long _started;
    private bool _isAsleep;

    private QueuedReads(IoUring ring, int most)
    {
        _ring = ring;
        _reads = new QueuedRead?[most];
    }

    /// <summary>How many have been started and not been completed.</summary>
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
        uint completions = BitOperations.RoundUpToPowerOf2((uint)Math.Max(most, SubmissionEntries) + 1);
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

    /// <summary>Makes a reader.</summary>
    /// <param name="ring">What <see cref="TryCreateRing"/> made; the reader's from now on.</param>
    /// <param name="most">Most reads at a time.</param>
    /// <returns>Null when the system refuses a thread.</returns>
    public static QueuedReads? TryCreate(IoUring ring, int most)
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
    /// <param name="owner">Whose file it is; told when the read has ended.</param>
    /// <param name="file">The file; a use goes to the read when it is started.</param>
    /// <param name="destination">Where the bytes go; at most 1024 pieces (IOV_MAX).</param>
    /// <param name="offset">The position in the file, in bytes.</param>
    /// <param name="task">How many bytes were read.</param>
    /// <returns>False when there are too many, or no memory for one more.</returns>
    public bool TryStart(
        PassthroughFileSystem owner, OpenFile* file, IoVectorList destination, long offset, out ValueTask<Result<int>> task)
    {
        bool isAsleep;
        lock (_gate)
        {
            if (FindFree() is not { } read)
            {
                task = default;
                return false;
            }

            task = read.Begin(owner, file, destination, offset);
            if (_last is null)
            {
                _first = read;
            }
            else
            {
                _last.Next = read;
            }

            _last = read;
            Interlocked.Increment(ref _inFlight);
            _started++;
            isAsleep = _isAsleep;
            _isAsleep = false;
        }

        if (isAsleep)
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

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    // Under the gate.
    private QueuedRead? FindFree()
    {
        if (_free is { } read)
        {
            _free = read.Next;
            read.Next = null;
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

        return _reads[_made++] = read;
    }

    private void Run()
    {
        try
        {
            _ring.Enable().ThrowIfError("begin to use a ring of io_uring");
            _ring.PrepareWatch(Number(_wake), WakeToken);
            while (!Volatile.Read(ref _isExiting) || InFlight != 0)
            {
                Prepare(TakeStarted());
                Check(_ring.Wait(Poll.Forever));
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

    // Whoever starts a read from here on wakes the reader.
    private QueuedRead? TakeStarted()
    {
        lock (_gate)
        {
            QueuedRead? first = _first;
            (_first, _last) = (null, null);
            _isAsleep = true;
            return first;
        }
    }

    private void Prepare(QueuedRead? read)
    {
        while (read is not null)
        {
            while (!_ring.HasRoom)
            {
                Check(_ring.Submit());
            }

            QueuedRead? next = read.Next;
            read.Next = null;
            _ring.PrepareRead(read.Descriptor, read.Pieces, read.PieceCount, read.Offset, read.Token);
            read = next;
        }
    }

    private void TakeCompleted()
    {
        lock (_gate)
        {
            _isAsleep = false;
        }

        while (_ring.TryTake(out IoCompletion completion))
        {
            if (completion.Token != WakeToken)
            {
                // Before, and by the reader: the thread that answers may be another, and nobody wakes the reader for the last one.
                Interlocked.Decrement(ref _inFlight);
                _reads[completion.Token]!.Complete(completion.Result);
            }
            else if (!completion.IsMoreToCome)
            {
                _ring.PrepareWatch(Number(_wake), WakeToken);
            }
        }
    }
}
