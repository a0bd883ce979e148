using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>What a notification is about, <c>enum fuse_notify_code</c>. Any other number is possible on the wire.</summary>
public enum FuseNotifyCode
{
    /// <summary>FUSE_NOTIFY_POLL.</summary>
    Poll = 1,

    /// <summary>FUSE_NOTIFY_INVAL_INODE: attributes, and a range of the data, are not valid any more.</summary>
    InvalInode = 2,

    /// <summary>FUSE_NOTIFY_INVAL_ENTRY: a name is not valid any more.</summary>
    InvalEntry = 3,

    /// <summary>FUSE_NOTIFY_STORE.</summary>
    Store = 4,

    /// <summary>FUSE_NOTIFY_RETRIEVE.</summary>
    Retrieve = 5,

    /// <summary>FUSE_NOTIFY_DELETE: a name was removed.</summary>
    Delete = 6,

    /// <summary>FUSE_NOTIFY_RESEND.</summary>
    Resend = 7,

    /// <summary>FUSE_NOTIFY_INC_EPOCH: no name is valid any more.</summary>
    IncEpoch = 8,

    /// <summary>FUSE_NOTIFY_PRUNE.</summary>
    Prune = 9,
}

/// <summary>The payload of INVAL_INODE. <c>fuse_notify_inval_inode_out</c>, 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseNotifyInvalInodeOut
{
    /// <summary>The node.</summary>
    public NodeId NodeId;

    /// <summary>Where the range starts, in bytes; negative for attributes alone.</summary>
    public long Offset;

    /// <summary>The length of the range in bytes; zero or less for everything behind the start.</summary>
    public long Length;
}

/// <summary>The payload of INVAL_ENTRY, followed by the name and a zero byte. <c>fuse_notify_inval_entry_out</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseNotifyInvalEntryOut
{
    /// <summary>The directory.</summary>
    public NodeId Parent;

    /// <summary>Bytes of the name, without the zero byte.</summary>
    public uint NameLength;

    /// <summary>FUSE_EXPIRE_ONLY.</summary>
    public uint Flags;
}

/// <summary>The payload of DELETE, followed by the name and a zero byte. <c>fuse_notify_delete_out</c>, 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseNotifyDeleteOut
{
    /// <summary>The directory.</summary>
    public NodeId Parent;

    /// <summary>The node that the name stood for.</summary>
    public NodeId Child;

    /// <summary>Bytes of the name, without the zero byte.</summary>
    public uint NameLength;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}
