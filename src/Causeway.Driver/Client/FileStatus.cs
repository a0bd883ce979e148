using Causeway.Fuse;

namespace Causeway.Driver;

/// <summary>What an object of a file system is.</summary>
public enum FileKind
{
    /// <summary>The file system did not say.</summary>
    Unknown = 0,

    /// <summary>A named pipe.</summary>
    Pipe = 1,

    /// <summary>A character device.</summary>
    CharacterDevice = 2,

    /// <summary>A directory.</summary>
    Directory = 4,

    /// <summary>A block device.</summary>
    BlockDevice = 6,

    /// <summary>A regular file.</summary>
    File = 8,

    /// <summary>A symbolic link.</summary>
    SymbolicLink = 10,

    /// <summary>A socket.</summary>
    Socket = 12,
}

/// <summary>The attributes of a node, as stat(2) shows them.</summary>
/// <param name="Attributes">The attributes as the device gave them.</param>
public readonly record struct FileStatus(FuseAttributes Attributes)
{
    /// <summary>What it is.</summary>
    public FileKind Kind => (FileKind)(Attributes.Mode >> 12);

    /// <summary>Permission bits, with setuid (0x800), setgid (0x400) and sticky (0x200).</summary>
    public uint Permissions => Attributes.Mode & 0xFFF;

    /// <summary>Size in bytes.</summary>
    public long Length => (long)Attributes.Size;

    /// <summary>Space that it takes, in bytes.</summary>
    public long AllocatedBytes => (long)Math.Min(Attributes.Blocks, long.MaxValue / 512) * 512;

    /// <summary>Inode number.</summary>
    public ulong Inode => Attributes.Inode;

    /// <summary>Number of hard links.</summary>
    public uint LinkCount => Attributes.LinkCount;

    /// <summary>Owner.</summary>
    public uint UserId => Attributes.UserId;

    /// <summary>Group.</summary>
    public uint GroupId => Attributes.GroupId;

    /// <summary>Time of last access, to 100 ns.</summary>
    public DateTimeOffset AccessTime => ToTime(Attributes.AccessTime, Attributes.AccessTimeNanoseconds);

    /// <summary>Time of last modification, to 100 ns.</summary>
    public DateTimeOffset ModificationTime =>
        ToTime(Attributes.ModificationTime, Attributes.ModificationTimeNanoseconds);

    /// <summary>Time of last change of attributes, to 100 ns.</summary>
    public DateTimeOffset ChangeTime => ToTime(Attributes.ChangeTime, Attributes.ChangeTimeNanoseconds);

    // Times outside what .NET can say, which file systems can, are cut.
    internal static DateTimeOffset ToTime(ulong seconds, uint nanoseconds)
    {
        const long Latest = 253_402_300_799;
        const long Earliest = -62_135_596_800;
        return DateTimeOffset.FromUnixTimeSeconds(Math.Clamp((long)seconds, Earliest, Latest))
            .AddTicks(Math.Min(nanoseconds, 999_999_999) / 100);
    }
}

/// <summary>An entry of a directory.</summary>
/// <param name="Name">The name. Bytes that are not UTF-8 show as U+FFFD, and such a name cannot be used in a path.</param>
/// <param name="Kind">What it is.</param>
/// <param name="Inode">Inode number.</param>
/// <param name="Status">The attributes, when the device sent them along.</param>
public sealed record DirectoryItem(string Name, FileKind Kind, ulong Inode, FileStatus? Status);

/// <summary>The state of a file system, as statvfs(3) shows it.</summary>
/// <param name="BlockBytes">The unit of the following three, in bytes.</param>
/// <param name="Blocks">Size.</param>
/// <param name="BlocksFree">Free.</param>
/// <param name="BlocksAvailable">Free for ordinary users.</param>
/// <param name="Files">Inodes.</param>
/// <param name="FilesFree">Free inodes.</param>
/// <param name="MaxNameBytes">The longest name in bytes.</param>
public readonly record struct FileSystemStatus(
    long BlockBytes, ulong Blocks, ulong BlocksFree, ulong BlocksAvailable, ulong Files, ulong FilesFree, int MaxNameBytes)
{
    /// <summary>Size in bytes.</summary>
    public ulong TotalBytes => Blocks * (ulong)BlockBytes;

    /// <summary>Free for ordinary users, in bytes.</summary>
    public ulong AvailableBytes => BlocksAvailable * (ulong)BlockBytes;
}
