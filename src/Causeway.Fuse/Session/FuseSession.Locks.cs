using Causeway.Linux;

namespace Causeway.Fuse;

/// <content>Locks on files, and IOCTL.</content>
public sealed partial class FuseSession
{
    private ValueTask<int> GetLk(FuseRequest request)
    {
        if (!TryReadLock(request, out FuseLkIn arguments)
            || !request.Require(arguments.Type != FuseLockType.Unlock && arguments.Flags == FuseLockFlags.None)
            || !request.HasRoomFor<FuseLkOut>())
        {
            return Refuse(request);
        }

        return Finish(request, _fileSystem.GetLockAsync(request.Header.NodeId, arguments, request.Context));
    }

    private ValueTask<int> SetLk(FuseRequest request, bool mayWait)
    {
        if (!TryReadLock(request, out FuseLkIn arguments))
        {
            return Refuse(request);
        }

        mayWait &= arguments.Type != FuseLockType.Unlock;
        return Finish(request, _fileSystem.SetLockAsync(request.Header.NodeId, arguments, mayWait, request.Context));
    }

    private static bool TryReadLock(FuseRequest request, out FuseLkIn arguments)
    {
        if (!request.TryRead(out arguments) || !request.IsAtEnd()
            || !request.Require((arguments.Flags & ~FuseLockFlags.Flock) == 0)
            || !request.Require(arguments.Type <= FuseLockType.Unlock)
            || !request.Require(arguments.Start <= arguments.End && arguments.End <= long.MaxValue))
        {
            return false;
        }

        // Without the feature, a guest keeps its locks to itself.
        FuseFeatures needed = arguments.Flags == FuseLockFlags.Flock ? FuseFeatures.FlockLocks : FuseFeatures.PosixLocks;
        return request.Require((request.Negotiated!.Features & needed) != 0, Errno.ENOSYS);
    }

    private ValueTask<int> Ioctl(FuseRequest request)
    {
        if (!request.TryRead(out FuseIoctlIn arguments) || !request.HasNoExtensions()
            || !request.Require((arguments.Flags & FuseIoctlFlags.Unrestricted) == 0)
            || !request.Require(arguments.InputSize == (uint)request.Remaining)
            || !request.Require(arguments.OutputSize <= MaxIoctlBytes)
            || !request.HasRoomFor(FuseRequest.IoctlHeaderSize + (int)arguments.OutputSize))
        {
            return Refuse(request);
        }

        ReadOnlyMemory<byte> input = request.ReadRest();
        Memory<byte> output = request.ReplyBuffer(FuseRequest.IoctlHeaderSize + (int)arguments.OutputSize);
        output.Span.Clear();
        return Finish<int, IoctlReply>(request, _fileSystem.IoctlAsync(
            request.Header.NodeId, arguments, input, output[FuseRequest.IoctlHeaderSize..], request.Context));
    }

    // The number of an ioctl has 14 bits for its size.
    private const uint MaxIoctlBytes = (1 << 14) - 1;

    // The zeros at the start of the buffer are a fuse_ioctl_out that says success.
    private readonly struct IoctlReply : IReply<int>
    {
        public static int Write(FuseSession session, FuseRequest request, in int value) =>
            value >= 0 && value <= request.PayloadLength - FuseRequest.IoctlHeaderSize
                ? request.ReplyBuffered(FuseRequest.IoctlHeaderSize + value)
                : session.FailContract(request, value);
    }
}
