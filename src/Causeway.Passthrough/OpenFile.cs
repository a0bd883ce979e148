using System.Runtime.InteropServices;

namespace Causeway.Passthrough;

/// <summary>One open file or directory of the guest: 104 bytes of native memory.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct OpenFile
{
    /// <summary>A <see cref="Warmth"/>: the last READ that asked would have had to wait for the disk.</summary>
    public const byte Cold = 0;

    /// <summary>A <see cref="Warmth"/>: none has asked yet.</summary>
    public const byte Unknown = 1;

    /// <summary>
    /// Generation in the upper half, then one bit that says the guest has it open, then the number of requests that use it
    /// at the moment. Changed by compare-exchange only, so that nobody can take up a slot that was given to another file.
    /// </summary>
    public ulong State;

    /// <summary>The node it was opened from.</summary>
    public ulong NodeId;

    /// <summary>The descriptor.</summary>
    public int Descriptor;

    /// <summary>What is known about it.</summary>
    public OpenFileFlags Flags;

    /// <summary>Of a directory: the cookie the descriptor stands at, or -1 when unknown.</summary>
    public long Position;

    /// <summary>Of a directory: entries that were read and did not fit into the last reply; null when there are none.</summary>
    public byte* Leftover;

    /// <summary>Length of <see cref="Leftover"/>.</summary>
    public int LeftoverLength;

    /// <summary>One while a thread reads the directory.</summary>
    public int Busy;

    /// <summary>The cookie that <see cref="Leftover"/> continues from.</summary>
    public long LeftoverCookie;

    /// <summary>The next free slot.</summary>
    public uint Next;

    /// <summary>The place of its mount in the table.</summary>
    public ushort Mount;

    /// <summary>
    /// How many READs in a row found their data in memory, of those that asked, and one more as long as none had to wait:
    /// <see cref="Cold"/> is right after one that had.
    /// </summary>
    public byte Warmth;

    /// <summary>How many READs there are until the next one asks; negative then.</summary>
    public int PlainReads;

    /// <summary>Not zero when record locks were taken through it.</summary>
    public int HasRecordLocks;

    /// <summary>Not zero when an flock(2) was asked for, which belongs to the open file on the host.</summary>
    public int HasFlock;

    /// <summary>The object's META word in the version table, of which the file holds a reference; zero without a table.</summary>
    public uint VersionWord;

    /// <summary>The object's inode number; only with a version table.</summary>
    public ulong Inode;

    /// <summary>Of a directory: the version of its entries that <see cref="Leftover"/> is of; zero when that is not known.</summary>
    public ulong LeftoverVersion;
}

/// <summary>What is known about an open file.</summary>
[Flags]
internal enum OpenFileFlags
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>It is a directory.</summary>
    Directory = 0x1,

    /// <summary>It may be written.</summary>
    Writable = 0x2,

    /// <summary>A server elsewhere judges and stores: errors show at close, and reads may be short before the end.</summary>
    Network = 0x4,

    /// <summary>The host appends whatever is written, because the inode allows nothing else.</summary>
    AppendOnly = 0x8,

    /// <summary>Another OPEN may have its descriptor: it is as good as a new one.</summary>
    Reusable = 0x10,

    /// <summary>A READ may ask whether it would have to wait for a disk (RWF_NOWAIT).</summary>
    MayAsk = 0x20,

    /// <summary>A READ waits for the disk always (O_DIRECT).</summary>
    Direct = 0x40,
}
