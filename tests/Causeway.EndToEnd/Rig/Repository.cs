namespace Causeway.EndToEnd;

/// <summary>Where things are on the host.</summary>
internal static class Repository
{
    public static string Root { get; } = FindRoot();

    /// <summary>The daemon under test. Any program with virtiofsd's options will do.</summary>
    public static string Binary { get; } =
        Environment.GetEnvironmentVariable("CAUSEWAY_BINARY") is { Length: > 0 } given
            ? Path.GetFullPath(given)
            : Path.Combine(Root, "artifacts", "causeway");

    public static string Script(string name) => Path.Combine(Root, "eng", name);

    private static string FindRoot()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "eng", "boot-guest")))
            {
                return folder.FullName;
            }
        }

        throw new InvalidOperationException($"no eng/boot-guest above {AppContext.BaseDirectory}");
    }
}
