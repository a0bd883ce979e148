using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;

namespace Causeway.Fuse;

/// <content>
/// Writing the reply: body first, then the header, straight into guest memory. Every method returns the bytes written,
/// which is also what the header says.
/// </content>
public sealed unsafe partial class FuseRequest
{
    internal const int ReplyHeaderSize = 16;

    /// <summary>Size of what comes before the data of IOCTL's reply.</summary>
    internal const int IoctlHeaderSize = 16;

    /// <summary>Size of the buffer for replies that are built before they are copied; also the longest xattr value.</summary>
    internal const int ReplyBufferSize = 64 << 10;

    // Linux accepts 1 to 511 and takes anything else for a broken reply (fuse-virtiofs.md 2.5).
    private const int MaxErrno = 511;

    // Where the header goes: found before READ narrows the list. In one piece unless the guest is strange, and never in
    // more than sixteen that are not empty.
    private byte* _replyHeader;
    private IoVector[]? _replyHeaderPieces;

    // Behind the header, or behind the tags that follow it.
    private int _bodyStart = ReplyHeaderSize;
    private byte* _tags;

    /// <summary>Whether the opcode is one of those that are never answered.</summary>
    internal bool IsAnswered =>
        Header.Opcode is not (FuseOpcode.Forget or FuseOpcode.BatchForget or FuseOpcode.Interrupt or FuseOpcode.NotifyReply);

    /// <summary>Whether there is room for a header.</summary>
    internal bool HasReplyHeader { get; private set; }

    /// <summary>Says whether tags come between header and body.</summary>
    internal void PlaceBody(bool hasTags)
    {
        _bodyStart = hasTags ? ReplyHeaderSize + FuseVersionTags.Size : ReplyHeaderSize;
        _tags = null;
        Context.WantsVersions = hasTags;
    }

    /// <summary>
    /// Whether the tags of a READ, whose body is written in place, can be written after it: they lie behind the header in one
    /// piece.
    /// </summary>
    internal bool CanNarrow()
    {
        if (_bodyStart == ReplyHeaderSize)
        {
            return true;
        }

        _tags = Writable.IsInFirstPiece(0, _bodyStart) ? Writable.Vectors[0].Address + ReplyHeaderSize : null;
        return _tags != null || Refuse(Errno.EINVAL, FuseViolation.InvalidValue);
    }

    /// <summary>Memory in which a reply is built before it is copied.</summary>
    internal Memory<byte> ReplyBuffer(int length)
    {
        if (_replyBuffer is null)
        {
            _replyBuffer = GC.AllocateUninitializedArray<byte>(ReplyBufferSize, pinned: true);
            HasLongBuffers = true;
        }

        PayloadLength = length;
        return MemoryMarshal.CreateFromPinnedArray(_replyBuffer, 0, length);
    }

    /// <summary>The place of a READ's bytes, no longer than asked for and than there is room.</summary>
    internal IoVectorList NarrowToPayload(uint size)
    {
        Writable = Writable.Narrow(_bodyStart, Math.Min(size, FuseSession.MaxTransfer));
        PayloadLength = (int)Writable.Length;
        return Writable;
    }

    /// <summary>The bytes of a WRITE. Their number was checked.</summary>
    internal IoVectorList NarrowToSource(uint size)
    {
        Readable = Readable.Narrow(FirstCopySize, size);
        PayloadLength = (int)size;
        Debug.Assert(Readable.Length == size, "the size was compared with the length of the request");
        return Readable;
    }

    /// <summary>Replies with an errno, if the opcode is answered and there is room; otherwise writes nothing.</summary>
    internal int ReplyError(Errno error)
    {
        if (!IsAnswered || !HasReplyHeader)
        {
            return 0;
        }

        int number = (int)error is >= 1 and <= MaxErrno ? (int)error : (int)Errno.EIO;
        return WriteHeader(ReplyHeaderSize, -number, Header.Unique);
    }

    /// <summary>Replies to something that is no request, because its header is missing.</summary>
    internal int ReplyNoHeader() => HasReplyHeader ? WriteHeader(ReplyHeaderSize, -(int)Errno.EIO, default) : 0;

    /// <summary>Asks for an INTERRUPT to be sent again, where there is room to say so.</summary>
    internal int ReplyAgain() =>
        HasReplyHeader ? WriteHeader(ReplyHeaderSize, -(int)Errno.EAGAIN, Header.Unique) : 0;

    /// <summary>Replies success without a body.</summary>
    internal int ReplyEmpty() => HasReplyHeader ? WriteSuccess(0) : 0;

    /// <summary>Replies with a structure. Its room was checked before the file system was called.</summary>
    internal int Reply<T>(in T body)
        where T : unmanaged => Reply(MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in body)));

    /// <summary>Replies with the first bytes of the reply buffer. Their room was checked.</summary>
    internal int ReplyBuffered(int length) => length == 0 ? ReplyEmpty() : Reply(_replyBuffer.AsSpan(0, length));

    /// <summary>Replies with bytes that are already in place.</summary>
    internal int ReplyInPlace(int length) => WriteSuccess(length);

    private int Reply(ReadOnlySpan<byte> body)
    {
        int copied = Writable.CopyFrom(_bodyStart, body);
        // A node of a reply that is lost would never be forgotten.
        Debug.Assert(copied == body.Length, "room is checked before the file system is called");
        return WriteSuccess(body.Length);
    }

    private int WriteSuccess(int bodyLength)
    {
        if (_bodyStart != ReplyHeaderSize)
        {
            ReadOnlySpan<byte> tags = MemoryMarshal.AsBytes(new ReadOnlySpan<FuseVersionTags>(in Context.Versions));
            if (_tags != null)
            {
                // SAFETY: CanNarrow found them here, and the piece is mapped while the request runs.
                tags.CopyTo(new Span<byte>(_tags, FuseVersionTags.Size));
            }
            else
            {
                Writable.CopyFrom(ReplyHeaderSize, tags);
            }
        }

        return WriteHeader(_bodyStart + bodyLength, 0, Header.Unique);
    }

    private int WriteHeader(int length, int error, RequestId unique)
    {
        FuseOutHeader header = new() { Length = (uint)length, Error = error, Unique = unique };
        if (_replyHeader is not null)
        {
            // SAFETY: RememberReplyHeader found sixteen bytes here, and the piece is mapped while the request runs.
            Unsafe.WriteUnaligned(_replyHeader, header);
            return length;
        }

        ReadOnlySpan<byte> bytes = MemoryMarshal.AsBytes(new ReadOnlySpan<FuseOutHeader>(in header));
        foreach (IoVector piece in _replyHeaderPieces!)
        {
            // SAFETY: the pieces are those of the list, cut to sixteen bytes together.
            bytes[..(int)piece.Length].CopyTo(new Span<byte>(piece.Address, (int)piece.Length));
            bytes = bytes[(int)piece.Length..];
        }

        return length;
    }

    private void RememberReplyHeader()
    {
        HasReplyHeader = Writable.Length >= ReplyHeaderSize;
        _replyHeader = Writable.IsInFirstPiece(0, ReplyHeaderSize) ? Writable.Vectors[0].Address : null;
        if (_replyHeader is null && HasReplyHeader)
        {
            RememberSplitReplyHeader();
        }
    }

    private void RememberSplitReplyHeader()
    {
        _replyHeaderPieces ??= new IoVector[ReplyHeaderSize];
        Array.Clear(_replyHeaderPieces);
        int found = 0;
        int missing = ReplyHeaderSize;
        foreach (IoVector piece in Writable.Vectors)
        {
            int length = (int)Math.Min((long)piece.Length, missing);
            if (length == 0)
            {
                continue;
            }

            _replyHeaderPieces[found++] = new IoVector(piece.Address, (nuint)length);
            missing -= length;
            if (missing == 0)
            {
                break;
            }
        }
    }
}
