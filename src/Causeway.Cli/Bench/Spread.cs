using System.Globalization;

namespace Causeway.Cli.Bench;

/// <summary>A figure that was measured several times: its median, and the middle half around it.</summary>
/// <param name="Lower">A quarter is below it.</param>
/// <param name="Median">The middle.</param>
/// <param name="Upper">A quarter is above it.</param>
internal readonly record struct Spread(double Lower, double Median, double Upper)
{
    /// <summary>Of some values, in any order; at least one.</summary>
    public static Spread Of(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return new Spread(At(sorted, 0.25), At(sorted, 0.5), At(sorted, 0.75));
    }

    /// <summary>
    /// Of one series to another, slice by slice: both were measured within the same second, so noise hits them alike. A slice in
    /// which one of them got nothing done does not count.
    /// </summary>
    /// <returns>The spread; null when no slice counts.</returns>
    public static Spread? OfRatios(IReadOnlyList<double> values, IReadOnlyList<double> bases)
    {
        double[] ratios =
        [
            .. values.Zip(bases).Where(pair => pair.First > 0 && pair.Second > 0).Select(pair => pair.First / pair.Second),
        ];
        return ratios.Length == 0 ? null : Of(ratios);
    }

    /// <summary>The mean of ratios: as many times larger as smaller cancel out.</summary>
    public static double GeometricMean(IReadOnlyCollection<double> ratios) =>
        Math.Exp(ratios.Sum(Math.Log) / ratios.Count);

    /// <summary>A ratio as it is printed: <c>1.80 (1.75-1.90)</c>.</summary>
    public string ToRatio() => string.Create(CultureInfo.InvariantCulture, $"{Median:0.00} ({Lower:0.00}-{Upper:0.00})");

    // Between two values in proportion, so that few slices do not make steps.
    private static double At(double[] sorted, double share)
    {
        double place = share * (sorted.Length - 1);
        int below = (int)place;
        int above = Math.Min(below + 1, sorted.Length - 1);
        return sorted[below] + ((sorted[above] - sorted[below]) * (place - below));
    }
}
