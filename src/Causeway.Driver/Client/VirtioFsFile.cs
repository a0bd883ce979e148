using System.Runtime.CompilerServices;
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
public sealed partial class VirtioFsFile : IAsyncDisposable
{
    private const uint AccessModes = 3;
    private const uint OpenAppend = 0x400;

    private readonly ClientSession _session;
    private readonly CachedNode _node;
    private readonly FileData? _cached;
    private readonly Opening _opening;
    private int _isClosed;

    // Of what is cached, for the last time. Changed by who has its turn.
    private bool _isFlushed;

    internal VirtioFsFile(ClientSession session, CachedNode node, FileData? data, Opening opening)
    {
        _session = session;
        _node = node;
        _cached = data;
        _opening = opening;
        _lockOwner = session.NextLockOwner();
        if (session.WritesBack && CanWrite)
        {
            session.Writers.TryAdd(this, 0);
        }
    }

    /// <summary>The path that it was opened by.</summary>
    public string Path => _opening.Path;

    /// <summary>Its node; the number means something to this session only.</summary>
    public NodeId NodeId => _node.Id;

    // A file that is memory is not cached a second time.
    private MappedNode? Mapped
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)] // See ClientWindow.TryReadInline.
        get => _node.Mapped is { IsRefused: false } mapped ? mapped : null;
    }

    private FileData? Data => Mapped is null ? _cached : null;

    private MappedHandle Handle => new(_opening.Handle, _opening.Flags, CanWrite);

    internal ClientSession Session => _session;

    internal bool CanRead => (_opening.Flags & AccessModes) != 1;

    internal bool CanWrite => (_opening.Flags & AccessModes) != 0;

    /// <summary>Reads bytes.</summary>
    /// <param name="destination">Where they go.</param>
    /// <param name="offset">The position of the first one.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>How many; zero at the end of the file. May be fewer than asked for.</returns>
    public ValueTask<int> ReadAsync(
        Memory<byte> destination, long offset, CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_isClosed != 0, this);
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        if (destination.IsEmpty)
        {
            return new ValueTask<int>(0);
        }

        if (Mapped is not { } mapped || !CanRead)
        {
            return ReadByRequestAsync(destination, offset, cancellationToken);
        }

        return destination.Length <= _session.Nodes.LengthOf(_node) - offset
            && MappedNode.Covers(offset + destination.Length)
            && _session.Window!.TryReadInline(mapped, destination.Span, offset)
                ? new ValueTask<int>(destination.Length)
                : ReadMappedAsync(mapped, destination, offset, cancellationToken);
    }

    /// <summary>The same where something is not mapped yet, or the file ends, or may not be what it was.</summary>
    private async ValueTask<int> ReadMappedAsync(
        MappedNode mapped, Memory<byte> destination, long offset, CancellationToken cancellationToken)
    {
        long length = _session.Nodes.LengthOf(_node);
        if (destination.Length > length - offset)
        {
            // Somebody may have made it longer.
            length = (await _session.GetStatusAsync(_node, Path, cancellationToken).ConfigureAwait(false)).Length;
        }

        if (offset >= length)
        {
            return 0;
        }

        destination = destination[..(int)Math.Min(destination.Length, length - offset)];
        if (!MappedNode.Covers(offset + destination.Length))
        {
            return await ReadByRequestAsync(destination, offset, cancellationToken).ConfigureAwait(false);
        }

        return ClientSession.Check(
            await _session.Window!.ReadAsync(mapped, Handle, destination, offset, cancellationToken).ConfigureAwait(false),
            "read",
            Path);
    }

    private async ValueTask<int> ReadByRequestAsync(
        Memory<byte> destination, long offset, CancellationToken cancellationToken)
    {
        Result<int> result = Data is not { } data
            ? await _session.Messages.ReadAsync(
                _node.Id,
                new FuseReadIn { Handle = _opening.Handle, Offset = (ulong)offset, Flags = _opening.Flags },
                destination,
                cancellationToken).ConfigureAwait(false)
            : await _session.Data.ReadAsync(data, _opening.Handle, destination, offset, cancellationToken)
                .ConfigureAwait(false);
        return ClientSession.Check(result, "read", Path);
    }

    /// <summary>Writes all bytes.</summary>
    /// <param name="source">The bytes.</param>
    /// <param name="offset">The position of the first one; ignored when appending.</param>
    /// <param name="cancellationToken">Stops waiting; how much was written is then unknown.</param>
    public ValueTask WriteAsync(ReadOnlyMemory<byte> source, long offset, CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_isClosed != 0, this);
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        if (source.IsEmpty)
        {
            return default;
        }

        ClientSession.Check(CanWrite ? Errno.Success : Errno.EBADF, "write", Path);
        bool isAppending = (_opening.Flags & OpenAppend) != 0;
        if (!isAppending && Mapped is { } mapped && IsInside(offset, source.Length, _session.Nodes.LengthOf(_node))
            && _session.Window!.TryWrite(mapped, source.Span, offset))
        {
            _session.Nodes.Touch(_node);
            return default;
        }

        return WriteOtherAsync(source, offset, isAppending, cancellationToken);
    }

    /// <summary>The same where something is not mapped yet, or the file changes otherwise too.</summary>
    private async ValueTask WriteOtherAsync(
        ReadOnlyMemory<byte> source, long offset, bool isAppending, CancellationToken cancellationToken)
    {
        Errno error;
        FileData? data = Data;
        long known = _session.Nodes.LengthOf(_node);
        if (!isAppending && Mapped is not null && known < 0)
        {
            known = (await _session.GetStatusAsync(_node, Path, cancellationToken).ConfigureAwait(false)).Length;
        }

        if (!isAppending && Mapped is { } mapped && IsInside(offset, source.Length, known))
        {
            error = await _session.Window!.WriteAsync(mapped, Handle, source, offset, cancellationToken)
                .ConfigureAwait(false);
            _session.Nodes.Touch(_node);
        }
        // Not under record locks: blocks are larger than what is locked, and would take bytes along that others have written.
        else if (_session.WritesBack && data is not null && !isAppending && !_mayHaveRecordLocks)
        {
            error = await _session.Data.WriteBackAsync(data, _opening.Handle, source, offset, cancellationToken)
                .ConfigureAwait(false);
        }
        else
        {
            var target = new WriteTarget(_node, _opening.Handle, _opening.Flags, isAppending);
            error = await _session.Data.WriteThroughAsync(data, target, source, offset, cancellationToken)
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
        if (_cached is not null)
        {
            _session.Data.Drop(_cached, 0, long.MaxValue);
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

    /// <summary>
    /// Maps a part of the file: its contents as memory, shared with everybody who maps it. Writable if the file is open for writing.
    /// The mapping outlives the file.
    /// </summary>
    /// <param name="offset">Where to start.</param>
    /// <param name="length">How many bytes, which the file must have; null for all up to its end.</param>
    /// <param name="cancellationToken">Stops waiting, but not once the device has been asked.</param>
    /// <returns>The mapping, to be disposed of.</returns>
    /// <exception cref="VirtioFsException">
    /// EOPNOTSUPP without a window; ENOMEM when the window has no room; and what the device says.
    /// </exception>
    public async ValueTask<VirtioFsMapping> MapAsync(
        long offset = 0, long? length = null, CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_isClosed != 0, this);
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ClientSession.Check(CanRead ? Errno.Success : Errno.EACCES, "mmap", Path);
        ClientSession.Check(_session.Window is null ? Errno.EOPNOTSUPP : Errno.Success, "mmap", Path);
        await PushAsync("mmap").ConfigureAwait(false);
        _session.Nodes.ForgetAttributes(_node);
        long end = (await _session.GetStatusAsync(_node, Path, cancellationToken).ConfigureAwait(false)).Length;
        long bytes = length ?? Math.Max(0, end - offset);
        if (bytes is <= 0 or > int.MaxValue || bytes > end - offset)
        {
            throw new ArgumentOutOfRangeException(
                nameof(length), $"'{Path}' has {end} bytes; from {offset} on, at least 1 and at most 2 GiB - 1 can be mapped.");
        }

        long start = offset & -ClientWindow.RangeBytes;
        int count = (int)((offset + bytes - start + ClientWindow.RangeBytes - 1) >> ClientWindow.RangeShift);
        WindowRange first = ClientSession.Check(
            await _session.Window!.MapAsync(_node.Id, _opening.Handle, start, count, CanWrite).ConfigureAwait(false),
            "mmap",
            Path);
        return new VirtioFsMapping(
            _session.Window, new MappedPart(first, count, (int)(offset - start), (int)bytes), Path, CanWrite);
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
            await Task.WhenAll(_lateLocks).ConfigureAwait(false);
            Errno error = Errno.Success;
            if (CanWrite || _mayHaveRecordLocks)
            {
                error = await WriteKeptAsync(isLast: true).ConfigureAwait(false);
                Errno flushed = await _session.Messages.CallAsync(
                    new(FuseOpcode.Flush, _node.Id),
                    new FuseFlushIn { Handle = _opening.Handle, LockOwner = _lockOwner },
                    default,
                    default).ConfigureAwait(false);
                error = error == Errno.Success && flushed != Errno.ENOSYS ? flushed : error;
            }

            await _session.Messages.CallAsync(
                new(FuseOpcode.Release, _node.Id),
                new FuseReleaseIn
                {
                    Handle = _opening.Handle,
                    Flags = _opening.Flags,
                    ReleaseFlags = _mayHaveFlock ? FuseReleaseFlags.FlockUnlock : FuseReleaseFlags.None,
                    LockOwner = _lockOwner,
                },
                default,
                default).ConfigureAwait(false);
            ClientSession.Check(error, "close", Path);
        }
        finally
        {
            _session.Writers.TryRemove(this, out _);
            _session.Closed(_node);
        }
    }

    /// <summary>Whether a write changes bytes that are there, of a file that does not change otherwise by being written.</summary>
    private bool IsInside(long offset, int length, long known)
    {
        // The device takes set-user-id and set-group-id away, when it sees a write.
        const uint Privileges = 0xC00;
        return length <= known - offset
            && (_node.Attributes.Mode & Privileges) == 0
            && MappedNode.Covers(offset + length);
    }

    internal void ForgetAttributes() => _session.Nodes.ForgetAttributes(_node);

    /// <summary>Sends what was written and not sent yet.</summary>
    internal async ValueTask PushAsync(string operation) =>
        ClientSession.Check(await WriteKeptAsync(isLast: false).ConfigureAwait(false), operation, Path);

    /// <summary>
    /// What is cached belongs to all openings of the file. Any that may write does so for all, but not with a handle that the
    /// device has been told to forget.
    /// </summary>
    private async ValueTask<Errno> WriteKeptAsync(bool isLast)
    {
        if (_cached is null || !CanWrite)
        {
            return Errno.Success;
        }

        await _cached.Turn.WaitAsync().ConfigureAwait(false);
        try
        {
            Errno error = _isFlushed
                ? Errno.Success
                : await _session.Data.FlushInTurnAsync(_cached, _opening.Handle).ConfigureAwait(false);
            _isFlushed |= isLast;
            return error;
        }
        finally
        {
            _cached.Turn.Release();
        }
    }

    /// <summary>How a file was opened.</summary>
    internal readonly record struct Opening(string Path, uint Flags, HandleId Handle);
}
