using Causeway.Cli.Bench;

namespace Causeway.Tests.Bench;

/// <summary>What the benchmark makes of what it has measured.</summary>
public sealed class FigureTests
{
    [Fact]
    public void A_spread_is_the_median_and_the_middle_half()
    {
        Assert.Equal(new Spread(2, 3, 4), Spread.Of([5, 1, 4, 2, 3]));
        Assert.Equal(new Spread(1.75, 2.5, 3.25), Spread.Of([4, 3, 2, 1]));
        Assert.Equal(new Spread(7, 7, 7), Spread.Of([7]));
    }

    [Fact]
    public void Ratios_are_those_of_slices_beside_each_other()
    {
        // Noise that doubles both does not show.
        Assert.Equal(new Spread(2, 2, 2), Spread.OfRatios([2, 8, 4], [1, 4, 2]));
        // Nor does a slice in which one got nothing done.
        Assert.Equal(new Spread(3, 3, 3), Spread.OfRatios([3, 0, 1], [1, 4, 0]));
        Assert.Null(Spread.OfRatios([0], [1]));
        Assert.Equal("2.00 (1.50-2.50)", new Spread(1.5, 2, 2.5).ToRatio());
        Assert.Equal(1, Spread.GeometricMean([0.5, 2]), 9);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(63)]
    [InlineData(64)]
    [InlineData(127)]
    [InlineData(128)]
    [InlineData(1_000)]
    [InlineData(123_456_789)]
    [InlineData(long.MaxValue)]
    public void A_time_comes_back_with_two_digits(long nanoseconds)
    {
        var histogram = new LatencyHistogram();
        histogram.Add(nanoseconds);
        Assert.InRange(histogram.Percentile(0.5), nanoseconds * (1 - (1.0 / 64)), nanoseconds * (1 + (1.0 / 64)));
    }

    [Fact]
    public void Percentiles_are_found_in_any_order_of_times()
    {
        var histogram = new LatencyHistogram();
        Assert.Equal(0, histogram.Percentile(0.5));
        foreach (int time in Enumerable.Range(1, 1000).Select(number => number * 7919 % 1000))
        {
            histogram.Add(time * 1000);
        }

        Assert.Equal(1000, histogram.Count);
        Assert.InRange(histogram.Percentile(0.5), 490_000, 510_000);
        Assert.InRange(histogram.Percentile(0.99), 975_000, 1_005_000);

        var other = new LatencyHistogram();
        other.Add(5_000_000);
        histogram.Add(other);
        Assert.InRange(histogram.Percentile(1), 4_900_000, 5_100_000);
        histogram.Clear();
        Assert.Equal(0, histogram.Count);
    }

    [Fact]
    public void Pages_of_the_pattern_differ_and_are_recognized()
    {
        byte[] bytes = new byte[3 * Pattern.PageBytes];
        Pattern.Fill(bytes, 5);
        Assert.True(Pattern.IsAt(bytes, 5));
        Assert.False(Pattern.IsAt(bytes, 6));
        bytes[^1] ^= 1;
        Assert.False(Pattern.IsAt(bytes, 5));
        Assert.True(Pattern.IsAt(bytes.AsSpan(0, 100), 5));
    }

    [Fact]
    public void Progress_says_how_much_longer() => Assert.Equal(
        " 25%  0:00:30 left  getattr", BenchProgress.Line("getattr", 5, 20, TimeSpan.FromSeconds(10)));
}
