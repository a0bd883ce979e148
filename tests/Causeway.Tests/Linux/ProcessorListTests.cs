using Causeway.Linux;

namespace Causeway.Tests.Linux;

public sealed class ProcessorListTests
{
    [Theory]
    [InlineData("0", 0)]
    [InlineData("3,1,3", 1, 3)]
    [InlineData("2-4", 2, 3, 4)]
    [InlineData("0,2-5,8-14:2", 0, 2, 3, 4, 5, 8, 10, 12, 14)]
    [InlineData("0-7:3", 0, 3, 6)]
    [InlineData("8191", 8191)]
    public void Lists_are_written_as_for_taskset(string text, params int[] expected)
    {
        Assert.True(Processors.TryParse(text, out IReadOnlyList<int> processors));
        Assert.Equal(expected, processors);
    }

    [Theory]
    [InlineData("")]
    [InlineData(",")]
    [InlineData("1,")]
    [InlineData("-1")]
    [InlineData("1-")]
    [InlineData("3-1")]
    [InlineData("1-2-3")]
    [InlineData("1:2")]
    [InlineData("0-4:0")]
    [InlineData("0-4:1:1")]
    [InlineData("0x3")]
    [InlineData(" 1")]
    [InlineData("8192")]
    [InlineData("99999999999")]
    public void Anything_else_is_no_list(string text) => Assert.False(Processors.TryParse(text, out _));
}
