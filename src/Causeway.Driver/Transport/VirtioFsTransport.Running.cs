using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver;

/// <content>Threads, the high-priority queue, and the end.</content>
public sealed partial class VirtioFsTransport
{
    // Entries of a BATCH_FORGET that fit a call.
    private static readonly int MostForgets = (FuseCall.ControlBytes - FuseCall.RequestHeaderBytes
        - Unsafe.SizeOf<FuseBatchForgetIn>()) / Unsafe.SizeOf<FuseForgetOne>();

    private readonly SafeFileHandle _errorEvent = Events.CreateEvent();
    private readonly SafeFileHandle _stopEvent = Events.CreateEvent();
    private readonly List<Thread> _threads = [];
    private readonly Lock _lossGate = new();
    private readonly Lock _pendingGate = new();
    private readonly List<FuseForgetOne> _pendingForgets = [];
    private readonly List<RequestId> _pendingInterrupts = [];
    private FuseCompletion? _highPriorityDone;
    private volatile VirtioFsDeviceException? _loss;
    private Thread? _lossThread;
    private int _pools;
    private int _isDisposed;

    /// <summary>
    /// Gives lookups of nodes back, by FORGET or BATCH_FORGET on the high-priority queue. There is no reply; the numbers
    /// are kept until the queue has room.
    /// </summary>
    /// <param name="nodes">The nodes and how many lookups of each.</param>
    public void Forget(params ReadOnlySpan<FuseForgetOne> nodes)
    {
        lock (_pendingGate)
        {
            _pendingForgets.AddRange(nodes);
        }

        SendHighPriority();
    }

    /// <summary>
    /// Asks the device to stop working on a request, by INTERRUPT on the high-priority queue. The request is answered all
    /// the same: by EINTR, or as if nothing had been asked.
    /// </summary>
    /// <param name="request">The number of the request.</param>
    public void Interrupt(RequestId request)
    {
        lock (_pendingGate)
        {
            _pendingInterrupts.Add(request);
        }

        SendHighPriority();
    }

    /// <summary>
    /// Closes the connection, whatever is in flight: pending calls end as lost. Guest memory is given back when the last
    /// call and buffer are.
    /// </summary>
    /// <exception cref="InvalidOperationException">Called by a completion or a notification handler.</exception>
    public void Dispose()
    {
        // Who is told of the loss may dispose of the transport: its thread looks at nothing any more.
        bool isOnOwnThread = _threads.Contains(Thread.CurrentThread);
        if (isOnOwnThread && Volatile.Read(ref _lossThread) != Thread.CurrentThread)
        {
#pragma warning disable CA1065 // It would wait for itself, and unmapping the rings below its own thread would be worse.
            throw new InvalidOperationException("a transport cannot be disposed of by a completion or a notification");
#pragma warning restore CA1065
        }

        if (Interlocked.Exchange(ref _isDisposed, 1) != 0)
        {
            return;
        }

        Fail(new VirtioFsDeviceException(DeviceFailure.Closed, "the connection to the device was closed by this side"));
        foreach (Thread thread in _threads)
        {
            if (thread != Thread.CurrentThread)
            {
                thread.Join();
            }
        }

        _frontend.Dispose();
        _highPriority.Dispose();
        _notifications?.Dispose();
        foreach (TransportQueue queue in _queues)
        {
            queue.Dispose();
        }

        _errorEvent.Dispose();
        _stopEvent.Dispose();
        _calls.Close();
        _highPriorityCalls.Close();
        _buffers.Close();
        _cacheBuffers.Close();
    }

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    private void StartThreads()
    {
        _highPriorityDone = HighPriorityDone;
        Start("vfs-control", Watch);
        foreach (TransportQueue queue in _queues)
        {
            Start($"vfs-queue-{queue.Index}", () => FailIfBroken(queue.Run(), queue.Index));
        }

        if (_notifications is { } notifications)
        {
            Start("vfs-notify", () => FailIfBroken(notifications.Run(), 1));
        }
    }

    private void Start(string name, Action run)
    {
        var thread = new Thread(() => RunGuarded(run)) { IsBackground = true, Name = name };
        _threads.Add(thread);
        thread.Start();
    }

    /// <summary>A thread that ends by an exception takes the transport along: waiting for it would be without end.</summary>
    private void RunGuarded(Action run)
    {
        try
        {
            run();
        }
        catch (Exception exception)
        {
            Fail(new VirtioFsDeviceException(
                DeviceFailure.Closed,
                $"{Thread.CurrentThread.Name} ended by an exception, so the device is not used any more: {exception.Message}",
                exception));
        }
    }

    private void FailIfBroken(bool wasStopped, int queue)
    {
        if (!wasStopped)
        {
            Fail(Broken(queue));
        }
    }

    private static VirtioFsDeviceException Broken(int queue) => new(
        DeviceFailure.BrokenQueue,
        $"the device broke queue {queue}: its used ring contradicts what was submitted; restart the daemon");

    /// <summary>Watches the control socket, the error event, the clock, and the high-priority queue.</summary>
    private void Watch()
    {
        Span<PollDescriptor> waits =
        [
            new PollDescriptor(Number(_stopEvent), PollEvents.Readable),
            new PollDescriptor(Number(_frontend.Socket), PollEvents.PeerClosed),
            new PollDescriptor(Number(_errorEvent), PollEvents.Readable),
            new PollDescriptor(Number(_highPriority.CallEvent), PollEvents.Readable),
        ];
        int timeout = _options.ReplyTimeout is null ? Poll.Forever : 1000;
        while (_loss is null)
        {
            if (!_highPriority.CompleteAll())
            {
                Fail(Broken(0));
                return;
            }

            Poll.Wait(waits, timeout).ThrowIfError("wait for the device");
            if (waits[1].Returned != 0)
            {
                Fail(new VirtioFsDeviceException(
                    DeviceFailure.Disconnected,
                    "the daemon closed the connection; pending requests may or may not have been carried out"));
                return;
            }

            if (waits[2].Returned != 0)
            {
                Fail(new VirtioFsDeviceException(
                    DeviceFailure.BrokenQueue, "the device reports that it cannot go on with a queue; see its log"));
                return;
            }

            _highPriority.DrainCalls();
            CheckClock();
        }
    }

    private void CheckClock()
    {
        if (_options.ReplyTimeout is { } limit)
        {
            long now = Environment.TickCount64;
            foreach (TransportQueue queue in _queues)
            {
                if (queue.OldestAge(now) > limit.TotalMilliseconds)
                {
                    Fail(new VirtioFsDeviceException(
                        DeviceFailure.NotAnswering,
                        $"the device has not answered a request within {limit.TotalSeconds:0.###} seconds"));
                    return;
                }
            }
        }
    }

    /// <summary>The first reason counts. Afterwards nothing is submitted any more, and everything pending is lost.</summary>
    private void Fail(VirtioFsDeviceException loss)
    {
        lock (_lossGate)
        {
            if (_loss is not null)
            {
                return;
            }

            _loss = loss;
        }

        Events.Signal(Number(_stopEvent));
        foreach (TransportQueue queue in _queues)
        {
            queue.Close();
            queue.Stop();
        }

        _highPriority.Close();
        _notifications?.Stop();
        if (loss.Failure != DeviceFailure.Closed && _options.OnLost is { } onLost)
        {
            Volatile.Write(ref _lossThread, Thread.CurrentThread);
            onLost(loss);
        }
    }

    /// <summary>Sends what is pending for the high-priority queue, as far as there are calls for it.</summary>
    private void SendHighPriority()
    {
        while (true)
        {
            FuseCall? call;
            lock (_pendingGate)
            {
                if (_loss is not null)
                {
                    _pendingForgets.Clear();
                    _pendingInterrupts.Clear();
                }

                if (_pendingForgets.Count == 0 && _pendingInterrupts.Count == 0)
                {
                    return;
                }

                call = _isDisposed == 0 ? _highPriorityCalls.TryRent() : null;
                if (call is null)
                {
                    // The next one that comes back sends the rest.
                    return;
                }

                if (_pendingInterrupts.Count > 0)
                {
                    WriteInterrupt(call, _pendingInterrupts[^1]);
                    _pendingInterrupts.RemoveAt(_pendingInterrupts.Count - 1);
                }
                else
                {
                    int count = Math.Min(MostForgets, _pendingForgets.Count);
                    int first = _pendingForgets.Count - count;
                    WriteForget(call, CollectionsMarshal.AsSpan(_pendingForgets)[first..]);
                    _pendingForgets.RemoveRange(first, count);
                }
            }

            call.Submit(_highPriority, _highPriorityDone!);
        }
    }

    private void HighPriorityDone(FuseCall call, FuseReply reply)
    {
        call.Return();
        SendHighPriority();
    }

    private void WriteInterrupt(FuseCall call, RequestId request) =>
        WriteHighPriority(call, FuseOpcode.Interrupt, NodeId.None, MemoryMarshal.AsBytes(new ReadOnlySpan<RequestId>(in request)));

    private void WriteForget(FuseCall call, ReadOnlySpan<FuseForgetOne> nodes)
    {
        if (nodes.Length == 1)
        {
            ulong count = nodes[0].LookupCount;
            WriteHighPriority(
                call, FuseOpcode.Forget, nodes[0].NodeId, MemoryMarshal.AsBytes(new ReadOnlySpan<ulong>(in count)));
            return;
        }

        Span<byte> arguments = stackalloc byte[FuseCall.ControlBytes];
        MemoryMarshal.Write(arguments, new FuseBatchForgetIn { Count = (uint)nodes.Length });
        int length = Unsafe.SizeOf<FuseBatchForgetIn>();
        ReadOnlySpan<byte> entries = MemoryMarshal.AsBytes(nodes);
        entries.CopyTo(arguments[length..]);
        WriteHighPriority(call, FuseOpcode.BatchForget, NodeId.None, arguments[..(length + entries.Length)]);
    }

    private void WriteHighPriority(FuseCall call, FuseOpcode opcode, NodeId node, ReadOnlySpan<byte> arguments)
    {
        MemoryMarshal.Write(call.Request, new FuseInHeader
        {
            Length = (uint)(FuseCall.RequestHeaderBytes + arguments.Length),
            Opcode = opcode,
            Unique = NextUnique(),
            NodeId = node,
        });
        arguments.CopyTo(call.Request[FuseCall.RequestHeaderBytes..]);
        call.RequestLength = FuseCall.RequestHeaderBytes + arguments.Length;
        call.ReplyCapacity = 0;
    }

    /// <summary>Guest memory goes when the last pool has everything back.</summary>
    private void PoolEmptied()
    {
        if (Interlocked.Decrement(ref _pools) == 0)
        {
            _arena.Dispose();
        }
    }
}
