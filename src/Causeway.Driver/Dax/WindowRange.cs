using System.Runtime.CompilerServices;

namespace Causeway.Driver;

/// <summary>One range of the window, 2 MiB: free, held by somebody, or a part of a file.</summary>
internal sealed unsafe class WindowRange(int index, byte* address)
{
    /// <summary>Its place in the window.</summary>
    internal int Index => index;

    internal byte* Address => address;

    /// <summary>
    /// The file of which it is a part, to be found there; null while it is free or somebody's own. This and the following change under
    /// the gate of <see cref="ClientWindow"/>.
    /// </summary>
    internal MappedNode? Owner { get; set; }

    internal int FileIndex { get; set; }

    internal bool IsWritable { get; set; }
}

/// <summary>Where a part of a file is in the window, in one word: zero when it is nowhere.</summary>
internal readonly record struct MappedPlace(int Value)
{
    internal MappedPlace(int index, bool isWritable)
        : this(((index + 1) << 1) | (isWritable ? 1 : 0))
    {
    }

    internal bool IsNowhere => Value == 0;

    internal int Index => (Value >> 1) - 1;

    internal bool IsWritable => (Value & 1) != 0;
}

/// <summary>What a client knows of a file that it uses as memory: where in the window which part is.</summary>
internal sealed class MappedNode(CachedNode node)
{
    // Files are mapped up to here: the table then has 4 MiB (arbitrary).
    private const int MaxRanges = 1 << 20;

    private int[] _places = [];
    private volatile bool _isRefused;

    internal CachedNode Node => node;

    /// <summary>The device does not map this file: from now on by requests.</summary>
    internal bool IsRefused => _isRefused;

    internal static bool Covers(long end) => end <= (long)MaxRanges << ClientWindow.RangeShift;

    internal void Refuse() => _isRefused = true;

    /// <summary>Where a part is. By any thread; see <see cref="CopyMark"/> for how long that holds.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)] // See ClientWindow.TryReadInline.
    internal MappedPlace Find(int fileIndex)
    {
        int[] places = Volatile.Read(ref _places);
        return (uint)fileIndex < (uint)places.Length ? new MappedPlace(Volatile.Read(ref places[fileIndex])) : default;
    }

    /// <summary>Notes where a part is. Under the gate of the window, as <see cref="Clear"/>; who reads waits for nobody.</summary>
    internal void Set(int fileIndex, MappedPlace place)
    {
        int[] places = _places;
        if (fileIndex >= places.Length)
        {
            Array.Resize(ref places, Math.Min(MaxRanges, Math.Max(fileIndex + 1, 2 * places.Length)));
            places[fileIndex] = place.Value;
            Volatile.Write(ref _places, places);
            return;
        }

        Volatile.Write(ref places[fileIndex], place.Value);
    }

    /// <summary>The part is not there any more.</summary>
    internal void Clear(int fileIndex) => Volatile.Write(ref _places[fileIndex], 0);
}
