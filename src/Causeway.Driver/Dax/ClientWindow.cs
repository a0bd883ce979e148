using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser.Frontend;

namespace Causeway.Driver;

/// <summary>
/// The DAX window as a client uses it: which file is where, and what makes room for what. Reading and writing what is mapped
/// (ClientWindow.Copying.cs) takes no lock and sends no request.
/// </summary>
/// <remarks>
/// <para>A range is cached for as long as nobody needs its place: when none is free, the one used longest ago goes. Mapping
/// something in its place ends what was there, so making room costs no request of its own.</para>
/// <para>A file can be truncated by somebody else while it is mapped. Whoever then touches what is gone gets zeros, and the range is
/// flagged (<see cref="FaultGuard"/>): after each copy the flag is looked at, a flagged copy is done again by a request, which
/// answers as the file is now, and the range is given up.</para>
/// </remarks>
internal sealed partial class ClientWindow : IDisposable
{
    internal const int RangeShift = 21;
    internal const int RangeBytes = 1 << RangeShift;

    // REMOVEMAPPING: what fits a call beside its header and the count.
    private const int MostRemovals = 200;

    // How many milliseconds who maps a file waits for others to finish reading or writing at least (arbitrary).
    private const int MaxTries = 1000;

    private readonly SharedMemoryRegion _region;
    private readonly FaultGuard _faults;
    private readonly FuseMessages _messages;
    private readonly NodeCache _nodes;
    private readonly unsafe byte* _start;
    private readonly WindowRange[] _ranges;

    // By range: when it was used last, in misses. Close together, because each copy looks at one.
    private readonly long[] _lastUse;

    // One at a time decides what a range becomes.
#pragma warning disable CA2213 // Somebody may wait for it yet, and it holds nothing.
    private readonly SemaphoreSlim _turn = new(1, 1);
#pragma warning restore CA2213

    // What the ranges are, and what the files have in them. No request is made under it.
    private readonly Lock _gate = new();
    private readonly Stack<WindowRange> _free = new();
    private readonly FuseCompletion _removed;
    private long _misses;
    private int _mappedRanges;
    private int _holders = 1;
    private int _pendingRemovals;
    private TaskCompletionSource? _removalsDone;
    private volatile bool _isClosed;

    internal unsafe ClientWindow(SharedMemoryRegion region, FaultGuard faults, FuseMessages messages, NodeCache nodes)
    {
        _region = region;
        _faults = faults;
        _messages = messages;
        _nodes = nodes;
        _removed = Removed;
        _start = region.Address;
        _ranges = new WindowRange[region.Size >> RangeShift];
        _lastUse = new long[_ranges.Length];
        for (int i = _ranges.Length - 1; i >= 0; i--)
        {
            _ranges[i] = new WindowRange(i, region.Address + ((ulong)i << RangeShift));
            _free.Push(_ranges[i]);
        }
    }

    internal DaxUsage Usage
    {
        get
        {
            int cached = 0;
            foreach (WindowRange range in _ranges)
            {
                cached += range.Owner is null ? 0 : 1;
            }

            return new DaxUsage((long)_region.Size, cached, Volatile.Read(ref _mappedRanges), _faults.Count);
        }
    }

    /// <summary>Nobody uses the file any more: gives its ranges back.</summary>
    internal void Release(MappedNode file)
    {
        var ranges = new List<WindowRange>();
        lock (_gate)
        {
            foreach (WindowRange range in _ranges)
            {
                // What somebody still copies from is cached as before, until its place is needed.
                if (range.Owner == file && TryTake(range))
                {
                    ranges.Add(range);
                }
            }
        }

        Remove(ranges.ToArray());
    }

    /// <summary>
    /// The session has ended, and the transport with it. Waits for copies, and for whoever maps something, which are under way;
    /// what is mapped for somebody stays until he disposes of it.
    /// </summary>
    public void Dispose()
    {
        if (_isClosed)
        {
            return;
        }

        _isClosed = true;
        _turn.Wait();
        lock (_gate)
        {
            foreach (WindowRange range in _ranges)
            {
                range.Owner?.Clear(range.FileIndex);
                range.Owner = null;
            }

            Interlocked.MemoryBarrierProcessWide();
            var wait = default(SpinWait);
            while (Array.Exists(_ranges, IsInUse))
            {
                wait.SpinOnce();
            }
        }

        _turn.Release();
        EndHold();
    }

    /// <summary>Has a part of a file mapped, unless it is.</summary>
    /// <returns>Success also means that it was there and need not be any more; an error, that there is no room, or what the device
    /// says.</returns>
    internal async ValueTask<Errno> EnsureAsync(
        MappedNode file, HandleId handle, int fileIndex, bool isWritable, CancellationToken cancellationToken)
    {
        // A mapping is not given up halfway, so that it is known what is where. Who waits may.
        Task<Errno> task = EnsureInTurnAsync(file, handle, fileIndex, isWritable).AsTask();
        return await task.WaitAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Maps a part of a file for somebody, in ranges that are next to each other.</summary>
    /// <returns>The first range; the ranges are the caller's, until <see cref="Unmap"/>.</returns>
    internal async ValueTask<Result<WindowRange>> MapAsync(
        NodeId node, HandleId handle, long offset, int count, bool isWritable)
    {
        await _turn.WaitAsync().ConfigureAwait(false);
        try
        {
            if (await TakeForHolderAsync(count).ConfigureAwait(false) is not { } first)
            {
                return Errno.ENOMEM;
            }

            Interlocked.Increment(ref _holders);
            Interlocked.Add(ref _mappedRanges, count);
            Errno error = Errno.EIO;
            try
            {
                error = await SetUpAsync(node, handle, offset, (first, count), isWritable).ConfigureAwait(false);
                return error == Errno.Success ? first : error;
            }
            finally
            {
                if (error != Errno.Success)
                {
                    Unmap(first, count);
                }
            }
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>Gives back what <see cref="MapAsync"/> gave.</summary>
    internal void Unmap(WindowRange first, int count)
    {
        Interlocked.Add(ref _mappedRanges, -count);
        Remove(_ranges.AsSpan(first.Index, count));
        EndHold();
    }

    /// <summary>Whether something was missing in ranges that <see cref="MapAsync"/> gave.</summary>
    internal bool AreHit(WindowRange first, int count) => _faults.AreHit(first.Index, count);

    private async ValueTask<Errno> EnsureInTurnAsync(MappedNode file, HandleId handle, int fileIndex, bool isWritable)
    {
        await _turn.WaitAsync().ConfigureAwait(false);
        try
        {
            WindowRange? range = null;
            lock (_gate)
            {
                MappedPlace place = file.Find(fileIndex);
                if (!place.IsNowhere)
                {
                    if (!_faults.IsHit(place.Index) && (place.IsWritable || !isWritable))
                    {
                        return Errno.Success;
                    }

                    range = _ranges[place.Index];
                    if (!TryTake(range))
                    {
                        // Read by somebody right now: this one time by a request.
                        return Errno.EAGAIN;
                    }
                }
            }

            range ??= await TakeAsync(1).ConfigureAwait(false);
            return range is null
                ? Errno.ENOMEM
                : await MapRangeAsync(range, file, handle, fileIndex, isWritable).ConfigureAwait(false);
        }
        finally
        {
            _turn.Release();
        }
    }

    // With the turn, and the range taken.
    private async ValueTask<Errno> MapRangeAsync(
        WindowRange range, MappedNode file, HandleId handle, int fileIndex, bool isWritable)
    {
        Volatile.Write(ref _misses, _misses + 1);
        Errno error = Errno.EIO;
        try
        {
            error = await SetUpAsync(
                file.Node.Id, handle, (long)fileIndex << RangeShift, (range, 1), isWritable).ConfigureAwait(false);
        }
        finally
        {
            if (error != Errno.Success)
            {
                Free(range);
            }
        }

        if (error != Errno.Success)
        {
            if (error is Errno.EOPNOTSUPP or Errno.ENOSYS or Errno.EINVAL or Errno.EACCES or Errno.EROFS or Errno.ETXTBSY)
            {
                file.Refuse();
            }

            return error;
        }

        lock (_gate)
        {
            range.Owner = file;
            range.FileIndex = fileIndex;
            range.IsWritable = isWritable;
            _lastUse[range.Index] = _misses;
            file.Set(fileIndex, new MappedPlace(range.Index, isWritable));
        }

        return Errno.Success;
    }

    // Has the device put a part of a file into ranges that are taken.
    private async ValueTask<Errno> SetUpAsync(
        NodeId node, HandleId handle, long offset, (WindowRange First, int Count) ranges, bool isWritable)
    {
        (WindowRange first, int count) = ranges;
        var arguments = new FuseSetupMappingIn
        {
            Handle = handle,
            FileOffset = (ulong)offset,
            Length = (ulong)count << RangeShift,
            Flags = FuseMappingFlags.Read | (isWritable ? FuseMappingFlags.Write : 0),
            WindowOffset = (ulong)first.Index << RangeShift,
        };
        if (_faults.AreHit(first.Index, count))
        {
            // The device would find that it is mapped already, and leave the pages of zeros there.
            Errno removed = await _messages.RemoveMappingAsync(arguments.WindowOffset, arguments.Length).ConfigureAwait(false);
            if (removed != Errno.Success)
            {
                return removed;
            }
        }

        Errno error = await _messages.SetupMappingAsync(node, arguments).ConfigureAwait(false);
        for (int i = 0; error == Errno.Success && i < count; i++)
        {
            _faults.Reset(first.Index + i);
        }

        return error;
    }

    // For somebody who cannot do without: a range that is read or written right now is in nobody's way for long.
    private async ValueTask<WindowRange?> TakeForHolderAsync(int count)
    {
        WindowRange? first = await TakeAsync(count).ConfigureAwait(false);
        for (int tries = 0; first is null && tries < MaxTries && !_isClosed && CouldTake(count); tries++)
        {
            await Task.Delay(1).ConfigureAwait(false);
            first = await TakeAsync(count).ConfigureAwait(false);
        }

        return first;
    }

    // Whether there are enough ranges next to each other that are free or hold what is only cached.
    private bool CouldTake(int count)
    {
        lock (_gate)
        {
            var free = new HashSet<WindowRange>(_free);
            int length = 0;
            foreach (WindowRange range in _ranges)
            {
                length = free.Contains(range) || range.Owner is not null ? length + 1 : 0;
                if (length == count)
                {
                    return true;
                }
            }
        }

        return false;
    }

    // Ranges next to each other, taken; null when there is no room. With the turn.
    private async ValueTask<WindowRange?> TakeAsync(int count)
    {
        while (!_isClosed)
        {
            // Before the look for room: what is removed meanwhile is found free.
            Task? removals = RemovalsUnderWay;
            if ((count == 1 ? TakeOne() : TakeRun(count)) is { } first)
            {
                return first;
            }

            if (removals is null)
            {
                return null;
            }

            await removals.ConfigureAwait(false);
        }

        return null;
    }

    // A free range, or the one used longest ago that nobody uses now.
    private WindowRange? TakeOne()
    {
        lock (_gate)
        {
            if (_free.TryPop(out WindowRange? free))
            {
                return free;
            }

            while (true)
            {
                WindowRange? oldest = null;
                foreach (WindowRange range in _ranges)
                {
                    if (range.Owner is not null
                        && (oldest is null || _lastUse[range.Index] < _lastUse[oldest.Index])
                        && !IsInUse(range))
                    {
                        oldest = range;
                    }
                }

                if (oldest is null || TryTake(oldest))
                {
                    return oldest;
                }

                // Somebody uses it, so it is not the oldest any more.
                _lastUse[oldest.Index] = _misses;
            }
        }
    }

    private static unsafe bool IsInUse(WindowRange range) => CopyMark.IsSet(range.Address);

    // Takes a range from its file unless somebody copies from or to it. With the gate; the range belongs to a file.
    private static bool TryTake(WindowRange range)
    {
        if (range.Owner is not { } file || IsInUse(range))
        {
            return false;
        }

        // The order matters, see CopyMark. Pairs with TryUse.
        file.Clear(range.FileIndex);
        Interlocked.MemoryBarrierProcessWide();
        if (IsInUse(range))
        {
            file.Set(range.FileIndex, new MappedPlace(range.Index, range.IsWritable));
            return false;
        }

        range.Owner = null;
        return true;
    }

    // Ranges next to each other: free ones if there are enough, else those of which the last use is longest ago. Null also when
    // somebody came in between.
    private WindowRange? TakeRun(int count)
    {
        lock (_gate)
        {
            var free = new HashSet<WindowRange>(_free);
            int best = -1;
            long bestUse = long.MaxValue;
            for (int start = 0; bestUse != 0 && start + count <= _ranges.Length; start++)
            {
                long use = 0;
                int length = 0;
                while (length < count)
                {
                    WindowRange range = _ranges[start + length];
                    if (!free.Contains(range))
                    {
                        if (range.Owner is null || IsInUse(range))
                        {
                            break;
                        }

                        use = Math.Max(use, _lastUse[range.Index] + 1);
                    }

                    length++;
                }

                if (length < count)
                {
                    start += length;
                }
                else if (use < bestUse)
                {
                    best = start;
                    bestUse = use;
                }
            }

            return best < 0 ? null : TakeRun(free, best, count);
        }
    }

    private WindowRange? TakeRun(HashSet<WindowRange> free, int start, int count)
    {
        int taken = 0;
        for (; taken < count; taken++)
        {
            WindowRange range = _ranges[start + taken];
            if (!free.Remove(range) && !TryTake(range))
            {
                break;
            }
        }

        // Somebody came in between: what was taken is free now.
        for (int i = 0; taken < count && i < taken; i++)
        {
            free.Add(_ranges[start + i]);
        }

        _free.Clear();
        foreach (WindowRange range in free)
        {
            _free.Push(range);
        }

        return taken < count ? null : _ranges[start];
    }

    /// <summary>What is being removed right now, to be waited for by who finds no room; null when nothing is.</summary>
    private Task? RemovalsUnderWay
    {
        get
        {
            lock (_gate)
            {
                return _removalsDone?.Task;
            }
        }
    }

    private void Free(WindowRange range)
    {
        lock (_gate)
        {
            _free.Push(range);
        }
    }

    /// <summary>Ends mappings; the ranges, which are taken, are free once the device has said so.</summary>
    private void Remove(ReadOnlySpan<WindowRange> ranges)
    {
        while (!ranges.IsEmpty)
        {
            WindowRange[] part = ranges[..Math.Min(MostRemovals, ranges.Length)].ToArray();
            ranges = ranges[part.Length..];
            lock (_gate)
            {
                _pendingRemovals++;
                _removalsDone ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            }

            if (_isClosed || !_messages.TryRemoveMappings(part, _removed))
            {
                // What is mapped there stays until something else is.
                EndRemoval(part);
            }
        }
    }

    private void Removed(FuseCall call, FuseReply reply)
    {
        var ranges = (WindowRange[])call.State!;
        bool isDone = reply.Status == FuseReplyStatus.Answered && reply.Error == Errno.Success;
        foreach (WindowRange range in isDone ? ranges : [])
        {
            _faults.Reset(range.Index);
        }

        call.Return();
        EndRemoval(ranges);
    }

    private void EndRemoval(WindowRange[] ranges)
    {
        TaskCompletionSource? done = null;
        lock (_gate)
        {
            foreach (WindowRange range in ranges)
            {
                _free.Push(range);
            }

            if (--_pendingRemovals == 0)
            {
                (done, _removalsDone) = (_removalsDone, null);
            }
        }

        done?.SetResult();
    }

    private void EndHold()
    {
        if (Interlocked.Decrement(ref _holders) == 0)
        {
            _region.Dispose();
        }
    }
}
