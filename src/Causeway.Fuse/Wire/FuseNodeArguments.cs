using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>The argument of FORGET. <c>fuse_forget_in</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseForgetIn
{
    /// <summary>How many lookups the guest gives back.</summary>
    public ulong LookupCount;
}

/// <summary>The argument of BATCH_FORGET, followed by its entries. <c>fuse_batch_forget_in</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseBatchForgetIn
{
    /// <summary>How many entries follow.</summary>
    public uint Count;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>One entry of BATCH_FORGET. <c>fuse_forget_one</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseForgetOne
{
    /// <summary>The node.</summary>
    public NodeId NodeId;

    /// <summary>How many lookups the guest gives back.</summary>
    public ulong LookupCount;
}

/// <summary>The arguments of GETATTR. <c>fuse_getattr_in</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseGetAttrIn
{
    /// <summary>Whether <see cref="Handle"/> is valid.</summary>
    public FuseGetAttrFlags Flags;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;

    /// <summary>An open handle of the node.</summary>
    public HandleId Handle;
}

/// <summary>The arguments of SETATTR. <c>fuse_setattr_in</c>, 88 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseSetAttrIn
{
    /// <summary>FATTR_*: which fields are to be set.</summary>
    public SetAttrValid Valid;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;

    /// <summary>An open handle of the node, with <see cref="SetAttrValid.Handle"/>.</summary>
    public HandleId Handle;

    /// <summary>New size in bytes.</summary>
    public ulong Size;

    /// <summary>Owner of locks.</summary>
    public ulong LockOwner;

    /// <summary>New access time, seconds.</summary>
    public ulong AccessTime;

    /// <summary>New modification time, seconds.</summary>
    public ulong ModificationTime;

    /// <summary>New change time, seconds.</summary>
    public ulong ChangeTime;

    /// <summary>Nanoseconds of the access time.</summary>
    public uint AccessTimeNanoseconds;

    /// <summary>Nanoseconds of the modification time.</summary>
    public uint ModificationTimeNanoseconds;

    /// <summary>Nanoseconds of the change time.</summary>
    public uint ChangeTimeNanoseconds;

    /// <summary>New permissions.</summary>
    public uint Mode;

    /// <summary>Reserved; zero.</summary>
    public uint Unused4;

    /// <summary>New owner.</summary>
    public uint UserId;

    /// <summary>New group.</summary>
    public uint GroupId;

    /// <summary>Reserved; zero.</summary>
    public uint Unused5;
}

/// <summary>The arguments of MKNOD, followed by the name. <c>fuse_mknod_in</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseMknodIn
{
    /// <summary>Type and permissions.</summary>
    public uint Mode;

    /// <summary>Device number, coded as in <see cref="FuseAttributes.Device"/>.</summary>
    public uint Device;

    /// <summary>The caller's umask.</summary>
    public uint Umask;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>The arguments of MKDIR, followed by the name. <c>fuse_mkdir_in</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseMkdirIn
{
    /// <summary>Permissions.</summary>
    public uint Mode;

    /// <summary>The caller's umask.</summary>
    public uint Umask;
}

/// <summary>The argument of RENAME, followed by both names. <c>fuse_rename_in</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseRenameIn
{
    /// <summary>The directory the object moves to.</summary>
    public NodeId NewParent;
}

/// <summary>The arguments of RENAME2, followed by both names. <c>fuse_rename2_in</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseRename2In
{
    /// <summary>The directory the object moves to.</summary>
    public NodeId NewParent;

    /// <summary>RENAME_*.</summary>
    public RenameFlags Flags;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>The argument of LINK, followed by the new name. <c>fuse_link_in</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseLinkIn
{
    /// <summary>The node to link.</summary>
    public NodeId OldNode;
}

/// <summary>The argument of ACCESS. <c>fuse_access_in</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseAccessIn
{
    /// <summary>R_OK 4, W_OK 2, X_OK 1.</summary>
    public uint Mask;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>The arguments of SETXATTR, followed by name and value. Without SETXATTR_EXT only the first 8 bytes are sent. <c>fuse_setxattr_in</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseSetXattrIn
{
    /// <summary>Size of the value in bytes.</summary>
    public uint Size;

    /// <summary>XATTR_CREATE 1, XATTR_REPLACE 2.</summary>
    public uint Flags;

    /// <summary>FUSE_SETXATTR_*.</summary>
    public SetXattrFlags SetXattrFlags;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>The argument of GETXATTR, followed by the name, and of LISTXATTR. <c>fuse_getxattr_in</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseGetXattrIn
{
    /// <summary>Room for the reply in bytes; zero asks for the size.</summary>
    public uint Size;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}

/// <summary>The reply to GETXATTR and LISTXATTR of size zero. <c>fuse_getxattr_out</c>, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseGetXattrOut
{
    /// <summary>Size in bytes.</summary>
    public uint Size;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;
}
