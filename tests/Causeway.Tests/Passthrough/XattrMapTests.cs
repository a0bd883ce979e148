using System.Text;
using Causeway.Passthrough;
using CsCheck;

namespace Causeway.Tests.Passthrough;

/// <summary>The grammar of --xattrmap and what its rules mean (passthrough.md 3.12; cases X14, X15).</summary>
public sealed class XattrMapTests
{
    [Theory]
    [InlineData(":map::user.virtiofs.:", "user.a", "user.virtiofs.user.a")]
    [InlineData(":map::user.virtiofs.:", "trusted.t", "user.virtiofs.trusted.t")]
    [InlineData(":map::user.virtiofs.:", "system.foo", "user.virtiofs.system.foo")]
    [InlineData(":map::user.virtiofs.:", "user.virtiofs.q", "user.virtiofs.user.virtiofs.q")]
    [InlineData(":map:trusted.:user.virtiofs.:", "trusted.t", "user.virtiofs.trusted.t")]
    [InlineData(":map:trusted.:user.virtiofs.:", "user.a", "user.a")]
    [InlineData(":map:trusted.:user.virtiofs.:", "user.virtiofs.trusted.q", "denied")]
    [InlineData("/bad/all/security./security./ /ok/all///", "security.selinux", "denied")]
    [InlineData("/bad/all/security./security./ /ok/all///", "user.a", "user.a")]
    [InlineData(":unsupported:all:user.:user.: :ok:all:::", "user.a", "unsupported")]
    [InlineData(":map:security.selinux:trusted.virtiofs.:", "security.selinux", "trusted.virtiofs.security.selinux")]
    [InlineData(":map:security.selinux:trusted.virtiofs.:", "security.capability", "security.capability")]
    [InlineData(":prefix:client:a:x.::bad:client:a::\n\t:ok:all:::\n", "ab", "x.ab")]
    [InlineData(":ok:server::::bad:client:::", "user.a", "denied")]
    public void Names_of_the_guest_become_those_of_the_host(string rules, string name, string expected) =>
        Assert.Equal(expected, ToHost(XattrMap.Parse(rules), name));

    [Theory]
    [InlineData(":map::user.virtiofs.:", "user.virtiofs.user.a", "user.a")]
    [InlineData(":map::user.virtiofs.:", "user.a", null)]
    [InlineData(":map::user.virtiofs.:", "user.virtiofs.", null)]
    [InlineData(":map:trusted.:user.virtiofs.:", "user.virtiofs.trusted.q", "trusted.q")]
    [InlineData(":map:trusted.:user.virtiofs.:", "trusted.q", null)]
    [InlineData(":map:trusted.:user.virtiofs.:", "user.a", "user.a")]
    [InlineData("/bad/all/security./security./ /ok/all///", "security.selinux", null)]
    [InlineData("/bad/all/security./security./ /ok/all///", "user.a", "user.a")]
    [InlineData(":unsupported:all:user.:user.: :ok:all:::", "user.a", null)]
    [InlineData(":ok:client::: :prefix:server::u.: :bad:server:::", "u.x", "x")]
    public void Names_of_the_host_become_those_of_the_guest_or_are_hidden(string rules, string name, string? expected) =>
        Assert.Equal(expected, ToGuest(XattrMap.Parse(rules), name));

    [Theory]
    [InlineData("", "there is no rule: a rule is ':TYPE:SCOPE:KEY:PREPEND:'")]
    [InlineData("  \n", "there is no rule")]
    [InlineData(":", "rule 1 ends within its type: ':' is missing")]
    [InlineData(":ok", "rule 1 ends within its type")]
    [InlineData(":okay:all:::", "rule 1 has the type 'okay', which is none of prefix, ok, bad, unsupported and map")]
    [InlineData(":OK:all:::", "rule 1 has the type 'OK'")]
    [InlineData("::all:::", "rule 1 has the type ''")]
    [InlineData(":ok:both:::", "rule 1 has the scope 'both', which is none of client, server and all")]
    [InlineData(":ok:all::", "rule 1 ends within its prepend")]
    [InlineData(":ok:all:", "rule 1 ends within its key")]
    [InlineData(":ok:all:::/bad/all/x/y", "rule 2 ends within its prepend: '/' is missing")]
    [InlineData(":map:x", "rule 1 ends within its key")]
    [InlineData(":map:x:y", "rule 1 ends within its prepend")]
    [InlineData(":map::u.::map::u.:", "something follows rule 1, which is a 'map'")]
    [InlineData(":ok:all:a::/map//u./x", "something follows rule 2, which is a 'map'")]
    [InlineData(":ok:all:a:b:", "do not decide about every name that a guest may use")]
    [InlineData(":ok:client:::", "do not decide about every name that the host may list")]
    [InlineData(":ok:server:::", "do not decide about every name that a guest may use")]
    [InlineData(":ok:all::b:", "do not decide about every name that the host may list")]
    public void What_is_no_map_is_refused_with_what_to_write(string rules, string message)
    {
        FormatException error = Assert.Throws<FormatException>(() => XattrMap.Parse(rules));
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Names_are_encoded_as_UTF_8_and_any_character_separates()
    {
        XattrMap map = XattrMap.Parse("\u00a7prefix\u00a7all\u00a7user.\u00e9\u00a7user.\u20ac.\u00a7 \U0001f600ok\U0001f600all\U0001f600\U0001f600\U0001f600");
        Span<byte> room = stackalloc byte[XattrMap.NameRoom];
        Assert.Equal(XattrVerdict.Passed, map.ToHost("user.\u00e9x\0"u8, room, out ReadOnlySpan<byte> name));
        Assert.Equal("user.\u20ac.user.\u00e9x\0", Encoding.UTF8.GetString(name));
    }

    [Fact]
    public void A_host_name_of_255_bytes_is_the_longest()
    {
        XattrMap map = XattrMap.Parse(":map::user.virtiofs.:");
        string longest = "user." + new string('x', 255 - 5 - 14);
        Assert.Equal("user.virtiofs." + longest, ToHost(map, longest));
        Assert.Equal("", ToHost(map, longest + "x"));
    }

    [Theory]
    [InlineData(":map::user.virtiofs.:", "user.virtiofs.security.capability")]
    [InlineData(":map:security.:trusted.x.:", "trusted.x.security.capability")]
    [InlineData(":map:security.selinux:trusted.x.:", null)]
    [InlineData(":bad:all:security.:security.: :ok:all:::", null)]
    public void The_map_knows_where_capabilities_of_files_are_kept(string rules, string? expected) =>
        Assert.Equal(
            expected is null ? null : expected + '\0',
            XattrMap.Parse(rules).RemappedCapability is { } name ? Encoding.ASCII.GetString(name) : null);

    // A second implementation, from the text: rules as text, "map" spelled out by its table.
    private static IEnumerable<(string Type, string Scope, string Key, string Prepend)> Expand(
        IEnumerable<(string Type, string Scope, string Key, string Prepend)> rules) => rules.SelectMany(
            rule => rule.Type != "map" ? [rule]
                : rule.Key.Length == 0 ? [("prefix", "all", "", rule.Prepend), ("bad", "all", "", "")]
                : (IEnumerable<(string, string, string, string)>)
                [
                    ("prefix", "all", rule.Key, rule.Prepend), ("bad", "all", rule.Prepend, rule.Key), ("ok", "all", "", ""),
                ]);

    private static readonly Gen<string> Part = Gen.OneOf("", "a", "ab", "b", "a.", "user.", "user.a");

    private static readonly Gen<(string Type, string Scope, string Key, string Prepend)> Rule = Gen.Select(
        Gen.OneOf("prefix", "ok", "bad", "unsupported"), Gen.OneOf("client", "server", "all"), Part, Part);

    private static readonly Gen<string> Name = Gen.Select(Part, Part, Part, (a, b, c) => a + b + c)
        .Where(name => name.Length > 0);

    [Fact]
    public void Any_map_is_refused_or_does_what_the_text_says() => Gen
        .Select(
            Rule.List[0, 5],
            Gen.Select(Part, Part).Nullable(),
            Gen.OneOf(":", "/", "|"),
            Gen.OneOf("", " ", "\n  "),
            Name.List[30])
        .Sample(
            (rules, map, separator, space, names) =>
            {
                List<(string Type, string Scope, string Key, string Prepend)> all =
                    [.. rules, .. map is { } pair ? [("map", "", pair.Item1, pair.Item2)] : Array.Empty<(string, string, string, string)>()];
                string text = string.Concat(all.Select(rule => space + string.Concat(
                    (rule.Type == "map" ? ["", "map", rule.Key, rule.Prepend]
                        : new[] { "", rule.Type, rule.Scope, rule.Key, rule.Prepend })
                    .Select(field => field + separator))));
                (string Type, string Scope, string Key, string Prepend)[] expanded = [.. Expand(all)];
                if (!expanded.Any(rule => rule.Scope != "server" && rule.Key.Length == 0) ||
                    !expanded.Any(rule => rule.Scope != "client" && rule.Prepend.Length == 0))
                {
                    Assert.Throws<FormatException>(() => XattrMap.Parse(text));
                    return;
                }

                XattrMap parsed = XattrMap.Parse(text);
                foreach (string name in names)
                {
                    (string type, _, _, string prepend) = expanded.First(
                        rule => rule.Scope != "server" && name.StartsWith(rule.Key, StringComparison.Ordinal));
                    Assert.Equal(
                        type switch { "prefix" => prepend + name, "ok" => name, "bad" => "denied", _ => type },
                        ToHost(parsed, name));
                    (type, _, _, prepend) = expanded.First(
                        rule => rule.Scope != "client" && name.StartsWith(rule.Prepend, StringComparison.Ordinal));
                    string told = type switch { "prefix" => name[prepend.Length..], "ok" => name, _ => "" };
                    Assert.Equal(told.Length == 0 ? null : told, ToGuest(parsed, name));
                }
            },
            iter: 10_000,
            threads: 1);

    [Fact]
    public void No_text_makes_the_parser_fail_in_another_way_than_it_says() => Gen
        .Select(
            Gen.OneOf("", ":", ":map:", ":ok:all:", "/prefix/", ":bad:all::::"), Gen.String[Gen.Char, 0, 12])
        .Sample(
            (start, rest) =>
            {
                try
                {
                    _ = XattrMap.Parse(start + rest);
                }
                catch (FormatException)
                {
                }
            },
            iter: 5_000,
            threads: 1);

    private static string ToHost(XattrMap map, string name)
    {
        Span<byte> room = stackalloc byte[XattrMap.NameRoom];
        return map.ToHost(Guest.Terminated(name), room, out ReadOnlySpan<byte> hostName) switch
        {
            XattrVerdict.Denied => "denied",
            XattrVerdict.Unsupported => "unsupported",
            _ => Encoding.Latin1.GetString(hostName).TrimEnd('\0'),
        };
    }

    private static string? ToGuest(XattrMap map, string name) =>
        map.TryToGuest(Encoding.Latin1.GetBytes(name), out ReadOnlySpan<byte> told) ? Encoding.Latin1.GetString(told) : null;
}
