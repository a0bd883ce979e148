using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>
/// What a reply vouches for: 64 bytes between the header of a successful reply and its body, in sessions that use the version
/// table (docs/coherency.md). Who keeps what the body says keeps the versions with it.
/// </summary>
/// <remarks>A version of zero, or a word of zero, means: not to be kept. What an opcode does not speak of is zero.</remarks>
[StructLayout(LayoutKind.Sequential)]
public struct FuseVersionTags
{
    /// <summary>Index of the META word of the object that the body is about; its CONTENT word is the next.</summary>
    public uint InodeWord;

    /// <summary>Index of the word of the name that the body binds.</summary>
    public uint NameWord;

    /// <summary>Index of the META word of the directory of that name.</summary>
    public uint DirectoryWord;

    /// <summary>More about the words.</summary>
    public FuseVersionFlags Flags;

    /// <summary>Version of the object's attributes, access control lists and extended attributes.</summary>
    public ulong Metadata;

    /// <summary>Version of its data, or of a directory's entries.</summary>
    public ulong Content;

    /// <summary>Version of the name: what it means, or that it means nothing.</summary>
    public ulong Name;

    /// <summary>Version of the directory's entries, all together.</summary>
    public ulong DirectoryContent;

    /// <summary>
    /// Of a request that has changed the object: the version of its attributes before. Zero unless nobody else has changed them
    /// since; then what is kept with this version, and with the change applied, is current with <see cref="Metadata"/>.
    /// </summary>
    public ulong MetadataBefore;

    /// <summary>The same for its data.</summary>
    public ulong ContentBefore;

    /// <summary>Size in bytes.</summary>
    public const int Size = 64;

    /// <summary>Whether successful replies to an opcode carry tags, in sessions that use the table.</summary>
    /// <param name="opcode">The opcode.</param>
    public static bool AreIn(FuseOpcode opcode) => opcode switch
    {
        FuseOpcode.Lookup or FuseOpcode.GetAttr or FuseOpcode.Statx or FuseOpcode.SetAttr or FuseOpcode.ReadLink => true,
        FuseOpcode.Symlink or FuseOpcode.Mknod or FuseOpcode.Mkdir or FuseOpcode.Create or FuseOpcode.Tmpfile => true,
        FuseOpcode.Link or FuseOpcode.Unlink or FuseOpcode.Rmdir or FuseOpcode.Rename or FuseOpcode.Rename2 => true,
        FuseOpcode.Open or FuseOpcode.Read or FuseOpcode.Write or FuseOpcode.Fallocate => true,
        FuseOpcode.CopyFileRange or FuseOpcode.CopyFileRange64 => true,
        FuseOpcode.OpenDir or FuseOpcode.ReadDir or FuseOpcode.ReadDirPlus => true,
        FuseOpcode.SetXattr or FuseOpcode.GetXattr or FuseOpcode.ListXattr or FuseOpcode.RemoveXattr => true,
        _ => false,
    };
}

/// <summary>Flags of <see cref="FuseVersionTags"/>.</summary>
[Flags]
public enum FuseVersionFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>The object's words are shared with others: they change more often than it does.</summary>
    SharedWords = 0x1,
}
