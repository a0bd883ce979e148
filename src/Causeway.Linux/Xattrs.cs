namespace Causeway.Linux;

/// <summary>
/// Extended attributes by path, relative to the thread's working directory; symbolic links are followed. The contract is
/// the man page. Paths and names end with a NUL.
/// </summary>
public static unsafe class Xattrs
{
    /// <summary>setxattr(2).</summary>
    /// <param name="path">The path.</param>
    /// <param name="name">The attribute.</param>
    /// <param name="value">Its value.</param>
    /// <param name="flags">XATTR_CREATE 1, XATTR_REPLACE 2.</param>
    public static SyscallResult Setxattr(
        ReadOnlySpan<byte> path, ReadOnlySpan<byte> name, ReadOnlySpan<byte> value, int flags)
    {
        fixed (byte* pathPointer = path)
        fixed (byte* namePointer = name)
        fixed (byte* valuePointer = value)
        {
            return SyscallResult.From(
                Libc.setxattr(pathPointer, namePointer, valuePointer, (nuint)value.Length, flags));
        }
    }

    /// <summary>getxattr(2).</summary>
    /// <param name="path">The path.</param>
    /// <param name="name">The attribute.</param>
    /// <param name="destination">Where the value goes; empty when only its size is asked for.</param>
    /// <returns>The value's size in bytes.</returns>
    public static SyscallResult Getxattr(ReadOnlySpan<byte> path, ReadOnlySpan<byte> name, Span<byte> destination)
    {
        fixed (byte* pathPointer = path)
        fixed (byte* namePointer = name)
        fixed (byte* buffer = destination)
        {
            return SyscallResult.From(Libc.getxattr(pathPointer, namePointer, buffer, (nuint)destination.Length));
        }
    }

    /// <summary>listxattr(2).</summary>
    /// <param name="path">The path.</param>
    /// <param name="destination">Where the names go; empty when only their size is asked for.</param>
    /// <returns>The size of the list in bytes.</returns>
    public static SyscallResult Listxattr(ReadOnlySpan<byte> path, Span<byte> destination)
    {
        fixed (byte* pathPointer = path)
        fixed (byte* buffer = destination)
        {
            return SyscallResult.From(Libc.listxattr(pathPointer, buffer, (nuint)destination.Length));
        }
    }

    /// <summary>removexattr(2).</summary>
    /// <param name="path">The path.</param>
    /// <param name="name">The attribute.</param>
    public static SyscallResult Removexattr(ReadOnlySpan<byte> path, ReadOnlySpan<byte> name)
    {
        fixed (byte* pathPointer = path)
        fixed (byte* namePointer = name)
        {
            return SyscallResult.From(Libc.removexattr(pathPointer, namePointer));
        }
    }
}
