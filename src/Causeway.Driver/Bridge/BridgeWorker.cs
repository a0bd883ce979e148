using System.Runtime.CompilerServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver.Bridge;

/// <summary>
/// One thread of a bridge: it has a request queue to itself and one end of the connection with the kernel, whose requests
/// it passes on where they are, in guest memory. Nothing on this way is locked.
/// </summary>
internal sealed unsafe partial class BridgeWorker : IDisposable
{
    /// <summary>How many requests a thread has in flight as a rule. Each reserves 2 MiB, touched as used.</summary>
    public const int Slots = 32;

    private const int ReplyHeaderSize = 16;
    private const int Batch = 16;

    private readonly FuseBridge _bridge;
    private readonly int _index;
    private readonly KernelChannel _kernel;
    private readonly SafeFileHandle _control;

    // Apart, because they succeed at different times: a program that computes between two requests is still worth being
    // awake for while it waits for a reply.
    private readonly RingPolling _replyPolling;
    private readonly RingPolling _requestPolling;

    // The bridge's.
#pragma warning disable CA2213
    private BridgeSession _session;
    private VirtioFsQueue _queue;
#pragma warning restore CA2213
    private InFlight[] _inFlight = [];
    private int _count;
    private int _waitingLocks;
    private long _badReplies;
    private long _deliveries;

    // When the device is to hear of FORGETs that wait for others, Environment.TickCount64; zero when none do.
    private long _forgetsDue;

    /// <summary>Makes a worker. It runs when <see cref="Run"/> is called.</summary>
    /// <param name="bridge">The bridge.</param>
    /// <param name="session">The session with the device.</param>
    /// <param name="index">Which of its request queues is this worker's alone.</param>
    /// <param name="connect">Makes its end of the connection, given the event that wakes it.</param>
    public BridgeWorker(FuseBridge bridge, BridgeSession session, int index, Func<SafeFileHandle, KernelChannel> connect)
    {
        _bridge = bridge;
        _session = session;
        _index = index;
        _replyPolling = new RingPolling(bridge.PollingSeats);
        _requestPolling = new RingPolling(bridge.PollingSeats);
        _queue = session.Driver.RequestQueues[index];
        _control = Events.CreateEvent();
        try
        {
            _kernel = connect(_control);
        }
        catch
        {
            _control.Dispose();
            throw;
        }
    }

    /// <summary>Requests taken from the kernel so far.</summary>
    public long RequestCount { get; private set; }

    /// <summary>Replies of the device that broke the protocol.</summary>
    public long BadReplyCount => _badReplies + _kernel.RefusedReplies;

    /// <summary>Managed memory the thread has allocated so far, as of the last time it waited. For tests.</summary>
    public long AllocatedBytes { get; private set; }

    /// <summary>Serves until the connection or the bridge ends. The thread's whole life.</summary>
    public void Run()
    {
        do
        {
            try
            {
                _inFlight = new InFlight[_queue.Slots];
                _kernel.Begin(_queue);
                Serve();
            }
            catch (VirtioFsDeviceException exception)
            {
                // The device broke the ring: to us, it is gone.
                _session.Lose(exception);
            }
            catch (IOException exception)
            {
                _bridge.End(exception.Message);
            }

            FailInFlight();
        }
        while (TryResume());

        while (_bridge.IsNotifying)
        {
            // A notification may wait in the kernel for a page or a directory that a request has locked.
            _kernel.Refuse();
            Thread.Yield();
        }
    }

    private void Serve()
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
    public void Wake() => Events.Signal((int)_control.DangerousGetHandle());

    /// <inheritdoc/>
    public void Dispose()
    {
        _kernel.Dispose();
        _control.Dispose();
    }

    private bool Complete()
    {
        bool any = false;
        while (_queue.TryTake(out int slot, out int length))
        {
            any = true;
            Reply(slot, length);
        }

        if (any && _count > 0)
        {
            // Others are still at work, and this thread may look at them for a while before it sleeps.
            _kernel.Flush();
        }

        return any;
    }

    private bool Accept()
    {
        int taken = 0;
        for (; taken < Batch; taken++)
        {
            Arrival arrival = _kernel.TryTake(taken == 0, out KernelRequest request);
            if (arrival == Arrival.Over)
            {
                _bridge.End(_kernel.Failure);
            }

            if (arrival != Arrival.Request)
            {
                break;
            }

            Forward(request);
        }

        _queue.Kick();
        return taken > 0;
    }

    private void Forward(in KernelRequest request)
    {
        RequestCount++;
        byte* message = request.Message;
        var header = *(FuseInHeader*)message;
        switch (header.Opcode)
        {
            case FuseOpcode.BatchForget:
                int length = _session.IsTagged ? _session.Tag.UnmarkBatch(message, request.Length) : request.Length;
                ForgetHere(message, length);
                SendHighPriority(new ReadOnlySpan<byte>(message, length));
                _kernel.Release(request.Slot);
                return;

            case FuseOpcode.Forget when _bridge.Coherency is not null && !ForgetHere(message, request.Length):
                _kernel.Release(request.Slot);
                return;

            case FuseOpcode.Forget or FuseOpcode.Interrupt:
                if (!_session.IsTagged || _session.Tag.TryUnmark(message, request.Length))
                {
                    SendHighPriority(new ReadOnlySpan<byte>(message, request.Length));
                }

                _kernel.Release(request.Slot);
                return;

            // A lock that is waited for keeps its slot; the request that gives the lock back needs one, too.
            case FuseOpcode.SetLkWait when _waitingLocks >= _kernel.LockSlots:
                AnswerError(request.Slot, header.Unique, Errno.ENOLCK);
                return;
        }

        if (_session.IsTagged && !_session.Tag.TryUnmark(message, request.Length))
        {
            // What an earlier daemon had open is closed, and what it wrote is in the host's hands.
            bool isEnd = header.Opcode is FuseOpcode.Release or FuseOpcode.ReleaseDir or FuseOpcode.Flush;
            AnswerError(request.Slot, header.Unique, isEnd ? Errno.Success : Errno.ESTALE);
            return;
        }

        // The numbers of processes here mean nothing to the device.
        ((FuseInHeader*)message)->ProcessId = 0;
        if (_bridge.Coherency is { } coherency && AnswerHere(coherency, request, header))
        {
            return;
        }

        _waitingLocks += header.Opcode == FuseOpcode.SetLkWait ? 1 : 0;
        _inFlight[request.Slot] =
            new InFlight(header.Unique, header.Opcode, request.Request, request.Reply, _bridge.InvalidationCount);
        _count++;
        Submit(request.Slot);
    }

    private void Submit(int slot)
    {
        ref InFlight request = ref _inFlight[slot];
        if (_bridge.Coherency is { } coherency)
        {
            PrepareVersions(coherency, slot, ref request);
        }

        if (!_queue.TrySubmit(slot, request.Request, request.ReplyPart))
        {
            throw new InvalidOperationException("the queue has fewer descriptors than slots");
        }

        if (_count == 1)
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

        // The header is copied, and the copy is checked and sent: the device can still change what it wrote.
        byte* reply = _queue.Memory(slot) + request.ReplyPart.Offset;
        FuseOutHeader header = length >= ReplyHeaderSize ? *(FuseOutHeader*)reply : default;
        int bodyStart = ReplyHeaderSize + request.TagBytes;
        bool isValid = header.Length == length && header.Unique == request.Unique && header.Error is > -512 and <= 0
            && (header.Error == 0
                ? length >= bodyStart && ReplyLengths.IsPossible(request.Sent, length - bodyStart)
                : length == ReplyHeaderSize);
        if (!isValid)
        {
            _badReplies++;
            End(slot, request);
            _bridge.Coherency?.HasReturned(new SentRequest(request.Sent, request.Node, request.Epoch));
            AnswerError(slot, request.Unique, Errno.EIO);
            return;
        }

        if (request.Stage != LazyStage.None && GoOn(slot, ref _inFlight[slot], header, reply + bodyStart))
        {
            return;
        }

        End(slot, request);
        if (_bridge.Coherency is { } coherency)
        {
            DeliverVersioned(coherency, slot, request, header, reply);
        }
        else
        {
            Deliver(slot, request, header, reply + ReplyHeaderSize);
        }
    }

    private void End(int slot, in InFlight request)
    {
        _inFlight[slot] = default;
        _count--;
        _waitingLocks -= request.Opcode == FuseOpcode.SetLkWait ? 1 : 0;
    }

    private void Deliver(int slot, InFlight request, in FuseOutHeader header, byte* body)
    {
        int length = (int)header.Length - ReplyHeaderSize;
        if (!_session.Driver.HasNotifications)
        {
            if (_session.Editor.IsNeeded)
            {
                Edit(request.Opcode, body, length, isStale: false);
            }

            _kernel.Answer(slot, header, body, length);
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

        _kernel.Answer(slot, header, body, length);
        _kernel.Flush();
        Volatile.Write(ref _deliveries, _deliveries + 1);
    }

    private void Edit(FuseOpcode opcode, byte* body, int length, bool isStale)
    {
        if (!_session.Editor.Edit(opcode, body, length, isStale))
        {
            _bridge.End("the device's numbers are too large to tell its sessions apart; mount without '-o lost=wait'");
        }
    }

    private void AnswerError(int slot, RequestId unique, Errno error) => _kernel.Answer(
        slot, new FuseOutHeader { Length = ReplyHeaderSize, Error = -(int)error, Unique = unique }, null, 0);

    private void FailInFlight()
    {
        _count = 0;
        _waitingLocks = 0;
        _forgetsDue = 0;
        for (int slot = 0; slot < _inFlight.Length; slot++)
        {
            InFlight request = _inFlight[slot];
            if (request.Unique.Value != 0)
            {
                AnswerError(slot, request.Unique, FailureOf(request.Opcode));
                _inFlight[slot] = default;
            }
        }

        _kernel.Flush();
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
        if (LookForAWhile(_count > 0 ? _replyPolling : _requestPolling) || (_count > 0 && !_queue.ArmCalls()))
        {
            return;
        }

        // A channel may have taken the wake-up while it looked for requests, and it comes but once.
        if (_bridge.IsOver || _session.IsLost)
        {
            return;
        }

        int timeout = FlushForgets();
        AllocatedBytes = GC.GetAllocatedBytesForCurrentThread();
        _kernel.Wait(hasRoom: _count < _inFlight.Length, timeout);
    }

    // A read that hits the daemon's page cache is answered sooner than a sleeping thread wakes up, and a program that got
    // its reply often asks for the next thing sooner. In both cases both may come.
    private bool LookForAWhile(RingPolling polling)
    {
        if (!polling.TryBegin())
        {
            return false;
        }

        bool any = false;
        try
        {
            _kernel.Flush();
            do
            {
                any = Complete();
                if (!any && _count < _inFlight.Length)
                {
                    _kernel.Expect();
                    any = Accept();
                }
            }
            while (!any && !_bridge.IsOver && polling.GoOn());
        }
        finally
        {
            // Also when the device breaks the ring: the next one's thread may look again.
            polling.End(any);
        }

        return any;
    }

    /// <summary>A request that the device has.</summary>
    private record struct InFlight(
        RequestId Unique, FuseOpcode Opcode, SlotPart Request, SlotPart ReplyPart, long InvalidationCount)
    {
        /// <summary>What the device was asked last; another than the kernel's while a file is opened late.</summary>
        public FuseOpcode Sent { get; set; } = Opcode;

        /// <summary>The node that it names.</summary>
        public NodeId Node { get; set; }

        /// <summary>The version table's epoch before it was sent.</summary>
        public ulong Epoch { get; set; }

        /// <summary>Bytes of versions in front of the body of the reply.</summary>
        public int TagBytes { get; set; }

        /// <summary>How far a file that is opened late has come.</summary>
        public LazyStage Stage { get; set; }
    }
}
