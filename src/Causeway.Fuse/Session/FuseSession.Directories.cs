using Causeway.Linux;

namespace Causeway.Fuse;

/// <content>Open directories.</content>
public sealed partial class FuseSession
{
    private ValueTask<int> OpenDir(FuseRequest request)
    {
        if (!request.TryRead(out FuseOpenIn arguments) || !request.IsAtEnd() || !request.HasRoomFor<FuseOpenOut>())
        {
            return Refuse(request);
        }

        arguments.OpenFlags &= GrantedOpenFlags(request);
        return Finish(request, _fileSystem.OpenDirAsync(request.Header.NodeId, arguments, request.Context));
    }

    private ValueTask<int> ReadDir(FuseRequest request, bool isPlus)
    {
        if (!request.TryRead(out FuseReadIn arguments) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        // What virtiofsd does (passthrough.md D5 to D7); a reply may have fewer entries than fit.
        arguments.Size = Math.Min(arguments.Size, MaxTransfer);
        if (!request.HasRoomFor((int)arguments.Size))
        {
            request.Refuse(Errno.ENOMEM, FuseViolation.NoReplySpace);
            return Refuse(request);
        }

        if (arguments.Size == 0)
        {
            return new(request.ReplyEmpty());
        }

        arguments.Size = Math.Min(arguments.Size, FuseRequest.ReplyBufferSize);
        arguments.ReadFlags &= KnownReadFlags;
        request.Entries.Reset(request.ReplyBuffer((int)arguments.Size), isPlus, request.Context.WantsVersions);
        return Finish<EntriesReply>(
            request, _fileSystem.ReadDirAsync(request.Header.NodeId, arguments, request.Entries, request.Context));
    }

    private ValueTask<int> ReleaseDir(FuseRequest request)
    {
        if (!request.TryRead(out FuseReleaseIn arguments) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        arguments.ReleaseFlags &= KnownReleaseFlags;
        return Finish(request, _fileSystem.ReleaseDirAsync(request.Header.NodeId, arguments, request.Context));
    }

    private ValueTask<int> FsyncDir(FuseRequest request)
    {
        if (!request.TryRead(out FuseFsyncIn arguments) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        arguments.Flags &= FuseFsyncFlags.DataOnly;
        return Finish(request, _fileSystem.FsyncDirAsync(request.Header.NodeId, arguments, request.Context));
    }

    private readonly struct EntriesReply : IReply<Errno>
    {
        // Entries already added go out even when the listing then failed, as getdents(2) does it: their lookups have
        // been counted, and the error comes again with the next request.
        public static int Write(FuseSession session, FuseRequest request, in Errno value) =>
            value == Errno.Success || request.Entries.Length > 0
                ? request.ReplyBuffered(request.Entries.Length)
                : request.ReplyError(value);
    }
}
