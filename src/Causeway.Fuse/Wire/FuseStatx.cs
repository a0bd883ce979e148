using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>The arguments of STATX. <c>fuse_statx_in</c>, 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseStatxIn
{
    /// <summary>Whether <see cref="Handle"/> is valid.</summary>
    public FuseGetAttrFlags Flags;

    /// <summary>Reserved; zero.</summary>
    public uint Reserved;

    /// <summary>An open handle of the node.</summary>
    public HandleId Handle;

    /// <summary>AT_STATX_* hints.</summary>
    public uint SyncFlags;

    /// <summary>STATX_*: what is asked for.</summary>
    public uint Mask;
}

/// <summary>A time in a STATX reply. <c>fuse_sx_time</c>, 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseStatxTime
{
    /// <summary>Seconds since 1970.</summary>
    public long Seconds;

    /// <summary>Nanoseconds.</summary>
    public uint Nanoseconds;

    /// <summary>Reserved; zero.</summary>
    public int Reserved;
}

/// <summary>The attributes in a STATX reply. <c>fuse_statx</c>, 256 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseStatx
{
    /// <summary>STATX_*: which fields are valid.</summary>
    public uint Mask;

    /// <summary>Preferred size of I/O, in bytes.</summary>
    public uint BlockSize;

    /// <summary>STATX_ATTR_*.</summary>
    public ulong Attributes;

    /// <summary>Number of hard links.</summary>
    public uint LinkCount;

    /// <summary>Owner.</summary>
    public uint UserId;

    /// <summary>Group.</summary>
    public uint GroupId;

    /// <summary>Type and permissions.</summary>
    public ushort Mode;

    /// <summary>Reserved; zero.</summary>
    public ushort Spare0;

    /// <summary>Inode number.</summary>
    public ulong Inode;

    /// <summary>Size in bytes.</summary>
    public ulong Size;

    /// <summary>Space used, in units of 512 bytes.</summary>
    public ulong Blocks;

    /// <summary>Which bits of <see cref="Attributes"/> mean anything.</summary>
    public ulong AttributesMask;

    /// <summary>Time of last access.</summary>
    public FuseStatxTime AccessTime;

    /// <summary>Time of creation.</summary>
    public FuseStatxTime BirthTime;

    /// <summary>Time of last change of attributes.</summary>
    public FuseStatxTime ChangeTime;

    /// <summary>Time of last modification.</summary>
    public FuseStatxTime ModificationTime;

    /// <summary>Major number of a device node.</summary>
    public uint DeviceMajor;

    /// <summary>Minor number of a device node.</summary>
    public uint DeviceMinor;

    /// <summary>Major number of the file system's device.</summary>
    public uint FileSystemMajor;

    /// <summary>Minor number of the file system's device.</summary>
    public uint FileSystemMinor;

    /// <summary>Reserved; zero.</summary>
    public FuseSpare112 Spare2;
}

/// <summary>Reserved words at the end of a reply. <c>uint64_t[14]</c>, 112 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseSpare112
{
    /// <summary>Reserved; zero.</summary>
    public ulong Word0;

    /// <summary>Reserved; zero.</summary>
    public ulong Word1;

    /// <summary>Reserved; zero.</summary>
    public ulong Word2;

    /// <summary>Reserved; zero.</summary>
    public ulong Word3;

    /// <summary>Reserved; zero.</summary>
    public ulong Word4;

    /// <summary>Reserved; zero.</summary>
    public ulong Word5;

    /// <summary>Reserved; zero.</summary>
    public ulong Word6;

    /// <summary>Reserved; zero.</summary>
    public ulong Word7;

    /// <summary>Reserved; zero.</summary>
    public ulong Word8;

    /// <summary>Reserved; zero.</summary>
    public ulong Word9;

    /// <summary>Reserved; zero.</summary>
    public ulong Word10;

    /// <summary>Reserved; zero.</summary>
    public ulong Word11;

    /// <summary>Reserved; zero.</summary>
    public ulong Word12;

    /// <summary>Reserved; zero.</summary>
    public ulong Word13;
}

/// <summary>The reply to STATX. <c>fuse_statx_out</c>, 288 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseStatxOut
{
    /// <summary>How long the attributes may be cached, seconds.</summary>
    public ulong AttributeLifetimeSeconds;

    /// <summary>How long the attributes may be cached, nanoseconds.</summary>
    public uint AttributeLifetimeNanoseconds;

    /// <summary>Reserved; zero.</summary>
    public uint Flags;

    /// <summary>Reserved; zero.</summary>
    public ulong Spare0;

    /// <summary>Reserved; zero.</summary>
    public ulong Spare1;

    /// <summary>The attributes.</summary>
    public FuseStatx Statx;
}
