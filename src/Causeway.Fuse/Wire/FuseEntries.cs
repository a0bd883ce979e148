using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>The attributes of a node, as stat(2) shows them. <c>fuse_attr</c>, 88 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseAttributes
{
    /// <summary>Inode number.</summary>
    public ulong Inode;

    /// <summary>Size in bytes.</summary>
    public ulong Size;

    /// <summary>Space used, in units of 512 bytes.</summary>
    public ulong Blocks;

    /// <summary>Time of last access, seconds since 1970; negative times as two's complement.</summary>
    public ulong AccessTime;

    /// <summary>Time of last modification, seconds.</summary>
    public ulong ModificationTime;

    /// <summary>Time of last change of attributes, seconds.</summary>
    public ulong ChangeTime;

    /// <summary>Nanoseconds of the access time.</summary>
    public uint AccessTimeNanoseconds;

    /// <summary>Nanoseconds of the modification time.</summary>
    public uint ModificationTimeNanoseconds;

    /// <summary>Nanoseconds of the change time.</summary>
    public uint ChangeTimeNanoseconds;

    /// <summary>Type and permissions, S_IF* and permission bits.</summary>
    public uint Mode;

    /// <summary>Number of hard links.</summary>
    public uint LinkCount;

    /// <summary>Owner.</summary>
    public uint UserId;

    /// <summary>Group.</summary>
    public uint GroupId;

    /// <summary>Device number of a device node: (minor &amp; 0xff) | (major &lt;&lt; 8) | ((minor &amp; ~0xff) &lt;&lt; 12).</summary>
    public uint Device;

    /// <summary>Preferred size of I/O, in bytes.</summary>
    public uint BlockSize;

    /// <summary>FUSE_ATTR_* (since 7.32).</summary>
    public FuseAttributeFlags Flags;
}

/// <summary>The reply to GETATTR and SETATTR. <c>fuse_attr_out</c>, 104 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseAttrOut
{
    /// <summary>How long the attributes may be cached, seconds.</summary>
    public ulong AttributeLifetimeSeconds;

    /// <summary>How long the attributes may be cached, nanoseconds.</summary>
    public uint AttributeLifetimeNanoseconds;

    /// <summary>Reserved; zero.</summary>
    public uint Reserved;

    /// <summary>The attributes.</summary>
    public FuseAttributes Attributes;
}

/// <summary>The reply to OPEN and OPENDIR. <c>fuse_open_out</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseOpenOut
{
    /// <summary>The handle later requests name.</summary>
    public HandleId Handle;

    /// <summary>FOPEN_*: how the guest may cache the file.</summary>
    public OpenReplyFlags Flags;

    /// <summary>Only for passthrough over /dev/fuse; zero.</summary>
    public int BackingId;
}

/// <summary>The reply to CREATE and TMPFILE. <c>fuse_entry_out and fuse_open_out</c>, 144 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseCreateOut
{
    /// <summary>The node made or found.</summary>
    public NodeEntry Entry;

    /// <summary>The handle.</summary>
    public FuseOpenOut Open;
}

/// <summary>The reply to STATFS, statvfs(3). <c>fuse_statfs_out</c>, 80 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseStatfsOut
{
    /// <summary>Size of the file system, in units of <see cref="FragmentSize"/>.</summary>
    public ulong Blocks;

    /// <summary>Free blocks.</summary>
    public ulong BlocksFree;

    /// <summary>Free blocks for ordinary users.</summary>
    public ulong BlocksAvailable;

    /// <summary>Number of inodes.</summary>
    public ulong Files;

    /// <summary>Free inodes.</summary>
    public ulong FilesFree;

    /// <summary>Preferred size of I/O, in bytes.</summary>
    public uint BlockSize;

    /// <summary>Longest name, in bytes.</summary>
    public uint NameLength;

    /// <summary>Size of a block, in bytes.</summary>
    public uint FragmentSize;

    /// <summary>Reserved; zero.</summary>
    public uint Padding;

    /// <summary>Reserved; zero.</summary>
    public FuseSpare24 Spare;
}

/// <summary>Reserved words at the end of a reply. <c>uint32_t[6]</c>, 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseSpare24
{
    /// <summary>Reserved; zero.</summary>
    public ulong Word0;

    /// <summary>Reserved; zero.</summary>
    public ulong Word1;

    /// <summary>Reserved; zero.</summary>
    public ulong Word2;
}
