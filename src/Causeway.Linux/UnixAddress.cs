using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace Causeway.Linux;

/// <summary>The address of a socket in the file system, <c>struct sockaddr_un</c> of unix(7).</summary>
[StructLayout(LayoutKind.Sequential)]
public struct UnixAddress
{
    /// <summary>The longest path that fits, in bytes: <c>sun_path</c> has 108 and the last is a zero.</summary>
    public const int MaxPathLength = 107;

    private const ushort FamilyUnix = 1;

    private ushort _family;
    private PathBytes _path;

    /// <summary>The size of the structure, in bytes.</summary>
    internal static uint Size => sizeof(ushort) + MaxPathLength + 1;

    /// <summary>Makes the address of a path.</summary>
    /// <param name="path">The path; it is encoded as UTF-8.</param>
    /// <exception cref="ArgumentException">The path is empty, contains a zero, or is longer than
    /// <see cref="MaxPathLength"/> bytes; the message says which.</exception>
    public static UnixAddress FromPath(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        int length = Encoding.UTF8.GetByteCount(path);
        if (length > MaxPathLength)
        {
            throw new ArgumentException(
                $"the socket path '{path}' has {length} bytes, and the kernel allows {MaxPathLength}; "
                + "use a shorter path, or a relative one", nameof(path));
        }

        if (path.Contains('\0', StringComparison.Ordinal))
        {
            throw new ArgumentException("a socket path cannot contain a zero byte", nameof(path));
        }

        var address = new UnixAddress { _family = FamilyUnix };
        Encoding.UTF8.GetBytes(path, address._path);
        return address;
    }

    [InlineArray(MaxPathLength + 1)]
    private struct PathBytes
    {
        private byte _first;
    }
}
