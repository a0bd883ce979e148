using System.Globalization;

namespace Causeway.Passthrough;

/// <summary>
/// User or group ids of a guest and those of the host: which stands for which (<c>--translate-uid</c>,
/// <c>--translate-gid</c>). The two directions are independent of each other; an id that no rule names stands for itself.
/// </summary>
/// <remarks>
/// <code>
/// guest:G:H:N         guest ids G, G+1, ... (N of them) are host ids H, H+1, ...
/// host:H:G:N          host ids are told to the guest as G, G+1, ...
/// map:G:H:N           both of the above
/// squash-guest:G:H:N  N guest ids from G on are all host id H
/// squash-host:H:G:N   N host ids from H on are all told as G
/// forbid-guest:G:N    N guest ids from G on may not be used
/// </code>
/// The separator may be any character that is no letter, digit, '-' or '_'.
/// </remarks>
public sealed class IdTranslation
{
    private static readonly (string Name, string Form, Kind Kind, Direction Direction)[] s_types =
    [
        ("guest", "guest:GUEST:HOST:COUNT", Kind.Shift, Direction.ToHost),
        ("host", "host:HOST:GUEST:COUNT", Kind.Shift, Direction.ToGuest),
        ("map", "map:GUEST:HOST:COUNT", Kind.Shift, Direction.ToHost | Direction.ToGuest),
        ("squash-guest", "squash-guest:GUEST:HOST:COUNT", Kind.Squash, Direction.ToHost),
        ("squash-host", "squash-host:HOST:GUEST:COUNT", Kind.Squash, Direction.ToGuest),
        ("forbid-guest", "forbid-guest:GUEST:COUNT", Kind.Forbid, Direction.ToHost),
    ];

    // Sorted, without overlaps.
    private readonly Range[] _toHost;
    private readonly Range[] _toGuest;

    private IdTranslation(Range[] toHost, Range[] toGuest)
    {
        _toHost = toHost;
        _toGuest = toGuest;
    }

    private enum Kind
    {
        Shift,
        Squash,
        Forbid,
    }

    [Flags]
    private enum Direction
    {
        ToHost = 1,
        ToGuest = 2,
    }

    /// <summary>Every id stands for itself.</summary>
    public static IdTranslation None { get; } = new([], []);

    /// <summary>Whether every id stands for itself.</summary>
    public bool IsIdentity => _toHost.Length == 0 && _toGuest.Length == 0;

    /// <summary>Reads rules; their order does not matter.</summary>
    /// <param name="rules">The rules, in the form that the type describes.</param>
    /// <exception cref="FormatException">A rule is none; the message says what to write.</exception>
    /// <exception cref="ArgumentException">Rules contradict each other, or leave the range of ids.</exception>
    public static IdTranslation Parse(IEnumerable<string> rules)
    {
        ArgumentNullException.ThrowIfNull(rules);
        var toHost = new List<Range>();
        var toGuest = new List<Range>();
        foreach (string rule in rules)
        {
            (Range range, Direction direction) = ParseRule(rule);
            if ((direction & Direction.ToHost) != 0)
            {
                toHost.Add(range);
            }

            if ((direction & Direction.ToGuest) != 0)
            {
                // "map" is the one rule of both directions.
                toGuest.Add(direction == Direction.ToGuest
                    ? range
                    : range with { First = range.Target, Target = range.First });
            }
        }

        return new IdTranslation(Sort(toHost), Sort(toGuest));
    }

    /// <summary>The host id that a guest id stands for.</summary>
    /// <param name="guestId">The guest's id.</param>
    /// <param name="hostId">The host's id.</param>
    /// <returns>False when the guest may not use that id.</returns>
    public bool TryToHost(uint guestId, out uint hostId)
    {
        hostId = guestId;
        int index = Find(_toHost, guestId);
        if (index < 0)
        {
            return true;
        }

        ref readonly Range range = ref _toHost[index];
        hostId = range.Translate(guestId);
        return range.Kind != Kind.Forbid;
    }

    /// <summary>The guest id that a host id is told as.</summary>
    /// <param name="hostId">The host's id.</param>
    public uint ToGuest(uint hostId)
    {
        int index = Find(_toGuest, hostId);
        return index < 0 ? hostId : _toGuest[index].Translate(hostId);
    }

    private static int Find(Range[] ranges, uint id)
    {
        int low = 0;
        int high = ranges.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) / 2;
            ref readonly Range range = ref ranges[middle];
            if (id < range.First)
            {
                high = middle - 1;
            }
            else if (id - range.First >= range.Count)
            {
                low = middle + 1;
            }
            else
            {
                return middle;
            }
        }

        return -1;
    }

    private static (Range Range, Direction Direction) ParseRule(string rule)
    {
        int end = rule.AsSpan().IndexOfAnyExcept(s_nameCharacters);
        string name = end < 0 ? rule : rule[..end];
        int index = Array.FindIndex(
            s_types, type => string.Equals(type.Name, name, StringComparison.OrdinalIgnoreCase));
        if (index < 0)
        {
            throw new FormatException(
                $"'{rule}' does not begin with one of {string.Join(", ", s_types.Select(type => type.Name))}");
        }

        (_, string form, Kind kind, Direction direction) = s_types[index];
        string[] numbers = end < 0 ? [] : rule[(end + 1)..].Split(rule[end]);
        int expected = kind == Kind.Forbid ? 2 : 3;
        if (numbers.Length != expected)
        {
            throw new FormatException($"'{rule}' has {numbers.Length} numbers where {expected} belong: write {form}");
        }

        uint[] values = [.. numbers.Select(number => ParseNumber(rule, number, form))];
        var range = new Range(values[0], values[^1], kind == Kind.Forbid ? 0 : values[1], kind);
        CheckBounds(rule, range.First, range.Count);
        CheckBounds(rule, range.Target, kind == Kind.Shift ? range.Count : 1);
        return (range with { Rule = rule }, direction);
    }

    private static uint ParseNumber(string rule, string text, string form) =>
        uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out uint number)
            ? number
            : throw new FormatException(
                $"'{text}' in '{rule}' is not a number from 0 to {uint.MaxValue}: write {form}");

    // The highest number is no id: for the kernel it means "leave the id as it is".
    private static void CheckBounds(string rule, uint first, uint count)
    {
        if (count == 0)
        {
            throw new ArgumentException($"'{rule}' is for no id at all: give a count of at least 1, or leave it out");
        }

        if ((ulong)first + count > uint.MaxValue)
        {
            throw new ArgumentException(
                $"'{rule}' goes beyond the highest id, {uint.MaxValue - 1}: begin {count} ids at {uint.MaxValue - count} or below");
        }
    }

    private static Range[] Sort(List<Range> ranges)
    {
        Range[] sorted = [.. ranges.OrderBy(range => range.First)];
        for (int i = 1; i < sorted.Length; i++)
        {
            if (sorted[i].First - sorted[i - 1].First < sorted[i - 1].Count)
            {
                throw new ArgumentException(
                    $"'{sorted[i - 1].Rule}' and '{sorted[i].Rule}' are both for id {sorted[i].First}: make them disjoint");
            }
        }

        return sorted;
    }

    private static readonly System.Buffers.SearchValues<char> s_nameCharacters = System.Buffers.SearchValues.Create(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");

    private readonly record struct Range(uint First, uint Count, uint Target, Kind Kind)
    {
        /// <summary>What the operator wrote.</summary>
        public string Rule { get; init; } = "";

        public uint Translate(uint id) => Kind == Kind.Shift ? Target + (id - First) : Target;
    }
}
