using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;

namespace Causeway.Fuse;

/// <content>
/// Reading the copy of a request. Each method that answers false has set <see cref="RefusalError"/>, so that a handler is
/// a chain of conditions with one way out.
/// </content>
public sealed unsafe partial class FuseRequest
{
    internal const int HeaderSize = 40;

    // Covers the header and the arguments of the hottest requests, so that those are one copy.
    private const int FirstCopySize = 80;

    // Longest request whose arguments are copied: a SETXATTR value is up to 64 KiB. The rest is arbitrary.
    private const int MaxArgumentBytes = 128 << 10;

    private int _position;
    private int _end;

    /// <summary>The errno to answer after a method of this class has returned false.</summary>
    internal Errno RefusalError { get; private set; }

    /// <summary>The way in which the guest broke the protocol, if it did.</summary>
    internal FuseViolation RefusalViolation { get; private set; }

    /// <summary>Bytes of arguments not yet read.</summary>
    internal int Remaining => _end - _position;

    /// <summary>The first bytes of the request as they were copied, for a log.</summary>
    internal ReadOnlySpan<byte> CopiedPrefix => _buffer.AsSpan(0, (int)Math.Min(FirstCopySize, Readable.Length));

    /// <summary>Copies the header, together with the arguments that come first.</summary>
    /// <returns>False when there is no whole header.</returns>
    internal bool TryCopyHeader()
    {
        int copied = Readable.CopyTo(0, _buffer.AsSpan(0, FirstCopySize));
        _position = HeaderSize;
        _end = copied;
        return copied >= HeaderSize;
    }

    /// <summary>Checks the length of the request.</summary>
    /// <param name="maximum">Longest request in bytes.</param>
    internal bool IsLengthValid(uint maximum)
    {
        uint length = Header.Length;
        if (length > maximum)
        {
            return Refuse(Errno.ENOMEM, FuseViolation.TooLong);
        }

        if (length < HeaderSize || length > Readable.Length)
        {
            return Refuse(Errno.EINVAL, FuseViolation.WrongLength);
        }

        _end = (int)Math.Min(length, FirstCopySize);
        return true;
    }

    /// <summary>Copies what follows the first copy. The length was checked.</summary>
    /// <returns>False when it is more than any arguments may be.</returns>
    internal bool TryCopyArguments()
    {
        int length = (int)Header.Length;
        if (length <= FirstCopySize)
        {
            return true;
        }

        if (length > MaxArgumentBytes)
        {
            return Refuse(Errno.ENOMEM, FuseViolation.TooLong);
        }

        if (length > _buffer.Length)
        {
            byte[] longer = GC.AllocateUninitializedArray<byte>(MaxArgumentBytes, pinned: true);
            _buffer.AsSpan(0, FirstCopySize).CopyTo(longer);
            _buffer = longer;
            HasLongBuffers = true;
        }

        int copied = Readable.CopyTo(FirstCopySize, _buffer.AsSpan(FirstCopySize, length - FirstCopySize));
        Debug.Assert(copied == length - FirstCopySize, "the length was compared with the readable bytes");
        _end = length;
        return true;
    }

    /// <summary>Copies the next bytes of the request, for arguments that are too many to be copied at once.</summary>
    /// <param name="position">Where in the request; at or after the end of the first copy, and only ever forward.</param>
    /// <param name="count">How many bytes.</param>
    internal ReadOnlySpan<byte> CopyNext(long position, int count)
    {
        Debug.Assert(position >= FirstCopySize, "no byte is copied twice");
        Span<byte> destination = _buffer.AsSpan(FirstCopySize, count);
        int copied = Readable.CopyTo(position, destination);
        return destination[..copied];
    }

    /// <summary>Reads a structure.</summary>
    internal bool TryRead<T>(out T value)
        where T : unmanaged
    {
        if (Remaining < sizeof(T))
        {
            value = default;
            return Refuse(Errno.EINVAL, FuseViolation.ArgumentsTooShort);
        }

        value = Unsafe.ReadUnaligned<T>(ref Unsafe.Add(ref MemoryMarshal.GetArrayDataReference(_buffer), _position));
        _position += sizeof(T);
        return true;
    }

    /// <summary>Reads the beginning of a structure that has grown with the protocol; the rest is zero.</summary>
    /// <param name="size">How many bytes of it are sent.</param>
    /// <param name="value">The structure.</param>
    internal bool TryReadPrefix<T>(int size, out T value)
        where T : unmanaged
    {
        value = default;
        if (Remaining < size)
        {
            return Refuse(Errno.EINVAL, FuseViolation.ArgumentsTooShort);
        }

        _buffer.AsSpan(_position, size).CopyTo(MemoryMarshal.AsBytes(new Span<T>(ref value)));
        _position += size;
        return true;
    }

    /// <summary>Reads bytes that end with a NUL.</summary>
    /// <param name="terminated">The bytes and the NUL.</param>
    internal bool TryReadTerminated(out ReadOnlyMemory<byte> terminated)
    {
        int length = _buffer.AsSpan(_position, Remaining).IndexOf((byte)0);
        if (length < 0)
        {
            terminated = default;
            return Refuse(Errno.EINVAL, FuseViolation.MissingTerminator);
        }

        terminated = MemoryMarshal.CreateFromPinnedArray(_buffer, _position, length + 1);
        _position += length + 1;
        return true;
    }

    /// <summary>Reads a name in a directory.</summary>
    internal bool TryReadName(out FileName name)
    {
        name = default;
        if (!TryReadTerminated(out ReadOnlyMemory<byte> terminated))
        {
            return false;
        }

        Errno error = FileName.TryCreate(terminated, out name);
        return error switch
        {
            Errno.Success => true,
            // Linux sends names of up to 4095 bytes and leaves the limit to us.
            Errno.ENAMETOOLONG => Refuse(error, FuseViolation.None),
            _ => Refuse(error, FuseViolation.InvalidName),
        };
    }

    /// <summary>Reads all bytes that are left.</summary>
    internal ReadOnlyMemory<byte> ReadRest()
    {
        ReadOnlyMemory<byte> rest = MemoryMarshal.CreateFromPinnedArray(_buffer, _position, Remaining);
        _position = _end;
        return rest;
    }

    /// <summary>Whether the request ends here, without extensions.</summary>
    internal bool IsAtEnd()
    {
        if (Remaining != 0)
        {
            return Refuse(Errno.EINVAL, FuseViolation.TrailingBytes);
        }

        return HasNoExtensions();
    }

    /// <summary>Whether the header announces no extensions.</summary>
    internal bool HasNoExtensions() =>
        ExtensionBytes == 0 || Refuse(Errno.EINVAL, FuseViolation.InvalidExtension);

    /// <summary>Passes a condition on.</summary>
    /// <param name="condition">Whether the guest's value is valid.</param>
    /// <param name="error">What to answer if not.</param>
    internal bool Require(bool condition, Errno error = Errno.EINVAL) =>
        condition || Refuse(error, FuseViolation.InvalidValue);

    /// <summary>Whether a reply with a body of this many bytes fits.</summary>
    internal bool HasRoomFor(int bodySize) =>
        Writable.Length >= _bodyStart + bodySize || Refuse(Errno.EIO, FuseViolation.NoReplySpace);

    /// <summary>Whether a reply with this body fits.</summary>
    internal bool HasRoomFor<T>()
        where T : unmanaged => HasRoomFor(sizeof(T));

    /// <summary>Says why a request is refused.</summary>
    /// <returns>False, for the end of a condition.</returns>
    internal bool Refuse(Errno error, FuseViolation violation)
    {
        RefusalError = error;
        RefusalViolation = violation;
        return false;
    }
}
