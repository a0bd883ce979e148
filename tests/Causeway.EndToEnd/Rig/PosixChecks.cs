namespace Causeway.EndToEnd;

/// <summary>
/// tests/posix, compiled once: a program that makes system calls and prints what each answers, the same on every run. And the list of
/// answers that a Linux guest gives otherwise than the host, each with its reason, which is the table in docs/posix.md.
/// </summary>
internal static class PosixChecks
{
    private static readonly Lazy<Task<string>> _program = new(CompileAsync);

    /// <summary>The program's path on the host.</summary>
    public static Task<string> ProgramAsync => _program.Value;

    /// <summary>The lines that are not as they should be; empty when guest and host agree.</summary>
    /// <param name="host">What the program printed on the host.</param>
    /// <param name="guest">What it printed in the guest.</param>
    /// <param name="configuration">The guest's.</param>
    public static IEnumerable<string> Compare(string host, string guest, GuestConfiguration configuration)
    {
        IReadOnlyList<Difference> known = [.. ReadDifferences().Where(difference => difference.AppliesTo(configuration))];
        Dictionary<string, string> expected = Parse(host);
        Dictionary<string, string> actual = Parse(guest);
        foreach ((string check, string answer) in expected)
        {
            string got = actual.GetValueOrDefault(check, "(no line)");
            if (got != answer && !known.Any(difference => difference.Allows(check, got)))
            {
                yield return $"{check}: the host says '{answer}', the guest '{got}'";
            }
        }

        foreach ((string check, string got) in actual.Where(line => !expected.ContainsKey(line.Key)))
        {
            if (!known.Any(difference => difference.Allows(check, got)))
            {
                yield return $"{check}: only the guest says '{got}'";
            }
        }
    }

    /// <summary>How many checks a run has made; a check whose name is there twice fails.</summary>
    public static int Count(string output) => Parse(output).Count;

    private static async Task<string> CompileAsync()
    {
        string folder = Path.Combine(Repository.Root, "artifacts", "end-to-end");
        Directory.CreateDirectory(folder);
        // Static, so that it runs in any guest.
        await HostCommand.BashAsync(
            Path.Combine(Repository.Root, "tests", "posix"),
            $"gcc -static -O1 -Wall -Wextra -Wno-unused-result -Werror -o '{folder}/posix-checks' *.c");
        return $"{folder}/posix-checks";
    }

    private static Dictionary<string, string> Parse(string output) => output
        .Split('\n', StringSplitOptions.RemoveEmptyEntries)
        .Select(line => line.Split(": ", 2))
        .ToDictionary(parts => parts[0], parts => parts.Length > 1 ? parts[1] : "");

    private static IEnumerable<Difference> ReadDifferences() =>
        from line in File.ReadLines(Path.Combine(Repository.Root, "docs", "posix.md"))
        where line.StartsWith("| `", StringComparison.Ordinal)
        let cells = line.Split('|')
        from check in cells[1].Split(',')
        select new Difference(check.Trim(' ', '`'), cells[2].Split(' ', StringSplitOptions.RemoveEmptyEntries), cells[3].Trim(' ', '`'));

    // A row of the table: which check (or all that begin so: "name*"), in which guests, answers what ("*": anything). Guests are named
    // by platform, cache mode, and whether they are served with all privileges or plainly; of each kind that is named, one must fit.
    private sealed record Difference(string Check, string[] Where, string Answer)
    {
        private static readonly string[] _platforms = ["debian12", "newer"];
        private static readonly string[] _caches = ["never", "auto", "always", "writeback"];
        private static readonly string[] _privileges = ["plain", "privileges"];

        public bool AppliesTo(GuestConfiguration configuration)
        {
            string cache = configuration.Cache == CacheMode.AlwaysWriteback ? "writeback" : configuration.Cache.ToString().ToLowerInvariant();
            return Fits(_platforms, configuration.Platform) && Fits(_caches, cache)
                && Fits(_privileges, configuration.Privileges ? "privileges" : "plain");
        }

        private bool Fits(string[] kind, string word) => Where.Contains(word) || !Where.Intersect(kind).Any();

        public bool Allows(string check, string answer) =>
            (Check.EndsWith('*') ? check.StartsWith(Check[..^1], StringComparison.Ordinal) : check == Check)
            && (Answer == "*" || Answer == answer);
    }
}
