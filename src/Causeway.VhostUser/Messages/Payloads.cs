using System.Runtime.InteropServices;
using Causeway.Virtio;

namespace Causeway.VhostUser.Messages;

/// <summary>The 12 bytes at the front of every message, in the host's byte order.</summary>
/// <param name="Request">The request's number; the two directions have separate ones.</param>
/// <param name="Flags">Version and flags.</param>
/// <param name="Size">How many bytes of payload follow.</param>
[StructLayout(LayoutKind.Sequential, Pack = 4)]
public readonly record struct VhostUserHeader(uint Request, VhostUserHeaderFlags Flags, uint Size)
{
    /// <summary>The size of the header, in bytes.</summary>
    public const int Length = 12;
}

/// <summary>Flags of a message header.</summary>
[Flags]
public enum VhostUserHeaderFlags : uint
{
    /// <summary>None; not valid, the version is missing.</summary>
    None = 0,

    /// <summary>Version 1 of the protocol.</summary>
    Version1 = 0x1,

    /// <summary>REPLY: the message answers a request.</summary>
    Reply = 0x4,

    /// <summary>NEED_REPLY: the sender asks for an acknowledgement.</summary>
    NeedReply = 0x8,
}

/// <summary>A ring and a number: its size, its base, or whether it is enabled.</summary>
/// <param name="Index">The ring.</param>
/// <param name="Value">The number.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct VringState(uint Index, uint Value);

/// <summary>The places of a ring. The used ring comes before the available ring.</summary>
/// <param name="Index">The ring.</param>
/// <param name="Flags">Whether writes to the used ring are logged.</param>
/// <param name="Descriptors">The descriptor table; 16-byte aligned.</param>
/// <param name="Used">The used ring; 4-byte aligned.</param>
/// <param name="Available">The available ring; 2-byte aligned.</param>
/// <param name="Log">Where the used ring lies in guest memory, for logging.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct VringAddresses(
    uint Index,
    VringAddressFlags Flags,
    FrontendAddress Descriptors,
    FrontendAddress Used,
    FrontendAddress Available,
    GuestAddress Log);

/// <summary>Flags of <see cref="VringAddresses"/>.</summary>
[Flags]
public enum VringAddressFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>VHOST_VRING_F_LOG: writes to the used ring are recorded in the dirty log.</summary>
    LogUsedRing = 1,
}

/// <summary>Which ring an event is for, and whether a descriptor came with it.</summary>
/// <param name="Value">Bits 0-7 the ring, bit 8 set when there is no descriptor.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct VringEventWord(ulong Value)
{
    private const ulong NoDescriptor = 0x100;

    /// <summary>The ring.</summary>
    public int Index => (int)(Value & 0xff);

    /// <summary>Whether a descriptor belongs to the message.</summary>
    public bool HasDescriptor => (Value & NoDescriptor) == 0;

    /// <summary>Makes a word.</summary>
    /// <param name="index">The ring, below 256.</param>
    /// <param name="hasDescriptor">Whether a descriptor goes with the message.</param>
    public static VringEventWord For(int index, bool hasDescriptor) =>
        new((byte)index | (hasDescriptor ? 0 : NoDescriptor));
}

/// <summary>A region of guest memory.</summary>
/// <param name="Start">Where the guest sees it.</param>
/// <param name="Size">Its size in bytes.</param>
/// <param name="UserAddress">Where the front end sees it; ring addresses are given in these terms.</param>
/// <param name="FileOffset">Where it starts in the file that came with the message.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct MemoryRegionEntry(
    GuestAddress Start, ulong Size, FrontendAddress UserAddress, ulong FileOffset);

/// <summary>What stands before the regions of SET_MEM_TABLE.</summary>
/// <param name="Count">How many regions follow.</param>
/// <param name="Padding">Ignored.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct MemoryTableHeader(uint Count, uint Padding);

/// <summary>The payload of ADD_MEM_REG and REM_MEM_REG.</summary>
/// <param name="Padding">Ignored.</param>
/// <param name="Region">The region.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct SingleMemoryRegion(ulong Padding, MemoryRegionEntry Region);

/// <summary>The payload of ADD_FUSE_DEVICE.</summary>
/// <param name="Caching">What the kernel may cache, whatever the device says: 0 as it says, 1 nothing, 2 auto, 3 always.</param>
/// <param name="Flags">How requests are waited for. Others than those that are known are refused.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct FuseDeviceDescription(uint Caching, FuseDeviceFlags Flags)
{
    /// <summary>How many a back end takes of one front end, at most: a mount has as many as it is to have threads.</summary>
    public const int Most = 4;
}

/// <summary>Flags of <see cref="FuseDeviceDescription"/>.</summary>
[Flags]
public enum FuseDeviceFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>The device does not wait for requests awake, whatever it does otherwise.</summary>
    NeverPolls = 1,
}

/// <summary>Where the dirty log lies in the file that came with SET_LOG_BASE.</summary>
/// <param name="Size">Its size in bytes; each bit stands for a page of 4096 bytes.</param>
/// <param name="Offset">Where it starts in the file.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct LogArea(ulong Size, ulong Offset);

/// <summary>A part of the configuration space; its bytes follow.</summary>
/// <param name="Offset">Where the part starts.</param>
/// <param name="Size">How many bytes it has.</param>
/// <param name="Flags">Who asks.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct ConfigHeader(uint Offset, uint Size, ConfigFlags Flags)
{
    /// <summary>The size of this header, in bytes.</summary>
    public const int Length = 12;
}

/// <summary>Flags of <see cref="ConfigHeader"/>.</summary>
[Flags]
public enum ConfigFlags : uint
{
    /// <summary>VHOST_SET_CONFIG_TYPE_FRONTEND: the driver accesses its writable fields.</summary>
    None = 0,

    /// <summary>VHOST_SET_CONFIG_TYPE_MIGRATION: the front end restores the configuration after migration.</summary>
    Migration = 1,
}
