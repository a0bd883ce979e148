using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <content>Threads, the high-priority queue, and the end.</content>
public sealed partial class VirtioFsTransport
{
    // Entries of a BATCH_FORGET that fit a call.
    private static readonly int MostForgets = (FuseCall.ControlBytes - FuseCall.RequestHeaderBytes
        - Unsafe.SizeOf<FuseBatchForgetIn>()) / Unsafe.SizeOf<FuseForgetOne>();

    private readonly Lock _pendingGate = new();
    private readonly List<FuseForgetOne> _pendingForgets = [];
    private readonly List<RequestId> _pendingInterrupts = [];
    private readonly FuseCompletion _highPriorityDone;
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
        if (_connection.IsOnOwnThread() && Volatile.Read(ref _lossThread) != Thread.CurrentThread)
        {
#pragma warning disable CA1065 // It would wait for itself, and unmapping the rings below its own thread would be worse.
            throw new InvalidOperationException("a transport cannot be disposed of by a completion or a notification");
#pragma warning restore CA1065
        }

        if (Interlocked.Exchange(ref _isDisposed, 1) != 0)
        {
            return;
        }

        _connection.Dispose();
        _highPriority.Dispose();
        foreach (TransportQueue queue in _queues)
        {
            queue.Dispose();
        }

        _calls.Close();
        _highPriorityCalls.Close();
        _buffers.Close();
        _cacheBuffers.Close();
    }

    private void StartThreads()
    {
        _connection.StartThread("vfs-control", Watch);
        foreach (TransportQueue queue in _queues)
        {
            _connection.StartThread(
                $"vfs-queue-{queue.Ring.Index}", () => _connection.LoseIfBroken(queue.Run(), queue.Ring.Index));
        }
    }

    /// <summary>Watches the device, the clock, and the high-priority queue.</summary>
    private void Watch()
    {
        int timeout = _options.ReplyTimeout is null ? Poll.Forever : 1000;
        do
        {
            _highPriority.Ring.DrainCalls();
            if (!_highPriority.CompleteAll())
            {
                _connection.Lose(DeviceConnection.Broken(_highPriority.Ring.Index));
            }

            CheckClock();
        }
        while (_connection.Watch(_highPriority.Ring.CallEvent, timeout) is null);
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
                    _connection.Lose(new VirtioFsDeviceException(
                        DeviceFailure.NotAnswering,
                        $"the device has not answered a request within {limit.TotalSeconds:0.###} seconds"));
                    return;
                }
            }
        }
    }

    /// <summary>The device is lost: nothing is submitted any more, and everything pending ends.</summary>
    private void EndCalls(VirtioFsDeviceException loss)
    {
        foreach (TransportQueue queue in _queues)
        {
            queue.Close();
            queue.Stop();
        }

        _highPriority.Close();
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
                if (_connection.Loss is not null)
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

            call.Submit(_highPriority, _highPriorityDone);
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
