using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading.Tasks.Sources;
using Causeway.Fuse;
using Causeway.Virtio;

namespace Causeway.Driver;

/// <summary>Takes the end of a call, on the thread that completes the queue's requests: it must not block for long.</summary>
/// <param name="call">The call; to be returned by the handler, or by whom it hands it to.</param>
/// <param name="reply">How it ended.</param>
public delegate void FuseCompletion(FuseCall call, FuseReply reply);

/// <summary>
/// One request and its reply, in guest memory: 4 KiB for the header and the arguments of each, and payload buffers that
/// can be attached. Rented from a <see cref="VirtioFsTransport"/>, filled, submitted once, and returned; nothing is
/// allocated meanwhile.
/// </summary>
/// <remarks>
/// <para>The request is the first <see cref="RequestLength"/> bytes of <see cref="Request"/>, followed by
/// <see cref="RequestPayload"/>. The reply fills <see cref="ReplyCapacity"/> bytes of <see cref="Reply"/> first, then
/// <see cref="ReplyPayload"/>. Payload buffers go back together with the call; to keep one, set the property to
/// default before returning the call.</para>
/// <para>The device can write to all of this at any time, before and after it replies. What is to be checked is to be copied
/// first; <see cref="FuseReply.Header"/> is such a copy.</para>
/// </remarks>
public sealed unsafe class FuseCall : IValueTaskSource<FuseReply>
{
    /// <summary>Room for header and arguments of a request, and of a reply, in bytes.</summary>
    public const int ControlBytes = 4096;

    /// <summary>Bytes of a request's header.</summary>
    public const int RequestHeaderBytes = 40;

    /// <summary>Bytes of a reply's header.</summary>
    public const int ReplyHeaderBytes = 16;

    private const int Idle = 0;
    private const int Pending = 1;
    private const int Done = 2;
    private const int Abandoned = 3;

    private readonly VirtioFsTransport _transport;
    private readonly TransportPool<FuseCall> _pool;
    private readonly byte* _memory;
    private readonly GuestAddress _address;

    private ManualResetValueTaskSourceCore<FuseReply> _source = new() { RunContinuationsAsynchronously = true };
    private CancellationTokenRegistration _cancellation;
    private FuseCompletion? _handler;
    private FuseCompletion? _whenAbandoned;
    private RequestId _unique;
    private int _state;

    // An abandoned call is in two hands: the device's, and of the caller who has yet to learn of it.
    private int _abandonedHands;

    internal FuseCall(VirtioFsTransport transport, TransportPool<FuseCall> pool, byte* memory, GuestAddress address)
    {
        _transport = transport;
        _pool = pool;
        _memory = memory;
        _address = address;
    }

    /// <summary>Where the request starts: <see cref="ControlBytes"/> bytes.</summary>
    public Span<byte> Request => new(_memory, ControlBytes);

    /// <summary>The same for system calls.</summary>
    public byte* RequestPointer => _memory;

    /// <summary>How many bytes of <see cref="Request"/> are sent; at least <see cref="RequestHeaderBytes"/>.</summary>
    public int RequestLength { get; set; }

    /// <summary>What follows in the request. Default: nothing.</summary>
    public GuestPiece RequestPayload { get; set; }

    /// <summary>Where the reply starts: <see cref="ControlBytes"/> bytes.</summary>
    public Span<byte> Reply => new(_memory + ControlBytes, ControlBytes);

    /// <summary>The same for system calls.</summary>
    public byte* ReplyPointer => _memory + ControlBytes;

    /// <summary>
    /// How many bytes of <see cref="Reply"/> the device may fill: at least <see cref="ReplyHeaderBytes"/>, or zero for a
    /// request that has no reply, which then completes with an empty one when the device has read it.
    /// </summary>
    public int ReplyCapacity { get; set; }

    /// <summary>Where the reply continues. Default: nowhere.</summary>
    public GuestPiece ReplyPayload { get; set; }

    /// <summary>Whatever the caller wants to find again in its <see cref="FuseCompletion"/>.</summary>
    public object? State { get; set; }

    /// <summary>The next call of a list that a queue keeps.</summary>
    internal FuseCall? Next { get; set; }

    /// <summary>When the device got the request, <see cref="Environment.TickCount64"/>; zero when it has none.</summary>
    internal long SubmittedAt { get; set; }

    /// <summary>Sends the request. It need not have been read, nor sent, when the method returns.</summary>
    /// <param name="queue">The request queue, 0 to <see cref="VirtioFsTransport.RequestQueueCount"/> - 1.</param>
    /// <param name="handler">Takes the reply, exactly once. On a lost device it is called before the method returns.</param>
    public void Submit(int queue, FuseCompletion handler)
    {
        ArgumentNullException.ThrowIfNull(handler);
        Begin(handler, whenAbandoned: null);
        _transport.Queue(queue).Submit(this);
    }

    /// <summary>Sends the request, to be awaited once.</summary>
    /// <param name="queue">The request queue.</param>
    /// <param name="whenAbandoned">
    /// Takes the reply that comes after the caller has stopped waiting: to give back what it carries. It must not return
    /// the call.
    /// </param>
    /// <param name="cancellationToken">
    /// Stops waiting, and asks the device by INTERRUPT to stop as well; it may carry the request out all the same. The call
    /// then is <see cref="FuseReplyStatus.Abandoned"/>, and no longer the caller's.
    /// </param>
    /// <returns>The reply. What is awaiting goes on on the thread pool.</returns>
    public ValueTask<FuseReply> SubmitAsync(
        int queue, FuseCompletion? whenAbandoned = null, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        _source.Reset();
        Begin(handler: null, whenAbandoned);
        short version = _source.Version;
        _transport.Queue(queue).Submit(this);
        if (cancellationToken.CanBeCanceled)
        {
            _cancellation = cancellationToken.UnsafeRegister(static state => ((FuseCall)state!).Abandon(), this);
        }

        return new ValueTask<FuseReply>(this, version);
    }

    /// <summary>The body of the reply as a structure, copied.</summary>
    /// <typeparam name="T">The structure.</typeparam>
    /// <param name="reply">The reply.</param>
    /// <param name="body">The copy.</param>
    /// <returns>Whether the reply has exactly that many bytes, all in <see cref="Reply"/>.</returns>
    public bool TryReadBody<T>(FuseReply reply, out T body)
        where T : unmanaged
    {
        if (reply.BodyLength != Unsafe.SizeOf<T>() || reply.Header.Length > ReplyCapacity)
        {
            body = default;
            return false;
        }

        body = MemoryMarshal.Read<T>(Reply[ReplyHeaderBytes..]);
        return true;
    }

    /// <summary>Gives the call back, and the payload buffers that are attached.</summary>
    /// <exception cref="InvalidOperationException">The device still has it.</exception>
    public void Return()
    {
        if (Volatile.Read(ref _state) is Pending or Abandoned)
        {
            throw new InvalidOperationException("a call cannot be returned before it has completed");
        }

        Recycle();
    }

    /// <inheritdoc/>
    FuseReply IValueTaskSource<FuseReply>.GetResult(short token)
    {
        FuseReply reply = _source.GetResult(token);

        // A callback that runs right now has lost against the reply, or has won and set the result itself.
        _cancellation.Dispose();
        _cancellation = default;
        if (reply.Status == FuseReplyStatus.Abandoned)
        {
            LetGo();
        }

        return reply;
    }

    /// <inheritdoc/>
    ValueTaskSourceStatus IValueTaskSource<FuseReply>.GetStatus(short token) => _source.GetStatus(token);

    /// <inheritdoc/>
    void IValueTaskSource<FuseReply>.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _source.OnCompleted(continuation, state, token, flags);

    /// <summary>Sends the request on a queue that is not a request queue.</summary>
    internal void Submit(TransportQueue queue, FuseCompletion handler)
    {
        Begin(handler, whenAbandoned: null);
        queue.Submit(this);
    }

    /// <summary>Describes the request and the room for the reply, at most two pieces each.</summary>
    internal void Describe(
        Span<GuestRange> ranges, out ReadOnlySpan<GuestRange> readable, out ReadOnlySpan<GuestRange> writable)
    {
        int count = 0;
        ranges[count++] = new GuestRange(_address, (ulong)RequestLength);
        if (RequestPayload.Length > 0)
        {
            ranges[count++] = RequestPayload.Range;
        }

        readable = ranges[..count];
        int first = count;
        if (ReplyCapacity > 0)
        {
            ranges[count++] = new GuestRange(new GuestAddress(_address.Value + ControlBytes), (ulong)ReplyCapacity);
        }

        if (ReplyPayload.Length > 0)
        {
            ranges[count++] = ReplyPayload.Range;
        }

        writable = ranges[first..count];
    }

    /// <summary>Ends the call: the device has given it back. The ring has checked the length against the room.</summary>
    internal void Complete(uint usedLength) => Complete(Check(usedLength));

    /// <summary>Ends the call without a reply.</summary>
    internal void Lose() => Complete(new FuseReply(FuseReplyStatus.Lost, default));

    private void Begin(FuseCompletion? handler, FuseCompletion? whenAbandoned)
    {
        bool isValid = RequestLength is >= RequestHeaderBytes and <= ControlBytes
            && ReplyCapacity is 0 or (>= ReplyHeaderBytes and <= ControlBytes)
            && RequestPayload.IsValid
            && ReplyPayload.IsValid
            && (ReplyCapacity > 0 || ReplyPayload.Length == 0);
        if (!isValid)
        {
            throw new InvalidOperationException("the lengths of the call do not fit its buffers");
        }

        if (Interlocked.CompareExchange(ref _state, Pending, Idle) != Idle)
        {
            throw new InvalidOperationException("a call is submitted once between being rented and being returned");
        }

        _handler = handler;
        _whenAbandoned = whenAbandoned;
        _abandonedHands = 2;

        // Remembered here, because the device could change the copy in guest memory.
        _unique = MemoryMarshal.Read<FuseInHeader>(Request).Unique;
    }

    private FuseReply Check(uint usedLength)
    {
        if (ReplyCapacity == 0)
        {
            return new FuseReply(
                usedLength == 0 ? FuseReplyStatus.Answered : FuseReplyStatus.Malformed, default);
        }

        // Copied once; only the copy is checked, and used.
        FuseOutHeader header = usedLength >= ReplyHeaderBytes ? MemoryMarshal.Read<FuseOutHeader>(Reply) : default;

        // The conditions of Linux 7.3 guests (fs/fuse/virtio_fs.c, fs/fuse/dev.c).
        bool isValid = usedLength >= ReplyHeaderBytes
            && header.Length == usedLength
            && header.Unique == _unique
            && header.Error is > -512 and <= 0
            && (header.Error == 0 || usedLength == ReplyHeaderBytes);
        return isValid
            ? new FuseReply(FuseReplyStatus.Answered, header)
            : new FuseReply(FuseReplyStatus.Malformed, default);
    }

    private void Complete(FuseReply reply)
    {
        SubmittedAt = 0;
        if (reply.Status == FuseReplyStatus.Malformed)
        {
            _transport.CountMalformedReply();
        }

        if (Interlocked.CompareExchange(ref _state, Done, Pending) == Abandoned)
        {
            _whenAbandoned?.Invoke(this, reply);
            LetGo();
            return;
        }

        if (_handler is { } handler)
        {
            handler(this, reply);
            return;
        }

        _source.SetResult(reply);
    }

    /// <summary>The caller stops waiting; the device goes on with the request and its buffers.</summary>
    private void Abandon()
    {
        if (Interlocked.CompareExchange(ref _state, Abandoned, Pending) == Pending)
        {
            _transport.Interrupt(_unique);
            _source.SetResult(new FuseReply(FuseReplyStatus.Abandoned, default));
        }
    }

    private void LetGo()
    {
        if (Interlocked.Decrement(ref _abandonedHands) == 0)
        {
            Recycle();
        }
    }

    private void Recycle()
    {
        RequestPayload.Buffer?.Return();
        if (ReplyPayload.Buffer != RequestPayload.Buffer)
        {
            ReplyPayload.Buffer?.Return();
        }

        RequestPayload = default;
        ReplyPayload = default;
        RequestLength = 0;
        ReplyCapacity = 0;
        State = null;
        _handler = null;
        _whenAbandoned = null;
        int before = Interlocked.Exchange(ref _state, Idle);
        Debug.Assert(before != Pending, "a call was recycled that the device still has");
        _pool.Return(this);
    }
}
