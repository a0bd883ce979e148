using Causeway.Driver;
using Causeway.Fuse;

namespace Causeway.Tests.Driver;

/// <summary>The table of names by itself: what is in it is found, whatever was moved to make room or to close gaps.</summary>
public sealed class NameTableTests
{
    // Around the length up to which a name is kept in its object.
    private static readonly int[] s_lengths = [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 40];

    private readonly NameTable _table = new();
    private readonly CachedNode[] _directories = [.. Enumerable.Range(1, 3).Select(i => new CachedNode(new NodeId((ulong)i), 0))];

    [Theory]
    [InlineData(100)]
    [InlineData(5000)]
    public void Everything_that_is_in_it_is_found_and_nothing_else(int count)
    {
        var random = new Random(count);
        (CachedNode Parent, string Text)[] all = [.. Enumerable.Range(0, count).Select(i => (_directories[i % 3], Text(i / 3)))];
        var known = new Dictionary<(CachedNode, string), KnownName>();
        for (int step = 0; step < 20 * count; step++)
        {
            (CachedNode Parent, string Text) key = all[random.Next(count)];
            Assert.Equal(known.GetValueOrDefault(key), Find(key.Parent, key.Text));
            if (!known.TryGetValue(key, out KnownName? name))
            {
                known[key] = Make(key.Parent, key.Text);
                _table.Add(known[key]);
            }
            else if (random.Next(3) == 0)
            {
                known[key] = Make(key.Parent, key.Text);
                _table.Replace(name, known[key]);
            }
            else if (random.Next(step % (4 * count) < count ? 8 : 2) == 0)
            {
                _table.Remove(name);
                known.Remove(key);
            }
        }

        Assert.InRange(known.Count, 1, count - 1);
        Assert.Equal(known.Count, _table.Count);
        foreach ((CachedNode Parent, string Text) key in all)
        {
            Assert.Equal(known.GetValueOrDefault(key), Find(key.Parent, key.Text));
        }

        while (_table.Count > 0)
        {
            _table.Remove(_table.FindOldest());
        }

        Assert.All(all, key => Assert.Null(Find(key.Parent, key.Text)));
    }

    [Fact]
    public void Who_looks_while_it_changes_finds_the_right_name_or_none()
    {
        const int Count = 400;
        string[] texts = [.. Enumerable.Range(0, Count).Select(Text)];
        bool isOver = false;
        long found = 0;
        string? wrong = null;
        var reader = new Thread(() =>
        {
            for (int i = 0; !Volatile.Read(ref isOver); i = (i + 1) % Count)
            {
                if (Find(_directories[0], texts[i]) is { } name)
                {
                    found++;
                    wrong = name.Text == texts[i] && name.Parent == _directories[0] ? wrong : texts[i];
                }
            }
        });
        reader.Start();
        var random = new Random(1);
        var known = new Dictionary<string, KnownName>();
        for (int step = 0; step < 300_000; step++)
        {
            string text = texts[random.Next(Count)];
            if (known.Remove(text, out KnownName? name))
            {
                _table.Remove(name);
            }
            else
            {
                known[text] = Make(_directories[0], text);
                _table.Add(known[text]);
            }
        }

        Volatile.Write(ref isOver, true);
        reader.Join();
        Assert.Null(wrong);
        Assert.NotEqual(0, found);
    }

    private static string Text(int number) => $"{number}".PadLeft(s_lengths[number % s_lengths.Length], 'x');

    private static KnownName Make(CachedNode parent, string text) => new(parent, text, null, default, default);

    // Not the string itself, but a part of a path.
    private KnownName? Find(CachedNode parent, string text)
    {
        ReadOnlySpan<char> path = $"/{text}/";
        return _table.Find(parent, path[1..^1]);
    }
}
