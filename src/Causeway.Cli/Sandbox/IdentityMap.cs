using System.Globalization;

namespace Causeway.Cli.Sandbox;

/// <summary>The ids of a user namespace: <c>--uid-map</c> and <c>--gid-map</c>, or what the system has for the user.</summary>
internal static class IdentityMap
{
    /// <summary>Reads one value of <c>--uid-map</c> or <c>--gid-map</c>.</summary>
    /// <param name="option">The option, for messages.</param>
    /// <param name="text">For example <c>:0:100000:65536:</c>; any other character may take the place of the colons.</param>
    /// <exception cref="UsageException">It is no such value.</exception>
    public static IdentityRange Parse(string option, string text)
    {
        if (text.Length > 2 && text[0] == text[^1] && !char.IsLetterOrDigit(text[0]))
        {
            string[] numbers = text[1..^1].Split(text[0]);
            if (numbers.Length == 3
                && TryNumber(numbers[0], out uint inside)
                && TryNumber(numbers[1], out uint outside)
                && TryNumber(numbers[2], out uint count)
                && count > 0
                && (ulong)inside + count <= uint.MaxValue
                && (ulong)outside + count <= uint.MaxValue)
            {
                return new IdentityRange(inside, outside, count);
            }
        }

        throw new UsageException(
            $"'{option}' takes ':INSIDE:OUTSIDE:COUNT:', three numbers, for example ':0:100000:65536:', not '{text}'");
    }

    /// <summary>
    /// The map when none was asked for. One's own id is the same inside and outside, as in virtiofsd. Where the system gives
    /// the user further ids, they take the places around it, so that other users of the guest can own files as well.
    /// </summary>
    /// <param name="own">The daemon's own id.</param>
    /// <param name="given">The further ids; null for none.</param>
    public static IReadOnlyList<IdentityRange> Around(uint own, (uint First, uint Count)? given)
    {
        if (given is not var (first, count))
        {
            return [new IdentityRange(own, own, 1)];
        }

        var map = new List<IdentityRange>();
        uint below = Math.Min(own, count);
        if (below > 0)
        {
            map.Add(new IdentityRange(0, first, below));
        }

        map.Add(new IdentityRange(own, own, 1));
        if (count > below && own < uint.MaxValue - count)
        {
            map.Add(new IdentityRange(own + 1, first + below, count - below));
        }

        return map;
    }

    /// <summary>Finds the ids that /etc/subuid or /etc/subgid gives to a user.</summary>
    /// <param name="lines">The file's lines.</param>
    /// <param name="user">The user's id.</param>
    /// <param name="name">The user's name, if it has one.</param>
    public static (uint First, uint Count)? FindSubordinate(IEnumerable<string> lines, uint user, string? name)
    {
        foreach (string[] fields in lines.Select(line => line.Split(':')))
        {
            if (fields.Length == 3
                && (fields[0] == name || (TryNumber(fields[0], out uint number) && number == user))
                && TryNumber(fields[1], out uint first)
                && TryNumber(fields[2], out uint count)
                && count > 0
                && (ulong)first + count <= uint.MaxValue)
            {
                return (first, count);
            }
        }

        return null;
    }

    /// <summary>The name of a user in /etc/passwd; a database elsewhere has no say here.</summary>
    /// <param name="lines">The file's lines.</param>
    /// <param name="user">The user's id.</param>
    public static string? FindName(IEnumerable<string> lines, uint user) => lines
        .Select(line => line.Split(':'))
        .FirstOrDefault(fields => fields.Length > 2 && TryNumber(fields[2], out uint number) && number == user)?[0];

    /// <summary>Whether the user may write the map itself, without a helper program: it maps only one's own id.</summary>
    /// <param name="map">The map.</param>
    /// <param name="own">The daemon's own id.</param>
    public static bool IsOwnOnly(IReadOnlyList<IdentityRange> map, uint own) =>
        map is [{ Count: 1 } only] && only.Outside == own;

    private static bool TryNumber(string text, out uint number) =>
        uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number);
}
