using System.Runtime.CompilerServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver.Bridge;

/// <summary>
/// One thread of a bridge: it has a descriptor of /dev/fuse and a request queue to itself, reads requests straight into
/// guest memory and writes replies straight out of it. Nothing on this way is locked, and nothing is copied by us.
/// </summary>
/// <remarks>
/// <code>
/// slot for requests   [ .... 4016 bytes unused .... | header 40, fuse_write_in 40 || payload, on a page ]
/// slot for replies    [ .... 4080 bytes unused .... | header 16                   || data, on a page    ]
/// </code>
/// The payload of WRITE and the data of READ begin on a page, so that a daemon may use O_DIRECT.
/// </remarks>
internal sealed unsafe class BridgeWorker : IDisposable
{
    /// <summary>How many requests a thread has in flight at most. Each reserves 2 MiB, touched as used.</summary>
    public const int Slots = 32;

    /// <summary>Bytes of a slot's memory, for the request and for the reply each.</summary>
    public const int SlotBytes = FuseSession.MaxTransfer + Page;

    // A lock that is waited for keeps its slot; the request that gives the lock back needs one, too.
    private const int MaxWaitingLocks = Slots / 2;

    private const int Page = 4096;
    private const int RequestStart = Page - 80;
    private const int ReplyStart = Page - 16;
    private const int ReplyHeaderSize = 16;
    private const int Batch = 16;

    // Of how many requests that came alone one is followed by a look for another (a power of two, arbitrary).
    private const int BatchProbe = 16;

    private const ulong DeviceToken = 0;
    private const ulong CallToken = 1;
    private const ulong ControlToken = 2;

    private readonly FuseBridge _bridge;
    private readonly int _index;
    private readonly SafeFileHandle _device;
    private readonly SafeFileHandle _control = Events.CreateEvent();
    private readonly InFlight[] _inFlight = new InFlight[Slots];
    private readonly RingPolling _polling;

    // The bridge's.
#pragma warning disable CA2213
    private BridgeSession _session;
    private VirtioFsQueue _queue;
#pragma warning restore CA2213
    private SafeFileHandle _all;
    private SafeFileHandle _completions;
    private int _count;
    private int _waitingLocks;
    private long _deliveries;

    // When the device is to hear of FORGETs that wait for others, Environment.TickCount64; zero when none do.
    private long _forgetsDue;
    private bool _mayHaveRequests = true;
    private bool _comeInBatches;
    private int _batches;

    /// <summary>Makes a worker. It runs when <see cref="Run"/> is called.</summary>
    /// <param name="bridge">The bridge.</param>
    /// <param name="device">A descriptor of the connection; owned from here on.</param>
    /// <param name="session">The session with the device.</param>
    /// <param name="index">Which of its request queues is this worker's alone.</param>
    public BridgeWorker(FuseBridge bridge, SafeFileHandle device, BridgeSession session, int index)
    {
        _bridge = bridge;
        _device = device;
        _session = session;
        _index = index;
        _polling = new RingPolling(bridge.PollingSeats);
        _queue = session.Driver.RequestQueues[index];
        (_all, _completions) = Watch();
    }

    /// <summary>Requests taken from the kernel so far.</summary>
    public long RequestCount { get; private set; }

    /// <summary>Replies of the device that broke the protocol.</summary>
    public long BadReplyCount { get; private set; }

    /// <summary>Managed memory the thread has allocated so far, as of the last time it waited. For tests.</summary>
    public long AllocatedBytes { get; private set; }

    /// <summary>Serves until the connection or the bridge ends. The thread's whole life.</summary>
    public void Run()
    {
        do
        {
            try
            {
                while (!_bridge.IsOver && !_session.IsLost)
                {
                    _ = FlushForgets();
                    if (!Complete() & !Accept())
                    {
                        Wait();
                    }
                }
            }
            catch (IOException exception)
            {
                // The device broke the ring: to us, it is gone.
                _session.Lose(exception);
            }

            FailInFlight();
        }
        while (TryResume());
    }

    // After the daemon is lost: on with the next one, when there is one and it has a queue for us.
    private bool TryResume()
    {
        BridgeSession? next = _bridge.IsOver ? null : _bridge.WaitForNext(_session);
        while (next is not null && next.Driver.RequestQueues.Length <= _index)
        {
            next = _bridge.WaitForNext(next);
        }

        if (next is null)
        {
            return false;
        }

        _session = next;
        _queue = next.Driver.RequestQueues[_index];
        _all.Dispose();
        _completions.Dispose();
        (_all, _completions) = Watch();
        _mayHaveRequests = true;
        return true;
    }

    /// <summary>
    /// Returns when no reply is on its way to the kernel that was made up before the count of invalidations was raised.
    /// Another thread calls it.
    /// </summary>
    public void WaitForDelivery()
    {
        long seen = Volatile.Read(ref _deliveries);
        var wait = new SpinWait();
        while ((seen & 1) != 0 && Volatile.Read(ref _deliveries) == seen)
        {
            wait.SpinOnce();
        }
    }

    /// <summary>Has the thread look at the state of the bridge.</summary>
    public void Wake() => Events.Signal(Number(_control));

    /// <inheritdoc/>
    public void Dispose()
    {
        _all.Dispose();
        _completions.Dispose();
        _control.Dispose();
        _device.Dispose();
    }

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    private (SafeFileHandle All, SafeFileHandle Completions) Watch()
    {
        SafeFileHandle all = Events.CreateEpoll();
        SafeFileHandle completions = Events.CreateEpoll();
        Add(all, _device, EpollEvents.In | EpollEvents.Exclusive, DeviceToken);
        foreach (SafeFileHandle epoll in (ReadOnlySpan<SafeFileHandle>)[all, completions])
        {
            // Edge-triggered and never read: each call makes a new edge, which saves a system call per wake-up.
            Add(epoll, _queue.Ring.CallEvent, EpollEvents.In | EpollEvents.EdgeTriggered, CallToken);
            Add(epoll, _control, EpollEvents.In, ControlToken);
        }

        return (all, completions);
    }

    private static void Add(SafeFileHandle epoll, SafeFileHandle handle, EpollEvents events, ulong token) => Events.EpollCtl(
        Number(epoll), EpollOperation.Add, Number(handle), new EpollEvent { Events = events, Data = token })
        .ThrowIfError("watch a descriptor");

    private bool Complete()
    {
        bool any = false;
        while (_queue.TryTake(out int slot, out int length))
        {
            any = true;
            Reply(slot, length);
        }

        return any;
    }

    private bool Accept()
    {
        if (!_mayHaveRequests)
        {
            return false;
        }

        // One at a time as a rule: whether there are more is not asked each time, but learned. Those that are there all the
        // same end the next wait at once.
        _mayHaveRequests = false;
        int taken = 0;
        while (taken < Batch && _queue.TryAcquire(out int slot))
        {
            byte* message = _queue.RequestMemory(slot) + RequestStart;
            SyscallResult read = FuseDevice.Read(Number(_device), message, SlotBytes - RequestStart);
            if (!read.IsError)
            {
                taken++;
                Forward(slot, message, (int)read.RawValue);
                if (taken == 1 && !_comeInBatches && (++_batches & (BatchProbe - 1)) != 0)
                {
                    break;
                }

                continue;
            }

            _queue.Release(slot);
            if (read.Error is Errno.ENOENT or Errno.EINTR)
            {
                // Taken back before it could be read.
                continue;
            }

            if (read.Error != Errno.EAGAIN)
            {
                // ENODEV: unmounted. ECONNABORTED: aborted through fusectl.
                _bridge.End();
            }

            break;
        }

        _queue.Kick();
        _comeInBatches = taken > 1;
        _mayHaveRequests = taken == Batch;
        return taken > 0;
    }

    private void Forward(int slot, byte* message, int length)
    {
        RequestCount++;
        var header = *(FuseInHeader*)message;
        switch (header.Opcode)
        {
            case FuseOpcode.BatchForget:
                if (_session.IsTagged)
                {
                    length = _session.Tag.UnmarkBatch(message, length);
                }

                SendHighPriority(new ReadOnlySpan<byte>(message, length));
                _queue.Release(slot);
                return;

            case FuseOpcode.Forget or FuseOpcode.Interrupt:
                if (!_session.IsTagged || _session.Tag.TryUnmark(message, length))
                {
                    SendHighPriority(new ReadOnlySpan<byte>(message, length));
                }

                _queue.Release(slot);
                return;

            case FuseOpcode.SetLkWait when _waitingLocks == MaxWaitingLocks:
                WriteError(header.Unique, Errno.ENOLCK);
                _queue.Release(slot);
                return;

        }

        if (_session.IsTagged && !_session.Tag.TryUnmark(message, length))
        {
            // What an earlier daemon had open is closed, and what it wrote is in the host's hands.
            bool isEnd = header.Opcode is FuseOpcode.Release or FuseOpcode.ReleaseDir or FuseOpcode.Flush;
            WriteError(header.Unique, isEnd ? Errno.Success : Errno.ESTALE);
            _queue.Release(slot);
            return;
        }

        _waitingLocks += header.Opcode == FuseOpcode.SetLkWait ? 1 : 0;

        // The numbers of processes here mean nothing to the device.
        ((FuseInHeader*)message)->ProcessId = 0;
        _inFlight[slot] = new InFlight(header.Unique, header.Opcode, _bridge.InvalidationCount);
        if (!_queue.TrySubmit(
            slot, new SlotPart(RequestStart, length), new SlotPart(ReplyStart, SlotBytes - ReplyStart)))
        {
            throw new InvalidOperationException("the queue has fewer descriptors than slots");
        }

        if (_count++ == 0)
        {
            // The device is idle: it works on this one while we look for more.
            _queue.Kick();
        }
    }

    private void SendHighPriority(ReadOnlySpan<byte> message)
    {
        if (_session.HighPriority.Send(message) && _forgetsDue == 0)
        {
            _forgetsDue = Environment.TickCount64 + HighPriorityChannel.PatienceMilliseconds;
        }
    }

    private int FlushForgets()
    {
        if (_forgetsDue == 0)
        {
            return Poll.Forever;
        }

        long left = _forgetsDue - Environment.TickCount64;
        if (left > 0)
        {
            return (int)left;
        }

        _forgetsDue = 0;
        _session.HighPriority.Flush();
        return Poll.Forever;
    }

    private void Reply(int slot, int length)
    {
        InFlight request = _inFlight[slot];
        _inFlight[slot] = default;
        _count--;
        _waitingLocks -= request.Opcode == FuseOpcode.SetLkWait ? 1 : 0;

        // The header is copied, and the copy is checked and sent: the device can still change what it wrote.
        byte* reply = _queue.ReplyMemory(slot) + ReplyStart;
        FuseOutHeader header = length >= ReplyHeaderSize ? *(FuseOutHeader*)reply : default;
        bool isValid = header.Length == length && header.Unique == request.Unique && header.Error is > -512 and <= 0
            && (header.Error == 0 || length == ReplyHeaderSize);
        if (!isValid)
        {
            BadReplyCount++;
            WriteError(request.Unique, Errno.EIO);
        }
        else
        {
            Deliver(request, header, reply + ReplyHeaderSize, length - ReplyHeaderSize);
        }

        _queue.Release(slot);
    }

    private void Deliver(InFlight request, in FuseOutHeader header, byte* body, int length)
    {
        if (!_session.Driver.HasNotifications)
        {
            if (_session.Editor.IsNeeded)
            {
                Edit(request.Opcode, body, length, isStale: false);
            }

            Write(header, body, length);
            return;
        }

        // Odd while a reply is on its way: who invalidates waits for that (WaitForDelivery), so that either the reply sees
        // the new count here, or the kernel has the reply before the invalidation.
        Volatile.Write(ref _deliveries, _deliveries + 1);
        Interlocked.MemoryBarrier();
        bool isStale = _bridge.InvalidationCount != request.InvalidationCount;
        if (isStale || _session.Editor.IsNeeded)
        {
            Edit(request.Opcode, body, length, isStale);
        }

        Write(header, body, length);
        Volatile.Write(ref _deliveries, _deliveries + 1);
    }

    private void Edit(FuseOpcode opcode, byte* body, int length, bool isStale)
    {
        if (!_session.Editor.Edit(opcode, body, length, isStale))
        {
            _bridge.End("the device's numbers are too large to tell its sessions apart; mount without '-o lost=wait'");
        }
    }

    private void WriteError(RequestId unique, Errno error) => Write(
        new FuseOutHeader { Length = ReplyHeaderSize, Error = -(int)error, Unique = unique }, null, 0);

    private void Write(FuseOutHeader header, byte* body, int length)
    {
        ReadOnlySpan<IoVector> message = [new IoVector((byte*)&header, ReplyHeaderSize), new IoVector(body, (nuint)length)];
        SyscallResult written = FuseDevice.Write(Number(_device), length == 0 ? message[..1] : message);
        // ENOENT: nobody waits any more. EINVAL: the length is not what the kernel expects, which it reports as EIO. What
        // ends the connection shows at the next read.
        if (written.Error == Errno.EINVAL)
        {
            BadReplyCount++;
        }
    }

    private void FailInFlight()
    {
        _count = 0;
        _waitingLocks = 0;
        _forgetsDue = 0;
        for (int slot = 0; slot < Slots; slot++)
        {
            if (_inFlight[slot].Unique.Value != 0)
            {
                WriteError(_inFlight[slot].Unique, FailureOf(_inFlight[slot].Opcode));
                _inFlight[slot] = default;
            }
        }
    }

    // The kernel looks paths up once more after ESTALE, and so waits for the next daemon. What may have been done already
    // must not be done again.
    private Errno FailureOf(FuseOpcode opcode) => !_bridge.IsOver && opcode is (FuseOpcode.Lookup or FuseOpcode.GetAttr
        or FuseOpcode.Statx or FuseOpcode.Open or FuseOpcode.OpenDir or FuseOpcode.ReadLink or FuseOpcode.GetXattr
        or FuseOpcode.ListXattr or FuseOpcode.Statfs or FuseOpcode.Access)
        ? Errno.ESTALE
        : Errno.EIO;

    private void Wait()
    {
        // With nothing in flight there is nothing to be called for, and a call that nobody needs wakes this thread once more.
        if (_count > 0 && (CompleteAwake() || !_queue.ArmCalls()))
        {
            return;
        }

        int timeout = FlushForgets();
        AllocatedBytes = GC.GetAllocatedBytesForCurrentThread();

        // Without a free slot a request could not be taken, and waiting for one would not be waiting.
        bool canAccept = _count < Slots;
        Span<EpollEvent> events = stackalloc EpollEvent[3];
        int count = Events.EpollWait(Number(canAccept ? _all : _completions), events, timeout).Count;
        for (int i = 0; i < count; i++)
        {
            switch (events[i].Data)
            {
                case DeviceToken:
                    _mayHaveRequests = true;
                    break;

                case ControlToken:
                    Events.Drain(Number(_control), out _);
                    break;
            }
        }
    }

    // A read that hits the daemon's page cache is answered sooner than a sleeping thread wakes up.
    private bool CompleteAwake()
    {
        if (!_polling.TryBegin())
        {
            return false;
        }

        bool any;
        do
        {
            any = Complete();
        }
        while (!any && _polling.GoOn());

        _polling.End(any);
        return any;
    }

    private readonly record struct InFlight(RequestId Unique, FuseOpcode Opcode, long InvalidationCount);
}
