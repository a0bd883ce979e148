namespace Causeway.Cli.Bench;

/// <summary>A figure of a slice.</summary>
/// <param name="Key">Its name in JSON.</param>
/// <param name="Title">Its name in tables.</param>
/// <param name="Of">Gets it.</param>
internal sealed record Measurement(string Key, string Title, Func<Slice, double> Of)
{
    /// <summary>Processor time of the daemon per operation, in nanoseconds.</summary>
    public static Measurement Processor { get; } = new("cpuNanoseconds", "CPU us", slice => slice.ProcessorNanosecondsPerOperation);

    /// <summary>Operations per second.</summary>
    public static Measurement Rate { get; } = new("operationsPerSecond", "ops/s", slice => slice.Rate);

    /// <summary>Half of the operations took no longer, in nanoseconds.</summary>
    public static Measurement Median { get; } = new("p50Nanoseconds", "p50 us", slice => slice.MedianNanoseconds);

    /// <summary>99 of 100 operations took no longer, in nanoseconds.</summary>
    public static Measurement Percentile99 { get; } = new("p99Nanoseconds", "p99 us", slice => slice.Percentile99Nanoseconds);

    /// <summary>All of them.</summary>
    public static IReadOnlyList<Measurement> All { get; } = [Processor, Rate, Median, Percentile99];

    /// <summary>Of a daemon, over its slices; null when it has none.</summary>
    public Spread? For(DaemonResult result) => result.Slices.Count == 0 ? null : Spread.Of(result.Slices.Select(Of));

    /// <summary>Of a daemon in relation to another, slice by slice; null when there is none.</summary>
    public Spread? Ratio(DaemonResult result, DaemonResult basis) =>
        Spread.OfRatios([.. result.Slices.Select(Of)], [.. basis.Slices.Select(Of)]);
}
