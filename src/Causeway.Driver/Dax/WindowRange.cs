namespace Causeway.Driver;

/// <summary>
/// One range of the window, 2 MiB: free, or a part of a file. Who copies from or to it holds a pin; who changes what it is holds it
/// exclusively, which is possible while there are no pins. Both cost one interlocked operation and wait for nobody.
/// </summary>
internal sealed unsafe class WindowRange(int index, byte* address)
{
    // Far enough below zero that pins which come and go again leave it negative.
    private const int Exclusive = int.MinValue / 2;

    private int _state = Exclusive;

    /// <summary>Its place in the window.</summary>
    internal int Index => index;

    internal byte* Address => address;

    internal Span<byte> Bytes(int start, int count) => new(address + start, count);

    /// <summary>The file, and which 2 MiB of it. Changed by who holds the range exclusively.</summary>
    internal MappedNode? Owner { get; set; }

    internal int FileIndex { get; set; }

    internal bool IsWritable { get; set; }

    /// <summary>When it was used last, in misses: the clock of <see cref="ClientWindow"/>.</summary>
    internal long LastUse { get; set; }

    internal bool IsExclusive => Volatile.Read(ref _state) < 0;

    internal bool IsUnpinned => Volatile.Read(ref _state) == 0;

    /// <summary>Keeps the range what it is, if it is what the caller takes it for.</summary>
    internal bool TryPin(MappedNode owner, int fileIndex)
    {
        if (Interlocked.Increment(ref _state) > 0 && Owner == owner && FileIndex == fileIndex)
        {
            return true;
        }

        Unpin();
        return false;
    }

    internal void Unpin() => Interlocked.Decrement(ref _state);

    internal bool TryTakeExclusive() => Interlocked.CompareExchange(ref _state, Exclusive, 0) == 0;

    internal void EndExclusive() => Interlocked.Add(ref _state, -Exclusive);
}

/// <summary>What a client knows of a file that it uses as memory: where in the window which part is.</summary>
internal sealed class MappedNode(CachedNode node)
{
    // Files are mapped up to here: the table then has 8 MiB (arbitrary).
    private const int MaxRanges = 1 << 20;

    private WindowRange?[] _ranges = [];
    private volatile bool _isRefused;

    internal CachedNode Node => node;

    /// <summary>The device does not map this file: from now on by requests.</summary>
    internal bool IsRefused => _isRefused;

    internal static bool Covers(long end) => end <= (long)MaxRanges << ClientWindow.RangeShift;

    internal void Refuse() => _isRefused = true;

    internal WindowRange? Find(int fileIndex)
    {
        WindowRange?[] ranges = Volatile.Read(ref _ranges);
        return fileIndex < ranges.Length ? Volatile.Read(ref ranges[fileIndex]) : null;
    }

    /// <summary>Notes where a part is. One thread at a time; readers do not wait.</summary>
    internal void Set(int fileIndex, WindowRange range)
    {
        WindowRange?[] ranges = _ranges;
        if (fileIndex >= ranges.Length)
        {
            Array.Resize(ref ranges, Math.Min(MaxRanges, Math.Max(fileIndex + 1, 2 * ranges.Length)));
            ranges[fileIndex] = range;
            Volatile.Write(ref _ranges, ranges);
            return;
        }

        Volatile.Write(ref ranges[fileIndex], range);
    }

    /// <summary>
    /// The part is not there any more. By any thread: a table that is replaced meanwhile may keep the entry, which is then no longer
    /// what it says, and <see cref="WindowRange.TryPin"/> finds that.
    /// </summary>
    internal void Clear(int fileIndex, WindowRange range)
    {
        WindowRange?[] ranges = Volatile.Read(ref _ranges);
        Interlocked.CompareExchange(ref ranges[fileIndex], null, range);
    }
}
