using System.Buffers.Binary;

namespace Causeway.Fuse;

/// <content>
/// The extension block, last part of the requests that create something (<c>fuse_ext_header</c>, since 7.38).
/// </content>
public sealed partial class FuseRequest
{
    // fuse_ext_header: size of the whole record, type. Records and the block are multiples of eight bytes.
    private const int ExtensionHeaderSize = 8;
    private const int ExtensionUnit = 8;

    // FUSE_EXT_GROUPS. Types 0 to 31 are numbers of security contexts, which are never granted.
    private const uint GroupsExtension = 32;

    private int ExtensionBytes => Negotiated is { HasExtensions: true } ? Header.ExtensionLength * ExtensionUnit : 0;

    /// <summary>Reads the extension block, up to the end of the request, into the context.</summary>
    internal bool TryReadExtensions()
    {
        if (Remaining != ExtensionBytes)
        {
            return Refuse(Linux.Errno.EINVAL, FuseViolation.InvalidExtension);
        }

        return Remaining == 0 || ParseExtensions(ReadRest().Span);
    }

    private bool ParseExtensions(ReadOnlySpan<byte> block)
    {
        bool hasGroups = false;
        while (!block.IsEmpty)
        {
            // The block is a multiple of eight bytes and so is what each record leaves of it: a header is there.
            uint size = BinaryPrimitives.ReadUInt32LittleEndian(block);
            uint type = BinaryPrimitives.ReadUInt32LittleEndian(block[4..]);
            if (size < ExtensionHeaderSize || size % ExtensionUnit != 0 || size > block.Length
                || type != GroupsExtension || hasGroups || Negotiated is not { HasGroups: true }
                || !TryReadGroups(block[ExtensionHeaderSize..(int)size]))
            {
                return Refuse(Linux.Errno.EINVAL, FuseViolation.InvalidExtension);
            }

            hasGroups = true;
            block = block[(int)size..];
        }

        return true;
    }

    // fuse_supp_groups: how many, then so many group ids, padded to eight bytes together with the header of the record.
    private bool TryReadGroups(ReadOnlySpan<byte> body)
    {
        if (body.Length < sizeof(uint))
        {
            return false;
        }

        uint count = BinaryPrimitives.ReadUInt32LittleEndian(body);
        if (count > RequestContext.MaxGroups)
        {
            return false;
        }

        int exact = sizeof(uint) * (1 + (int)count);
        if (body.Length != (exact + ExtensionUnit - 1) / ExtensionUnit * ExtensionUnit)
        {
            return false;
        }

        Span<uint> groups = Context.SetGroupCount((int)count);
        for (int i = 0; i < groups.Length; i++)
        {
            groups[i] = BinaryPrimitives.ReadUInt32LittleEndian(body[(sizeof(uint) * (1 + i))..]);
        }

        return true;
    }
}
