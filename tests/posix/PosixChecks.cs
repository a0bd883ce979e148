namespace Causeway.Posix;

/// <summary>
/// What tests/posix prints, compared: on the host's own file system, and through a kernel that has the same directory by FUSE. The
/// answers that such a kernel gives otherwise, each with its reason, are the table in docs/posix.md.
/// </summary>
internal static class PosixChecks
{
    /// <summary>The command that compiles the program, in tests/posix. Static, so that it runs in any guest.</summary>
    /// <param name="program">Where it goes.</param>
    public static string Compiler(string program) =>
        $"gcc -static -O1 -Wall -Wextra -Wno-unused-result -Werror -o '{program}' *.c";

    /// <summary>The lines that are not as they should be; empty when both agree.</summary>
    /// <param name="table">The path of docs/posix.md.</param>
    /// <param name="host">What the program printed on the host.</param>
    /// <param name="other">What it printed elsewhere.</param>
    /// <param name="where">Where that was, in the words of the table.</param>
    public static IEnumerable<string> Compare(string table, string host, string other, params string[] where)
    {
        IReadOnlyList<Difference> known = [.. ReadDifferences(table).Where(difference => difference.AppliesTo(where))];
        Dictionary<string, string> expected = Parse(host);
        Dictionary<string, string> actual = Parse(other);
        string place = string.Join(' ', where);
        foreach ((string check, string answer) in expected)
        {
            string got = actual.GetValueOrDefault(check, "(no line)");
            if (got != answer && !known.Any(difference => difference.Allows(check, got)))
            {
                yield return $"{check}: the host says '{answer}', {place} '{got}'";
            }
        }

        foreach ((string check, string got) in actual.Where(line => !expected.ContainsKey(line.Key)))
        {
            if (!known.Any(difference => difference.Allows(check, got)))
            {
                yield return $"{check}: only {place} says '{got}'";
            }
        }
    }

    /// <summary>How many checks a run has made; a check whose name is there twice fails.</summary>
    public static int Count(string output) => Parse(output).Count;

    private static Dictionary<string, string> Parse(string output) => output
        .Split('\n', StringSplitOptions.RemoveEmptyEntries)
        .Select(line => line.Split(": ", 2))
        .ToDictionary(parts => parts[0], parts => parts.Length > 1 ? parts[1] : "");

    private static IEnumerable<Difference> ReadDifferences(string table) =>
        from line in File.ReadLines(table)
        where line.StartsWith("| `", StringComparison.Ordinal)
        let cells = line.Split('|')
        from check in cells[1].Split(',')
        select new Difference(check.Trim(' ', '`'), cells[2].Split(' ', StringSplitOptions.RemoveEmptyEntries), cells[3].Trim(' ', '`'));

    // A row of the table: which check (or all that begin so: "name*"), where, answers what ("*": anything).
    private sealed record Difference(string Check, string[] Where, string Answer)
    {
        private static readonly string[][] _kinds =
        [
            ["guest", "mount"],
            ["debian12", "newer"],
            ["never", "auto", "always", "writeback", "coherent"],
            ["plain", "privileges"],
            ["killpriv", "no-killpriv"],
        ];

        // What a row does not name, it does not mind.
        public bool AppliesTo(string[] where) => _kinds.All(kind =>
            !Where.Intersect(kind).Any() || Where.Intersect(kind).Intersect(where).Any());

        public bool Allows(string check, string answer) =>
            (Check.EndsWith('*') ? check.StartsWith(Check[..^1], StringComparison.Ordinal) : check == Check)
            && (Answer == "*" || Answer == answer);
    }
}
