using System.Text;
using Causeway.Passthrough;

namespace Causeway.Tests.Coherency;

/// <summary>What names are remembered to mean: only the very name, in the very directory, at the very version.</summary>
public class RememberedNamesTests
{
    private static readonly NamedObject s_meaning = new(77, IsDirectory: true);

    [Theory]
    [InlineData(5, 4, 8, 9, "name", true)]
    [InlineData(6, 4, 8, 9, "name", false)]
    [InlineData(5 + 4096, 4, 8, 9, "name", false)]
    [InlineData(5, 8, 8, 9, "name", false)]
    [InlineData(5, 4, 7, 9, "name", false)]
    [InlineData(5, 4, 8, 10, "name", false)]
    [InlineData(5, 4, 8, 9, "names", false)]
    [InlineData(5, 4, 8, 9, "nam", false)]
    [InlineData(5, 4, 8, 9, "Name", false)]
    public void A_name_is_recalled_that_is_the_same_in_every_respect(
        uint word, ulong version, ulong device, ulong directory, string name, bool isKnown)
    {
        var names = new RememberedNames();
        names.Remember(Named(5, 8, 9, "name"), 4, s_meaning);

        Assert.Equal(isKnown, names.TryRecall(Named(word, device, directory, name), version, out NamedObject meaning));
        Assert.True(!isKnown || meaning == s_meaning);
    }

    [Fact]
    public void The_last_of_those_that_share_a_place_is_kept()
    {
        var names = new RememberedNames();
        names.Remember(Named(5, 8, 9, "old"), 4, s_meaning);
        names.Remember(Named(5 + 4096, 8, 9, "new"), 8, new NamedObject(78, IsDirectory: false));

        Assert.False(names.TryRecall(Named(5, 8, 9, "old"), 4, out _));
        Assert.True(names.TryRecall(Named(5 + 4096, 8, 9, "new"), 8, out NamedObject meaning));
        Assert.Equal(78UL, meaning.Inode);
    }

    [Fact]
    public void A_name_is_kept_whole_or_not_at_all()
    {
        var names = new RememberedNames();
        string longest = new('n', 255);
        names.Remember(Named(5, 8, 9, longest), 4, s_meaning);
        Assert.False(names.TryRecall(Named(5, 8, 9, longest), 4, out _));
        for (int length = 1; length < 255; length++)
        {
            Assert.False(names.TryRecall(Named(5, 8, 9, longest[..length]), 4, out _));
        }
    }

    [Fact]
    public void Nothing_is_recalled_that_was_not_remembered_as_a_whole_whoever_is_at_the_place()
    {
        var names = new RememberedNames();
        int recalled = 0;
        Parallel.For(0, 4, thread =>
        {
            for (int i = 0; i < 100_000; i++)
            {
                uint which = (uint)((thread + i) & 3);
                VersionedName name = Named(5 + (4096 * which), which, which, $"name {which}");
                if ((i & 1) == 0)
                {
                    names.Remember(name, which, new NamedObject(which, IsDirectory: (which & 1) != 0));
                }
                else if (names.TryRecall(name, which, out NamedObject meaning))
                {
                    Assert.Equal(new NamedObject(which, IsDirectory: (which & 1) != 0), meaning);
                    Interlocked.Increment(ref recalled);
                }
            }
        });
        Assert.True(recalled > 0);
    }

    private static VersionedName Named(uint word, ulong device, ulong directory, string name) =>
        new(word, device, directory, Encoding.UTF8.GetBytes(name));
}
