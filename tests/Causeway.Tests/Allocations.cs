namespace Causeway.Tests;

/// <summary>Counts what code allocates.</summary>
internal static class Allocations
{
    private const int Attempts = 5;

    /// <summary>
    /// The bytes that an action allocates on this thread, the least of some runs. A collection that another thread causes adds
    /// what was left of this thread's allocation buffer, a few kilobytes, to the runtime's count; what the code itself
    /// allocates is there each time.
    /// </summary>
    public static long Least(Action action)
    {
        long least = long.MaxValue;
        for (int attempt = 0; attempt < Attempts && least != 0; attempt++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            action();
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }

        return least;
    }
}
