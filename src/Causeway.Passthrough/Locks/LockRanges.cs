using Causeway.Fuse;

namespace Causeway.Passthrough;

/// <summary>
/// The record locks of one owner on one file, as the host's kernel keeps them: sorted, disjoint, neighbours of one kind joined. Kept
/// a second time to count them, and to know whose a lock is.
/// </summary>
internal sealed class LockRanges
{
    private readonly List<Range> _ranges = [];

    /// <summary>How many there are.</summary>
    public int Count => _ranges.Count;

    /// <summary>Sets the kind of lock of a range of bytes.</summary>
    /// <param name="start">First byte.</param>
    /// <param name="end">Last byte.</param>
    /// <param name="type">The kind, or none.</param>
    public void Set(long start, long end, FuseLockType type)
    {
        int index = 0;
        while (index < _ranges.Count && _ranges[index].End < start)
        {
            index++;
        }

        while (index < _ranges.Count && _ranges[index].Start <= end)
        {
            Range old = _ranges[index];
            _ranges.RemoveAt(index);
            if (old.End > end)
            {
                _ranges.Insert(index, old with { Start = end + 1 });
            }

            if (old.Start < start)
            {
                _ranges.Insert(index, old with { End = start - 1 });
                index++;
            }

            if (old.End > end)
            {
                break;
            }
        }

        if (type != FuseLockType.Unlock)
        {
            _ranges.Insert(index, new Range(start, end, type));
            JoinWithNext(index);
            if (index > 0)
            {
                JoinWithNext(index - 1);
            }
        }
    }

    /// <summary>Forgets all.</summary>
    public void Clear() => _ranges.Clear();

    /// <summary>Whether there is a lock on some byte of a range that is in the way of another owner's.</summary>
    /// <param name="start">First byte.</param>
    /// <param name="end">Last byte.</param>
    /// <param name="type">The kind that the other owner wants.</param>
    public bool Conflicts(long start, long end, FuseLockType type)
    {
        foreach (Range range in _ranges)
        {
            if (range.Start <= end && range.End >= start && (range.Type | type) != FuseLockType.Read)
            {
                return true;
            }
        }

        return false;
    }

    private void JoinWithNext(int index)
    {
        if (index + 1 < _ranges.Count && _ranges[index].End + 1 == _ranges[index + 1].Start &&
            _ranges[index].Type == _ranges[index + 1].Type)
        {
            _ranges[index] = _ranges[index] with { End = _ranges[index + 1].End };
            _ranges.RemoveAt(index + 1);
        }
    }

    private readonly record struct Range(long Start, long End, FuseLockType Type);
}
