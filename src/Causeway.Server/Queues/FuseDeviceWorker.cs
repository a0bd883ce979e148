using System.Diagnostics;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Extensions.Logging;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Server.Queues;

/// <summary>
/// Serves a FUSE connection of the host's kernel that the front end has handed over: reads requests from /dev/fuse, has the session
/// execute them on the spot, and writes the replies there. A program's request so takes one process less on its way than through
/// the front end and a queue.
/// </summary>
/// <remarks>
/// <para>The thread with the turn reads. One that has lost its turn, and whoever completes a request later, writes the reply by itself:
/// each reply is a system call of its own, and needs no order. Only then does the slot come back.</para>
/// <para>The descriptors are the front end's as well, so that it can have them block or not as it likes. A thread that waits in the
/// kernel is therefore called back by a signal, and where waiting does not wait, poll(2) does.</para>
/// </remarks>
internal sealed unsafe class FuseDeviceWorker : RequestWorker
{
    // With these many locks waited for, more answer ENOLCK: each keeps a slot (arbitrary).
    private const int MaxWaits = 64;

    // A signal that comes before the thread is in the kernel is lost (arbitrary).
    private const int PatienceMilliseconds = 2;

    // Until memory is there (arbitrary).
    private const int RetryMilliseconds = 10;

    private readonly RingPolling _polling;
    private readonly SafeFileHandle _control = Events.CreateEvent();
    private FuseDeviceSetup? _setup;
    private ReplyEditor _editor = new(ReplyCaching.AsGiven, marks: null);
    private bool _polls;
    private int _looking = -1;
    private int _waiting = -1;

    // Of the thread with the turn.
    private BufferSlot? _free;
    private bool _isOver;

    // Slots that come back from elsewhere, and how many are away: a request that completes later, and a thread without the turn.
    private LateSlots _late;
    private int _away;

    // While the thread with the turn may wait in the kernel for a request, its number; else zero.
    private int _sleeper;

    /// <summary>Makes a worker without a connection.</summary>
    /// <param name="name">What the log and its threads call it.</param>
    /// <param name="session">Who executes the requests.</param>
    /// <param name="monitor">Who looks whether it is stuck.</param>
    /// <param name="polling">Who may look for requests instead of sleeping.</param>
    /// <param name="logger">Hears of what goes wrong.</param>
    public FuseDeviceWorker(string name, FuseSession session, StallMonitor monitor, PollingSeats polling, ILogger logger)
        : base(name, session, monitor, logger)
    {
        _polling = new RingPolling(polling);
        Waits.Limit = MaxWaits;
    }

    /// <summary>Whether it serves a connection, or has until that ended.</summary>
    public bool IsStarted => _setup is not null;

    /// <inheritdoc/>
    public override int Waiting => HasMore ? 2 : 0;

    /// <inheritdoc/>
    protected override bool HasMore => _looking >= 0 && Poll.Now(_looking, PollEvents.Readable) != 0;

    /// <inheritdoc/>
    protected override bool IsAtRest => Volatile.Read(ref _away) == 0;

    /// <inheritdoc/>
    protected override int Patience => PatienceMilliseconds;

    /// <summary>Starts to serve a connection.</summary>
    /// <param name="setup">The connection; owned until <see cref="Stop"/>.</param>
    public void Start(FuseDeviceSetup setup)
    {
        Debug.Assert(IsPaused && _setup is null, "a connection is stopped before another is started");
        _setup = setup;
        _looking = Number(setup.Looking);
        _waiting = Number(setup.Waiting);
        _editor = new ReplyEditor((ReplyCaching)setup.Description.Caching, marks: null);
        _polls = (setup.Description.Flags & FuseDeviceFlags.NeverPolls) == 0;
        _isOver = false;
        Events.Drain(Number(_control), out _);
        Resume();
    }

    /// <summary>Stops serving: on return nothing is in flight, and the descriptors are closed. Does nothing without a connection.</summary>
    public void Stop()
    {
        if (_setup is not { } setup)
        {
            return;
        }

        Pause();
        _setup = null;
        (_looking, _waiting) = (-1, -1);
        setup.Dispose();
        FreeSlots();
        Log.ConnectionStopped(
            Logger, Name, RequestCount, StallCount, (_polling.Polls, _polling.Successes, _polling.Disturbances));
    }

    /// <inheritdoc/>
    public override void ReturnLate(RequestSlot slot)
    {
        var buffer = (BufferSlot)slot;
        Answer(buffer);
        buffer.Shrink();
        GiveBack(slot);
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        Debug.Assert(_setup is null, "a connection is stopped before its worker goes");
        base.Dispose();
        _control.Dispose();
    }

    /// <inheritdoc/>
    protected override void OnTurnTaken(bool isTaken) => Interlocked.Add(ref _away, isTaken ? 1 : -1);

    /// <inheritdoc/>
    protected override void Wake()
    {
        Events.Signal(Number(_control));
        int sleeper = Volatile.Read(ref _sleeper);
        if (sleeper != 0)
        {
            ThreadInterruption.Interrupt(sleeper);
        }
    }

    /// <inheritdoc/>
    protected override void Serve()
    {
        int thread = ThreadInterruption.PrepareThread();
        while (true)
        {
            if (IsPauseRequested)
            {
                if (TryPause())
                {
                    return;
                }

                Thread.Sleep(PatienceMilliseconds);
            }
            else if (_isOver)
            {
                AwaitPause();
            }
            else if (TakeSlot() is not { } slot)
            {
                Thread.Sleep(RetryMilliseconds);
            }
            else if (!TryReceive(slot, thread))
            {
                Keep(slot);
            }
            else if (!Execute(slot))
            {
                return;
            }
        }
    }

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    private bool TryReceive(BufferSlot slot, int thread)
    {
        // Pairs with Wake: either it sees the number and repeats the signal until the pause has begun, or the pause is seen here. It is
        // there while looking, too, for a descriptor that blocks all the same.
        Interlocked.Exchange(ref _sleeper, thread);
        bool isRead = LookForAWhile(slot);
        if (!isRead && !_isOver && !IsPauseRequested)
        {
            Session.Settle();
            isRead = Sleep(slot);
            StallMonitor.EnsureAwake();
        }

        Volatile.Write(ref _sleeper, 0);
        return isRead;
    }

    private bool LookForAWhile(BufferSlot slot)
    {
        if (!_polls || !_polling.TryBegin())
        {
            return false;
        }

        Session.Settle();
        bool isRead;
        do
        {
            isRead = !IsPauseRequested && TryRead(_looking, slot);
        }
        while (!isRead && !_isOver && !IsPauseRequested && _polling.GoOn());

        _polling.End(isRead);
        return isRead;
    }

    private bool Sleep(BufferSlot slot)
    {
        bool isRead = !IsPauseRequested && TryRead(_waiting, slot);
        if (!isRead && !_isOver && !IsPauseRequested && Poll.Now(_waiting, PollEvents.Readable) == 0)
        {
            // The front end has made it one that does not block; or a signal came, and nobody minds a system call or two.
            Span<PollDescriptor> wait =
            [
                new PollDescriptor(_waiting, PollEvents.Readable), new PollDescriptor(Number(_control), PollEvents.Readable),
            ];
            Poll.Wait(wait, Poll.Forever);
        }

        return isRead;
    }

    private bool TryRead(int device, BufferSlot slot)
    {
        SyscallResult read = FuseDevice.Read(device, slot.Message, BufferSlot.Capacity);
        if (!read.IsError)
        {
            slot.Begin(device, read.Count);
            return true;
        }

        switch (read.Error)
        {
            // ENOENT: taken back before it could be read. EINTR: called back.
            case Errno.EAGAIN or Errno.ENOENT or Errno.EINTR:
                break;

            // Unmounted; aborted through fusectl; no connection at all.
            case Errno.ENODEV or Errno.ECONNABORTED or Errno.EPERM:
                _isOver = true;
                Events.Signal(Number(_setup!.Ended));
                break;

            default:
                // No memory, as it may be.
                Thread.Sleep(RetryMilliseconds);
                break;
        }

        return false;
    }

    // Returns false when the turn was lost; then the connection is somebody else's.
    private bool Execute(BufferSlot slot)
    {
        RequestCount++;
        // The numbers of processes mean nothing to file systems, which know nothing of whose they are.
        ((FuseInHeader*)slot.Message)->ProcessId = 0;
        long busy = EnterTurn();
        ValueTask<int> task = Session.DispatchAsync(slot.Request);
        if (!task.IsCompletedSuccessfully)
        {
            Interlocked.Increment(ref _away);
            slot.CompleteLater(task);
            bool isMine = TryLeaveTurn(busy);
            if (!isMine)
            {
                // Counted by who took it.
                Interlocked.Decrement(ref _away);
            }

            return isMine;
        }

        slot.Written = task.Result;
        if (!TryLeaveTurn(busy))
        {
            ReturnLate(slot);
            return false;
        }

        Answer(slot);
        Keep(slot);
        return true;
    }

    private void Answer(BufferSlot slot)
    {
        int length = slot.Written;
        if (length == 0)
        {
            return;
        }

        if (_editor.IsNeeded && ((FuseOutHeader*)slot.Reply)->Error == 0)
        {
            int header = sizeof(FuseOutHeader);
            _editor.Edit(slot.Header.Opcode, slot.Reply + header, length - header, isStale: false);
        }

        // ENOENT: nobody waits any more. What ends the connection shows at the next read.
        FuseDevice.Write(slot.Device, slot.Reply, length);
    }

    // Slots that come back from elsewhere wait until those at hand are used up.
    private BufferSlot? TakeSlot()
    {
        BufferSlot? slot = _free ?? (BufferSlot?)_late.TakeAll();
        if (slot is null)
        {
            return BufferSlot.TryCreate(this, Waits);
        }

        _free = (BufferSlot?)slot.Next;
        slot.Next = null;
        return slot;
    }

    private void Keep(BufferSlot slot)
    {
        slot.Next = _free;
        _free = slot;
    }

    private void GiveBack(RequestSlot slot)
    {
        _late.Add(slot);

        // The last: from here on the connection may be closed.
        Interlocked.Decrement(ref _away);
    }

    // Nothing is in flight, so they are all here.
    private void FreeSlots()
    {
        while (_free is not null || !_late.IsEmpty)
        {
            TakeSlot()!.Dispose();
        }
    }
}
