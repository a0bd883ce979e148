using System.Reflection;

namespace Causeway.Fuzz.Targets;

/// <summary>What real front ends and guests have sent, from <c>Recorded/*.txt</c>; '#' begins a comment.</summary>
internal static class Recorded
{
    private const string Folder = "Recorded/";

    public static IReadOnlyList<string> Names { get; } =
    [
        .. Assembly.GetExecutingAssembly().GetManifestResourceNames()
            .Where(name => name.StartsWith(Folder, StringComparison.Ordinal))
            .Select(name => name[Folder.Length..^".txt".Length])
            .Order(StringComparer.Ordinal),
    ];

    /// <summary>The lines of a file, as words.</summary>
    public static IEnumerable<string[]> Read(string name)
    {
        using Stream stream = Assembly.GetExecutingAssembly().GetManifestResourceStream($"{Folder}{name}.txt")!;
        using var reader = new StreamReader(stream);
        while (reader.ReadLine() is { } line)
        {
            string[] words = line.Split('#')[0].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (words.Length > 0)
            {
                yield return words;
            }
        }
    }
}
