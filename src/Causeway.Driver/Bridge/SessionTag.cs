using System.Runtime.CompilerServices;
using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <summary>
/// Tells node ids and handles of one session with a device from those of sessions before it, when a mount outlives its
/// daemon: their highest byte is the number of the session. A number of an earlier session never reaches the device, where
/// it could mean another file.
/// </summary>
/// <param name="session">The number of the session: 0 for the first, whose numbers stay as they are, up to 255.</param>
internal readonly unsafe struct SessionTag(int session) : INumberMarks
{
    private const int Shift = 56;
    private const ulong Mask = (1UL << Shift) - 1;
    private const int HeaderSize = 40;

    private readonly ulong _tag = (ulong)session << Shift;

    /// <summary>The last session that can be told from the others.</summary>
    public const int Last = 255;

    /// <inheritdoc/>
    public bool TryMark(ref ulong id)
    {
        ulong value = Volatile.Read(ref id);
        id = value | _tag;
        return value <= Mask;
    }

    /// <summary>Takes the mark from the node of a request.</summary>
    /// <param name="node">The node; changed.</param>
    /// <returns>False when it is one of an earlier session.</returns>
    public bool TryUnmarkNode(ref NodeId node)
    {
        // No node, and the root, which every session has.
        if (node.Value is 0 or 1)
        {
            return true;
        }

        ulong id = node.Value;
        bool isOurs = TryUnmark(ref id);
        node = new NodeId(id);
        return isOurs;
    }

    /// <summary>Takes the marks from all numbers of a request, save for BATCH_FORGET.</summary>
    /// <param name="message">The request, which lies in memory of ours; changed.</param>
    /// <param name="length">Its length.</param>
    /// <returns>False when one is of an earlier session: the request must not be sent.</returns>
    public bool TryUnmark(byte* message, int length)
    {
        var header = (FuseInHeader*)message;
        byte* body = message + HeaderSize;
        int bodyLength = length - HeaderSize;
        bool isOurs = TryUnmarkNode(ref header->NodeId);
        return header->Opcode switch
        {
            FuseOpcode.Rename or FuseOpcode.Rename2 or FuseOpcode.Link when bodyLength >= 8 =>
                TryUnmarkNode(ref *(NodeId*)body) && isOurs,

            // fh_in, off_in, nodeid_out, fh_out
            FuseOpcode.CopyFileRange or FuseOpcode.CopyFileRange64 when bodyLength >= 32 =>
                TryUnmark(ref *(ulong*)body) & TryUnmarkNode(ref *(NodeId*)(body + 16))
                & TryUnmark(ref *(ulong*)(body + 24)) & isOurs,

            FuseOpcode.GetAttr or FuseOpcode.Statx when bodyLength >= 16
                && (*(FuseGetAttrFlags*)body & FuseGetAttrFlags.Handle) != 0 =>
                TryUnmark(ref *(ulong*)(body + 8)) & isOurs,
            FuseOpcode.SetAttr when bodyLength >= 16 && (*(SetAttrValid*)body & SetAttrValid.Handle) != 0 =>
                TryUnmark(ref *(ulong*)(body + 8)) & isOurs,

            FuseOpcode.Read or FuseOpcode.Write or FuseOpcode.Release or FuseOpcode.ReleaseDir or FuseOpcode.Flush
                or FuseOpcode.Fsync or FuseOpcode.FsyncDir or FuseOpcode.ReadDir or FuseOpcode.ReadDirPlus
                or FuseOpcode.Fallocate or FuseOpcode.Lseek or FuseOpcode.GetLk or FuseOpcode.SetLk
                or FuseOpcode.SetLkWait or FuseOpcode.Ioctl or FuseOpcode.Poll when bodyLength >= 8 =>
                TryUnmark(ref *(ulong*)body) & isOurs,
            _ => isOurs,
        };
    }

    /// <summary>Takes the marks from the entries of a BATCH_FORGET, and leaves out those of earlier sessions.</summary>
    /// <param name="message">The request; changed.</param>
    /// <param name="length">Its length.</param>
    /// <returns>Its length now.</returns>
    public int UnmarkBatch(byte* message, int length)
    {
        var entries = (FuseForgetOne*)(message + HeaderSize + sizeof(FuseBatchForgetIn));
        int count = (length - HeaderSize - sizeof(FuseBatchForgetIn)) / sizeof(FuseForgetOne);
        int kept = 0;
        for (int i = 0; i < count; i++)
        {
            FuseForgetOne entry = entries[i];
            if (TryUnmarkNode(ref entry.NodeId))
            {
                entries[kept++] = entry;
            }
        }

        ((FuseBatchForgetIn*)(message + HeaderSize))->Count = (uint)kept;
        return HeaderSize + sizeof(FuseBatchForgetIn) + (kept * sizeof(FuseForgetOne));
    }

    private bool TryUnmark(ref ulong id)
    {
        bool isOurs = (id & ~Mask) == _tag;
        id &= Mask;
        return isOurs;
    }
}
