using System.Text;

namespace Causeway.Fuse;

/// <summary>
/// A name in a directory: one to 255 bytes without '/' and NUL, and neither "." nor "..". Only the session makes one, from
/// bytes it has checked, so whoever holds a file name need not look again. It lives as long as its request.
/// </summary>
public readonly struct FileName
{
    // Followed by a NUL that is not part of the name, so that it can be handed to the kernel as it is.
    private readonly ReadOnlyMemory<byte> _terminated;

    private FileName(ReadOnlyMemory<byte> terminated) => _terminated = terminated;

    /// <summary>The longest name, NAME_MAX of every file system worth sharing.</summary>
    public const int MaxLength = 255;

    /// <summary>The bytes. Any encoding or none.</summary>
    public ReadOnlySpan<byte> Bytes => _terminated.Span[..^1];

    /// <summary>The bytes and a NUL, for system calls.</summary>
    public ReadOnlySpan<byte> Terminated => _terminated.Span;

    /// <summary>Checks the bytes of a name.</summary>
    /// <param name="terminated">The bytes, followed by a NUL.</param>
    /// <param name="name">The name.</param>
    /// <returns>
    /// Success; ENAMETOOLONG over 255 bytes; EINVAL when empty, ".", ".." or containing '/' or NUL.
    /// </returns>
    public static Linux.Errno TryCreate(ReadOnlyMemory<byte> terminated, out FileName name)
    {
        ReadOnlySpan<byte> bytes = terminated.Span;
        name = default;
        if (bytes.Length < 2 || bytes[^1] != 0)
        {
            return Linux.Errno.EINVAL;
        }

        bytes = bytes[..^1];
        if (bytes.Length > MaxLength)
        {
            return Linux.Errno.ENAMETOOLONG;
        }

        if (bytes.ContainsAny((byte)'/', (byte)0) || bytes.SequenceEqual("."u8) || bytes.SequenceEqual(".."u8))
        {
            return Linux.Errno.EINVAL;
        }

        name = new FileName(terminated);
        return Linux.Errno.Success;
    }

    /// <summary>The name for a log: bytes that are not printable ASCII appear as \xNN.</summary>
    public override string ToString()
    {
        var text = new StringBuilder();
        foreach (byte value in Bytes)
        {
            if (value is >= 0x20 and < 0x7f and not (byte)'\\')
            {
                text.Append((char)value);
            }
            else
            {
                text.Append("\\x").Append(value.ToString("x2", System.Globalization.CultureInfo.InvariantCulture));
            }
        }

        return text.ToString();
    }
}
