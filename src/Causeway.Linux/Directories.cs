namespace Causeway.Linux;

/// <summary>Reading of directories. The contract is the man page.</summary>
public static unsafe class Directories
{
    /// <summary>Offset of the inode number in <c>struct linux_dirent64</c> (<c>d_ino</c>, 8 bytes).</summary>
    public const int InodeOffset = 0;

    /// <summary>Offset of the cookie that follows the entry (<c>d_off</c>, 8 bytes).</summary>
    public const int CookieOffset = 8;

    /// <summary>Offset of the record's length (<c>d_reclen</c>, 2 bytes).</summary>
    public const int LengthOffset = 16;

    /// <summary>Offset of the type, DT_* (<c>d_type</c>, 1 byte).</summary>
    public const int TypeOffset = 18;

    /// <summary>Offset of the name, which ends with a NUL (<c>d_name</c>).</summary>
    public const int NameOffset = 19;

    /// <summary>getdents64(2).</summary>
    /// <param name="descriptor">The open directory.</param>
    /// <param name="destination">Where the records go.</param>
    /// <returns>How many bytes were filled; zero at the end of the directory.</returns>
    public static SyscallResult Getdents64(int descriptor, Span<byte> destination)
    {
        fixed (byte* buffer = destination)
        {
            return SyscallResult.From(Libc.getdents64(descriptor, buffer, (nuint)destination.Length));
        }
    }
}
