using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>Attributes of host objects as the guest is told of them.</summary>
internal static class Attributes
{
    /// <summary>Converts what statx(2) told.</summary>
    /// <param name="status">The object.</param>
    /// <param name="attributes">The attributes, without flags.</param>
    public static void Fill(in StatxBuffer status, out FuseAttributes attributes)
    {
        attributes.Inode = status.Inode;
        attributes.Size = status.Size;
        attributes.Blocks = status.Blocks;
        attributes.AccessTime = (ulong)status.AccessTime.Seconds;
        attributes.ModificationTime = (ulong)status.ModificationTime.Seconds;
        attributes.ChangeTime = (ulong)status.ChangeTime.Seconds;
        attributes.AccessTimeNanoseconds = status.AccessTime.Nanoseconds;
        attributes.ModificationTimeNanoseconds = status.ModificationTime.Nanoseconds;
        attributes.ChangeTimeNanoseconds = status.ChangeTime.Nanoseconds;
        attributes.Mode = status.Mode;
        attributes.LinkCount = status.LinkCount;
        attributes.UserId = status.UserId;
        attributes.GroupId = status.GroupId;
        attributes.Device = (status.NodeDeviceMinor & 0xff) | (status.NodeDeviceMajor << 8) |
            ((status.NodeDeviceMinor & ~0xffu) << 12);
        attributes.BlockSize = status.BlockSize;
        attributes.Flags = FuseAttributeFlags.None;
    }

    /// <summary>Converts what statx(2) told, for STATX.</summary>
    /// <param name="status">The object.</param>
    /// <param name="answer">The reply's attributes.</param>
    public static void Fill(in StatxBuffer status, out FuseStatx answer)
    {
        answer = new FuseStatx
        {
            Mask = (uint)(status.Mask & (StatxMask.Basic | StatxMask.BirthTime)),
            BlockSize = status.BlockSize,
            Attributes = status.Attributes,
            LinkCount = status.LinkCount,
            UserId = status.UserId,
            GroupId = status.GroupId,
            Mode = status.Mode,
            Inode = status.Inode,
            Size = status.Size,
            Blocks = status.Blocks,
            AttributesMask = status.AttributesMask,
            AccessTime = Convert(status.AccessTime),
            BirthTime = Convert(status.BirthTime),
            ChangeTime = Convert(status.ChangeTime),
            ModificationTime = Convert(status.ModificationTime),
            DeviceMajor = status.NodeDeviceMajor,
            DeviceMinor = status.NodeDeviceMinor,
            FileSystemMajor = status.DeviceMajor,
            FileSystemMinor = status.DeviceMinor,
        };
    }

    private static FuseStatxTime Convert(StatxTime time) =>
        new() { Seconds = time.Seconds, Nanoseconds = time.Nanoseconds };
}
