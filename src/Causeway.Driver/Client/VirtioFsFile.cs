using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <summary>For what a file is opened.</summary>
public sealed record OpenFileOptions
{
    /// <summary>Whether it must exist, must not exist, is made, or is emptied. Default: it must exist.</summary>
    public FileMode Mode { get; init; } = FileMode.Open;

    /// <summary>For reading, writing, or both. Default: reading.</summary>
    public FileAccess Access { get; init; } = FileAccess.Read;

    /// <summary>Whether writes go to the end of the file, wherever it is by then. Default: no.</summary>
    public bool IsAppending { get; init; }

    /// <summary>Permission bits of a file that is made, default rw-r--r--. No umask is applied.</summary>
    public uint Permissions { get; init; } = 0x1A4;

    internal static OpenFileOptions ForWriting { get; } =
        new() { Mode = FileMode.Create, Access = FileAccess.Write };
}

/// <summary>An open file of a share. Positions and lengths are in bytes.</summary>
public sealed class VirtioFsFile : IAsyncDisposable
{
    private const uint AccessModes = 3;
    private const uint OpenAppend = 0x400;

    private readonly ClientSession _session;
    private readonly CachedNode _node;
    private readonly FileData? _data;
    private readonly Opening _opening;
    private int _isClosed;

    internal VirtioFsFile(ClientSession session, CachedNode node, FileData? data, Opening opening)
    {
        _session = session;
        _node = node;
        _data = data;
        _opening = opening;
    }

    /// <summary>The path that it was opened by.</summary>
    public string Path => _opening.Path;

    /// <summary>Its node; the number means something to this session only.</summary>
    public NodeId NodeId => _node.Id;

    internal bool CanRead => (_opening.Flags & AccessModes) != 1;

    internal bool CanWrite => (_opening.Flags & AccessModes) != 0;

    /// <summary>Reads bytes.</summary>
    /// <param name="destination">Where they go.</param>
    /// <param name="offset">The position of the first one.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>How many; zero at the end of the file. May be fewer than asked for.</returns>
    public async ValueTask<int> ReadAsync(
        Memory<byte> destination, long offset, CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_isClosed != 0, this);
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        if (destination.IsEmpty)
        {
            return 0;
        }

        Result<int> result = _data is null
            ? await _session.Messages.ReadAsync(
                _node.Id,
                new FuseReadIn { Handle = _opening.Handle, Offset = (ulong)offset, Flags = _opening.Flags },
                destination,
                cancellationToken).ConfigureAwait(false)
            : await _session.Data.ReadAsync(_data, _opening.Handle, destination, offset, cancellationToken)
                .ConfigureAwait(false);
        return ClientSession.Check(result, "read", Path);
    }

    /// <summary>Writes all bytes.</summary>
    /// <param name="source">The bytes.</param>
    /// <param name="offset">The position of the first one; ignored when appending.</param>
    /// <param name="cancellationToken">Stops waiting; how much was written is then unknown.</param>
    public async ValueTask WriteAsync(
        ReadOnlyMemory<byte> source, long offset, CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_isClosed != 0, this);
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        if (source.IsEmpty)
        {
            return;
        }

        ClientSession.Check(CanWrite ? Errno.Success : Errno.EBADF, "write", Path);
        bool isAppending = (_opening.Flags & OpenAppend) != 0;
        Errno error;
        if (_session.WritesBack && _data is not null && !isAppending)
        {
            error = await _session.Data.WriteBackAsync(_data, _opening.Handle, source, offset, cancellationToken)
                .ConfigureAwait(false);
        }
        else
        {
            var target = new WriteTarget(_node, _opening.Handle, _opening.Flags, isAppending);
            error = await _session.Data.WriteThroughAsync(_data, target, source, offset, cancellationToken)
                .ConfigureAwait(false);
        }

        ClientSession.Check(error, "write", Path);
    }

    /// <summary>Reads the attributes.</summary>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask<FileStatus> GetStatusAsync(CancellationToken cancellationToken = default) =>
        _session.GetStatusAsync(_node, Path, cancellationToken);

    /// <summary>Makes the file shorter or longer; what is new is zero.</summary>
    /// <param name="length">The new length.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public async ValueTask SetLengthAsync(long length, CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_isClosed != 0, this);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        await PushAsync("truncate").ConfigureAwait(false);
        Errno error = await _session.SetAttributesAsync(
            _node,
            new FuseSetAttrIn
            {
                Valid = SetAttrValid.Size | SetAttrValid.Handle,
                Size = (ulong)length,
                Handle = _opening.Handle,
            },
            cancellationToken).ConfigureAwait(false);
        if (_data is not null)
        {
            _session.Data.Drop(_data, 0, long.MaxValue);
        }

        ClientSession.Check(error, "truncate", Path);
    }

    /// <summary>Has everything written so far put on stable storage, fsync(2).</summary>
    /// <param name="cancellationToken">Stops waiting.</param>
    public async ValueTask FlushAsync(CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_isClosed != 0, this);
        await PushAsync("fsync").ConfigureAwait(false);
        Errno error = await _session.Messages.CallAsync(
            new(FuseOpcode.Fsync, _node.Id),
            new FuseFsyncIn { Handle = _opening.Handle },
            default,
            cancellationToken).ConfigureAwait(false);
        ClientSession.Check(error is Errno.ENOSYS ? Errno.Success : error, "fsync", Path);
    }

    /// <summary>A stream over the file, from its start. Disposing it closes the file.</summary>
    public Stream AsStream() => new VirtioFsStream(this);

    /// <summary>Closes the file: writes what was not written yet, and reports what went wrong with it.</summary>
    /// <exception cref="VirtioFsException">Something that was written earlier could not be stored.</exception>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isClosed, 1) != 0)
        {
            return;
        }

        try
        {
            Errno error = Errno.Success;
            if (CanWrite)
            {
                error = _data is null ? Errno.Success : await _session.Data.FlushAsync(_data, _opening.Handle)
                    .ConfigureAwait(false);
                Errno flushed = await _session.Messages.CallAsync(
                    new(FuseOpcode.Flush, _node.Id), new FuseFlushIn { Handle = _opening.Handle }, default, default)
                    .ConfigureAwait(false);
                error = error == Errno.Success && flushed != Errno.ENOSYS ? flushed : error;
            }

            await _session.Messages.CallAsync(
                new(FuseOpcode.Release, _node.Id),
                new FuseReleaseIn { Handle = _opening.Handle, Flags = _opening.Flags },
                default,
                default).ConfigureAwait(false);
            ClientSession.Check(error, "close", Path);
        }
        finally
        {
            _session.Closed(_node);
        }
    }

    /// <summary>Writes what is dirty.</summary>
    private async ValueTask PushAsync(string operation)
    {
        if (_data is not null && CanWrite)
        {
            Errno error = await _session.Data.FlushAsync(_data, _opening.Handle).ConfigureAwait(false);
            ClientSession.Check(error, operation, Path);
        }
    }

    /// <summary>How a file was opened.</summary>
    internal readonly record struct Opening(string Path, uint Flags, HandleId Handle);
}
