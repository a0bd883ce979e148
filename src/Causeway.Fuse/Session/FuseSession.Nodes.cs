using System.Runtime.InteropServices;
using Causeway.Linux;

namespace Causeway.Fuse;

/// <content>Nodes: LOOKUP, FORGET, attributes, READLINK, ACCESS, STATFS, SYNCFS.</content>
public sealed partial class FuseSession
{
    private const uint PermissionBits = 0xfff;
    private const uint NanosecondsLimit = NanosecondsPerSecond;
    private const uint AccessBits = 7;

    // Longest target of a symbolic link, PATH_MAX without its NUL.
    private const int MaxTarget = 4095;

    private const SetAttrValid KnownAttributes =
        SetAttrValid.Mode | SetAttrValid.UserId | SetAttrValid.GroupId | SetAttrValid.Size | SetAttrValid.AccessTime
        | SetAttrValid.ModificationTime | SetAttrValid.Handle | SetAttrValid.AccessTimeNow
        | SetAttrValid.ModificationTimeNow | SetAttrValid.LockOwner | SetAttrValid.ChangeTime | SetAttrValid.KillSuidGid;

    // Entries of BATCH_FORGET copied at a time.
    private const int ForgetChunk = 256;

    private ValueTask<int> Lookup(FuseRequest request)
    {
        if (!request.TryReadName(out FileName name) || !request.IsAtEnd() || !request.HasRoomFor<NodeEntry>())
        {
            return Refuse(request);
        }

        return Finish(request, _fileSystem.LookupAsync(request.Header.NodeId, name, request.Context));
    }

    private ValueTask<int> Forget(FuseRequest request)
    {
        if (!request.TryRead(out FuseForgetIn arguments) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        Forget(request.Header.NodeId, arguments.LookupCount);
        return new(0);
    }

    private ValueTask<int> BatchForget(FuseRequest request)
    {
        const int entriesStart = FuseRequest.HeaderSize + 8;
        const int entrySize = 16;
        if (!request.TryRead(out FuseBatchForgetIn arguments))
        {
            return Refuse(request);
        }

        if ((ulong)arguments.Count * entrySize > request.Header.Length - (ulong)entriesStart)
        {
            request.Refuse(Errno.EINVAL, FuseViolation.SizeMismatch);
            return Refuse(request);
        }

        // Up to 65,000 entries: read in chunks. The first two were copied together with the header.
        uint left = arguments.Count;
        for (; left > 0 && request.Remaining >= entrySize; left--)
        {
            request.TryRead(out FuseForgetOne entry);
            Forget(entry.NodeId, entry.LookupCount);
        }

        long position = entriesStart + ((arguments.Count - left) * (long)entrySize);
        while (left > 0)
        {
            int count = (int)Math.Min(left, ForgetChunk);
            ReadOnlySpan<byte> chunk = request.CopyNext(position, count * entrySize);
            foreach (FuseForgetOne entry in MemoryMarshal.Cast<byte, FuseForgetOne>(chunk))
            {
                Forget(entry.NodeId, entry.LookupCount);
            }

            position += count * entrySize;
            left -= (uint)count;
        }

        return new(0);
    }

    // The root has no count: it is there as long as the session is.
    private void Forget(NodeId node, ulong lookupCount)
    {
        if (node != NodeId.Root && lookupCount > 0)
        {
            _fileSystem.Forget(node, lookupCount);
        }
    }

    private ValueTask<int> GetAttr(FuseRequest request)
    {
        if (!request.TryRead(out FuseGetAttrIn arguments) || !request.IsAtEnd() || !request.HasRoomFor<FuseAttrOut>())
        {
            return Refuse(request);
        }

        arguments.Flags &= FuseGetAttrFlags.Handle;
        return Finish(request, _fileSystem.GetAttrAsync(request.Header.NodeId, arguments, request.Context));
    }

    private ValueTask<int> Statx(FuseRequest request)
    {
        if (!request.TryRead(out FuseStatxIn arguments) || !request.IsAtEnd() || !request.HasRoomFor<FuseStatxOut>())
        {
            return Refuse(request);
        }

        arguments.Flags &= FuseGetAttrFlags.Handle;
        return Finish(request, _fileSystem.StatxAsync(request.Header.NodeId, arguments, request.Context));
    }

    private ValueTask<int> SetAttr(FuseRequest request)
    {
        if (!request.TryRead(out FuseSetAttrIn arguments) || !request.IsAtEnd()
            || !request.Require(IsValid(in arguments)) || !request.HasRoomFor<FuseAttrOut>())
        {
            return Refuse(request);
        }

        arguments.Valid &= KnownAttributes;
        arguments.Mode &= PermissionBits;
        if (arguments.UserId == RequestContext.InvalidId)
        {
            arguments.Valid &= ~SetAttrValid.UserId;
        }

        if (arguments.GroupId == RequestContext.InvalidId)
        {
            arguments.Valid &= ~SetAttrValid.GroupId;
        }

        return Finish(request, _fileSystem.SetAttrAsync(request.Header.NodeId, arguments, request.Context));
    }

    private static bool IsValid(in FuseSetAttrIn arguments)
    {
        bool hasAccessTime =
            (arguments.Valid & (SetAttrValid.AccessTime | SetAttrValid.AccessTimeNow)) == SetAttrValid.AccessTime;
        bool hasModificationTime =
            (arguments.Valid & (SetAttrValid.ModificationTime | SetAttrValid.ModificationTimeNow))
            == SetAttrValid.ModificationTime;
        bool hasChangeTime = (arguments.Valid & SetAttrValid.ChangeTime) != 0;
        bool hasSize = (arguments.Valid & SetAttrValid.Size) != 0;
        return (!hasSize || arguments.Size <= long.MaxValue)
            && (!hasAccessTime || arguments.AccessTimeNanoseconds < NanosecondsLimit)
            && (!hasModificationTime || arguments.ModificationTimeNanoseconds < NanosecondsLimit)
            && (!hasChangeTime || arguments.ChangeTimeNanoseconds < NanosecondsLimit);
    }

    private ValueTask<int> ReadLink(FuseRequest request)
    {
        if (!request.IsAtEnd() || !request.HasRoomFor(1))
        {
            return Refuse(request);
        }

        // Always room for the longest target: a cut one would be a wrong one.
        Memory<byte> destination = request.ReplyBuffer(MaxTarget);
        return Finish<int, TargetReply>(
            request, _fileSystem.ReadLinkAsync(request.Header.NodeId, destination, request.Context));
    }

    private ValueTask<int> Access(FuseRequest request)
    {
        if (!request.TryRead(out FuseAccessIn arguments) || !request.IsAtEnd()
            || !request.Require((arguments.Mask & ~AccessBits) == 0))
        {
            return Refuse(request);
        }

        return Finish(request, _fileSystem.AccessAsync(request.Header.NodeId, arguments.Mask, request.Context));
    }

    private ValueTask<int> Statfs(FuseRequest request)
    {
        if (!request.IsAtEnd() || !request.HasRoomFor<FuseStatfsOut>())
        {
            return Refuse(request);
        }

        return Finish(request, _fileSystem.StatfsAsync(request.Header.NodeId, request.Context));
    }

    private ValueTask<int> SyncFs(FuseRequest request)
    {
        if (!request.TryRead(out FuseSyncFsIn _) || !request.IsAtEnd())
        {
            return Refuse(request);
        }

        return Finish(request, _fileSystem.SyncFsAsync(request.Header.NodeId, request.Context));
    }

    private readonly struct TargetReply : IReply<int>
    {
        public static int Write(FuseSession session, FuseRequest request, in int value)
        {
            if (value < 1 || value > request.PayloadLength)
            {
                return session.FailContract(request, value);
            }

            return request.HasRoomFor(value) ? request.ReplyBuffered(value) : request.ReplyError(request.RefusalError);
        }
    }
}
