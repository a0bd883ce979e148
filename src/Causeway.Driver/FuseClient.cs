using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <summary>
/// A FUSE session over one queue, one request at a time: the plain form of the protocol, which programs that drive a device
/// directly (tests, benchmarks) build on. It belongs to one thread at a time.
/// </summary>
/// <remarks>
/// Errors of the file system are results. A reply that breaks the protocol is an <see cref="IOException"/>: lengths, unique
/// and error are checked as Linux 7.3 guests do.
/// </remarks>
public sealed partial class FuseClient
{
    private static readonly int HeaderSize = Unsafe.SizeOf<FuseInHeader>();
    private static readonly int ReplyHeaderSize = Unsafe.SizeOf<FuseOutHeader>();

    private readonly VirtioFsQueue _queue;
    private readonly VirtioFsQueue _highPriority;
    private readonly byte[] _request;
    private byte[] _reply;
    private ulong _unique;

    /// <summary>Makes a client.</summary>
    /// <param name="driver">The driver.</param>
    /// <param name="requestQueue">Which of its request queues to use.</param>
    public FuseClient(VirtioFsDriver driver, int requestQueue = 0)
    {
        ArgumentNullException.ThrowIfNull(driver);
        _queue = driver.RequestQueues[requestQueue];
        _highPriority = driver.HighPriorityQueue;
        _request = new byte[(1 << 20) + 4096];
        _reply = new byte[(1 << 20) + 4096];
        // Queues of one driver share a session, whose numbers should differ.
        _unique = (ulong)requestQueue << 56;
    }

    /// <summary>The caller's ids in the following requests.</summary>
    public (uint UserId, uint GroupId) Credentials { get; set; }

    /// <summary>What the device granted in INIT.</summary>
    public FuseFeatures Features { get; private set; }

    /// <summary>Sends a request made of anything, and waits for the reply.</summary>
    /// <param name="opcode">The opcode.</param>
    /// <param name="node">The node.</param>
    /// <param name="arguments">Everything behind the header.</param>
    /// <param name="replyCapacity">Room for the reply behind its header.</param>
    /// <param name="reply">The reply behind its header, valid until the next request.</param>
    /// <returns>Success, or the error of the file system.</returns>
    /// <exception cref="IOException">The reply breaks the protocol.</exception>
    public Errno Call(
        FuseOpcode opcode, NodeId node, ReadOnlySpan<byte> arguments, int replyCapacity, out ReadOnlySpan<byte> reply)
    {
        var header = new FuseInHeader
        {
            Length = (uint)(HeaderSize + arguments.Length),
            Opcode = opcode,
            Unique = new RequestId(++_unique),
            NodeId = node,
            UserId = Credentials.UserId,
            GroupId = Credentials.GroupId,
        };
        MemoryMarshal.Write(_request, in header);
        arguments.CopyTo(_request.AsSpan(HeaderSize));
        if (!_queue.TrySubmit(
            _request.AsSpan(0, (int)header.Length), ReplyHeaderSize + replyCapacity, out _))
        {
            throw new InvalidOperationException("the queue is full, so it is in use by another thread");
        }

        _queue.Kick();
        int length = _queue.Take(out int slot);
        // Copied before it is checked: the device can still change it.
        _queue.Reply(slot, length).CopyTo(_reply);
        _queue.Release(slot);
        return Check(header.Unique, length, replyCapacity, out reply);
    }

    /// <summary>Sends a request that is never answered, on the high-priority queue, and waits until it was taken.</summary>
    /// <param name="opcode">The opcode.</param>
    /// <param name="node">The node.</param>
    /// <param name="arguments">Everything behind the header.</param>
    public void Send(FuseOpcode opcode, NodeId node, ReadOnlySpan<byte> arguments)
    {
        var header = new FuseInHeader
        {
            Length = (uint)(HeaderSize + arguments.Length),
            Opcode = opcode,
            Unique = new RequestId(++_unique),
            NodeId = node,
        };
        MemoryMarshal.Write(_request, in header);
        arguments.CopyTo(_request.AsSpan(HeaderSize));
        _highPriority.TrySubmit(_request.AsSpan(0, (int)header.Length), replyCapacity: 0, out _);
        _highPriority.Kick();
        int length = _highPriority.Take(out int slot);
        _highPriority.Release(slot);
        if (length != 0)
        {
            throw new IOException($"the device answered {opcode}, which has no reply");
        }
    }

    private Errno Check(RequestId unique, int length, int capacity, out ReadOnlySpan<byte> reply)
    {
        reply = default;
        if (length < ReplyHeaderSize)
        {
            throw new IOException($"the reply has {length} bytes, less than its header");
        }

        FuseOutHeader header = MemoryMarshal.Read<FuseOutHeader>(_reply);
        bool isValid = header.Length == length
            && header.Unique == unique
            && header.Error is > -512 and <= 0
            && (header.Error == 0 || length == ReplyHeaderSize)
            && length <= ReplyHeaderSize + capacity;
        if (!isValid)
        {
            throw new IOException(
                $"the reply breaks the protocol: {length} bytes, header says {header.Length}, error {header.Error}");
        }

        reply = _reply.AsSpan(ReplyHeaderSize, length - ReplyHeaderSize);
        return (Errno)(-header.Error);
    }
}
