using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;

namespace Causeway.Cli.Bench;

/// <summary>The high-priority queue of a daemon, which all lanes send their FORGETs to.</summary>
internal sealed class ForgetQueue(VirtioFsQueue queue)
{
    // The longest message that drivers of this project send there.
    private const int MaxMessage = 4096;

    private static readonly int s_headerBytes = Unsafe.SizeOf<FuseInHeader>();
    private static readonly int s_maxNodes =
        (MaxMessage - s_headerBytes - Unsafe.SizeOf<FuseBatchForgetIn>()) / Unsafe.SizeOf<FuseForgetOne>();

    private readonly Lock _gate = new();
    private readonly byte[] _message = new byte[MaxMessage];
    private bool _isKickDue;

    /// <summary>Adds a FORGET.</summary>
    public void Add(NodeId node, ulong count)
    {
        lock (_gate)
        {
            MemoryMarshal.Write(_message.AsSpan(s_headerBytes), new FuseForgetIn { LookupCount = count });
            Submit(FuseOpcode.Forget, node, Unsafe.SizeOf<FuseForgetIn>());
        }
    }

    /// <summary>Adds as many BATCH_FORGETs as many nodes take.</summary>
    public void Add(ReadOnlySpan<FuseForgetOne> nodes)
    {
        lock (_gate)
        {
            while (!nodes.IsEmpty)
            {
                ReadOnlySpan<FuseForgetOne> part = nodes[..Math.Min(s_maxNodes, nodes.Length)];
                int head = Unsafe.SizeOf<FuseBatchForgetIn>();
                MemoryMarshal.Write(_message.AsSpan(s_headerBytes), new FuseBatchForgetIn { Count = (uint)part.Length });
                ReadOnlySpan<byte> bytes = MemoryMarshal.AsBytes(part);
                bytes.CopyTo(_message.AsSpan(s_headerBytes + head));
                Submit(FuseOpcode.BatchForget, NodeId.None, head + bytes.Length);
                nodes = nodes[part.Length..];
            }
        }
    }

    /// <summary>Tells the daemon of what was added.</summary>
    public void Kick()
    {
        // A kick that another thread is about to give is given by it.
        if (!Volatile.Read(ref _isKickDue))
        {
            return;
        }

        lock (_gate)
        {
            _isKickDue = false;
            queue.Kick();
            Reap();
        }
    }

    /// <summary>Waits until the daemon has taken everything.</summary>
    public void Drain()
    {
        lock (_gate)
        {
            _isKickDue = false;
            queue.Kick();
            while (queue.InFlight > 0)
            {
                Return(queue.Take(out int slot), slot);
            }
        }
    }

    private void Submit(FuseOpcode opcode, NodeId node, int length)
    {
        var header = new FuseInHeader { Length = (uint)(s_headerBytes + length), Opcode = opcode, NodeId = node };
        MemoryMarshal.Write(_message, in header);
        while (!queue.TrySubmit(_message.AsSpan(0, (int)header.Length), replyCapacity: 0, out _))
        {
            queue.Kick();
            Return(queue.Take(out int slot), slot);
            Reap();
        }

        _isKickDue = true;
    }

    private void Reap()
    {
        while (queue.TryTake(out int slot, out int length))
        {
            Return(length, slot);
        }
    }

    private void Return(int length, int slot)
    {
        queue.Release(slot);
        if (length != 0)
        {
            throw new BadReplyException("FORGET was answered, which has no reply");
        }
    }
}
