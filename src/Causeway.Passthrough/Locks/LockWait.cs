using System.Threading.Tasks.Sources;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>One request that waits for a lock. Used again and again.</summary>
internal sealed unsafe class LockWait : IValueTaskSource<Errno>
{
    private readonly LockWaiters _waiters;
    private readonly Action<object?> _onCancelled;
    private ManualResetValueTaskSourceCore<Errno> _source;
    private CancellationTokenRegistration _registration;
    private RequestContext? _context;

    public LockWait(LockWaiters waiters)
    {
        _waiters = waiters;
        _onCancelled = static state => ((LockWait)state!)._waiters.End((LockWait)state);
    }

    /// <summary>The lock.</summary>
    public FuseLkIn Arguments { get; private set; }

    /// <summary>Of a record lock: its owner, of which a use is held.</summary>
    public LockOwner? Owner { get; private set; }

    /// <summary>Of an flock(2): the open file, of which a use is held.</summary>
    public OpenFile* File { get; private set; }

    /// <summary>When it has waited for too long, in <see cref="Environment.TickCount64"/>.</summary>
    public long Deadline { get; set; }

    /// <summary>The thread that waits in the kernel, or zero. Under the lock of <see cref="LockWaiters"/>.</summary>
    public int Thread { get; set; }

    /// <summary>Whether it shall end.</summary>
    public volatile bool IsEnded;

    /// <summary>Begins.</summary>
    public ValueTask<Errno> Begin(in FuseLkIn arguments, LockOwner? owner, OpenFile* file, RequestContext context)
    {
        Arguments = arguments;
        Owner = owner;
        File = file;
        IsEnded = false;
        _context = context;
        _source.Reset();
        return new ValueTask<Errno>(this, _source.Version);
    }

    /// <summary>Has the guest's INTERRUPT, or the end of its session, end the wait.</summary>
    public void Watch() => _registration = _context!.CancellationToken.UnsafeRegister(_onCancelled, this);

    /// <summary>Waits on the calling thread. EINTR means that a signal came.</summary>
    public SyscallResult WaitHere() => Owner is not null
        ? FileLocks.SetRecordWait(Owner.Descriptor, PassthroughFileSystem.ToRecord(Arguments))
        : FileLocks.FlockWait(File->Descriptor, PassthroughFileSystem.ToOperation(Arguments.Type));

    /// <summary>The request is answered, on the calling thread as a rule.</summary>
    public void Complete(Errno error)
    {
        // Waits for a cancellation that is just being delivered; nothing that it calls waits for us.
        _registration.Dispose();
        if (error == Errno.EINTR && !_context!.IsInterrupted)
        {
            // A guest without a signal of its own would show its application a number that is none.
            error = Errno.ENOLCK;
        }

        Owner = null;
        File = null;
        _context = null;
        _source.SetResult(error);
    }

    // Called once, and last.
    Errno IValueTaskSource<Errno>.GetResult(short token)
    {
        Errno result = _source.GetResult(token);
        _waiters.Free(this);
        return result;
    }

    ValueTaskSourceStatus IValueTaskSource<Errno>.GetStatus(short token) => _source.GetStatus(token);

    void IValueTaskSource<Errno>.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _source.OnCompleted(continuation, state, token, flags);
}
