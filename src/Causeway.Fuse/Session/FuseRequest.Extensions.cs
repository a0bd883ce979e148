using System.Buffers.Binary;

namespace Causeway.Fuse;

/// <content>
/// The extension block, last part of the requests that create something: the caller's groups and the security context of
/// what is made (<c>fuse_ext_header</c>).
/// </content>
public sealed partial class FuseRequest
{
    // fuse_ext_header: size of the whole record, type. Records and the block are multiples of eight bytes.
    private const int ExtensionHeaderSize = 8;
    private const int ExtensionUnit = 8;

    // FUSE_EXT_GROUPS. Types 0 to 31 (FUSE_MAX_NR_SECCTX) are numbers of security contexts.
    private const uint GroupsExtension = 32;

    // fuse_secctx: size of the context, padding; then the name with its NUL, and the context.
    private const int ContextHeaderSize = 8;

    // XATTR_NAME_MAX.
    private const int MaxContextName = 255;

    private int ExtensionBytes => Negotiated is { HasExtensions: true } ? Header.ExtensionLength * ExtensionUnit : 0;

    /// <summary>Reads the extension block, up to the end of the request, into the context.</summary>
    internal bool TryReadExtensions()
    {
        // Security contexts (7.36) are older than the length of the block (7.38); there they are what is left.
        bool isUnannounced = Negotiated is { HasExtensions: false, HasSecurityContexts: true };
        if (isUnannounced ? Remaining % ExtensionUnit != 0 : Remaining != ExtensionBytes)
        {
            return Refuse(Linux.Errno.EINVAL, FuseViolation.InvalidExtension);
        }

        return ParseExtensions(ReadRest());
    }

    private bool ParseExtensions(ReadOnlyMemory<byte> block)
    {
        bool hasGroups = false;
        bool hasContext = false;
        while (!block.IsEmpty)
        {
            // The block is a multiple of eight bytes and so is what each record leaves of it: a header is there.
            uint size = BinaryPrimitives.ReadUInt32LittleEndian(block.Span);
            uint type = BinaryPrimitives.ReadUInt32LittleEndian(block.Span[4..]);
            if (size < ExtensionHeaderSize || size % ExtensionUnit != 0 || size > block.Length)
            {
                return Refuse(Linux.Errno.EINVAL, FuseViolation.InvalidExtension);
            }

            ReadOnlyMemory<byte> body = block[ExtensionHeaderSize..(int)size];
            bool isValid = type switch
            {
                GroupsExtension => !hasGroups && Negotiated is { HasGroups: true } && TryReadGroups(body.Span),
                < GroupsExtension =>
                    !hasContext && Negotiated is { HasSecurityContexts: true } && TryReadSecurityContext(type, body),
                _ => false,
            };
            if (!isValid)
            {
                return Refuse(Linux.Errno.EINVAL, FuseViolation.InvalidExtension);
            }

            hasGroups |= type == GroupsExtension;
            hasContext |= type < GroupsExtension;
            block = block[(int)size..];
        }

        // A guest that negotiated them sends at least an empty record.
        return hasContext || Negotiated is not { HasSecurityContexts: true } ||
            Refuse(Linux.Errno.EINVAL, FuseViolation.InvalidExtension);
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
        if (body.Length != Padded(exact))
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

    // None, which is what a kernel without security module sends, or one. Several would have to be set together or not at
    // all, and no Linux guest sends more than one.
    private bool TryReadSecurityContext(uint count, ReadOnlyMemory<byte> body)
    {
        if (count != 1)
        {
            return count == 0 && body.IsEmpty;
        }

        if (body.Length < ContextHeaderSize)
        {
            return false;
        }

        uint size = BinaryPrimitives.ReadUInt32LittleEndian(body.Span);
        ReadOnlyMemory<byte> nameAndContext = body[ContextHeaderSize..];
        int nameLength = nameAndContext.Span.IndexOf((byte)0);
        if (nameLength is < 1 or > MaxContextName || size == 0 || size > nameAndContext.Length - (nameLength + 1)
            || nameAndContext.Length != Padded(nameLength + 1 + (int)size))
        {
            return false;
        }

        Context.SecurityContextName = nameAndContext[..(nameLength + 1)];
        Context.SecurityContext = nameAndContext.Slice(nameLength + 1, (int)size);
        return true;
    }

    private static int Padded(int length) => (length + ExtensionUnit - 1) / ExtensionUnit * ExtensionUnit;
}
