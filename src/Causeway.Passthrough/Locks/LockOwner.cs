using Causeway.Fuse;

namespace Causeway.Passthrough;

/// <summary>
/// One owner of record locks on one file: a process of the guest. It has an open file of its own on the host, to which its locks
/// belong there (OFD locks), so that the host's kernel tells it from all other owners, on whichever guest or the host. All of it is
/// guarded by the lock of <see cref="LockTable"/>, but the descriptor stays open and the same while a use is held.
/// </summary>
internal sealed class LockOwner(NodeId node, ulong owner)
{
    public NodeId Node { get; } = node;

    public ulong Owner { get; } = owner;

    /// <summary>The open file.</summary>
    public int Descriptor { get; set; } = -1;

    /// <summary>How many requests use it at the moment.</summary>
    public int Uses { get; set; }

    /// <summary>Whether it has left the table: its last user closes it.</summary>
    public bool IsVoid { get; set; }

    /// <summary>The process id in the guest, as of the last lock.</summary>
    public uint ProcessId { get; set; }

    /// <summary>The guest's open file through which it locked last.</summary>
    public HandleId Handle { get; set; }

    /// <summary>Its locks.</summary>
    public LockRanges Ranges { get; } = new();
}
