using System.Runtime.CompilerServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <content>Reading and writing.</content>
internal sealed partial class ClientWindow
{
    /// <summary>The same as <see cref="TryRead"/>, for who reads a file from memory again and again.</summary>
    /// <remarks>
    /// All of it becomes part of the one method that is called: while a copy waits for memory the processor goes on to the next one,
    /// and the less there is in between the further it comes. 4 KiB of a file in the cache then take 10 to 24 ns more than the same
    /// copy from a plain mapping; with the calls, and interlocked operations instead of <see cref="CopyMark"/>, 20 to 28 ns.
    /// </remarks>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal unsafe bool TryReadInline(MappedNode file, Span<byte> destination, long offset)
    {
        int within = (int)offset & (RangeBytes - 1);
        if (destination.Length > RangeBytes - within)
        {
            return TryRead(file, destination, offset);
        }

        nint* mark = CopyMark.OfThread;
        MappedPlace place = TryUse(file, (int)(offset >> RangeShift), mark);
        if (place.IsNowhere)
        {
            return false;
        }

        new ReadOnlySpan<byte>(AddressOf(place) + within, destination.Length).CopyTo(destination);
        return EndUse(place, mark);
    }

    /// <summary>Copies bytes of a file that are all mapped.</summary>
    /// <returns>Whether it was done; otherwise the destination has any bytes.</returns>
    internal unsafe bool TryRead(MappedNode file, Span<byte> destination, long offset)
    {
        nint* mark = CopyMark.OfThread;
        while (true)
        {
            int within = (int)offset & (RangeBytes - 1);
            int count = Math.Min(destination.Length, RangeBytes - within);
            MappedPlace place = TryUse(file, (int)(offset >> RangeShift), mark);
            if (place.IsNowhere)
            {
                return false;
            }

            new ReadOnlySpan<byte>(AddressOf(place) + within, count).CopyTo(destination);
            if (!EndUse(place, mark))
            {
                return false;
            }

            if (count == destination.Length)
            {
                return true;
            }

            destination = destination[count..];
            offset += count;
        }
    }

    /// <summary>Copies bytes to a file where they are all mapped for writing.</summary>
    /// <returns>Whether it was done; otherwise some of the bytes may have been written.</returns>
    internal unsafe bool TryWrite(MappedNode file, ReadOnlySpan<byte> source, long offset)
    {
        nint* mark = CopyMark.OfThread;
        while (true)
        {
            int within = (int)offset & (RangeBytes - 1);
            int count = Math.Min(source.Length, RangeBytes - within);
            MappedPlace place = TryUse(file, (int)(offset >> RangeShift), mark);
            if (place.IsNowhere)
            {
                return false;
            }

            if (place.IsWritable)
            {
                source[..count].CopyTo(new Span<byte>(AddressOf(place) + within, count));
            }

            if (!EndUse(place, mark) || !place.IsWritable)
            {
                return false;
            }

            if (count == source.Length)
            {
                return true;
            }

            source = source[count..];
            offset += count;
        }
    }

    /// <summary>Reads bytes that the file has as far as is known, and has what is missing mapped.</summary>
    internal async ValueTask<Result<int>> ReadAsync(
        MappedNode file, MappedHandle handle, Memory<byte> destination, long offset, CancellationToken cancellationToken)
    {
        int done = 0;
        while (done < destination.Length)
        {
            long position = offset + done;
            Memory<byte> part = destination.Slice(done, PartLength(position, destination.Length - done));
            if (TryRead(file, part.Span, position)
                || (await IsMappedAsync(file, handle, position, cancellationToken).ConfigureAwait(false)
                    && TryRead(file, part.Span, position)))
            {
                done += part.Length;
                continue;
            }

            Result<int> read = await _messages.ReadAsync(
                file.Node.Id,
                new FuseReadIn { Handle = handle.Id, Offset = (ulong)position, Flags = handle.Flags },
                part,
                cancellationToken).ConfigureAwait(false);
            if (read.IsError)
            {
                return done > 0 ? done : read;
            }

            done += read.Value;
            if (read.Value < part.Length && read.Value < _messages.MaxRead)
            {
                // It ends earlier than we thought.
                _nodes.ForgetAttributes(file.Node);
                break;
            }
        }

        return done;
    }

    /// <summary>Writes bytes that do not make the file longer, and has what is missing mapped.</summary>
    internal async ValueTask<Errno> WriteAsync(
        MappedNode file, MappedHandle handle, ReadOnlyMemory<byte> source, long offset, CancellationToken cancellationToken)
    {
        int done = 0;
        while (done < source.Length)
        {
            long position = offset + done;
            ReadOnlyMemory<byte> part = source.Slice(done, PartLength(position, source.Length - done));
            if (TryWrite(file, part.Span, position)
                || (await IsMappedAsync(file, handle, position, cancellationToken).ConfigureAwait(false)
                    && TryWrite(file, part.Span, position)))
            {
                done += part.Length;
                continue;
            }

            Result<int> written = await _messages.WriteAsync(
                file.Node.Id,
                new FuseWriteIn { Handle = handle.Id, Offset = (ulong)position, Flags = handle.Flags },
                part,
                note: null,
                cancellationToken).ConfigureAwait(false);
            if (written.IsError || written.Value == 0)
            {
                return written.IsError ? written.Error : Errno.EIO;
            }

            done += written.Value;

            // It may have been shorter than we thought.
            _nodes.ForgetAttributes(file.Node);
        }

        return Errno.Success;
    }

    private static int PartLength(long offset, int length) =>
        Math.Min(length, RangeBytes - ((int)offset & (RangeBytes - 1)));

    private async ValueTask<bool> IsMappedAsync(
        MappedNode file, MappedHandle handle, long offset, CancellationToken cancellationToken) =>
        !file.IsRefused && !_isClosed
        && await EnsureAsync(file, handle.Id, (int)(offset >> RangeShift), handle.CanWrite, cancellationToken)
            .ConfigureAwait(false) == Errno.Success;

    // The address comes from the place alone: the processor fetches from there while the rest is still being looked at.
    internal unsafe byte* AddressOf(MappedPlace place) => _start + ((long)place.Index << RangeShift);

    /// <summary>Keeps a part of a file where it is until <see cref="EndUse"/>, if it is anywhere.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private unsafe MappedPlace TryUse(MappedNode file, int fileIndex, nint* mark)
    {
        MappedPlace place = file.Find(fileIndex);
        if (place.IsNowhere)
        {
            return place;
        }

        // The order matters, see CopyMark. Pairs with TryTake.
        Volatile.Write(ref *mark, (nint)AddressOf(place));
        if (file.Find(fileIndex) != place)
        {
            Volatile.Write(ref *mark, 0);
            return default;
        }

        // Written rarely, so that readers share the line.
        long now = Volatile.Read(ref _misses);
        ref long lastUse = ref _lastUse[place.Index];
        if (lastUse != now)
        {
            lastUse = now;
        }

        return place;
    }

    /// <summary>Whether everything was there. If not, the last one to see that gives the range up.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private unsafe bool EndUse(MappedPlace place, nint* mark)
    {
        bool isIntact = !_faults.IsHit(place.Index);
        Volatile.Write(ref *mark, 0);
        if (!isIntact)
        {
            GiveUp(_ranges[place.Index]);
        }

        return isIntact;
    }

    // Somebody else may have done so, and it may be something else already: then it is not flagged any more.
    private void GiveUp(WindowRange range)
    {
        lock (_gate)
        {
            if (!_faults.IsHit(range.Index) || !TryTake(range))
            {
                return;
            }
        }

        Remove(new ReadOnlySpan<WindowRange>(in range));
    }
}

/// <summary>An open file, as far as requests name it.</summary>
internal readonly record struct MappedHandle(HandleId Id, uint Flags, bool CanWrite);
