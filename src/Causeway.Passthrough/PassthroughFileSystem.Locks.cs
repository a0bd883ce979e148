using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// Locks that hold against other guests and against programs of the host. A record lock belongs to its owner's own open file on the
// host (LockOwner), an flock(2) to the open file of the guest's handle.
public sealed unsafe partial class PassthroughFileSystem
{
    private readonly LockTable _locks;
    private readonly LockWaiters _lockWaiters;
    private bool _recordLocks;

    /// <summary>Figures about locks, for metrics and tests.</summary>
    internal LockFigures LockFigures => new(_locks.OwnerCount, _locks.LockCount, _lockWaiters.Count);

    /// <inheritdoc/>
    public override ValueTask<Result<FuseLkOut>> GetLockAsync(NodeId node, FuseLkIn arguments, RequestContext context) =>
        new(GetLock(node, arguments));

    /// <inheritdoc/>
    public override ValueTask<Errno> SetLockAsync(
        NodeId node, FuseLkIn arguments, bool mayWait, RequestContext context)
    {
        OpenFile* file = _files.Use(arguments.Handle, node);
        if (file == null || (file->Flags & OpenFileFlags.Directory) != 0)
        {
            // A guest keeps the locks of directories to itself.
            return new(file == null ? Errno.EBADF : EndUse(file, Errno.EINVAL));
        }

        return (arguments.Flags & FuseLockFlags.Flock) != 0
            ? SetFlock(file, arguments, mayWait, context)
            : SetRecordLock(node, file, arguments, mayWait, context);
    }

    /// <summary>A record lock as the host has it.</summary>
    internal static RecordLock ToRecord(in FuseLkIn arguments) => new()
    {
        Type = (RecordLockType)arguments.Type,
        Start = (long)arguments.Start,
        Length = arguments.End == long.MaxValue ? 0 : (long)(arguments.End - arguments.Start) + 1,
    };

    /// <summary>A lock's type as flock(2) has it.</summary>
    internal static FlockOperation ToOperation(FuseLockType type) => type switch
    {
        FuseLockType.Read => FlockOperation.Shared,
        FuseLockType.Write => FlockOperation.Exclusive,
        _ => FlockOperation.Unlock,
    };

    private Errno EndUse(OpenFile* file, Errno error)
    {
        _files.EndUse(file);
        return error;
    }

    private Result<FuseLkOut> GetLock(NodeId node, in FuseLkIn arguments)
    {
        OpenFile* file = _files.Use(arguments.Handle, node);
        if (file == null)
        {
            return Errno.EBADF;
        }

        // The guest's own open file has no locks: any other owner's is in its way.
        LockOwner? owner = _locks.Find(node, arguments.Owner);
        RecordLock record = ToRecord(arguments);
        Errno error = FileLocks.GetRecord(owner?.Descriptor ?? file->Descriptor, ref record).Error;
        if (owner is not null)
        {
            _locks.EndUse(owner);
        }

        _files.EndUse(file);
        if (error != Errno.Success)
        {
            return Answer(error);
        }

        if (record.Type == RecordLockType.Unlock)
        {
            return new FuseLkOut { Type = FuseLockType.Unlock };
        }

        long end = record.Length == 0 ? long.MaxValue : record.Start + record.Length - 1;
        return new FuseLkOut
        {
            Start = (ulong)record.Start,
            End = (ulong)end,
            Type = (FuseLockType)record.Type,
            ProcessId = _locks.FindProcess(node, arguments, record.Start, end),
        };
    }

    private ValueTask<Errno> SetFlock(OpenFile* file, in FuseLkIn arguments, bool mayWait, RequestContext context)
    {
        Volatile.Write(ref file->HasFlock, 1);
        Errno error = FileLocks.Flock(file->Descriptor, ToOperation(arguments.Type)).Error;
        if (error == Errno.EAGAIN && mayWait)
        {
            if (context.MayWait && _lockWaiters.TryStart(arguments, null, file, context, out ValueTask<Errno> task))
            {
                return task;
            }

            error = Errno.ENOLCK;
        }

        return new(EndUse(file, Answer(error)));
    }

    private ValueTask<Errno> SetRecordLock(
        NodeId node, OpenFile* file, in FuseLkIn arguments, bool mayWait, RequestContext context)
    {
        LockOwner? owner = _locks.Find(node, arguments.Owner);
        if (owner is null)
        {
            if (arguments.Type == FuseLockType.Unlock)
            {
                return new(EndUse(file, Errno.Success));
            }

            SyscallResult opened = OpenForLocks(file);
            if (opened.IsError)
            {
                return new(EndUse(file, Answer(opened.Error)));
            }

            owner = _locks.Add(node, arguments.Owner, opened.Descriptor);
        }

        Volatile.Write(ref file->HasRecordLocks, 1);
        bool isAllowed = arguments.Type != FuseLockType.Write || (file->Flags & OpenFileFlags.Writable) != 0;
        _files.EndUse(file);
        Errno error = !isAllowed ? Errno.EBADF
            : _locks.IsFull && !MayGrow(arguments) ? Errno.ENOLCK
            : FileLocks.SetRecord(owner.Descriptor, ToRecord(arguments)).Error;
        if (error == Errno.Success)
        {
            _locks.Note(owner, arguments);
        }
        else if (error is Errno.EAGAIN or Errno.EACCES)
        {
            error = Errno.EAGAIN;
            if (mayWait)
            {
                if (context.MayWait && _lockWaiters.TryStart(arguments, owner, null, context, out ValueTask<Errno> task))
                {
                    return task;
                }

                error = Errno.ENOLCK;
            }
        }

        _locks.EndUse(owner);
        return new(Answer(error));
    }

    // Giving back everything never makes one lock two.
    private static bool MayGrow(in FuseLkIn arguments) =>
        arguments is { Type: FuseLockType.Unlock, Start: 0, End: long.MaxValue };

    // An open file for one owner. It is open for writing if that can be, because the next lock may be exclusive.
    private SyscallResult OpenForLocks(OpenFile* file)
    {
        if (!TryTakeDescriptor())
        {
            _locks.ReleaseIdle();
            if (!TryTakeDescriptor())
            {
                return SyscallResult.Failed(Errno.ENOLCK);
            }
        }

        if ((file->Flags & OpenFileFlags.Network) != 0)
        {
            // There our ids decide what is allowed.
            WorkerThread.Current.ResumeOwn();
        }

        const int flags = OpenFlags.CloseOnExec | OpenFlags.NonBlocking;
        int processDescriptors = WorkerThread.ProcessDescriptors;
        bool isWritable = (file->Flags & OpenFileFlags.Writable) != 0;
        SyscallResult opened = _options.ReadOnly
            ? SyscallResult.Failed(Errno.EROFS)
            : DescriptorName.Open(processDescriptors, file->Descriptor, flags | OpenFlags.ReadWrite);
        if (opened.Error is Errno.EACCES or Errno.EPERM or Errno.EROFS or Errno.ETXTBSY)
        {
            opened = DescriptorName.Open(
                processDescriptors, file->Descriptor, flags | (isWritable ? OpenFlags.WriteOnly : OpenFlags.ReadOnly));
        }

        if (opened.IsError)
        {
            _budget.Return();
        }

        return opened;
    }

    // On the thread of a waiter.
    private void OnLockWaitEnd(LockWait wait, Errno error)
    {
        if (wait.Owner is { } owner)
        {
            if (error == Errno.Success)
            {
                _locks.Note(owner, wait.Arguments);
            }

            _locks.EndUse(owner);
        }
        else
        {
            _files.EndUse(wait.File);
        }
    }

    // The file may be used by other requests for a while yet; its locks go now.
    private void ReleaseLocks(OpenFile* file, NodeId node, in FuseReleaseIn arguments)
    {
        if ((arguments.ReleaseFlags & FuseReleaseFlags.FlockUnlock) != 0)
        {
            _ = FileLocks.Flock(file->Descriptor, FlockOperation.Unlock);
        }

        if (Volatile.Read(ref file->HasRecordLocks) != 0)
        {
            _locks.ReleaseThrough(node, arguments.Handle);
        }
    }

    private void EndLocks()
    {
        _lockWaiters.EndAll();
        _locks.ReleaseAll();
    }
}

/// <summary>Figures about the locks of a session.</summary>
/// <param name="Owners">Owners of record locks that have an open file on the host.</param>
/// <param name="Locks">Their locks.</param>
/// <param name="Waits">Requests that wait.</param>
internal readonly record struct LockFigures(int Owners, int Locks, int Waits);
