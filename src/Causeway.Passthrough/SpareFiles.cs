using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// Descriptors of regular files that the guest has closed, one for a node at most, which the next OPEN of the node takes: neither
/// then costs a system call. Each keeps its unit of the budget.
/// </summary>
/// <remarks>
/// A node has one place, which it shares with others; a file that is closed takes the place of whichever was there before. A place is
/// one word and changes hands by one exchange, so that a descriptor has one owner whatever requests come at the same time. Who keeps
/// or takes is inside an operation that has found the node: the node's end comes after it, and finds what was kept.
/// <code>
///   63        node       32 31 30     descriptor      0
///   |-----------------------|S|-----------------------|    S: seen by a sweep. Zero: nothing is there.
/// </code>
/// </remarks>
/// <param name="budget">What the descriptors are paid from.</param>
/// <param name="capacity">Most of them; zero for none.</param>
internal sealed class SpareFiles(DescriptorBudget budget, int capacity)
{
    /// <summary>No descriptor.</summary>
    public const int None = -1;

    private const ulong SeenBit = 1UL << 31;
    private const int NodeShift = 32;

    // What was not taken between two sweeps is closed, so after one to two of these: long enough for a compiler that opens the same
    // headers for each of its files, short for what others see of an open file (arbitrary).
    private const int SweepMilliseconds = 2000;

    private readonly ulong[] _places = new ulong[capacity];
    private long _lastSweep;
    private bool _mayHold;

    /// <summary>Whether there are places at all.</summary>
    public bool HasPlaces => _places.Length != 0;

    /// <summary>Keeps a descriptor, with its unit of the budget.</summary>
    /// <param name="node">The node's index; alive in this operation.</param>
    /// <param name="descriptor">The descriptor.</param>
    public void Keep(uint node, int descriptor)
    {
        Close(Interlocked.Exchange(ref Place(node), ((ulong)node << NodeShift) | (uint)descriptor));
        // After the exchange: see Sweep.
        if (!Volatile.Read(ref _mayHold))
        {
            Volatile.Write(ref _mayHold, true);
        }
    }

    /// <summary>Takes the descriptor of a node, with its unit of the budget.</summary>
    /// <param name="node">The node's index.</param>
    /// <returns>The descriptor, the caller's from now on; <see cref="None"/> when there is none.</returns>
    public int Take(uint node)
    {
        if (!HasPlaces)
        {
            return None;
        }

        ref ulong place = ref Place(node);
        ulong held = Volatile.Read(ref place);
        while (held >> NodeShift == node)
        {
            ulong seen = Interlocked.CompareExchange(ref place, 0, held);
            if (seen == held)
            {
                return DescriptorOf(held);
            }

            held = seen;
        }

        return None;
    }

    /// <summary>Closes the descriptor of a node that ends.</summary>
    /// <param name="node">The node's index.</param>
    public void Drop(uint node)
    {
        int descriptor = Take(node);
        if (descriptor != None)
        {
            _ = FileIO.Close(descriptor);
            budget.Return();
        }
    }

    /// <summary>Closes all.</summary>
    public void DropAll()
    {
        if (!Volatile.Read(ref _mayHold))
        {
            return;
        }

        // Before the look at the places: see Sweep.
        Interlocked.Exchange(ref _mayHold, false);
        foreach (ref ulong place in _places.AsSpan())
        {
            if (Volatile.Read(ref place) != 0)
            {
                Close(Interlocked.Exchange(ref place, 0));
            }
        }
    }

    /// <summary>Closes what nobody has taken for some time, if it is time to look.</summary>
    /// <returns>After how many milliseconds to look again; <see cref="Timeout.Infinite"/> when there is nothing left.</returns>
    public int Sweep()
    {
        if (!Volatile.Read(ref _mayHold))
        {
            return Timeout.Infinite;
        }

        long now = Environment.TickCount64;
        long last = Volatile.Read(ref _lastSweep);
        if (now - last < SweepMilliseconds || Interlocked.CompareExchange(ref _lastSweep, now, last) != last)
        {
            return SweepMilliseconds;
        }

        // Whoever keeps one behind this look at its place sees the flag down afterwards, and raises it.
        Interlocked.Exchange(ref _mayHold, false);
        bool isLeft = false;
        foreach (ref ulong place in _places.AsSpan())
        {
            ulong held = Volatile.Read(ref place);
            if (held != 0)
            {
                bool isOld = (held & SeenBit) != 0;
                bool isChanged = Interlocked.CompareExchange(ref place, isOld ? 0 : held | SeenBit, held) != held;
                isLeft |= !isOld || isChanged;
                Close(isOld && !isChanged ? held : 0);
            }
        }

        if (!isLeft)
        {
            return Timeout.Infinite;
        }

        Volatile.Write(ref _mayHold, true);
        return SweepMilliseconds;
    }

    private static int DescriptorOf(ulong held) => (int)(held & (SeenBit - 1));

    private ref ulong Place(uint node) => ref _places[node % (uint)_places.Length];

    private void Close(ulong held)
    {
        if (held != 0)
        {
            _ = FileIO.Close(DescriptorOf(held));
            budget.Return();
        }
    }
}
