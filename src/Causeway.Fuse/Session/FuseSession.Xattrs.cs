using System.Runtime.CompilerServices;
using Causeway.Linux;

namespace Causeway.Fuse;

/// <content>Extended attributes.</content>
public sealed partial class FuseSession
{
    // XATTR_NAME_MAX, XATTR_SIZE_MAX and XATTR_LIST_MAX of Linux.
    private const int MaxXattrName = 255;
    private const int MaxXattrValue = FuseRequest.ReplyBufferSize;

    // XATTR_CREATE and XATTR_REPLACE.
    private const uint KnownXattrFlags = 3;

    // fuse_setxattr_in without what SETXATTR_EXT added.
    private const int ShortSetXattrSize = 8;

    private ValueTask<int> SetXattr(FuseRequest request)
    {
        int argumentsSize = request.Negotiated!.HasLongSetXattr ? Unsafe.SizeOf<FuseSetXattrIn>() : ShortSetXattrSize;
        if (!request.TryReadPrefix(argumentsSize, out FuseSetXattrIn arguments)
            || !TryReadXattrName(request, out ReadOnlyMemory<byte> name) || !request.HasNoExtensions()
            || !request.Require((arguments.Flags & ~KnownXattrFlags) == 0))
        {
            return Refuse(request);
        }

        if (arguments.Size != request.Remaining)
        {
            request.Refuse(Errno.EINVAL, FuseViolation.SizeMismatch);
            return Refuse(request);
        }

        if (arguments.Size > MaxXattrValue)
        {
            request.Refuse(Errno.E2BIG, FuseViolation.None);
            return Refuse(request);
        }

        arguments.SetXattrFlags &= SetXattrFlags.AclKillSgid;
        ReadOnlyMemory<byte> value = request.ReadRest();
        return Finish(
            request, _fileSystem.SetXattrAsync(request.Header.NodeId, name, value, arguments, request.Context));
    }

    private ValueTask<int> GetXattr(FuseRequest request)
    {
        if (!request.TryRead(out FuseGetXattrIn arguments) || !TryReadXattrName(request, out ReadOnlyMemory<byte> name)
            || !request.IsAtEnd() || !TryGetDestination(request, arguments.Size, out Memory<byte> destination))
        {
            return Refuse(request);
        }

        return Finish<int, XattrReply>(
            request, _fileSystem.GetXattrAsync(request.Header.NodeId, name, destination, request.Context));
    }

    private ValueTask<int> ListXattr(FuseRequest request)
    {
        if (!request.TryRead(out FuseGetXattrIn arguments) || !request.IsAtEnd()
            || !TryGetDestination(request, arguments.Size, out Memory<byte> destination))
        {
            return Refuse(request);
        }

        return Finish<int, XattrReply>(
            request, _fileSystem.ListXattrAsync(request.Header.NodeId, destination, request.Context));
    }

    private ValueTask<int> RemoveXattr(FuseRequest request)
    {
        if (!TryReadXattrName(request, out ReadOnlyMemory<byte> name) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        return Finish(request, _fileSystem.RemoveXattrAsync(request.Header.NodeId, name, request.Context));
    }

    // ERANGE is what setxattr(2) says of an empty or too long name.
    private static bool TryReadXattrName(FuseRequest request, out ReadOnlyMemory<byte> name)
    {
        if (!request.TryReadTerminated(out name))
        {
            return false;
        }

        return name.Length - 1 is >= 1 and <= MaxXattrName || request.Refuse(Errno.ERANGE, FuseViolation.None);
    }

    // No value and no list is longer than 64 KiB, whatever room there is. Empty when only the size is wanted.
    private static bool TryGetDestination(FuseRequest request, uint size, out Memory<byte> destination)
    {
        destination = default;
        if (size > MaxTransfer)
        {
            return request.Refuse(Errno.ENOMEM, FuseViolation.InvalidValue);
        }

        if (size == 0)
        {
            return request.HasRoomFor<FuseGetXattrOut>();
        }

        int length = (int)Math.Min(size, MaxXattrValue);
        if (!request.HasRoomFor(length))
        {
            return false;
        }

        destination = request.ReplyBuffer(length);
        return true;
    }

    private readonly struct XattrReply : IReply<int>
    {
        public static int Write(FuseSession session, FuseRequest request, in int value)
        {
            // Nothing to copy to means that the size was asked for.
            bool isSize = request.PayloadLength == 0;
            if ((uint)value > (uint)(isSize ? MaxXattrValue : request.PayloadLength))
            {
                return session.FailContract(request, value);
            }

            return isSize
                ? request.Reply(new FuseGetXattrOut { Size = (uint)value })
                : request.ReplyBuffered(value);
        }
    }
}
