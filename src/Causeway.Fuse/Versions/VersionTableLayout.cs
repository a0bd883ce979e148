using System.Buffers.Binary;
using System.Numerics;

namespace Causeway.Fuse;

/// <summary>
/// How the version table is laid out in its shared memory region: docs/coherency.md is the specification, and this its one
/// place in code. All numbers are little-endian; a word is 64 bits, and its index is its offset in the region divided by eight.
/// </summary>
/// <param name="Inodes">How many objects have a pair of words of their own, META and CONTENT.</param>
/// <param name="Names">How many words names are hashed to. A power of two.</param>
/// <param name="Shared">How many pairs of words there are for objects that found none of their own. A power of two.</param>
/// <param name="LogEntries">How many changes the log remembers. A power of two.</param>
public readonly record struct VersionTableLayout(int Inodes, int Names, int Shared, int LogEntries)
{
    /// <summary>The number of the shared memory region (shmid).</summary>
    public const byte RegionId = 1;

    /// <summary>The version of the layout and of the protocol.</summary>
    public const ushort Abi = 1;

    /// <summary>What stands in <c>init_in.unused[0]</c> of a guest that knows the table.</summary>
    public const uint InitMagic = 0x4D565431;

    /// <summary>What stands in <c>init_out.unused[0]</c> of a server that has one.</summary>
    public const ushort InitAnswer = 0x5654;

    /// <summary>Size of the header in bytes: where the words start.</summary>
    public const int HeaderSize = 4096;

    /// <summary>Bytes of one pair of words.</summary>
    public const int PairSize = 16;

    /// <summary>Index of the word that covers everything.</summary>
    public const uint EpochWord = 0x080 / 8;

    /// <summary>Index of the word that the server counts up while it lives. Not a version.</summary>
    public const uint HeartbeatWord = 0x0c0 / 8;

    /// <summary>Index of the 32-bit state, in the lower half of its word: a <see cref="VersionTableState"/>.</summary>
    public const uint StateWord = 0x100 / 8;

    /// <summary>Index of the word that says how many entries were ever written to the log.</summary>
    public const uint LogHeadWord = 0x140 / 8;

    /// <summary>Index of the first word of statistics, see <see cref="VersionStatistic"/>.</summary>
    public const uint StatisticsWord = 0x180 / 8;

    /// <summary>The default: 8 MiB, of which only what is used takes memory.</summary>
    public static VersionTableLayout Default => new(262_144, 131_072, 65_536, 65_536);

    /// <summary>How often the heartbeat moves.</summary>
    public static TimeSpan HeartbeatInterval => TimeSpan.FromMilliseconds(50);

    /// <summary>How old the last movement of the heartbeat may be for words to be believed.</summary>
    public static TimeSpan HeartbeatLimit => TimeSpan.FromSeconds(1);

    private static ReadOnlySpan<byte> Magic => "VFSMVT01"u8;

    /// <summary>Where the objects' pairs start, in bytes.</summary>
    public static ulong InodesOffset => HeaderSize;

    /// <summary>Where the words of names start, in bytes.</summary>
    public ulong NamesOffset => InodesOffset + ((ulong)Inodes * PairSize);

    /// <summary>Where the shared pairs start, in bytes.</summary>
    public ulong SharedOffset => NamesOffset + ((ulong)Names * sizeof(ulong));

    /// <summary>Where the log starts, in bytes.</summary>
    public ulong LogOffset => SharedOffset + ((ulong)Shared * PairSize);

    /// <summary>Size of the region in bytes: a power of two, because QEMU asks for one.</summary>
    public ulong RegionSize => BitOperations.RoundUpToPowerOf2(LogOffset + ((ulong)LogEntries * sizeof(ulong)));

    /// <summary>Whether the numbers can be a layout: bounded, so that no sum wraps and each word has a 32-bit index.</summary>
    public bool IsValid =>
        Inodes is > 0 and <= 1 << 26 && IsCount(Names) && IsCount(Shared) && IsCount(LogEntries);

    /// <summary>Whether a word of this index is one that covers an object, that is its META.</summary>
    /// <param name="word">The index, from the other side.</param>
    public bool IsPair(uint word)
    {
        ulong offset = (ulong)word * sizeof(ulong);
        return offset % PairSize == 0
            && ((offset >= InodesOffset && offset < NamesOffset) || (offset >= SharedOffset && offset < LogOffset));
    }

    /// <summary>Whether a word of this index is one of a name.</summary>
    /// <param name="word">The index, from the other side.</param>
    public bool IsName(uint word)
    {
        ulong offset = (ulong)word * sizeof(ulong);
        return offset >= NamesOffset && offset < SharedOffset;
    }

    /// <summary>Writes the constant part of the header.</summary>
    /// <param name="header">Room for <see cref="HeaderSize"/> bytes.</param>
    public void Write(Span<byte> header)
    {
        Magic.CopyTo(header);
        BinaryPrimitives.WriteUInt16LittleEndian(header[0x08..], Abi);
        BinaryPrimitives.WriteUInt16LittleEndian(header[0x0a..], 0);
        BinaryPrimitives.WriteUInt32LittleEndian(header[0x0c..], HeaderSize);
        BinaryPrimitives.WriteUInt64LittleEndian(header[0x10..], RegionSize);
        BinaryPrimitives.WriteUInt64LittleEndian(header[0x18..], InodesOffset);
        BinaryPrimitives.WriteInt32LittleEndian(header[0x20..], Inodes);
        BinaryPrimitives.WriteInt32LittleEndian(header[0x24..], PairSize);
        BinaryPrimitives.WriteUInt64LittleEndian(header[0x28..], NamesOffset);
        BinaryPrimitives.WriteInt32LittleEndian(header[0x30..], Names);
        BinaryPrimitives.WriteUInt64LittleEndian(header[0x38..], SharedOffset);
        BinaryPrimitives.WriteInt32LittleEndian(header[0x40..], Shared);
        BinaryPrimitives.WriteUInt64LittleEndian(header[0x48..], LogOffset);
        BinaryPrimitives.WriteInt32LittleEndian(header[0x50..], LogEntries);
    }

    /// <summary>Reads a header that the other side has written.</summary>
    /// <param name="header">A copy of its first bytes, <see cref="HeaderSize"/> of them.</param>
    /// <param name="regionSize">How large the region is that it came with.</param>
    /// <param name="layout">The layout.</param>
    /// <returns>False when it is no table, one of another version, or one that does not fit into the region.</returns>
    public static bool TryRead(ReadOnlySpan<byte> header, ulong regionSize, out VersionTableLayout layout)
    {
        layout = new VersionTableLayout(
            BinaryPrimitives.ReadInt32LittleEndian(header[0x20..]),
            BinaryPrimitives.ReadInt32LittleEndian(header[0x30..]),
            BinaryPrimitives.ReadInt32LittleEndian(header[0x40..]),
            BinaryPrimitives.ReadInt32LittleEndian(header[0x50..]));
        if (!layout.IsValid || layout.RegionSize > regionSize)
        {
            return false;
        }

        // What is derived is compared as a whole: a table that is laid out differently is another version's.
        Span<byte> expected = stackalloc byte[0x54];
        expected.Clear();
        layout.Write(expected);
        return header[..0x08].SequenceEqual(Magic)
            && BinaryPrimitives.ReadUInt16LittleEndian(header[0x08..]) == Abi
            && header[0x0c..0x54].SequenceEqual(expected[0x0c..0x54]);
    }

    private static bool IsCount(int count) => count is > 0 and <= 1 << 26 && BitOperations.IsPow2(count);
}

/// <summary>Whether a table can be believed.</summary>
public enum VersionTableState : uint
{
    /// <summary>Not yet.</summary>
    Building = 0,

    /// <summary>Yes.</summary>
    Live = 1,

    /// <summary>Never again.</summary>
    Dead = 2,
}

/// <summary>What the server counts in the table, for whoever looks.</summary>
public enum VersionStatistic
{
    /// <summary>Pairs of words in use.</summary>
    SlotsUsed = 0,

    /// <summary>How often an object got shared words because there were no others.</summary>
    Overflows = 1,

    /// <summary>How often everything was made void at once.</summary>
    EpochChanges = 2,

    /// <summary>How often a name changed under a change of the same name, so that it was begun again.</summary>
    Conflicts = 3,
}
