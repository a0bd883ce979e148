using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// Open files. What works on a handle needs no epoch: the use that is taken of the file keeps its descriptor open.
public sealed unsafe partial class PassthroughFileSystem
{
    // Values of a file's Word that are no content version.
    private const ulong NeverOpened = 0;
    private const ulong OpenedOnce = 1;

    // A change within the same tick of the host's clock as the last one cannot be seen. The coarsest clock ticks 100 times a
    // second; twice that, to be safe.
    private static readonly long s_clockTick = TimeSpan.FromMilliseconds(20).Ticks;

    // IOV_MAX.
    private const int MaxPieces = 1024;

    // Arbitrary: a fraction of a second where the host really copies.
    private const ulong LargestCopy = 256 << 20;

    /// <inheritdoc/>
    public override ValueTask<Result<FuseOpenOut>> OpenAsync(
        NodeId node, FuseOpenIn arguments, RequestContext context) =>
        new(OpenFileOrDirectory(node, arguments, isDirectory: false, context));

    /// <inheritdoc/>
    public override ValueTask<Result<FuseOpenOut>> OpenDirAsync(
        NodeId node, FuseOpenIn arguments, RequestContext context) =>
        new(OpenFileOrDirectory(node, arguments, isDirectory: true, context));

    /// <inheritdoc/>
    public override ValueTask<Errno> ReleaseAsync(NodeId node, FuseReleaseIn arguments, RequestContext context)
    {
        OpenFile* file = _files.Use(arguments.Handle, node);
        if (file == null)
        {
            return new(Errno.EBADF);
        }

        ReleaseLocks(file, node, arguments);
        bool wasOpen = (file->Flags & OpenFileFlags.Reusable) != 0
            ? ReleaseReusable(file, node)
            : _files.ReleaseUsed(file);
        return new(wasOpen ? Errno.Success : Errno.EBADF);
    }

    /// <inheritdoc/>
    public override ValueTask<Errno> ReleaseDirAsync(NodeId node, FuseReleaseIn arguments, RequestContext context) =>
        new(_files.Release(arguments.Handle, node) ? Errno.Success : Errno.EBADF);

    /// <inheritdoc/>
    public override ValueTask<Result<int>> ReadAsync(
        NodeId node, FuseReadIn arguments, IoVectorList destination, RequestContext context)
    {
        OpenFile* file = _files.Use(arguments.Handle, node);
        if (file == null)
        {
            return new(Errno.EBADF);
        }

        StampFile(context, file);
        NoteContent(node);
        if (arguments.Offset > long.MaxValue)
        {
            _files.EndUse(file);
            return new(Errno.EINVAL);
        }

        // Not exact when several threads read the same file.
        if (--file->PlainReads < 0 && TryReadCarefully(file, destination, (long)arguments.Offset, context, out ValueTask<Result<int>> task))
        {
            return task;
        }

        Result<int> result = ReadPlainly(file, destination, (long)arguments.Offset);
        _files.EndUse(file);
        return new(result);
    }

    /// <inheritdoc/>
    public override ValueTask<Result<int>> WriteAsync(
        NodeId node, FuseWriteIn arguments, IoVectorList source, RequestContext context)
    {
        if (_options.ReadOnly)
        {
            return new(Errno.EROFS);
        }

        OpenFile* file = _files.Use(arguments.Handle, node);
        if (file == null)
        {
            return new(Errno.EBADF);
        }

        NoteContent(node);
        WorkerThread.Current.KeepSetgid(!_killPriv || (arguments.WriteFlags & FuseWriteFlags.KillSuidGid) == 0);
        bool appends = (arguments.Flags & OpenFlags.Append) != 0 && (arguments.WriteFlags & FuseWriteFlags.Cache) == 0;
        bool isRefused = !appends && (file->Flags & OpenFileFlags.AppendOnly) != 0;
        using VersionChange versions = BeginDataChange(file);
        Errno cleared = isRefused ? Errno.EPERM : ClearPrivileges(file);
        Result<int> result = arguments.Offset > long.MaxValue ? Errno.EINVAL
            : cleared != Errno.Success ? cleared
            : Write(file, node, source, (long)arguments.Offset, appends ? ReadWriteFlags.Append : ReadWriteFlags.None);
        versions.Settle(Errno.Success);
        StampChanged(context, versions, file->VersionWord);
        _files.EndUse(file);
        return new(result);
    }

    /// <inheritdoc/>
    public override ValueTask<Errno> FlushAsync(NodeId node, FuseFlushIn arguments, RequestContext context)
    {
        OpenFile* file = _files.Use(arguments.Handle, node);
        if (file == null)
        {
            return new(Errno.EBADF);
        }

        _locks.Release(node, arguments.LockOwner);
        const OpenFileFlags reportsAtClose = OpenFileFlags.Network | OpenFileFlags.Writable;
        Errno error = Errno.Success;
        if ((file->Flags & reportsAtClose) == reportsAtClose)
        {
            SyscallResult duplicate = Files.Duplicate(file->Descriptor);
            error = duplicate.IsError ? duplicate.Error : FileIO.Close(duplicate.Descriptor).Error;
        }

        _files.EndUse(file);
        return new(Answer(error));
    }

    /// <inheritdoc/>
    public override ValueTask<Errno> FsyncAsync(NodeId node, FuseFsyncIn arguments, RequestContext context) =>
        new(Synchronize(node, arguments));

    /// <inheritdoc/>
    public override ValueTask<Errno> FsyncDirAsync(NodeId node, FuseFsyncIn arguments, RequestContext context) =>
        new(Synchronize(node, arguments));

    /// <inheritdoc/>
    public override ValueTask<Errno> FallocateAsync(NodeId node, FuseFallocateIn arguments, RequestContext context)
    {
        if (_options.ReadOnly)
        {
            return new(Errno.EROFS);
        }

        OpenFile* file = _files.Use(arguments.Handle, node);
        if (file == null)
        {
            return new(Errno.EBADF);
        }

        WorkerThread.Current.KeepSetgid(KeepsSetgid());
        using VersionChange versions = BeginDataChange(file);
        Errno error = arguments.Offset > long.MaxValue || arguments.Length > long.MaxValue
            ? Errno.EINVAL
            : ClearPrivileges(file);
        error = error != Errno.Success ? error : Allocate(file, node, arguments);
        versions.Settle(Errno.Success);
        StampChanged(context, versions, file->VersionWord);
        _files.EndUse(file);
        return new(Answer(error));
    }

    /// <inheritdoc/>
    public override ValueTask<Result<ulong>> LseekAsync(NodeId node, FuseLseekIn arguments, RequestContext context)
    {
        const uint seekHole = 4;
        OpenFile* file = _files.Use(arguments.Handle, node);
        if (file == null)
        {
            return new(Errno.EBADF);
        }

        // A directory's position is ours.
        bool isAllowed = arguments.Whence <= seekHole && (file->Flags & OpenFileFlags.Directory) == 0;
        SyscallResult sought = isAllowed
            ? Files.Lseek(file->Descriptor, (long)arguments.Offset, (int)arguments.Whence)
            : SyscallResult.Failed(Errno.EINVAL);
        _files.EndUse(file);
        return new(sought.IsError ? Answer(sought.Error) : (ulong)sought.Offset);
    }

    /// <inheritdoc/>
    public override ValueTask<Result<ulong>> CopyFileRangeAsync(
        NodeId node, FuseCopyFileRangeIn arguments, RequestContext context)
    {
        if (_options.ReadOnly)
        {
            return new(Errno.EROFS);
        }

        if (arguments.Flags != 0 || arguments.SourceOffset > long.MaxValue || arguments.DestinationOffset > long.MaxValue)
        {
            return new(Errno.EINVAL);
        }

        OpenFile* source = _files.Use(arguments.SourceHandle, node);
        if (source == null)
        {
            return new(Errno.EBADF);
        }

        OpenFile* destination = _files.Use(arguments.DestinationHandle, arguments.DestinationNode);
        if (destination == null)
        {
            _files.EndUse(source);
            return new(Errno.EBADF);
        }

        WorkerThread.Current.KeepSetgid(KeepsSetgid());
        using VersionChange versions = BeginDataChange(destination);
        Errno cleared = ClearPrivileges(destination);
        SyscallResult copied = cleared != Errno.Success
            ? SyscallResult.Failed(cleared)
            : Copy(source, destination, arguments);
        versions.Settle(Errno.Success);
        StampChanged(context, versions, destination->VersionWord);
        _files.EndUse(destination);
        _files.EndUse(source);
        return new(copied.IsError ? Answer(copied.Error) : (ulong)copied.Offset);
    }

    // The flags of the guest that reach the host. Everything else is dropped: what creates or finds (O_CREAT, O_EXCL,
    // O_TMPFILE, O_PATH), and O_APPEND, which is obeyed with each write, because the same open file serves others too; but see
    // CanOnlyAppend.
    private Errno TryConvertFlags(uint guestFlags, out int flags)
    {
        int passed = OpenFlags.Truncate | OpenFlags.Sync | OpenFlags.NonBlocking | OpenFlags.LargeFile |
            OpenFlags.Directory;
        passed |= _options.AllowDirectIo ? OpenFlags.Direct : 0;
        passed |= _options.PreserveNoatime ? OpenFlags.NoAccessTime : 0;
        flags = ((int)guestFlags & passed) | OpenFlags.CloseOnExec;
        int access = (int)guestFlags & OpenFlags.AccessMode;
        if (access == OpenFlags.AccessMode)
        {
            return Errno.EINVAL;
        }

        if (_options.ReadOnly && (access != OpenFlags.ReadOnly || (flags & OpenFlags.Truncate) != 0))
        {
            return Errno.EROFS;
        }

        // The guest's cache has to read the rest of a page that is written in part.
        flags |= _writeback && access == OpenFlags.WriteOnly ? OpenFlags.ReadWrite : access;
        return Errno.Success;
    }

    // Whether an open that was refused may succeed with O_APPEND: the host opens append-only inodes only so. The host's kernel
    // then appends whatever is written, wherever it belongs, so the guest must not be one that writes from its cache.
    private bool CanOnlyAppend(uint guestFlags, int flags) =>
        (guestFlags & OpenFlags.Append) != 0 && !_writeback &&
        (flags & OpenFlags.Truncate) == 0 && (flags & OpenFlags.AccessMode) != OpenFlags.ReadOnly;

    private Result<FuseOpenOut> OpenFileOrDirectory(
        NodeId id, in FuseOpenIn arguments, bool isDirectory, RequestContext context)
    {
        Errno error = TryConvertFlags(arguments.Flags, out int flags);
        if (error != Errno.Success)
        {
            return error;
        }

        flags |= isDirectory ? OpenFlags.Directory : 0;
        if (!TryTakeDescriptor())
        {
            return Errno.ENFILE;
        }

        FuseOpenOut reply = default;
        using SizeChange change = (flags & OpenFlags.Truncate) != 0 ? BeginSizeChange(id) : default;
        using (Operation operation = Begin())
        {
            error = operation.Find(id, out Node* node, out Mount mount);
            if (error == Errno.Success)
            {
                error = change.Resize(0);
            }

            if (error == Errno.Success)
            {
                error = isDirectory && !node->IsDirectory ? Errno.ENOTDIR
                    : !node->IsDirectory && !node->IsRegular ? Errno.EBADF
                    : Errno.Success;
            }

            if (error == Errno.Success)
            {
                operation.Thread.KeepSetgid(
                    (flags & OpenFlags.Truncate) == 0 || KeepsSetgid(arguments.OpenFlags, context));
                using VersionChange versions = BeginTruncation(node, flags);
                error = OpenNode(node, id, mount, flags, out reply);
                if (error == Errno.EPERM && CanOnlyAppend(arguments.Flags, flags))
                {
                    error = OpenNode(node, id, mount, flags | OpenFlags.Append, out reply);
                }

                versions.Settle(Errno.Success);
                StampAsItIs(context, node);
            }
        }

        if (error != Errno.Success)
        {
            _budget.Return();
            return Answer(error);
        }

        return reply;
    }

    // Opens a regular file or directory. The caller owns one unit of the budget, which goes to the file on success.
    private Errno OpenNode(Node* node, NodeId id, Mount mount, int flags, out FuseOpenOut reply)
    {
        int spare = IsPlain(flags) ? _spares.Take(_nodes.IndexOf(node)) : SpareFiles.None;
        if (spare != SpareFiles.None)
        {
            // It has brought its own.
            _budget.Return();
            return AddFile(node, id, mount, spare, flags, isCreated: false, out reply) ? Errno.Success : Errno.ENFILE;
        }

        SyscallResult opened = Reopen(node, mount, flags);
        reply = default;
        if (opened.IsError)
        {
            return opened.Error;
        }

        if ((flags & OpenFlags.Truncate) != 0)
        {
            Errno error = ClearPrivileges(node, opened.Descriptor, new DescriptorName(opened.Descriptor));
            if (error != Errno.Success)
            {
                _ = FileIO.Close(opened.Descriptor);
                return error;
            }
        }

        if (AddFile(node, id, mount, opened.Descriptor, flags, isCreated: false, out reply))
        {
            return Errno.Success;
        }

        return Errno.ENFILE;
    }

    // Whether a file is open for nothing but reading: one such open file is like another. Of a directory the flags say so.
    private static bool IsPlain(int flags) => (flags & ~(OpenFlags.CloseOnExec | OpenFlags.LargeFile)) == OpenFlags.ReadOnly;

    // Ends a use of the file, too. What comes back when descriptors are short is closed.
    private bool ReleaseReusable(OpenFile* file, NodeId id)
    {
        using Operation operation = Begin();
        bool isKept = _nodes.Resolve(id) != null && !_budget.IsNearlyUsedUp;
        return _files.ReleaseUsed(file, isKept ? _spares : null);
    }

    // Takes over a descriptor; closes it when there is no room.
    private bool AddFile(
        Node* node, NodeId id, Mount mount, int descriptor, int flags, bool isCreated, out FuseOpenOut reply)
    {
        bool isWritable = (flags & OpenFlags.AccessMode) != OpenFlags.ReadOnly;
        bool isReusable = IsPlain(flags) && mount.HasLastingNumbers && _spares.HasPlaces && WorkerThread.Current.MayReadAnything;
        OpenFileFlags known = (node->IsDirectory ? OpenFileFlags.Directory : OpenFileFlags.None) |
            (isReusable ? OpenFileFlags.Reusable : OpenFileFlags.None) |
            (isWritable ? OpenFileFlags.Writable : OpenFileFlags.None) |
            ((flags & OpenFlags.Append) != 0 ? OpenFileFlags.AppendOnly : OpenFileFlags.None) |
            (mount.IsNetwork ? OpenFileFlags.Network : OpenFileFlags.None) |
            HowToWait(node, mount, flags);
        OpenReplyFlags cache = node->IsDirectory
            ? DirectoryReplyFlags()
            : FileReplyFlags(node, descriptor, isCreated || (flags & OpenFlags.Truncate) != 0);
        // Without FLUSH the host would not learn that a process has closed the file, which ends its record locks.
        if (!node->IsDirectory && !_writeback && !_recordLocks && !(mount.IsNetwork && isWritable))
        {
            cache |= OpenReplyFlags.NoFlush;
        }

        reply = new FuseOpenOut { Handle = _files.Add(id, descriptor, known, node->Mount, VersionedInode(node)), Flags = cache };
        if (reply.Handle != default)
        {
            return true;
        }

        _ = FileIO.Close(descriptor);
        return false;
    }

    private OpenReplyFlags DirectoryReplyFlags() => _options.Cache is CacheMode.Metadata or CacheMode.Always
        ? OpenReplyFlags.KeepCache | OpenReplyFlags.CacheDir
        : OpenReplyFlags.None;

    private OpenReplyFlags FileReplyFlags(Node* node, int descriptor, bool isNewContent) => _options.Cache switch
    {
        CacheMode.Never => OpenReplyFlags.DirectIo | OpenReplyFlags.ParallelDirectWrites,
        CacheMode.Metadata => OpenReplyFlags.DirectIo,
        CacheMode.Always => OpenReplyFlags.KeepCache,
        _ => !isNewContent && IsUnchanged(node, descriptor) ? OpenReplyFlags.KeepCache : OpenReplyFlags.None,
    };

    // Whether a file has the content it had when this guest opened it last. Files that are opened once, which is most, cost
    // no call; nor do those of which the guest has no content that it could keep.
    private static bool IsUnchanged(Node* node, int descriptor)
    {
        ulong before = Volatile.Read(ref node->Word);
        if (before == NeverOpened)
        {
            Volatile.Write(ref node->Word, OpenedOnce);
            return false;
        }

        if (Volatile.Read(ref Node.MayBeCached(node)) == 0)
        {
            return false;
        }

        ulong now = Files.Statx(descriptor, StatxMask.Basic, out StatxBuffer status).IsError
            ? OpenedOnce
            : ContentVersion(status);
        Volatile.Write(ref node->Word, now);
        if (now == before && now != OpenedOnce)
        {
            return true;
        }

        // A READ at the same time may give it content after this. Then it drops that once more than it has to.
        Volatile.Write(ref Node.MayBeCached(node), 0);
        return false;
    }

    // Remembers that the guest has content of a file. The slot may have become another's if the guest forgot the file while it had
    // it open; a directory's is left alone.
    private void NoteContent(NodeId id)
    {
        Node* node = _nodes.At((uint)id.Value);
        if (Volatile.Read(ref Node.MayBeCached(node)) == 0 && node->IsRegular)
        {
            Volatile.Write(ref Node.MayBeCached(node), 1);
        }
    }

    // A digest of what changes with the content; OpenedOnce while another change could leave it as it is.
    private static ulong ContentVersion(in StatxBuffer status)
    {
        long changed = DateTime.UnixEpoch.Ticks + (status.ChangeTime.Seconds * TimeSpan.TicksPerSecond) +
            (status.ChangeTime.Nanoseconds / 100);
        if (DateTime.UtcNow.Ticks - changed < s_clockTick)
        {
            return OpenedOnce;
        }

        ulong digest = status.Size;
        digest = Mix(digest, (ulong)status.ModificationTime.Seconds);
        digest = Mix(digest, status.ModificationTime.Nanoseconds);
        digest = Mix(digest, (ulong)status.ChangeTime.Seconds);
        digest = Mix(digest, status.ChangeTime.Nanoseconds);
        return digest | 2;
    }

    private static ulong Mix(ulong digest, ulong value)
    {
        digest = (digest ^ value) * 0x9e3779b97f4a7c15;
        return digest ^ (digest >> 29);
    }

    private Result<int> Write(OpenFile* file, NodeId node, IoVectorList source, long offset, ReadWriteFlags flags)
    {
        using SizeChange change = BeginSizeChange(node);
        Errno error = change.Write((ulong)offset, (ulong)source.Length, flags == ReadWriteFlags.Append);
        return error == Errno.Success ? Transfer(file, source, offset, isWrite: true, flags) : Answer(error);
    }

    // Holes need no care: the host takes their pages from whoever maps them, and gives new ones when they are touched.
    private Errno Allocate(OpenFile* file, NodeId node, in FuseFallocateIn arguments)
    {
        const uint keepSize = 1;
        bool isInside = (arguments.Mode & keepSize) != 0;
        using SizeChange change = isInside ? default : BeginSizeChange(node);
        Errno error = change.Write(arguments.Offset, arguments.Length, appends: false);
        return error != Errno.Success ? error : Files.Fallocate(
            file->Descriptor, (int)arguments.Mode, (long)arguments.Offset, (long)arguments.Length).Error;
    }

    private SyscallResult Copy(OpenFile* source, OpenFile* destination, in FuseCopyFileRangeIn arguments)
    {
        ulong length = Math.Min(arguments.Length, LargestCopy);
        using SizeChange change = BeginSizeChange(arguments.DestinationNode);
        Errno error = change.Write(arguments.DestinationOffset, length, appends: false);
        return error != Errno.Success ? SyscallResult.Failed(error) : Files.CopyFileRange(
            source->Descriptor,
            (long)arguments.SourceOffset,
            destination->Descriptor,
            (long)arguments.DestinationOffset,
            (long)length);
    }

    // One call, as a rule: a short read of a local file means its end, and a short write is told to the guest.
    private static Result<int> Transfer(
        OpenFile* file, IoVectorList pieces, long offset, bool isWrite, ReadWriteFlags flags)
    {
        int done = 0;
        while (true)
        {
            ReadOnlySpan<IoVector> vectors = pieces.Vectors;
            ReadOnlySpan<IoVector> some = vectors.Length <= MaxPieces ? vectors : vectors[..MaxPieces];
            SyscallResult moved = isWrite
                ? WriteOnce(file->Descriptor, some, offset, flags)
                : ReadOnce(file->Descriptor, some, offset, flags);
            if (moved.IsError)
            {
                return done > 0 ? done : Answer(moved.Error);
            }

            done += moved.Count;
            bool isAll = moved.Count == pieces.Length || moved.Count == 0;
            bool mayContinue = some.Length < vectors.Length ||
                (!isWrite && (file->Flags & OpenFileFlags.Network) != 0);
            if (isAll || !mayContinue)
            {
                return done;
            }

            offset += moved.Count;
            pieces = pieces.Narrow(moved.Count, pieces.Length - moved.Count);
        }
    }

    // A page of the guest is one piece: a tenth less for 4 KiB than with a list of it (docs/performance.md).
    private static SyscallResult ReadOnce(int descriptor, ReadOnlySpan<IoVector> pieces, long offset, ReadWriteFlags flags) =>
        pieces.Length == 1 && flags == ReadWriteFlags.None
            ? FileIO.Pread(descriptor, pieces[0], offset)
            : FileIO.Preadv2(descriptor, pieces, offset, flags);

    private static SyscallResult WriteOnce(int descriptor, ReadOnlySpan<IoVector> pieces, long offset, ReadWriteFlags flags) =>
        pieces.Length == 1 && flags == ReadWriteFlags.None
            ? FileIO.Pwrite(descriptor, pieces[0], offset)
            : FileIO.Pwritev2(descriptor, pieces, offset, flags);

    private Errno Synchronize(NodeId node, in FuseFsyncIn arguments)
    {
        OpenFile* file = _files.Use(arguments.Handle, node);
        if (file == null)
        {
            return Errno.EBADF;
        }

        Errno error = ((arguments.Flags & FuseFsyncFlags.DataOnly) != 0
            ? Files.Fdatasync(file->Descriptor)
            : Files.Fsync(file->Descriptor)).Error;
        _files.EndUse(file);
        return Answer(error);
    }
}
