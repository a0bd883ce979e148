using Causeway.Posix;

namespace Causeway.EndToEnd;

/// <summary>tests/posix, compiled once: a program that makes system calls and prints what each answers, the same on every run.</summary>
internal static class PosixProgram
{
    private static readonly Lazy<Task<string>> _path = new(CompileAsync);

    /// <summary>Its path on the host.</summary>
    public static Task<string> PathAsync => _path.Value;

    /// <summary>The answers of a guest that are not as they should be.</summary>
    public static IEnumerable<string> Compare(string host, string guest, GuestConfiguration configuration) => PosixChecks.Compare(
        Path.Combine(Repository.Root, "docs", "posix.md"),
        host,
        guest,
        "guest",
        configuration.Platform,
        configuration.Cache == CacheMode.AlwaysWriteback ? "writeback" : configuration.Cache.ToString().ToLowerInvariant(),
        configuration.Privileges ? "privileges" : "plain",
        configuration.KillPriv ? "killpriv" : "no-killpriv");

    private static async Task<string> CompileAsync()
    {
        string folder = Path.Combine(Repository.Root, "artifacts", "end-to-end");
        Directory.CreateDirectory(folder);
        string program = Path.Combine(folder, "posix-checks");
        await HostCommand.BashAsync(Path.Combine(Repository.Root, "tests", "posix"), PosixChecks.Compiler(program));
        return program;
    }
}
