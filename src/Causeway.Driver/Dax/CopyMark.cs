using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Driver;

/// <summary>
/// Says from or to which range of a window a thread copies right now, so that the range stays what it is. Costs the one who copies two
/// stores and no interlocked operation; who wants to know pays for both.
/// </summary>
/// <remarks>
/// <para>Each thread has a word of its own. One side writes there what it is going to use, and looks then whether that is still in
/// the table; the other takes it out of the table, and looks then whether it is in anybody's word. One of the two sees the other, if
/// neither's load is done before its store. For the one who copies nothing would see to that; so the other one has
/// <see cref="Interlocked.MemoryBarrierProcessWide"/> put a barrier into all threads, wherever they are.</para>
/// <code>
///   who copies                              who takes the range (rarely)
///   mark = range                            table[part] = nothing
///   table[part] == range ?                  barrier in all threads
///     copy                                  any mark == range ?
///   mark = nothing                            then table[part] = range again, and nothing has happened
/// </code>
/// <para>An interlocked operation waits until what was stored before has reached the cache: after a copy of 4 KiB the copy's own
/// stores. The processor would otherwise begin with the next copy meanwhile.</para>
/// </remarks>
internal static unsafe class CopyMark
{
    // A line of the cache for each, so that threads do not take it from each other; two, because they are fetched in pairs.
    private const nuint Stride = 128;

    private static readonly Lock s_gate = new();
    private static readonly Stack<nint> s_unused = new();

    // All that there have ever been: as many as threads at the same time. Replaced as a whole.
    private static nint[] s_all = [];

    [ThreadStatic]
    private static nint* t_mark;

    [ThreadStatic]
    private static Holder? t_holder;

    /// <summary>The word of this thread; zero except while it copies.</summary>
    internal static nint* OfThread
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => t_mark != null ? t_mark : Create();
    }

    /// <summary>
    /// Whether some thread uses a range, or is about to find that it is not in the table any more. Says no for certain only after a
    /// barrier.
    /// </summary>
    internal static bool IsSet(byte* range)
    {
        foreach (nint mark in Volatile.Read(ref s_all))
        {
            if (Volatile.Read(ref *(nint*)mark) == (nint)range)
            {
                return true;
            }
        }

        return false;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static nint* Create()
    {
        nint mark;
        lock (s_gate)
        {
            if (!s_unused.TryPop(out mark))
            {
                mark = (nint)NativeMemory.AlignedAlloc(Stride, Stride);
                *(nint*)mark = 0;

                // Before it is used: who looks after the barrier finds it in the table of all.
                Volatile.Write(ref s_all, [.. s_all, mark]);
            }
        }

        t_holder = new Holder(mark);
        t_mark = (nint*)mark;
        return t_mark;
    }

    /// <summary>What only the thread refers to: collected once it has ended.</summary>
    private sealed class Holder(nint mark)
    {
        ~Holder()
        {
            lock (s_gate)
            {
                s_unused.Push(mark);
            }
        }
    }
}
