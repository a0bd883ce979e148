using System.Diagnostics;
using System.Text;

namespace Causeway.Passthrough;

/// <summary>What becomes of an extended attribute that a guest names.</summary>
internal enum XattrVerdict
{
    /// <summary>It has a name on the host.</summary>
    Passed,

    /// <summary>It is refused: EPERM to set or remove it, ENODATA to get it.</summary>
    Denied,

    /// <summary>It is answered as on a file system that has no such attributes: EOPNOTSUPP.</summary>
    Unsupported,
}

/// <summary>
/// Rules that give extended attributes of the guest other names on the host, or refuse and hide them
/// (<c>--xattrmap</c>). Names are bytes.
/// </summary>
/// <remarks>
/// <code>
/// :prefix:SCOPE:KEY:PREPEND:       names of the guest that begin with KEY get PREPEND in front on the host
/// :ok:SCOPE:KEY:PREPEND:           names are the same on both sides
/// :bad:SCOPE:KEY:PREPEND:          names are refused and hidden
/// :unsupported:SCOPE:KEY:PREPEND:  the same with another error
/// :map:KEY:PREPEND:                short for the rules that are needed to map KEY; only at the end
/// </code>
/// SCOPE is client (names that come from the guest, compared with KEY), server (names that come from the host's list,
/// compared with PREPEND) or all. The first rule that fits decides. The separator is each rule's first character.
/// </remarks>
public sealed class XattrMap
{
    private const string Forms =
        "a rule is ':TYPE:SCOPE:KEY:PREPEND:' with type prefix, ok, bad or unsupported, or ':map:KEY:PREPEND:'";

    private static readonly byte[] s_capability = [.. "security.capability\0"u8];

    private readonly Rule[] _rules;

    private XattrMap(Rule[] rules)
    {
        _rules = rules;
        Span<byte> room = stackalloc byte[NameRoom];
        if (ToHost(s_capability, room, out ReadOnlySpan<byte> name) == XattrVerdict.Passed &&
            !name.SequenceEqual(s_capability))
        {
            RemappedCapability = name.ToArray();
        }

        KeepsAccessControlLists = Keeps("system.posix_acl_access\0"u8) && Keeps("system.posix_acl_default\0"u8);
    }

    private enum Action
    {
        Prefix,
        Ok,
        Bad,
        Unsupported,
    }

    [Flags]
    private enum Scope
    {
        Client = 1,
        Server = 2,
        All = Client | Server,
    }

    /// <summary>Room for the longest name of a host attribute that can be asked for, with its NUL.</summary>
    internal const int NameRoom = 256;

    /// <summary>
    /// Whether POSIX access control lists have their own names on the host, where its kernel understands them.
    /// </summary>
    public bool KeepsAccessControlLists { get; }

    /// <summary>
    /// What security.capability is called on the host, with a NUL; null when it has its own name there or is refused. Under
    /// another name the host's kernel does not take it away when a file changes, so the file system has to.
    /// </summary>
    internal byte[]? RemappedCapability { get; }

    /// <summary>Reads rules.</summary>
    /// <param name="rules">The rules, one after the other, with white space between them or not.</param>
    /// <exception cref="FormatException">They do not make a map; the message names the rule and says what to write.</exception>
    public static XattrMap Parse(string rules)
    {
        ArgumentNullException.ThrowIfNull(rules);
        var parsed = new List<Rule>();
        int count = 0;
        int position = SkipSpace(rules, 0);
        while (position < rules.Length)
        {
            var reader = new FieldReader(rules, position, ++count);
            string type = reader.Read("type");
            if (type == "map")
            {
                AddMap(parsed, reader.Read("key"), reader.Read("prepend"));
            }
            else
            {
                parsed.Add(ReadRule(ref reader, type));
            }

            position = SkipSpace(rules, reader.Position);
            if (type == "map" && position < rules.Length)
            {
                throw new FormatException(
                    $"something follows rule {count}, which is a 'map' and decides about every name: put it last");
            }
        }

        ThrowIfNotTotal(parsed, count);
        return new XattrMap([.. parsed]);
    }

    /// <summary>The host's name of an attribute that the guest names.</summary>
    /// <param name="name">The guest's name, with its NUL.</param>
    /// <param name="room">Where the host's name is put together.</param>
    /// <param name="hostName">The host's name, with its NUL; empty when it is too long or there is none.</param>
    internal XattrVerdict ToHost(ReadOnlySpan<byte> name, Span<byte> room, out ReadOnlySpan<byte> hostName)
    {
        hostName = name;
        foreach (Rule rule in _rules)
        {
            if ((rule.Scope & Scope.Client) == 0 || !name[..^1].StartsWith(rule.Key))
            {
                continue;
            }

            switch (rule.Action)
            {
                case Action.Ok:
                    return XattrVerdict.Passed;
                case Action.Prefix:
                    if (rule.Prepend.Length + name.Length > room.Length)
                    {
                        hostName = [];
                        return XattrVerdict.Passed;
                    }

                    rule.Prepend.CopyTo(room);
                    name.CopyTo(room[rule.Prepend.Length..]);
                    hostName = room[..(rule.Prepend.Length + name.Length)];
                    return XattrVerdict.Passed;
                default:
                    hostName = [];
                    return rule.Action == Action.Bad ? XattrVerdict.Denied : XattrVerdict.Unsupported;
            }
        }

        throw new UnreachableException("a map has a rule for every name");
    }

    /// <summary>What the guest is told of a name in the host's list.</summary>
    /// <param name="hostName">The host's name, without NUL.</param>
    /// <param name="name">The guest's name, a part of the host's.</param>
    /// <returns>False when it is hidden.</returns>
    internal bool TryToGuest(ReadOnlySpan<byte> hostName, out ReadOnlySpan<byte> name)
    {
        foreach (Rule rule in _rules)
        {
            if ((rule.Scope & Scope.Server) != 0 && hostName.StartsWith(rule.Prepend))
            {
                name = rule.Action == Action.Prefix ? hostName[rule.Prepend.Length..] : hostName;
                // A name of no bytes would make a Linux guest fail the whole list.
                return rule.Action is Action.Prefix or Action.Ok && !name.IsEmpty;
            }
        }

        throw new UnreachableException("a map has a rule for every name");
    }

    private bool Keeps(ReadOnlySpan<byte> name)
    {
        Span<byte> room = stackalloc byte[NameRoom];
        return ToHost(name, room, out ReadOnlySpan<byte> hostName) == XattrVerdict.Passed && hostName.SequenceEqual(name) &&
            TryToGuest(name[..^1], out ReadOnlySpan<byte> told) && told.SequenceEqual(name[..^1]);
    }

    private static Rule ReadRule(ref FieldReader reader, string type)
    {
        Action action = type switch
        {
            "prefix" => Action.Prefix,
            "ok" => Action.Ok,
            "bad" => Action.Bad,
            "unsupported" => Action.Unsupported,
            _ => throw new FormatException(
                $"rule {reader.Number} has the type '{type}', which is none of prefix, ok, bad, unsupported and map"),
        };
        string scope = reader.Read("scope");
        return new Rule(
            action,
            scope switch
            {
                "client" => Scope.Client,
                "server" => Scope.Server,
                "all" => Scope.All,
                _ => throw new FormatException(
                    $"rule {reader.Number} has the scope '{scope}', which is none of client, server and all"),
            },
            Encoding.UTF8.GetBytes(reader.Read("key")),
            Encoding.UTF8.GetBytes(reader.Read("prepend")));
    }

    private static void AddMap(List<Rule> rules, string key, string prepend)
    {
        byte[] keyBytes = Encoding.UTF8.GetBytes(key);
        byte[] prependBytes = Encoding.UTF8.GetBytes(prepend);
        rules.Add(new Rule(Action.Prefix, Scope.All, keyBytes, prependBytes));
        if (key.Length == 0)
        {
            rules.Add(new Rule(Action.Bad, Scope.All, [], []));
            return;
        }

        // Neither may the guest name what is stored under the prefix, nor does it see the host's own of the mapped kind.
        rules.Add(new Rule(Action.Bad, Scope.All, prependBytes, keyBytes));
        rules.Add(new Rule(Action.Ok, Scope.All, [], []));
    }

    private static void ThrowIfNotTotal(List<Rule> rules, int count)
    {
        if (count == 0)
        {
            throw new FormatException($"there is no rule: {Forms}");
        }

        if (!rules.Exists(rule => (rule.Scope & Scope.Client) != 0 && rule.Key.Length == 0))
        {
            throw new FormatException(
                "the rules do not decide about every name that a guest may use: end with one of scope client or all and an "
                + "empty key, for example ':bad:all:::'");
        }

        if (!rules.Exists(rule => (rule.Scope & Scope.Server) != 0 && rule.Prepend.Length == 0))
        {
            throw new FormatException(
                "the rules do not decide about every name that the host may list: end with one of scope server or all and an "
                + "empty prepend, for example ':bad:all:::'");
        }
    }

    private static int SkipSpace(string text, int position)
    {
        while (position < text.Length && char.IsWhiteSpace(text[position]))
        {
            position++;
        }

        return position;
    }

    private readonly record struct Rule(Action Action, Scope Scope, byte[] Key, byte[] Prepend);

    /// <summary>Reads the fields of one rule, each of which ends with the rule's separator.</summary>
    private struct FieldReader
    {
        private readonly string _text;
        private readonly Rune _separator;

        public FieldReader(string text, int position, int number)
        {
            _text = text;
            Number = number;
            if (!Rune.TryGetRuneAt(text, position, out _separator))
            {
                throw new FormatException($"rule {number} begins with half a character: {Forms}");
            }

            Position = position + _separator.Utf16SequenceLength;
        }

        public int Number { get; }

        public int Position { get; private set; }

        public string Read(string what)
        {
            string separator = _separator.ToString();
            int end = _text.IndexOf(separator, Position, StringComparison.Ordinal);
            if (end < 0)
            {
                throw new FormatException(
                    $"rule {Number} ends within its {what}: '{separator}' is missing; {Forms}");
            }

            string field = _text[Position..end];
            Position = end + separator.Length;
            return field.Contains('\0', StringComparison.Ordinal)
                ? throw new FormatException($"the {what} of rule {Number} contains a NUL, which no name has")
                : field;
        }
    }
}
