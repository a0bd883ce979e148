using Causeway.Driver;
using Causeway.Fuse;

namespace Causeway.Tests.Driver;

/// <summary>How names are compared and hashed: short ones as numbers, which must say all that the characters do.</summary>
public sealed class NameTextTests
{
    private readonly CachedNode _directory = new(new NodeId(1), 0);

    [Fact]
    public void A_change_of_any_character_or_of_the_length_makes_another_name()
    {
        for (int length = 1; length <= ShortText.Capacity; length++)
        {
            string text = "abcdefghijklmnopq"[..length];
            Assert.True(Made(text).Is(_directory, new NameText($"/{text}/".AsSpan(1, length))));
            for (int i = 0; i < length; i++)
            {
                // In the upper half of the character as well as in the lower.
                foreach (char bit in "\u0001\u0100")
                {
                    char[] other = text.ToCharArray();
                    other[i] ^= bit;
                    Assert.False(Made(text).Is(_directory, new NameText(other)));
                }
            }
        }
    }

    [Fact]
    public void Names_of_one_character_repeated_are_told_apart()
    {
        for (int one = 1; one < 20; one++)
        {
            for (int two = 1; two < 20; two++)
            {
                Assert.Equal(one == two, Made(new string('a', one)).Is(_directory, new NameText(new string('a', two))));
            }
        }
    }

    [Fact]
    public void A_name_belongs_to_its_directory()
    {
        var other = new CachedNode(new NodeId(2), 0);
        Assert.False(Made("a").Is(other, new NameText("a")));
        Assert.NotEqual(new NameText("a").HashIn(_directory), new NameText("a").HashIn(other));
    }

    [Theory]
    [InlineData("{0}")]
    [InlineData("file{0}")]
    [InlineData("{0}.jpg")]
    [InlineData("a name that is long {0}")]
    public void Hashes_are_spread_and_never_zero(string pattern)
    {
        const int Count = 20_000;
        int[] hashes = [.. Enumerable.Range(0, Count).Select(i => Hash(string.Format(null, pattern, i)))];
        Assert.DoesNotContain(0, hashes);

        // By chance there is one pair of the same; a bit that is not set in half of them is 14 times what chance would make it be.
        Assert.InRange(hashes.Distinct().Count(), Count - 20, Count);
        for (int bit = 0; bit < 32; bit++)
        {
            Assert.InRange(hashes.Count(hash => ((hash >> bit) & 1) != 0), (Count / 2) - 1000, (Count / 2) + 1000);
        }
    }

    private int Hash(string text) => new NameText(text).HashIn(_directory);

    private KnownName Made(string text) => new(_directory, text, null, default, default);
}
