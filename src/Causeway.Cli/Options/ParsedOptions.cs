using System.CommandLine;
using System.Globalization;

namespace Causeway.Cli.Options;

/// <summary>
/// A command line after parsing: finds what was said of an option, in the long form or in the legacy <c>-o</c> form, which
/// wins wherever it stands, as in virtiofsd.
/// </summary>
internal sealed class ParsedOptions(ParseResult parsed, IReadOnlyDictionary<string, string> legacy)
{
    private readonly List<string> _warnings = [];

    /// <summary>What the operator should hear, though it is no error.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <summary>Has the operator hear something when the log is there.</summary>
    public void Warn(string message) => _warnings.Add(message);

    /// <summary>Whether an option stands on the command line, with or without a value.</summary>
    public bool IsGiven(Option option) => legacy.ContainsKey(option.Name) || parsed.GetResult(option) is { Implicit: false };

    /// <summary>Whether a switch is on.</summary>
    public bool IsOn(Option<bool> option) =>
        legacy.TryGetValue(option.Name, out string? value) ? value == LegacyOptions.On : parsed.GetValue(option);

    /// <summary>Of a pair of opposite switches, the one given last wins.</summary>
    public bool IsOn(Option<bool> on, Option<bool> off, bool byDefault)
    {
        if (legacy.TryGetValue(on.Name, out string? value))
        {
            return value == LegacyOptions.On;
        }

        int lastOn = LastPosition(on);
        int lastOff = LastPosition(off);
        return lastOn == lastOff ? byDefault : lastOn > lastOff;
    }

    /// <summary>The value that counts, or null when the option was not given or has none.</summary>
    public string? Last(Option<string[]> option) => All(option) is [.., var last] ? last : null;

    /// <summary>All values of an option that makes a list.</summary>
    public IReadOnlyList<string> All(Option<string[]> option) =>
        legacy.TryGetValue(option.Name, out string? value) ? [value] : parsed.GetValue(option) ?? [];

    /// <summary>A decimal number within bounds; null when not given.</summary>
    public ulong? Number(Option<string[]> option, ulong least, ulong most)
    {
        string? text = Last(option);
        if (text is null)
        {
            return null;
        }

        return ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out ulong number)
            && number >= least && number <= most
            ? number
            : throw new UsageException($"'{option.Name}' takes a number from {least} to {most}, not '{text}'");
    }

    /// <summary>Reads a number of bytes, with K, M or G for 1024 of them and so on.</summary>
    public static bool TryReadSize(string text, out ulong size)
    {
        int shift = text.Length == 0 ? 0 : char.ToUpperInvariant(text[^1]) switch { 'K' => 10, 'M' => 20, 'G' => 30, _ => 0 };
        bool isRead = ulong.TryParse(
            shift == 0 ? text : text[..^1], NumberStyles.None, CultureInfo.InvariantCulture, out ulong number)
            && number <= ulong.MaxValue >> shift;
        size = number << shift;
        return isRead;
    }

    /// <summary>One of several words, in any case of letters.</summary>
    public T OneOf<T>(Option<string[]> option, T byDefault, params ReadOnlySpan<(string Name, T Value)> choices)
    {
        string? text = Last(option);
        if (text is null)
        {
            return byDefault;
        }

        var names = new List<string>();
        foreach ((string name, T value) in choices)
        {
            if (string.Equals(name, text, StringComparison.OrdinalIgnoreCase))
            {
                return value;
            }

            names.Add(name);
        }

        throw new UsageException($"'{option.Name}' takes one of {string.Join(", ", names)}, not '{text}'");
    }

    /// <summary>Refuses an option that is understood and not provided yet, unless its value asks for nothing.</summary>
    public void RefuseNotYet(Option<string[]> option, string? harmless)
    {
        if (!IsGiven(option) || (harmless is not null && Last(option) == harmless))
        {
            return;
        }

        throw new UsageException(harmless is null
            ? $"'{option.Name}' is not provided yet; leave it out"
            : $"'{option.Name}' is not provided yet; leave it out or say '{option.Name}={harmless}'");
    }

    private int LastPosition(Option<bool> option)
    {
        for (int i = parsed.Tokens.Count - 1; i >= 0; i--)
        {
            if (parsed.Tokens[i].Value == option.Name)
            {
                return i;
            }
        }

        return -1;
    }
}
