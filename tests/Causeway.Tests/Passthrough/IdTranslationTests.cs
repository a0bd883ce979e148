using System.Globalization;
using System.Text;
using Causeway.Passthrough;
using CsCheck;

namespace Causeway.Tests.Passthrough;

/// <summary>The rules of --translate-uid and --translate-gid (passthrough.md 3.13).</summary>
public sealed class IdTranslationTests
{
    [Fact]
    public void Each_kind_of_rule_does_what_it_says_in_its_direction_only()
    {
        IdTranslation guest = IdTranslation.Parse(["guest:1000:3000:10"]);
        Assert.Equal((3000U, 3009U), (ToHost(guest, 1000), ToHost(guest, 1009)));
        Assert.Equal((999U, 1010U), (ToHost(guest, 999), ToHost(guest, 1010)));
        Assert.Equal((3000U, 1000U), (guest.ToGuest(3000), guest.ToGuest(1000)));

        IdTranslation host = IdTranslation.Parse(["host:3000:1000:10"]);
        Assert.Equal((1000U, 1009U, 3010U), (host.ToGuest(3000), host.ToGuest(3009), host.ToGuest(3010)));
        Assert.Equal((1000U, 3000U), (ToHost(host, 1000), ToHost(host, 3000)));

        IdTranslation map = IdTranslation.Parse(["map:1000:3000:10"]);
        Assert.Equal((3005U, 1005U), (ToHost(map, 1005), map.ToGuest(3005)));

        IdTranslation squashGuest = IdTranslation.Parse(["squash-guest:0:1001:4294967295"]);
        Assert.Equal((1001U, 1001U, 1001U), (ToHost(squashGuest, 0), ToHost(squashGuest, 77), ToHost(squashGuest, 4294967294)));
        Assert.Equal(77U, squashGuest.ToGuest(77));

        IdTranslation squashHost = IdTranslation.Parse(["squash-host:100:7:50"]);
        Assert.Equal((99U, 7U, 7U, 150U),
            (squashHost.ToGuest(99), squashHost.ToGuest(100), squashHost.ToGuest(149), squashHost.ToGuest(150)));
        Assert.Equal(100U, ToHost(squashHost, 100));

        IdTranslation forbid = IdTranslation.Parse(["forbid-guest:2000:10"]);
        Assert.False(forbid.TryToHost(2000, out _));
        Assert.False(forbid.TryToHost(2009, out _));
        Assert.Equal((1999U, 2010U, 2005U), (ToHost(forbid, 1999), ToHost(forbid, 2010), forbid.ToGuest(2005)));
    }

    [Theory]
    [InlineData("MAP:1:2:3")]
    [InlineData("map,1,2,3")]
    [InlineData("Map 1 2 3")]
    [InlineData("map/1/2/3")]
    public void Types_are_in_any_case_and_the_separator_is_any_other_character(string rule) =>
        Assert.Equal(3U, ToHost(IdTranslation.Parse([rule]), 2));

    [Theory]
    [InlineData("", "begin with one of guest, host, map, squash-guest, squash-host, forbid-guest")]
    [InlineData("swap:1:2:3", "'swap:1:2:3' does not begin")]
    [InlineData(":1:2:3", "does not begin")]
    [InlineData("map", "has 0 numbers where 3 belong: write map:GUEST:HOST:COUNT")]
    [InlineData("map:1:2", "has 2 numbers where 3 belong")]
    [InlineData("map:1:2:3:4", "has 4 numbers")]
    [InlineData("map:1:2:3:", "has 4 numbers")]
    [InlineData("forbid-guest:1:2:3", "has 3 numbers where 2 belong: write forbid-guest:GUEST:COUNT")]
    [InlineData("map:1,2,3", "has 1 numbers")]
    [InlineData("map:1:-2:3", "'-2' in 'map:1:-2:3' is not a number from 0 to 4294967295")]
    [InlineData("map:1:2:4294967296", "'4294967296' in")]
    [InlineData("map:1:2: 3", "' 3' in")]
    [InlineData("map:1:0x2:3", "'0x2' in")]
    public void What_is_no_rule_is_refused_with_what_to_write(string rule, string message)
    {
        FormatException error = Assert.Throws<FormatException>(() => IdTranslation.Parse([rule]));
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("map:4294967290:0:6", "begin 6 ids at 4294967289 or below")]
    [InlineData("map:0:4294967290:6", "goes beyond the highest id, 4294967294")]
    [InlineData("squash-guest:5:4294967295:6", "goes beyond")]
    [InlineData("forbid-guest:4294967295:2", "goes beyond")]
    [InlineData("forbid-guest:4294967295:1", "goes beyond")]
    [InlineData("map:5:5:0", "is for no id at all")]
    [InlineData("guest:10:0:5 squash-guest:14:0:1", "'guest:10:0:5' and 'squash-guest:14:0:1' are both for id 14")]
    [InlineData("map:10:0:5 map:20:4:5", "are both for id 4")]
    [InlineData("forbid-guest:3:1 guest:0:100:4294967195", "'guest:0:100:4294967195' and 'forbid-guest:3:1' are both for id 3")]
    public void Rules_that_contradict_each_other_or_leave_the_range_are_refused(string rules, string message)
    {
        ArgumentException error = Assert.Throws<ArgumentException>(() => IdTranslation.Parse(rules.Split(' ')));
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_same_ids_may_stand_in_both_directions_and_as_targets() =>
        Assert.False(IdTranslation.Parse(
            ["guest:0:100:10", "host:0:200:10", "guest:10:100:10", "squash-guest:20:100:10"]).IsIdentity);

    // A second implementation, word for word from the text: a list of rules that is searched from the beginning.
    private static uint? Slowly(IReadOnlyList<string> rules, bool isToHost, uint id)
    {
        foreach (string rule in rules)
        {
            string[] fields = rule.Split(':');
            ulong[] n = [.. fields[1..].Select(field => ulong.Parse(field, CultureInfo.InvariantCulture))];
            ulong count = n[^1];
            bool IsWithin(ulong first) => id >= first && id < first + count;
            switch (fields[0], isToHost)
            {
                case ("guest" or "map", true) when IsWithin(n[0]):
                case ("host", false) when IsWithin(n[0]):
                    return (uint)(n[1] + (id - n[0]));
                case ("map", false) when IsWithin(n[1]):
                    return (uint)(n[0] + (id - n[1]));
                case ("squash-guest", true) when IsWithin(n[0]):
                case ("squash-host", false) when IsWithin(n[0]):
                    return (uint)n[1];
                case ("forbid-guest", true) when IsWithin(n[0]):
                    return null;
                default:
                    continue;
            }
        }

        return id;
    }

    // Whether the rules may stand together: no number above 2^32-2 and no id named twice in a direction.
    private static bool MayStand(IReadOnlyList<string> rules)
    {
        var toHost = new List<(ulong First, ulong End)>();
        var toGuest = new List<(ulong First, ulong End)>();
        foreach (string rule in rules)
        {
            string[] fields = rule.Split(':');
            ulong[] n = [.. fields[1..].Select(field => ulong.Parse(field, CultureInfo.InvariantCulture))];
            ulong count = n[^1];
            bool isSquash = fields[0].StartsWith("squash", StringComparison.Ordinal);
            ulong targetEnd = fields[0] == "forbid-guest" ? 0 : n[1] + (isSquash ? 1 : count);
            if (count == 0 || n[0] + count > uint.MaxValue || targetEnd > uint.MaxValue)
            {
                return false;
            }

            (fields[0] is "host" or "squash-host" ? toGuest : toHost).Add((n[0], n[0] + count));
            if (fields[0] == "map")
            {
                toGuest.Add((n[1], n[1] + count));
            }
        }

        bool IsDisjoint(List<(ulong First, ulong End)> ranges) => ranges.Select((range, i) => (range, i)).All(
            one => ranges.Skip(one.i + 1).All(other => one.range.End <= other.First || other.End <= one.range.First));
        return IsDisjoint(toHost) && IsDisjoint(toGuest);
    }

    private static readonly Gen<uint> Number = Gen.Frequency(
        (6, Gen.UInt[0, 60]), (2, Gen.UInt[uint.MaxValue - 60, uint.MaxValue]), (1, Gen.UInt));

    private static readonly Gen<uint> Count = Gen.Frequency((8, Gen.UInt[1, 8]), (1, Gen.UInt[0, 70]), (1, Gen.UInt));

    private static readonly Gen<string> Rule = Gen.Select(
        Gen.OneOf("guest", "host", "map", "squash-guest", "squash-host", "forbid-guest"), Number, Number, Count,
        (type, first, second, count) => type == "forbid-guest" ? $"{type}:{first}:{count}" : $"{type}:{first}:{second}:{count}");

    [Fact]
    public void Any_rules_are_refused_or_do_what_the_text_says() => Gen.Select(Rule.List[0, 6], Number.List[40]).Sample(
        (rules, ids) =>
        {
            if (!MayStand(rules))
            {
                Assert.Throws<ArgumentException>(() => IdTranslation.Parse(rules));
                return;
            }

            IdTranslation translation = IdTranslation.Parse(rules);
            Assert.Equal(rules.Count == 0, translation.IsIdentity);
            foreach (uint id in ids)
            {
                Assert.Equal(
                    Slowly(rules, isToHost: true, id), translation.TryToHost(id, out uint host) ? host : null);
                Assert.Equal(Slowly(rules, isToHost: false, id), translation.ToGuest(id));
            }
        },
        iter: 20_000,
        threads: 1);

    [Fact]
    public void No_text_makes_the_parser_fail_in_another_way_than_it_says() => Gen
        .Select(Gen.OneOf("", "map", "guest:", "squash-guest:1:2:3", "forbid-guest:", "MAP::"), Gen.String[Gen.Char, 0, 12])
        .Sample(
            (start, rest) =>
            {
                try
                {
                    _ = IdTranslation.Parse([start + rest]);
                }
                catch (Exception exception) when (exception is FormatException or ArgumentException)
                {
                    Assert.Contains(new StringBuilder(start).Append(rest).ToString(), exception.Message, StringComparison.Ordinal);
                }
            },
            iter: 5_000,
            threads: 1);

    private static uint ToHost(IdTranslation translation, uint id)
    {
        Assert.True(translation.TryToHost(id, out uint host));
        return host;
    }
}
