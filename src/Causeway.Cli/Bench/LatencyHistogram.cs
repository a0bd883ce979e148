using System.Numerics;

namespace Causeway.Cli.Bench;

/// <summary>
/// Counts times in buckets that are never wider than a 64th of what they hold, so that percentiles are good to two digits
/// and adding one costs a few instructions.
/// </summary>
internal sealed class LatencyHistogram
{
    private const int DigitBits = 6;
    private const int Steps = 1 << DigitBits;

    private readonly long[] _counts = new long[(64 - DigitBits + 1) * Steps];

    /// <summary>How many times were added.</summary>
    public long Count { get; private set; }

    /// <summary>Adds a time in nanoseconds.</summary>
    public void Add(long nanoseconds)
    {
        _counts[Bucket((ulong)Math.Max(0, nanoseconds))]++;
        Count++;
    }

    /// <summary>Adds all of another histogram.</summary>
    public void Add(LatencyHistogram other)
    {
        for (int i = 0; i < _counts.Length; i++)
        {
            _counts[i] += other._counts[i];
        }

        Count += other.Count;
    }

    /// <summary>Forgets everything.</summary>
    public void Clear()
    {
        Array.Clear(_counts);
        Count = 0;
    }

    /// <summary>The time that a share of all times does not exceed, in nanoseconds; 0 when there are none.</summary>
    /// <param name="share">From 0 to 1.</param>
    public double Percentile(double share)
    {
        long rank = Math.Max(1, (long)Math.Ceiling(share * Count));
        long seen = 0;
        for (int i = 0; i < _counts.Length && Count > 0; i++)
        {
            seen += _counts[i];
            if (seen >= rank)
            {
                return Middle(i);
            }
        }

        return 0;
    }

    // The highest bits of the time, and how far they were shifted.
    private static int Bucket(ulong value)
    {
        int shift = Math.Max(0, BitOperations.Log2(value | 1) - DigitBits);
        return (shift * Steps) + (int)(value >> shift);
    }

    private static double Middle(int bucket)
    {
        // From the second group on, the upper half of a group is used only.
        int shift = Math.Max(0, (bucket / Steps) - 1);
        double low = (double)(bucket - (shift * Steps)) * Math.Pow(2, shift);
        return low + ((Math.Pow(2, shift) - 1) / 2);
    }
}
