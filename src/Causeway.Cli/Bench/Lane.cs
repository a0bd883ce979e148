using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Cli.Bench;

/// <summary>
/// One request after the other, as a program sends them that waits for each reply; as many lanes as the depth share a queue.
/// What they ask is a workload's, written as if replies were there at once:
/// <code>
/// yield return lane.Open(file);
/// HandleId handle = lane.Opened();
/// yield return lane.Release(file, handle);
/// lane.Empty();
/// lane.Done();
/// </code>
/// </summary>
/// <remarks>Every method that reads a reply checks it. It is looked at in place: nothing depends on who changes it later.</remarks>
internal sealed class Lane
{
    private const int MaxMessage = (1 << 20) + 4096;

    private static readonly int s_headerBytes = Unsafe.SizeOf<FuseInHeader>();
    private static readonly int s_replyHeaderBytes = Unsafe.SizeOf<FuseOutHeader>();

    private readonly byte[] _request = new byte[MaxMessage];
    private readonly ForgetQueue _forgets;
    private IEnumerator<Request>? _program;
    private ulong _unique;
    private FuseOpcode _opcode;
    private VirtioFsQueue? _replyQueue;
    private int _replySlot;
    private int _replyLength;
    private Errno _error;
    private long _began;

    /// <summary>Makes a lane.</summary>
    /// <param name="number">Its number among all lanes of the daemon.</param>
    /// <param name="forgets">Where FORGETs go.</param>
    public Lane(int number, ForgetQueue forgets)
    {
        Number = number;
        _forgets = forgets;
        _unique = (ulong)(number + 1) << 32;
    }

    /// <summary>Its number among all lanes of the daemon.</summary>
    public int Number { get; }

    /// <summary>Who asks: user and group.</summary>
    public uint Owner { get; set; }

    /// <summary>Operations completed.</summary>
    public long Operations { get; private set; }

    /// <summary>How long they took.</summary>
    public LatencyHistogram Latencies { get; } = new();

    /// <summary>What the lane asks for, without end.</summary>
    public void Start(IEnumerator<Request> program) => _program = program;

    /// <summary>Counts from now on.</summary>
    public void BeginCounting()
    {
        Operations = 0;
        Latencies.Clear();
        _began = 0;
    }

    /// <summary>Takes a reply, to be looked at by the next <see cref="Submit"/>.</summary>
    public void Accept(VirtioFsQueue queue, int slot, int length)
    {
        _replyQueue = queue;
        _replySlot = slot;
        _replyLength = length;
    }

    /// <summary>Has the workload look at the reply, if there is one, and submits what it asks for next.</summary>
    /// <returns>The request's slot.</returns>
    public int Submit(VirtioFsQueue queue)
    {
        if (_replyQueue is not null)
        {
            CheckHeader();
        }

        _ = _program!.MoveNext();
        ReleaseReply();
        Request next = _program.Current;
        if (!queue.TrySubmit(
            _request.AsSpan(0, next.Length), s_replyHeaderBytes + next.ReplyCapacity, out int slot))
        {
            throw new InvalidOperationException("a queue is too short for its lanes");
        }

        return slot;
    }

    /// <summary>Gives the buffers of a reply back.</summary>
    public void ReleaseReply()
    {
        _replyQueue?.Release(_replySlot);
        _replyQueue = null;
    }

    /// <summary>An operation is complete.</summary>
    public void Done()
    {
        long now = Stopwatch.GetTimestamp();
        Operations++;
        if (_began != 0)
        {
            Latencies.Add((long)Stopwatch.GetElapsedTime(_began, now).TotalNanoseconds);
        }

        _began = now;
    }

    /// <summary>FORGET, which has no reply; it goes with the next batch.</summary>
    public void Forget(NodeId node, ulong count = 1) => _forgets.Add(node, count);

    /// <summary>FORGET of many nodes in few messages (BATCH_FORGET).</summary>
    public void Forget(ReadOnlySpan<FuseForgetOne> nodes) => _forgets.Add(nodes);

    /// <summary>A request of arguments, names, and data.</summary>
    public Request Ask<T>(
        FuseOpcode opcode, NodeId node, in T arguments, int replyCapacity, ReadOnlySpan<byte> name = default,
        ReadOnlySpan<byte> second = default)
        where T : unmanaged
    {
        MemoryMarshal.Write(_request.AsSpan(s_headerBytes), in arguments);
        return Finish(opcode, node, Unsafe.SizeOf<T>(), replyCapacity, name, second);
    }

    /// <summary>A request of names only.</summary>
    public Request Ask(
        FuseOpcode opcode, NodeId node, int replyCapacity, ReadOnlySpan<byte> name = default, ReadOnlySpan<byte> second = default) =>
        Finish(opcode, node, 0, replyCapacity, name, second);

    /// <summary>The structure that the reply is.</summary>
    public T Reply<T>()
        where T : unmanaged
    {
        ReadOnlySpan<byte> content = Content();
        return content.Length == Unsafe.SizeOf<T>()
            ? MemoryMarshal.Read<T>(content)
            : throw Bad($"has {content.Length} bytes of content instead of {Unsafe.SizeOf<T>()}");
    }

    /// <summary>The bytes that the reply is.</summary>
    public ReadOnlySpan<byte> Content()
    {
        if (_error != Errno.Success)
        {
            throw Bad($"is the error {_error}");
        }

        return Raw()[s_replyHeaderBytes..];
    }

    /// <summary>Expects a reply without content.</summary>
    public void Empty()
    {
        if (Content() is { IsEmpty: false } content)
        {
            throw Bad($"has {content.Length} bytes of content instead of none");
        }
    }

    /// <summary>Expects an error.</summary>
    public void Error(Errno expected)
    {
        if (_error != expected)
        {
            throw Bad($"is {(_error == Errno.Success ? "a success" : $"the error {_error}")} instead of {expected}");
        }
    }

    /// <summary>Expects that LOOKUP finds nothing: the error, or an entry without a node, which says it for a while.</summary>
    public void ExpectMissing()
    {
        if (_error != Errno.ENOENT)
        {
            Expect(Reply<NodeEntry>().NodeId == NodeId.None, "finds what is not there");
        }
    }

    /// <summary>Expects something of a reply.</summary>
    /// <param name="isTrue">Whether it is so.</param>
    /// <param name="what">How a message goes on when not, after 'the reply to X'.</param>
    public void Expect(bool isTrue, string what)
    {
        if (!isTrue)
        {
            throw Bad(what);
        }
    }

    /// <summary>The error of a bad reply.</summary>
    public BadReplyException Bad(string what) => new($"the reply to {_opcode.ToString().ToUpperInvariant()} {what}");

    /// <summary>The bytes of a reply with its header.</summary>
    private ReadOnlySpan<byte> Raw() => _replyQueue!.Reply(_replySlot, _replyLength);

    private Request Finish(
        FuseOpcode opcode, NodeId node, int length, int replyCapacity, ReadOnlySpan<byte> name, ReadOnlySpan<byte> second)
    {
        length += s_headerBytes;
        name.CopyTo(_request.AsSpan(length));
        length += name.Length;
        second.CopyTo(_request.AsSpan(length));
        length += second.Length;
        var header = new FuseInHeader
        {
            Length = (uint)length,
            Opcode = opcode,
            Unique = new RequestId(++_unique),
            NodeId = node,
            UserId = Owner,
            GroupId = Owner,
        };
        MemoryMarshal.Write(_request, in header);
        _opcode = opcode;
        return new Request(length, replyCapacity);
    }

    // As Linux guests do; the ring has compared the length with the room.
    private void CheckHeader()
    {
        if (_replyLength < s_replyHeaderBytes)
        {
            throw Bad($"has {_replyLength} bytes, less than its header");
        }

        FuseOutHeader header = MemoryMarshal.Read<FuseOutHeader>(Raw());
        bool isValid = header.Length == _replyLength
            && header.Unique.Value == _unique
            && header.Error is > -512 and <= 0
            && (header.Error == 0 || _replyLength == s_replyHeaderBytes);
        if (!isValid)
        {
            throw Bad(
                $"breaks the protocol: {_replyLength} bytes, the header says {header.Length}, error {header.Error}, "
                + $"request {header.Unique.Value} instead of {_unique}");
        }

        _error = (Errno)(-header.Error);
    }
}

/// <summary>A request that a lane has made.</summary>
/// <param name="Length">Its bytes.</param>
/// <param name="ReplyCapacity">Room for the reply behind its header.</param>
internal readonly record struct Request(int Length, int ReplyCapacity);
