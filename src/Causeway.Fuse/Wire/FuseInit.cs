using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>The arguments of INIT; 16 bytes without INIT_EXT. <c>fuse_init_in</c>, 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseInitIn
{
    /// <summary>Major version of the protocol.</summary>
    public uint Major;

    /// <summary>Minor version.</summary>
    public uint Minor;

    /// <summary>Longest read-ahead in bytes.</summary>
    public uint MaxReadahead;

    /// <summary>Features offered, bits 0 to 31.</summary>
    public uint Flags;

    /// <summary>Features offered, bits 32 to 63.</summary>
    public uint Flags2;

    /// <summary>Reserved, zero; <see cref="VersionTableLayout.InitMagic"/> with <see cref="FuseFeatures.VersionTable"/>.</summary>
    public uint VersionTableMagic;

    /// <summary>Reserved, zero; the version of the table's layout with <see cref="FuseFeatures.VersionTable"/>.</summary>
    public uint VersionTableAbi;

    /// <summary>Reserved; zero.</summary>
    public uint Unused1;

    /// <summary>Reserved; zero.</summary>
    public ulong Unused2;

    /// <summary>Reserved; zero.</summary>
    public ulong Unused3;

    /// <summary>Reserved; zero.</summary>
    public ulong Unused4;

    /// <summary>Reserved; zero.</summary>
    public ulong Unused5;
}

/// <summary>The reply to INIT. <c>fuse_init_out</c>, 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct FuseInitOut
{
    /// <summary>Major version of the protocol.</summary>
    public uint Major;

    /// <summary>Minor version.</summary>
    public uint Minor;

    /// <summary>Longest read-ahead in bytes.</summary>
    public uint MaxReadahead;

    /// <summary>Features granted, bits 0 to 31.</summary>
    public uint Flags;

    /// <summary>How many background requests may be in flight.</summary>
    public ushort MaxBackground;

    /// <summary>From how many background requests on the guest holds back.</summary>
    public ushort CongestionThreshold;

    /// <summary>Longest WRITE in bytes.</summary>
    public uint MaxWrite;

    /// <summary>Granularity of times in nanoseconds.</summary>
    public uint TimeGranularity;

    /// <summary>Most pages of 4 KiB in one request.</summary>
    public ushort MaxPages;

    /// <summary>Alignment of DAX mappings, as a power of two.</summary>
    public ushort MapAlignment;

    /// <summary>Features granted, bits 32 to 63.</summary>
    public uint Flags2;

    /// <summary>Only for passthrough over /dev/fuse; zero.</summary>
    public uint MaxStackDepth;

    /// <summary>Seconds after which the guest gives up; zero is never.</summary>
    public ushort RequestTimeout;

    /// <summary>Reserved, zero; <see cref="VersionTableLayout.InitAnswer"/> with <see cref="FuseFeatures.VersionTable"/>.</summary>
    public ushort VersionTableAnswer;

    /// <summary>Reserved, zero; the version of the table's layout with <see cref="FuseFeatures.VersionTable"/>.</summary>
    public ushort VersionTableAbi;

    /// <summary>Reserved, zero; the number of the table's region with <see cref="FuseFeatures.VersionTable"/>.</summary>
    public ushort VersionTableRegion;

    /// <summary>Reserved; zero.</summary>
    public ulong Unused2;

    /// <summary>Reserved; zero.</summary>
    public ulong Unused3;
}
