using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Passthrough;

/// <summary>
/// One object of the host that the guest holds a reference to: 96 bytes of native memory. What identifies it never changes
/// while the lookup count is above zero; the other fields change by single stores or compare-exchange.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct Node
{
    /// <summary>The longest file handle that is kept in the node itself. ext4, xfs, btrfs and tmpfs need 8 to 20 bytes.</summary>
    public const int InlineHandleLength = 24;

    /// <summary>
    /// In <see cref="HandleType"/>, of a node that lives by its descriptor: it has a handle, which is asked for when the descriptor
    /// is taken away.
    /// </summary>
    public const int LateHandle = -1;

    /// <summary>No descriptor, in <see cref="Descriptor"/>.</summary>
    public const int NoDescriptor = -1;

    private const uint TypeMask = 0xf000;

    /// <summary>References the guest holds; zero means the slot is free or about to be.</summary>
    public long LookupCount;

    /// <summary>Inode number.</summary>
    public ulong Inode;

    /// <summary>Time of creation, seconds; zero where the file system does not know.</summary>
    public long BirthSeconds;

    /// <summary>Time of creation, nanoseconds.</summary>
    public uint BirthNanoseconds;

    /// <summary>How often the slot was used before: the upper half of the node id.</summary>
    public uint Generation;

    /// <summary>The next node of the same hash chain, or of the free list; zero at the end.</summary>
    public uint Next;

    /// <summary>An O_PATH descriptor, or <see cref="NoDescriptor"/> when the node is known by handle only.</summary>
    public int Descriptor;

    /// <summary>Index of the mount it is on.</summary>
    public ushort Mount;

    /// <summary>Type and permissions when it was first seen. Only the type is used: it never changes.</summary>
    public ushort Mode;

    /// <summary>Length of the file handle; zero when the node lives by its descriptor alone.</summary>
    public byte HandleLength;

    /// <summary>Whether it was looked up again since it was found: then it is worth a descriptor.</summary>
    public byte WasSeenAgain;

    /// <summary>Whether the descriptor was used since the clock hand last passed.</summary>
    public byte WasUsed;

    /// <summary>Whether a directory is watched for changes by others. Of a file: see <see cref="MayBeCached"/>.</summary>
    public byte IsWatched;

    /// <summary>Type of the file handle.</summary>
    public int HandleType;

    /// <summary>
    /// Of a file: how many slots of the guest's window are set aside for it; zero as long as that is undecided, and all ones
    /// when it is not to be mapped. Of a directory: see <see cref="NamesByHandle"/>.
    /// </summary>
    public uint DaxSlots;

    /// <summary>
    /// Of a directory: which names were ever handed out, one of 64 bits each (<see cref="NodeTable.NameBit"/>). Of a file:
    /// a digest of what changes with the content, at the guest's last open.
    /// </summary>
    public ulong Word;

    /// <summary>The file handle, or when it is longer than this, its index among the long ones in the first four bytes.</summary>
    public fixed byte Handle[InlineHandleLength];

    /// <summary>
    /// The object's META word in the version table, of which the node holds a reference; zero as long as nobody has asked.
    /// </summary>
    public uint VersionWord;

    /// <summary>
    /// Whether inode number and time of creation prove that an object is this one, and its handle is worth remembering when the guest has
    /// forgotten it: see <see cref="RememberedHandles.WasOld"/>. Not any more when the handle turned out to be stale.
    /// </summary>
    public byte IsHandleLasting;

    /// <summary>Whether its descriptor is one of those that the clock may take away.</summary>
    public readonly bool IsPinnedBesideHandle => HandleLength != 0 || HandleType == LateHandle;

    /// <summary>What it is found by.</summary>
    public readonly NodeKey Key => new(Mount, Inode, BirthSeconds, BirthNanoseconds);

    public readonly bool IsDirectory => (Mode & TypeMask) == FileMode.Directory;

    public readonly bool IsRegular => (Mode & TypeMask) == FileMode.Regular;

    public readonly bool IsSymbolicLink => (Mode & TypeMask) == FileMode.SymbolicLink;

    /// <summary>
    /// Of a directory: which names were handed out for nodes without a descriptor, one of 32 bits each
    /// (<see cref="NodeTable.ShortBit"/>). It lies where files have <see cref="DaxSlots"/>.
    /// </summary>
    public static ref uint NamesByHandle(Node* directory) => ref directory->DaxSlots;

    /// <summary>
    /// Of a file: whether the guest has read or written content since it was last told at an open to drop what it has. It lies where
    /// directories have <see cref="IsWatched"/>.
    /// </summary>
    public static ref byte MayBeCached(Node* file) => ref file->IsWatched;
}

/// <summary>Types of files in st_mode, S_IF*, and the bits beside the permissions.</summary>
internal static class FileMode
{
    public const uint TypeMask = 0xf000;
    public const uint Fifo = 0x1000;
    public const uint CharacterDevice = 0x2000;
    public const uint Directory = 0x4000;
    public const uint BlockDevice = 0x6000;
    public const uint Regular = 0x8000;
    public const uint SymbolicLink = 0xa000;
    public const uint Socket = 0xc000;
    public const uint SetUserId = 0x800;
    public const uint SetGroupId = 0x400;
    public const uint GroupExecute = 0x8;
    public const uint PermissionMask = 0xfff;
}

/// <summary>What tells host objects apart, as far as statx(2) shows it. Unique among objects that exist at the same time.</summary>
/// <param name="Mount">Index of the mount.</param>
/// <param name="Inode">Inode number.</param>
/// <param name="BirthSeconds">Time of creation, seconds.</param>
/// <param name="BirthNanoseconds">Time of creation, nanoseconds.</param>
internal readonly record struct NodeKey(ushort Mount, ulong Inode, long BirthSeconds, uint BirthNanoseconds)
{
    /// <summary>A well-mixed hash of mount and inode number.</summary>
    public uint Hash => HashOf(Mount, Inode);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint HashOf(ushort mount, ulong inode)
    {
        // The finalizer of MurmurHash3: inode numbers are often consecutive.
        ulong value = inode ^ ((ulong)mount << 48);
        value = (value ^ (value >> 33)) * 0xff51afd7ed558ccd;
        value = (value ^ (value >> 33)) * 0xc4ceb9fe1a85ec53;
        return (uint)(value ^ (value >> 33));
    }

    public unsafe bool Matches(Node* node) =>
        node->Inode == Inode && node->Mount == Mount &&
        node->BirthSeconds == BirthSeconds && node->BirthNanoseconds == BirthNanoseconds;
}
