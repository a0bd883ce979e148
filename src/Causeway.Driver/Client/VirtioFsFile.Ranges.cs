using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <summary>What to do with the space of a range of a file, fallocate(2).</summary>
public enum SpaceChange
{
    /// <summary>Reserve it, and make the file longer if the range ends behind its end. Mode 0.</summary>
    Reserve,

    /// <summary>Reserve it and leave the length alone. FALLOC_FL_KEEP_SIZE.</summary>
    ReserveOnly,

    /// <summary>Give it back: the range reads as zero, the length stays. FALLOC_FL_PUNCH_HOLE.</summary>
    PunchHole,

    /// <summary>Reserve it, and have it read as zero; the file may become longer. FALLOC_FL_ZERO_RANGE.</summary>
    Zero,

    /// <summary>The same and leave the length alone.</summary>
    ZeroOnly,
}

/// <content>Space, holes and copies: FUSE_FALLOCATE, FUSE_LSEEK and FUSE_COPY_FILE_RANGE of linux/fuse.h.</content>
public sealed partial class VirtioFsFile
{
    // linux/falloc.h
    private const uint KeepSize = 0x01;
    private const uint PunchHole = 0x02;
    private const uint ZeroRange = 0x10;

    // linux/fs.h
    private const uint SeekData = 3;
    private const uint SeekHole = 4;

    /// <summary>Reserves space, gives it back, or makes a range zero, fallocate(2).</summary>
    /// <param name="offset">Start of the range in bytes.</param>
    /// <param name="length">Length of the range in bytes, at least 1.</param>
    /// <param name="change">What to do with it.</param>
    /// <param name="cancellationToken">Stops waiting; whether it was done is then unknown.</param>
    /// <exception cref="VirtioFsException">
    /// EBADF: not open for writing. ENOSPC: no space left. EOPNOTSUPP: the file system cannot do this. ENOSYS: the device
    /// knows no FALLOCATE.
    /// </exception>
    public async ValueTask ChangeSpaceAsync(
        long offset, long length, SpaceChange change = SpaceChange.Reserve, CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_isClosed != 0, this);
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(length);
        ClientSession.Check(CanWrite ? Errno.Success : Errno.EBADF, "fallocate", Path);
        await PushAsync("fallocate").ConfigureAwait(false);
        Errno error = await _session.Messages.CallAsync(
            new(FuseOpcode.Fallocate, _node.Id),
            new FuseFallocateIn
            {
                Handle = _opening.Handle,
                Offset = (ulong)offset,
                Length = (ulong)length,
                Mode = change switch
                {
                    SpaceChange.Reserve => 0,
                    SpaceChange.ReserveOnly => KeepSize,
                    SpaceChange.PunchHole => PunchHole | KeepSize,
                    SpaceChange.Zero => ZeroRange,
                    SpaceChange.ZeroOnly => ZeroRange | KeepSize,
                    _ => throw new ArgumentOutOfRangeException(nameof(change)),
                },
            },
            default,
            cancellationToken).ConfigureAwait(false);

        // Also after an error: a part may have been done. What lies behind the old end is known to be missing.
        ForgetContent();
        ClientSession.Check(error, "fallocate", Path);
    }

    /// <summary>Finds where the next data begin, lseek(2) with SEEK_DATA.</summary>
    /// <param name="offset">Where to begin, in bytes.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>
    /// The position of the first data at or after <paramref name="offset"/>; null when only a hole or the end follows. On a
    /// device that knows no LSEEK the whole file is data.
    /// </returns>
    public ValueTask<long?> FindDataAsync(long offset, CancellationToken cancellationToken = default) =>
        SeekAsync(offset, SeekData, cancellationToken);

    /// <summary>Finds where the next hole begins, lseek(2) with SEEK_HOLE. The end of the file counts as one.</summary>
    /// <param name="offset">Where to begin, in bytes.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>The position of the first hole at or after <paramref name="offset"/>; null at or behind the end.</returns>
    public ValueTask<long?> FindHoleAsync(long offset, CancellationToken cancellationToken = default) =>
        SeekAsync(offset, SeekHole, cancellationToken);

    /// <summary>
    /// Has the device copy bytes to another file, copy_file_range(2): nothing passes through this process, and a file system
    /// may share the space.
    /// </summary>
    /// <param name="offset">Where to begin here, in bytes.</param>
    /// <param name="destination">A file of the same client, open for writing and not for appending.</param>
    /// <param name="destinationOffset">Where to begin there, in bytes.</param>
    /// <param name="length">How many bytes at most.</param>
    /// <param name="cancellationToken">Stops waiting; how much was copied is then unknown.</param>
    /// <returns>How many bytes were copied; may be fewer than asked for, and zero at the end of the file.</returns>
    /// <exception cref="VirtioFsException">
    /// EBADF: not open for reading here or for writing there. EINVAL: the ranges overlap in one file. EXDEV: the file systems
    /// below cannot do it between each other. ENOSPC: no space left. ENOSYS: the device knows no COPY_FILE_RANGE.
    /// </exception>
    /// <exception cref="ArgumentException"><paramref name="destination"/> belongs to another session.</exception>
    public async ValueTask<long> CopyRangeAsync(
        long offset,
        VirtioFsFile destination,
        long destinationOffset,
        long length,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(destination);
        ObjectDisposedException.ThrowIf(_isClosed != 0, this);
        ObjectDisposedException.ThrowIf(destination._isClosed != 0, destination);
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegative(destinationOffset);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        if (destination._session != _session)
        {
            throw new ArgumentException("a device copies between files of one session only", nameof(destination));
        }

        bool canCopy = CanRead && destination.CanWrite && (destination._opening.Flags & OpenAppend) == 0;
        ClientSession.Check(canCopy ? Errno.Success : Errno.EBADF, "copy_file_range", Path);
        if (length == 0)
        {
            return 0;
        }

        // Device and host count in 64 bits with a sign.
        length = Math.Min(length, long.MaxValue - Math.Max(offset, destinationOffset));
        await PushAsync("copy_file_range").ConfigureAwait(false);
        await destination.PushAsync("copy_file_range").ConfigureAwait(false);
        var target = new FuseMessages.Target(FuseOpcode.CopyFileRange, _node.Id);
        Result<FuseWriteOut> copied = await _session.Messages.CallAsync<FuseCopyFileRangeIn, FuseWriteOut>(
            target,
            new FuseCopyFileRangeIn
            {
                SourceHandle = _opening.Handle,
                SourceOffset = (ulong)offset,
                DestinationNode = destination._node.Id,
                DestinationHandle = destination._opening.Handle,
                DestinationOffset = (ulong)destinationOffset,
                Length = (ulong)length,
            },
            default,
            late: null,
            cancellationToken).ConfigureAwait(false);
        destination.ForgetContent();
        uint count = ClientSession.Check(copied, "copy_file_range", Path).Size;
        return count <= length ? count : throw FuseMessages.Malformed(target);
    }

    private async ValueTask<long?> SeekAsync(long offset, uint whence, CancellationToken cancellationToken)
    {
        ObjectDisposedException.ThrowIf(_isClosed != 0, this);
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        await PushAsync("lseek").ConfigureAwait(false);
        var target = new FuseMessages.Target(FuseOpcode.Lseek, _node.Id);
        Result<FuseLseekOut> found = await _session.Messages.CallAsync<FuseLseekIn, FuseLseekOut>(
            target,
            new FuseLseekIn { Handle = _opening.Handle, Offset = (ulong)offset, Whence = whence },
            default,
            late: null,
            cancellationToken).ConfigureAwait(false);
        switch (found.Error)
        {
            case Errno.ENXIO:
                return null;
            case Errno.ENOSYS:
                // What Linux does for file systems that know no holes.
                long end = (await GetStatusAsync(cancellationToken).ConfigureAwait(false)).Length;
                return offset >= end ? null : whence == SeekData ? offset : end;
            default:
                ulong position = ClientSession.Check(found, "lseek", Path).Offset;
                return position >= (ulong)offset && position <= long.MaxValue
                    ? (long)position
                    : throw FuseMessages.Malformed(target);
        }
    }

    /// <summary>What is known of the file is not true any more: the device has changed it, or somebody else may have.</summary>
    private void ForgetContent()
    {
        _session.Nodes.ForgetAttributes(_node);
        if (_cached is not null)
        {
            _session.Data.Drop(_cached, 0, long.MaxValue);
        }
    }
}
