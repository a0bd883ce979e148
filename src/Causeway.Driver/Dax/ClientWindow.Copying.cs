using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <content>Reading and writing.</content>
internal sealed partial class ClientWindow
{
    /// <summary>Copies bytes of a file that are all mapped.</summary>
    /// <returns>Whether it was done; otherwise the destination has any bytes.</returns>
    internal bool TryRead(MappedNode file, Span<byte> destination, long offset)
    {
        while (!destination.IsEmpty)
        {
            int within = (int)offset & (RangeBytes - 1);
            int count = Math.Min(destination.Length, RangeBytes - within);
            if (TryUse(file, offset) is not { } range)
            {
                return false;
            }

            range.Bytes(within, count).CopyTo(destination);
            if (!EndUse(range))
            {
                return false;
            }

            destination = destination[count..];
            offset += count;
        }

        return true;
    }

    /// <summary>Copies bytes to a file where they are all mapped for writing.</summary>
    /// <returns>Whether it was done; otherwise some of the bytes may have been written.</returns>
    internal bool TryWrite(MappedNode file, ReadOnlySpan<byte> source, long offset)
    {
        while (!source.IsEmpty)
        {
            int within = (int)offset & (RangeBytes - 1);
            int count = Math.Min(source.Length, RangeBytes - within);
            if (TryUse(file, offset) is not { } range)
            {
                return false;
            }

            bool isWritable = range.IsWritable;
            if (isWritable)
            {
                source[..count].CopyTo(range.Bytes(within, count));
            }

            if (!EndUse(range) || !isWritable)
            {
                return false;
            }

            source = source[count..];
            offset += count;
        }

        return true;
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

    private WindowRange? TryUse(MappedNode file, long offset)
    {
        int fileIndex = (int)(offset >> RangeShift);
        WindowRange? range = file.Find(fileIndex);
        if (range is null || !range.TryPin(file, fileIndex))
        {
            return null;
        }

        // Written rarely, so that readers share the line.
        long now = Volatile.Read(ref _misses);
        if (range.LastUse != now)
        {
            range.LastUse = now;
        }

        return range;
    }

    /// <summary>Whether everything was there. If not, the last one to see that gives the range up.</summary>
    private bool EndUse(WindowRange range)
    {
        bool isIntact = !_faults.IsHit(range.Index);
        range.Unpin();
        if (!isIntact && range.TryTakeExclusive())
        {
            Detach(range);
            Remove(new ReadOnlySpan<WindowRange>(in range));
        }

        return isIntact;
    }
}

/// <summary>An open file, as far as requests name it.</summary>
internal readonly record struct MappedHandle(HandleId Id, uint Flags, bool CanWrite);
