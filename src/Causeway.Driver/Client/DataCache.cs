using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <summary>What is cached of one file. Reading, writing and flushing take turns by <see cref="Turn"/>.</summary>
internal sealed class FileData(CachedNode node)
{
    internal CachedNode Node => node;

    internal SemaphoreSlim Turn { get; } = new(1, 1);

    internal Dictionary<long, DataBlock> Blocks { get; } = [];

    /// <summary>Where a sequential reader would go on, in blocks.</summary>
    internal long NextBlock { get; set; }

    /// <summary>How long the file is by what was written and not flushed; zero when nothing is.</summary>
    internal long DirtyLength { get; set; }

    /// <summary>Grows when cached data is dropped: what is under way then is too old.</summary>
    internal int Drops { get; set; }
}

/// <summary>A piece of a file, at a multiple of its size, in guest memory: READ fills it and WRITE sends it directly.</summary>
internal sealed class DataBlock(FileData owner, long index, GuestBuffer buffer)
{
    internal FileData Owner => owner;

    internal long Index => index;

    internal GuestBuffer Buffer => buffer;

    /// <summary>How many bytes from its start are known; less than the whole means that the file ends there.</summary>
    internal int Valid { get; set; }

    internal int DirtyStart { get; set; }

    internal int DirtyEnd { get; set; }

    /// <summary>Who reads or writes it right now; while it has any, it is not given to another file.</summary>
    internal int Pins { get; set; }

    /// <summary>What vouches for it, in sessions with a version table.</summary>
    internal VersionProof Proof { get; set; }

    /// <summary>Dropped while it was pinned: it goes when the last pin does.</summary>
    internal bool IsDetached { get; set; }

    internal LinkedListNode<DataBlock>? Place { get; set; }

    internal bool IsDirty => DirtyEnd > DirtyStart;
}

/// <summary>
/// The data of files, in a fixed number of blocks that all files share. The block used longest ago is given away first;
/// dirty ones are written before.
/// </summary>
internal sealed class DataCache(FuseMessages messages, NodeCache nodes, int maxBlocks)
{
    /// <summary>
    /// Bytes of a block: the longest READ that every device takes, and the read-ahead of a Linux guest.
    /// </summary>
    internal const int BlockBytes = 128 << 10;

    // READs of a sequential reader that are in flight at the same time (arbitrary).
    private const int ReadAheadBlocks = 8;

    private readonly Lock _gate = new();

    // The block used last comes first.
    private readonly LinkedList<DataBlock> _order = new();
    private int _dirtyBlocks;

    internal long MaxBytes => (long)maxBlocks * BlockBytes;

    internal (long Bytes, long DirtyBytes) Usage
    {
        get
        {
            lock (_gate)
            {
                return ((long)_order.Count * BlockBytes, (long)_dirtyBlocks * BlockBytes);
            }
        }
    }

    /// <summary>Reads through the cache.</summary>
    /// <returns>How many bytes; fewer than asked for at the end of the file.</returns>
    internal async ValueTask<Result<int>> ReadAsync(
        FileData data, HandleId handle, Memory<byte> destination, long offset, CancellationToken cancellationToken)
    {
        await data.Turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            int done = 0;
            while (done < destination.Length)
            {
                long index = (offset + done) / BlockBytes;
                int within = (int)((offset + done) % BlockBytes);
                Result<DataBlock?> loaded = FindCurrent(data, index) is { } found
                    ? (Result<DataBlock?>)found
                    : await LoadOrCancelAsync(data, handle, index, cancellationToken).ConfigureAwait(false);
                if (loaded.IsError)
                {
                    return done > 0 ? done : loaded.Error;
                }

                if (loaded.Value is not { } block)
                {
                    return await ReadAroundAsync(data, handle, destination, offset, done, cancellationToken)
                        .ConfigureAwait(false);
                }

                int count = Math.Clamp(block.Valid - within, 0, destination.Length - done);
                block.Buffer.Span.Slice(within, count).CopyTo(destination.Span[done..]);
                done += count;
                data.NextBlock = index + 1;
                bool isEnd = block.Valid < BlockBytes && within + count >= block.Valid;
                Unpin(block);
                if (isEnd)
                {
                    break;
                }
            }

            return done;
        }
        finally
        {
            data.Turn.Release();
        }
    }

    /// <summary>Keeps written data until it is flushed. What finds no room is written at once.</summary>
    internal async ValueTask<Errno> WriteBackAsync(
        FileData data, HandleId handle, ReadOnlyMemory<byte> source, long offset, CancellationToken cancellationToken)
    {
        await data.Turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            FillGap(data, offset);
            int done = 0;
            while (done < source.Length)
            {
                long index = (offset + done) / BlockBytes;
                int within = (int)((offset + done) % BlockBytes);
                int count = Math.Min(source.Length - done, BlockBytes - within);
                Result<DataBlock?> target = await WritableBlockAsync(data, handle, index, within, count).ConfigureAwait(false);
                if (target.IsError)
                {
                    return target.Error;
                }

                if (target.Value is { } block)
                {
                    if (TryMarkDirty(block, within, within + count))
                    {
                        Put(block, source.Span.Slice(done, count), within);
                        data.DirtyLength = Math.Max(data.DirtyLength, offset + done + count);
                        done += count;
                    }

                    Unpin(block);
                    continue;
                }

                Result<int> written = await messages.WriteAsync(
                    data.Node.Id,
                    new FuseWriteIn { Handle = handle, Offset = (ulong)(offset + done) },
                    source.Slice(done, count),
                    note: null,
                    cancellationToken).ConfigureAwait(false);
                if (written.IsError || written.Value == 0)
                {
                    return written.IsError ? written.Error : Errno.EIO;
                }

                done += written.Value;
            }

            nodes.Grow(data.Node, offset + source.Length);
            return Errno.Success;
        }
        finally
        {
            data.Turn.Release();
        }
    }

    /// <summary>Writes at once, and keeps what is cached in step.</summary>
    internal async ValueTask<Errno> WriteThroughAsync(
        FileData? data, WriteTarget target, ReadOnlyMemory<byte> source, long offset, CancellationToken cancellationToken)
    {
        if (data is not null)
        {
            await data.Turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        }

        try
        {
            int done = 0;
            while (done < source.Length)
            {
                ReplyNote note = nodes.Note();
                Result<int> written = await messages.WriteAsync(
                    target.Node.Id,
                    new FuseWriteIn { Handle = target.Handle, Offset = (ulong)(offset + done), Flags = target.OpenFlags },
                    source[done..],
                    note,
                    cancellationToken).ConfigureAwait(false);
                if (written.IsError || written.Value == 0)
                {
                    return written.IsError ? written.Error : Errno.EIO;
                }

                if (data is not null && !target.IsAppending)
                {
                    KeepWhatOthersLeft(data, note);
                    Update(data, source.Span.Slice(done, written.Value), offset + done);
                }

                done += written.Value;
            }

            if (target.IsAppending)
            {
                // Where the bytes went is the device's choice.
                nodes.ForgetAttributes(target.Node);
                if (data is not null)
                {
                    Drop(data, 0, long.MaxValue);
                }
            }
            else
            {
                nodes.Grow(target.Node, offset + source.Length);
            }

            return Errno.Success;
        }
        finally
        {
            data?.Turn.Release();
        }
    }

    /// <summary>Drops clean blocks of a range of bytes; what was written and not flushed is the truth, and stays.</summary>
    internal void Drop(FileData data, long start, long end)
    {
        lock (_gate)
        {
            data.Drops++;
            foreach (DataBlock block in data.Blocks.Values.ToArray())
            {
                long first = block.Index * BlockBytes;
                if (!block.IsDirty && first < end && first + BlockBytes > start)
                {
                    Remove(block);
                }
            }
        }
    }

    /// <summary>Drops everything, dirty or not: the node is gone.</summary>
    internal void DropAll(FileData data)
    {
        lock (_gate)
        {
            data.Drops++;
            foreach (DataBlock block in data.Blocks.Values.ToArray())
            {
                MarkClean(block);
                Remove(block);
            }
        }
    }

    /// <summary>Gives all memory back.</summary>
    internal void Close()
    {
        lock (_gate)
        {
            foreach (DataBlock block in _order.ToArray())
            {
                MarkClean(block);
                Remove(block);
            }
        }
    }

    private async ValueTask<Result<int>> ReadAroundAsync(
        FileData data, HandleId handle, Memory<byte> destination, long offset, int done, CancellationToken cancellationToken)
    {
        // Every block is dirty or in use; the own ones are written, so that the device has them.
        Errno error = await FlushInTurnAsync(data, handle).ConfigureAwait(false);
        if (error != Errno.Success)
        {
            return error;
        }

        Result<int> read = await messages.ReadAsync(
            data.Node.Id,
            new FuseReadIn { Handle = handle, Offset = (ulong)(offset + done) },
            destination[done..],
            cancellationToken).ConfigureAwait(false);
        return read.IsError ? read : done + read.Value;
    }

    /// <summary>
    /// Loads a block. Who stops waiting leaves the request to itself, which the device has been asked to give up, and does not
    /// take the block.
    /// </summary>
    private async ValueTask<Result<DataBlock?>> LoadOrCancelAsync(
        FileData data, HandleId handle, long index, CancellationToken cancellationToken)
    {
        ValueTask<Result<DataBlock?>> load = LoadAsync(data, handle, index, readAhead: true, cancellationToken);
        if (!cancellationToken.CanBeCanceled)
        {
            return await load.ConfigureAwait(false);
        }

        Task<Result<DataBlock?>> task = load.AsTask();
        try
        {
            Result<DataBlock?> loaded = await task.WaitAsync(cancellationToken).ConfigureAwait(false);
            if (loaded.Error == Errno.EINTR)
            {
                cancellationToken.ThrowIfCancellationRequested();
            }

            return loaded;
        }
        catch (OperationCanceledException)
        {
            _ = task.ContinueWith(
                done =>
                {
                    if (done.IsCompletedSuccessfully && !done.Result.IsError && done.Result.Value is { } block)
                    {
                        Unpin(block);
                    }
                    else
                    {
                        _ = done.Exception;
                    }
                },
                CancellationToken.None,
                TaskContinuationOptions.None,
                TaskScheduler.Default);
            throw;
        }
    }

    /// <summary>Reads a block, and the following ones for a sequential reader.</summary>
    /// <returns>The block, pinned; null when there is no room.</returns>
    private async ValueTask<Result<DataBlock?>> LoadAsync(
        FileData data, HandleId handle, long index, bool readAhead, CancellationToken cancellationToken)
    {
        if (TakeBlock(data, index) is not { } wanted)
        {
            return (DataBlock?)null;
        }

        int drops = data.Drops;
        ReplyNote note = nodes.Note();
        var loads = new List<(DataBlock Block, Task<Result<int>> Read, ReplyNote Note)> { (wanted, Start(wanted, note), note) };
        if (readAhead && index > 0 && index == data.NextBlock)
        {
            for (long next = index + 1; next < index + ReadAheadBlocks; next++)
            {
                if (next * BlockBytes >= (long)data.Node.Attributes.Size
                    || IsCached(data, next)
                    || TakeBlock(data, next) is not { } block)
                {
                    break;
                }

                note = nodes.Note();
                loads.Add((block, Start(block, note), note));
            }
        }

        Errno error = Errno.Success;
        VirtioFsDeviceException? failure = null;
        foreach ((DataBlock block, Task<Result<int>> read, ReplyNote told) in loads)
        {
            Result<int> result;
            try
            {
                result = await read.ConfigureAwait(false);
            }
            catch (VirtioFsDeviceException exception)
            {
                failure ??= exception;
                result = Errno.EIO;
            }

            error = block == wanted ? result.Error : error;
            block.Proof = told.Content;
            bool isCurrent = drops == data.Drops && (!nodes.IsCoherent || block.Proof.IsAny);
            Install(data, block, result, isCurrent, isWanted: block == wanted);
        }

        if (error != Errno.Success)
        {
            return failure is null ? error : throw failure;
        }

        return wanted;

        Task<Result<int>> Start(DataBlock block, ReplyNote sent) => messages.ReadAsync(
            new FuseMessages.Target(FuseOpcode.Read, data.Node.Id, sent),
            new FuseReadIn { Handle = handle, Offset = (ulong)(block.Index * BlockBytes) },
            new GuestPiece(block.Buffer, 0, BlockBytes),
            cancellationToken).AsTask();
    }

    /// <summary>Makes a block that was read visible, or gives it back.</summary>
    private void Install(FileData data, DataBlock block, Result<int> read, bool isCurrent, bool isWanted)
    {
        if (!read.IsError)
        {
            // The device may not know yet how long the file is: what is missing up to there is zero.
            int known = (int)Math.Clamp(data.DirtyLength - (block.Index * BlockBytes), 0, BlockBytes);
            if (known > read.Value)
            {
                block.Buffer.Span[read.Value..known].Clear();
            }

            block.Valid = Math.Max(read.Value, known);
        }

        lock (_gate)
        {
            bool isKept = !read.IsError && isCurrent && (block.Valid > 0 || isWanted)
                && data.Blocks.TryAdd(block.Index, block);
            block.IsDetached = !isKept;
        }

        if (!isWanted || read.IsError)
        {
            Unpin(block);
        }
    }

    /// <summary>A block to write to: cached, new, or read first when only a part of it is written.</summary>
    private async ValueTask<Result<DataBlock?>> WritableBlockAsync(
        FileData data, HandleId handle, long index, int within, int count)
    {
        if (Find(data, index) is { } found)
        {
            return found;
        }

        if (_dirtyBlocks >= maxBlocks / 2)
        {
            Errno error = await FlushInTurnAsync(data, handle).ConfigureAwait(false);
            if (error != Errno.Success)
            {
                return error;
            }
        }

        long start = index * BlockBytes;
        long length = Math.Max((long)data.Node.Attributes.Size, data.DirtyLength);
        bool isNew = start >= length || (within == 0 && (count == BlockBytes || start + count >= length));
        if (!isNew)
        {
            return await LoadAsync(data, handle, index, readAhead: false, default).ConfigureAwait(false);
        }

        if (TakeBlock(data, index) is not { } block)
        {
            return (DataBlock?)null;
        }

        lock (_gate)
        {
            data.Blocks[index] = block;
        }

        return block;
    }

    /// <summary>Writes all that is dirty. What cannot be written is dropped, and the first error reported. For who has the turn.</summary>
    internal async ValueTask<Errno> FlushInTurnAsync(FileData data, HandleId handle)
    {
        Errno first = Errno.Success;
        DataBlock[] dirty;
        lock (_gate)
        {
            dirty = [.. data.Blocks.Values.Where(block => block.IsDirty).OrderBy(block => block.Index)];
            foreach (DataBlock block in dirty)
            {
                block.Pins++;
            }
        }

        foreach (DataBlock block in dirty)
        {
            Errno error = await FlushBlockAsync(data, handle, block).ConfigureAwait(false);
            first = first == Errno.Success ? error : first;
            lock (_gate)
            {
                MarkClean(block);
                if (error != Errno.Success)
                {
                    Remove(block);
                }
            }

            Unpin(block);
        }

        if (dirty.Length > 0)
        {
            data.DirtyLength = 0;
            nodes.ForgetAttributes(data.Node);
        }

        return first;
    }

    private async ValueTask<Errno> FlushBlockAsync(FileData data, HandleId handle, DataBlock block)
    {
        int start = block.DirtyStart;
        while (start < block.DirtyEnd)
        {
            int length = Math.Min(block.DirtyEnd - start, messages.MaxWrite);
            Result<int> written = await messages.WriteAsync(
                data.Node.Id,
                new FuseWriteIn { Handle = handle, Offset = (ulong)((block.Index * BlockBytes) + start) },
                new GuestPiece(block.Buffer, start, length)).ConfigureAwait(false);
            if (written.IsError || written.Value == 0)
            {
                return written.IsError ? written.Error : Errno.EIO;
            }

            start += written.Value;
        }

        return Errno.Success;
    }

    /// <summary>A write behind the end makes what is between zero; blocks that ended there are now whole.</summary>
    private void FillGap(FileData data, long offset)
    {
        lock (_gate)
        {
            // A read that was given up and still goes on would bring back what was there before.
            data.Drops++;
            foreach (DataBlock block in data.Blocks.Values)
            {
                int known = (int)Math.Clamp(offset - (block.Index * BlockBytes), 0, BlockBytes);
                if (known > block.Valid)
                {
                    block.Buffer.Span[block.Valid..known].Clear();
                    block.Valid = known;
                }
            }
        }
    }

    private bool IsCached(FileData data, long index)
    {
        lock (_gate)
        {
            return data.Blocks.TryGetValue(index, out DataBlock? block) && !RemoveIfOutdated(block);
        }
    }

    /// <summary>
    /// We have written: blocks that were true just before stay, now with the version that the file has since. What others have
    /// changed in between goes.
    /// </summary>
    private void KeepWhatOthersLeft(FileData data, ReplyNote note)
    {
        if (!nodes.IsCoherent)
        {
            return;
        }

        VersionProof before = note.ContentBefore;
        VersionProof after = note.Content;
        lock (_gate)
        {
            foreach (DataBlock block in data.Blocks.Values.ToArray())
            {
                if (before.IsAny && after.IsAny && block.Proof == before)
                {
                    block.Proof = after;
                }
                else
                {
                    Remove(block);
                }
            }
        }
    }

    // The check of what is kept of a file. With the lock, because a block that is not true any more goes.
    private bool RemoveIfOutdated(DataBlock block)
    {
        if (!nodes.IsCoherent || nodes.Holds(block.Proof))
        {
            return false;
        }

        Remove(block);
        return true;
    }

    private void Update(FileData data, ReadOnlySpan<byte> source, long offset)
    {
        FillGap(data, offset);
        while (!source.IsEmpty)
        {
            int within = (int)(offset % BlockBytes);
            int count = Math.Min(source.Length, BlockBytes - within);
            if (Find(data, offset / BlockBytes) is { } block)
            {
                Put(block, source[..count], within);
                Unpin(block);
            }

            source = source[count..];
            offset += count;
        }
    }

    private static void Put(DataBlock block, ReadOnlySpan<byte> source, int within)
    {
        if (within > block.Valid)
        {
            block.Buffer.Span[block.Valid..within].Clear();
        }

        source.CopyTo(block.Buffer.Span[within..]);
        block.Valid = Math.Max(block.Valid, within + source.Length);
    }

    /// <summary>A cached block that is still true, pinned.</summary>
    private DataBlock? FindCurrent(FileData data, long index) =>
        nodes.IsCoherent && !IsCached(data, index) ? null : Find(data, index);

    /// <summary>A cached block, pinned.</summary>
    private DataBlock? Find(FileData data, long index)
    {
        lock (_gate)
        {
            if (!data.Blocks.TryGetValue(index, out DataBlock? block))
            {
                return null;
            }

            block.Pins++;
            _order.Remove(block.Place!);
            _order.AddFirst(block.Place!);
            return block;
        }
    }

    /// <summary>A free block, pinned and not yet visible: a new one, or the one that was not used for longest.</summary>
    private DataBlock? TakeBlock(FileData data, long index)
    {
        lock (_gate)
        {
            GuestBuffer? buffer = messages.Transport.TryRentCacheBuffer();
            if (buffer is null)
            {
                LinkedListNode<DataBlock>? victim = _order.Last;
                while (victim is not null && (victim.Value.Pins > 0 || victim.Value.IsDirty))
                {
                    victim = victim.Previous;
                }

                if (victim is null)
                {
                    return null;
                }

                Remove(victim.Value);
                buffer = messages.Transport.TryRentCacheBuffer();
                if (buffer is null)
                {
                    return null;
                }
            }

            var block = new DataBlock(data, index, buffer) { Pins = 1 };
            block.Place = _order.AddFirst(block);
            return block;
        }
    }

    /// <summary>Keeps a block for what is about to be written into it, by who has the turn.</summary>
    /// <returns>False when it was dropped since it was taken: nobody would ever write it.</returns>
    private bool TryMarkDirty(DataBlock block, int start, int end)
    {
        lock (_gate)
        {
            if (block.IsDetached)
            {
                return false;
            }

            if (!block.IsDirty)
            {
                _dirtyBlocks++;
                (block.DirtyStart, block.DirtyEnd) = (start, end);
                return true;
            }

            // What lies between is known too, and is written along.
            block.DirtyStart = Math.Min(block.DirtyStart, start);
            block.DirtyEnd = Math.Max(block.DirtyEnd, end);
            return true;
        }
    }

    private void MarkClean(DataBlock block)
    {
        if (block.IsDirty)
        {
            _dirtyBlocks--;
            (block.DirtyStart, block.DirtyEnd) = (0, 0);
        }
    }

    /// <summary>Takes a block out of its file; its memory goes when the last pin does.</summary>
    private void Remove(DataBlock block)
    {
        if (block.Owner.Blocks.GetValueOrDefault(block.Index) == block)
        {
            block.Owner.Blocks.Remove(block.Index);
        }

        block.IsDetached = true;
        FreeIfUnused(block);
    }

    private void Unpin(DataBlock block)
    {
        lock (_gate)
        {
            block.Pins--;
            FreeIfUnused(block);
        }
    }

    private void FreeIfUnused(DataBlock block)
    {
        if (block.IsDetached && block.Pins == 0 && block.Place is { } place)
        {
            _order.Remove(place);
            block.Place = null;
            block.Buffer.Return();
        }
    }
}

/// <summary>Where a write goes.</summary>
internal readonly record struct WriteTarget(CachedNode Node, HandleId Handle, uint OpenFlags, bool IsAppending);
