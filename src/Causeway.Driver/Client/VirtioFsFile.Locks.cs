using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <summary>How a lock holds against others.</summary>
public enum LockMode
{
    /// <summary>Others may have shared locks, and no exclusive one. F_RDLCK, LOCK_SH.</summary>
    Shared,

    /// <summary>Others may have none. F_WRLCK, LOCK_EX.</summary>
    Exclusive,
}

/// <summary>A lock that somebody else has.</summary>
/// <param name="Mode">How it holds.</param>
/// <param name="Offset">Its first byte.</param>
/// <param name="Length">Its length in bytes; null for one that reaches to the end of the file, wherever that will be.</param>
/// <param name="ProcessId">The process, as far as the device knows it; 0 when it does not.</param>
public readonly record struct FileLock(LockMode Mode, long Offset, long? Length, uint ProcessId);

/// <content>
/// Locks: FUSE_GETLK, FUSE_SETLK and FUSE_SETLKW of linux/fuse.h. Each open file is an owner of its own, as with F_OFD_SETLK of
/// fcntl(2), and closing it gives its locks back.
/// </content>
public sealed partial class VirtioFsFile
{
    private readonly ulong _lockOwner;
    private volatile bool _mayHaveRecordLocks;
    private volatile bool _mayHaveFlock;

    // Requests that were given up and whose answer is not there yet: they use the handle, and may still bring a lock.
    private volatile Task[] _lateLocks = [];

    /// <summary>
    /// Waits for a lock on a range of bytes, as fcntl(2) with F_OFD_SETLKW. What others wrote under a lock is seen by reads
    /// after it.
    /// </summary>
    /// <param name="mode">How it holds; exclusive ones need a file that is open for writing, shared ones for reading.</param>
    /// <param name="offset">The first byte. Default: the start of the file.</param>
    /// <param name="length">How many bytes; null, the default, for all that follow.</param>
    /// <param name="cancellationToken">
    /// Stops waiting, and asks the device to stop. When it grants the lock all the same, it is given back, and with it what
    /// this file had locked of the range before.
    /// </param>
    /// <exception cref="VirtioFsException">
    /// EBADF: the file is not open for that. ENOLCK: too many locks or waits, or the device's limit of waiting is over. ENOSYS:
    /// the device keeps no locks. EOPNOTSUPP: the device does not wait for locks.
    /// </exception>
    public ValueTask LockAsync(
        LockMode mode, long offset = 0, long? length = null, CancellationToken cancellationToken = default) =>
        WaitAsync("lock", Arguments(TypeOf(mode), offset, length), cancellationToken);

    /// <summary>Takes a lock on a range of bytes if that is free, as fcntl(2) with F_OFD_SETLK.</summary>
    /// <param name="mode">How it holds.</param>
    /// <param name="offset">The first byte. Default: the start of the file.</param>
    /// <param name="length">How many bytes; null, the default, for all that follow.</param>
    /// <param name="cancellationToken">Stops waiting for the answer; what it brings is given back.</param>
    /// <returns>Whether it is ours now.</returns>
    /// <exception cref="VirtioFsException">As with <see cref="LockAsync"/>.</exception>
    public ValueTask<bool> TryLockAsync(
        LockMode mode, long offset = 0, long? length = null, CancellationToken cancellationToken = default) =>
        TryAsync("lock", Arguments(TypeOf(mode), offset, length), cancellationToken);

    /// <summary>
    /// Gives back what this file has locked of a range, as fcntl(2) with F_UNLCK. What was written under the lock is sent
    /// before.
    /// </summary>
    /// <param name="offset">The first byte. Default: the start of the file.</param>
    /// <param name="length">How many bytes; null, the default, for all that follow.</param>
    /// <exception cref="VirtioFsException">What was written could not be stored; the lock is given back all the same.</exception>
    public ValueTask UnlockAsync(long offset = 0, long? length = null) =>
        ReleaseAsync("unlock", Arguments(FuseLockType.Unlock, offset, length));

    /// <summary>Finds a lock that is in the way of one that this file could ask for, as fcntl(2) with F_OFD_GETLK.</summary>
    /// <param name="mode">How ours would hold.</param>
    /// <param name="offset">The first byte. Default: the start of the file.</param>
    /// <param name="length">How many bytes; null, the default, for all that follow.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>One of them; null when there is none.</returns>
    /// <exception cref="VirtioFsException">ENOSYS: the device keeps no locks.</exception>
    public async ValueTask<FileLock?> FindLockAsync(
        LockMode mode, long offset = 0, long? length = null, CancellationToken cancellationToken = default)
    {
        // Without a process, as Linux asks: the C virtiofsd hands it to the host, which takes none here.
        FuseLkIn arguments = Arguments(TypeOf(mode), offset, length) with { ProcessId = 0 };
        CheckLocks("lock", arguments);
        var target = new FuseMessages.Target(FuseOpcode.GetLk, _node.Id);
        FuseLkOut found = ClientSession.Check(
            await _session.Messages.CallAsync<FuseLkIn, FuseLkOut>(target, arguments, default, null, cancellationToken)
                .ConfigureAwait(false),
            "lock",
            Path);
        if (found.Type == FuseLockType.Unlock)
        {
            return null;
        }

        // As the kernel checks them (convert_fuse_file_lock).
        bool isValid = found.Type is FuseLockType.Read or FuseLockType.Write
            && found.Start <= found.End && found.End <= long.MaxValue;
        return isValid
            ? new FileLock(
                found.Type == FuseLockType.Read ? LockMode.Shared : LockMode.Exclusive,
                (long)found.Start,
                found.End == long.MaxValue ? null : (long)(found.End - found.Start) + 1,
                found.ProcessId)
            : throw FuseMessages.Malformed(target);
    }

    /// <summary>Waits for a lock on the file as a whole, flock(2). It has nothing to do with locks on ranges.</summary>
    /// <param name="mode">How it holds; a lock that this file has becomes one of this kind.</param>
    /// <param name="cancellationToken">As with <see cref="LockAsync"/>.</param>
    /// <exception cref="VirtioFsException">ENOLCK, ENOSYS, EOPNOTSUPP: as with <see cref="LockAsync"/>.</exception>
    public ValueTask FlockAsync(LockMode mode, CancellationToken cancellationToken = default) =>
        WaitAsync("flock", Flock(TypeOf(mode)), cancellationToken);

    /// <summary>Takes a lock on the file as a whole if it is free, flock(2) with LOCK_NB.</summary>
    /// <param name="mode">How it holds.</param>
    /// <param name="cancellationToken">Stops waiting for the answer; what it brings is given back.</param>
    /// <returns>Whether it is ours now.</returns>
    /// <exception cref="VirtioFsException">ENOLCK, ENOSYS: as with <see cref="LockAsync"/>.</exception>
    public ValueTask<bool> TryFlockAsync(LockMode mode, CancellationToken cancellationToken = default) =>
        TryAsync("flock", Flock(TypeOf(mode)), cancellationToken);

    /// <summary>Gives the lock on the file as a whole back, flock(2) with LOCK_UN. What was written is sent before.</summary>
    /// <exception cref="VirtioFsException">What was written could not be stored; the lock is given back all the same.</exception>
    public ValueTask UnflockAsync() => ReleaseAsync("funlock", Flock(FuseLockType.Unlock));

    private static FuseLockType TypeOf(LockMode mode) => mode switch
    {
        LockMode.Shared => FuseLockType.Read,
        LockMode.Exclusive => FuseLockType.Write,
        _ => throw new ArgumentOutOfRangeException(nameof(mode)),
    };

    private FuseLkIn Arguments(FuseLockType type, long offset, long? length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        if (length is { } bytes)
        {
            ArgumentOutOfRangeException.ThrowIfNegativeOrZero(bytes, nameof(length));
            ArgumentOutOfRangeException.ThrowIfGreaterThan(bytes, long.MaxValue - offset, nameof(length));
        }

        return new FuseLkIn
        {
            Handle = _opening.Handle,
            Owner = _lockOwner,
            Start = (ulong)offset,
            End = length is { } count ? (ulong)(offset + count - 1) : long.MaxValue,
            Type = type,
            ProcessId = (uint)Environment.ProcessId,
        };
    }

    private FuseLkIn Flock(FuseLockType type) =>
        Arguments(type, 0, null) with { Flags = FuseLockFlags.Flock };

    private void CheckLocks(string operation, in FuseLkIn arguments)
    {
        ObjectDisposedException.ThrowIf(_isClosed != 0, this);
        bool isFlock = arguments.Flags == FuseLockFlags.Flock;
        FuseFeatures needed = isFlock ? FuseFeatures.FlockLocks : FuseFeatures.PosixLocks;
        ClientSession.Check(
            (_session.Messages.Features & needed) != 0 ? Errno.Success : Errno.ENOSYS, operation, Path);

        // fcntl(2) asks for a file that is open for what is locked; the device does not, which has one of its own.
        bool isOpen = isFlock || (arguments.Type == FuseLockType.Read ? CanRead : CanWrite)
            || arguments.Type == FuseLockType.Unlock;
        ClientSession.Check(isOpen ? Errno.Success : Errno.EBADF, operation, Path);
    }

    private async ValueTask WaitAsync(string operation, FuseLkIn arguments, CancellationToken cancellationToken) =>
        ClientSession.Check(
            await SetAsync(FuseOpcode.SetLkWait, operation, arguments, cancellationToken).ConfigureAwait(false),
            operation,
            Path);

    private async ValueTask<bool> TryAsync(string operation, FuseLkIn arguments, CancellationToken cancellationToken)
    {
        Errno error = await SetAsync(FuseOpcode.SetLk, operation, arguments, cancellationToken).ConfigureAwait(false);
        if (error is Errno.EAGAIN or Errno.EACCES)
        {
            // fcntl(2) allows both.
            return false;
        }

        ClientSession.Check(error, operation, Path);
        return true;
    }

    private async ValueTask<Errno> SetAsync(
        FuseOpcode opcode, string operation, FuseLkIn arguments, CancellationToken cancellationToken)
    {
        CheckLocks(operation, arguments);

        // What is dirty is not forgotten afterwards, and would hide what others have written.
        await PushAsync(operation).ConfigureAwait(false);
        if (arguments.Flags == FuseLockFlags.Flock)
        {
            _mayHaveFlock = true;
        }
        else
        {
            _mayHaveRecordLocks = true;
        }

        Errno error = await _session.Messages.SetLockAsync(
            new(opcode, _node.Id), arguments, KeepLate, cancellationToken).ConfigureAwait(false);
        if (error == Errno.Success)
        {
            ForgetContent();
        }

        return error;
    }

    private void KeepLate(Task answered)
    {
        while (true)
        {
            Task[] before = _lateLocks;
            Task[] after = [.. before.Where(task => !task.IsCompleted), answered];
#pragma warning disable CS0420 // An interlocked access to a volatile field is one.
            if (Interlocked.CompareExchange(ref _lateLocks, after, before) == before)
#pragma warning restore CS0420
            {
                return;
            }
        }
    }

    private async ValueTask ReleaseAsync(string operation, FuseLkIn arguments)
    {
        CheckLocks(operation, arguments);
        Errno pushed = await WriteKeptAsync(isLast: false).ConfigureAwait(false);
        Errno unlocked = await _session.Messages.CallAsync(new(FuseOpcode.SetLk, _node.Id), arguments, default, default)
            .ConfigureAwait(false);
        ClientSession.Check(pushed, operation, Path);
        ClientSession.Check(unlocked, operation, Path);
    }
}
