using Causeway.Linux;

namespace Causeway.Fuse;

/// <content>Open files: OPEN, READ, WRITE and what else takes a handle.</content>
public sealed partial class FuseSession
{
    // FUSE_READ_LOCKOWNER.
    private const uint KnownReadFlags = 0x2;
    private const FuseReleaseFlags KnownReleaseFlags = FuseReleaseFlags.Flush | FuseReleaseFlags.FlockUnlock;

    private const FuseWriteFlags KnownWriteFlags =
        FuseWriteFlags.Cache | FuseWriteFlags.LockOwner | FuseWriteFlags.KillSuidGid;

    // SEEK_DATA and SEEK_HOLE. A guest does the others itself, for it knows position and size (fuse-virtiofs.md 2.8).
    private const uint SeekData = 3;
    private const uint SeekHole = 4;

    // The reply to COPY_FILE_RANGE has 32 bits, and a part that ends on a page is copied faster.
    private const ulong MaxShortCopy = 0xffff_f000;

    private static FuseOpenInFlags GrantedOpenFlags(FuseRequest request) =>
        request.Negotiated!.HasKillPrivileges ? FuseOpenInFlags.KillSuidGid : FuseOpenInFlags.None;

    // Offsets are signed for the kernel.
    private static bool IsRange(ulong offset, ulong length) =>
        offset <= long.MaxValue && length <= long.MaxValue - offset;

    private ValueTask<int> Open(FuseRequest request)
    {
        if (!request.TryRead(out FuseOpenIn arguments) || !request.IsAtEnd() || !request.HasRoomFor<FuseOpenOut>())
        {
            return Refuse(request);
        }

        arguments.OpenFlags &= GrantedOpenFlags(request);
        return Finish(request, _fileSystem.OpenAsync(request.Header.NodeId, arguments, request.Context));
    }

    private ValueTask<int> Read(FuseRequest request)
    {
        if (!request.TryRead(out FuseReadIn arguments) || !request.IsAtEnd()
            || !request.Require(IsRange(arguments.Offset, arguments.Size)) || !request.CanNarrow())
        {
            return Refuse(request);
        }

        IoVectorList destination = request.NarrowToPayload(arguments.Size);
        arguments.Size = (uint)destination.Length;
        arguments.ReadFlags &= KnownReadFlags;
        ValueTask<Result<int>> read = _fileSystem.ReadAsync(request.Header.NodeId, arguments, destination, request.Context);
        return read.IsCompletedSuccessfully || !request.Context.EndsSoon
            ? Finish<int, PayloadReply>(request, read)
            : request.LateRead.Begin(read, this);
    }

    /// <summary>Makes the reply to a READ that has completed.</summary>
    internal int ConcludeRead(FuseRequest request, ValueTask<Result<int>> read)
    {
        try
        {
            Result<int> result = read.GetAwaiter().GetResult();
            return Conclude<int, PayloadReply>(request, in result);
        }
        catch (Exception exception)
        {
            return Fail(request, exception);
        }
    }

    private ValueTask<int> Write(FuseRequest request)
    {
        if (!request.TryRead(out FuseWriteIn arguments) || !request.HasNoExtensions()
            || !request.Require(IsRange(arguments.Offset, arguments.Size))
            || !IsWriteSize(request, arguments.Size) || !request.HasRoomFor<FuseWriteOut>())
        {
            return Refuse(request);
        }

        arguments.WriteFlags &= KnownWriteFlags;
        IoVectorList source = request.NarrowToSource(arguments.Size);
        return Finish<int, WrittenReply>(
            request, _fileSystem.WriteAsync(request.Header.NodeId, arguments, source, request.Context));
    }

    // Bytes beyond the size are not written (passthrough.md O14); bytes that are not there cannot be.
    private static bool IsWriteSize(FuseRequest request, uint size)
    {
        const int payloadStart = FuseRequest.HeaderSize + 40;
        if (size > request.Header.Length - payloadStart)
        {
            return request.Refuse(Errno.EINVAL, FuseViolation.SizeMismatch);
        }

        return request.Require(size <= request.Negotiated!.MaxWrite);
    }

    private ValueTask<int> Release(FuseRequest request)
    {
        if (!request.TryRead(out FuseReleaseIn arguments) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        arguments.ReleaseFlags &= KnownReleaseFlags;
        return Finish(request, _fileSystem.ReleaseAsync(request.Header.NodeId, arguments, request.Context));
    }

    private ValueTask<int> Flush(FuseRequest request)
    {
        if (!request.TryRead(out FuseFlushIn arguments) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        return Finish(request, _fileSystem.FlushAsync(request.Header.NodeId, arguments, request.Context));
    }

    private ValueTask<int> Fsync(FuseRequest request)
    {
        if (!request.TryRead(out FuseFsyncIn arguments) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        arguments.Flags &= FuseFsyncFlags.DataOnly;
        return Finish(request, _fileSystem.FsyncAsync(request.Header.NodeId, arguments, request.Context));
    }

    private ValueTask<int> Fallocate(FuseRequest request)
    {
        // The errors of fallocate(2).
        if (!request.TryRead(out FuseFallocateIn arguments) || !request.IsAtEnd()
            || !request.Require(arguments is { Offset: <= long.MaxValue, Length: > 0 and <= long.MaxValue })
            || !request.Require(IsRange(arguments.Offset, arguments.Length), Errno.EFBIG))
        {
            return Refuse(request);
        }

        return Finish(request, _fileSystem.FallocateAsync(request.Header.NodeId, arguments, request.Context));
    }

    private ValueTask<int> Lseek(FuseRequest request)
    {
        if (!request.TryRead(out FuseLseekIn arguments) || !request.IsAtEnd()
            || !request.Require(arguments.Whence is SeekData or SeekHole)
            || !request.HasRoomFor<FuseLseekOut>())
        {
            return Refuse(request);
        }

        // The kernel passes on whatever the program gave, and before the beginning there is no data and no hole.
        return Finish(request, arguments.Offset > long.MaxValue
            ? new(Errno.ENXIO)
            : _fileSystem.LseekAsync(request.Header.NodeId, arguments, request.Context));
    }

    private ValueTask<int> CopyFileRange(FuseRequest request, bool isLong)
    {
        if (!request.TryRead(out FuseCopyFileRangeIn arguments) || !request.IsAtEnd()
            || !request.Require(arguments.Flags == 0)
            || !request.Require(IsRange(arguments.SourceOffset, arguments.Length))
            || !request.Require(IsRange(arguments.DestinationOffset, arguments.Length))
            || !request.HasRoomFor<ulong>())
        {
            return Refuse(request);
        }

        if (isLong)
        {
            return Finish(request, _fileSystem.CopyFileRangeAsync(request.Header.NodeId, arguments, request.Context));
        }

        arguments.Length = Math.Min(arguments.Length, MaxShortCopy);
        return Finish<ulong, ShortCopyReply>(
            request, _fileSystem.CopyFileRangeAsync(request.Header.NodeId, arguments, request.Context));
    }

    private readonly struct PayloadReply : IReply<int>
    {
        public static int Write(FuseSession session, FuseRequest request, in int value) =>
            (uint)value <= (uint)request.PayloadLength
                ? request.ReplyInPlace(value)
                : session.FailContract(request, value);
    }

    private readonly struct WrittenReply : IReply<int>
    {
        public static int Write(FuseSession session, FuseRequest request, in int value) =>
            (uint)value <= (uint)request.PayloadLength
                ? request.Reply(new FuseWriteOut { Size = (uint)value })
                : session.FailContract(request, value);
    }

    private readonly struct ShortCopyReply : IReply<ulong>
    {
        public static int Write(FuseSession session, FuseRequest request, in ulong value) =>
            request.Reply(new FuseWriteOut { Size = (uint)Math.Min(value, MaxShortCopy) });
    }
}
