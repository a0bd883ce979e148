using System.Globalization;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Sandbox;

/// <summary>A sandboxed daemon as the kernel sees it from outside.</summary>
internal static class SandboxedDaemon
{
    /// <summary>The process that serves: the waiting one's only child, or itself without a sandbox.</summary>
    public static int Worker(this DaemonProcess daemon)
    {
        string children = File.ReadAllText($"/proc/{daemon.Process.Id}/task/{daemon.Process.Id}/children").Trim();
        return children.Length > 0 ? int.Parse(children, CultureInfo.InvariantCulture) : daemon.Process.Id;
    }

    /// <summary>A field of /proc/PID/status for each thread, by thread.</summary>
    public static IReadOnlyList<string> StatusOfThreads(int process, string field) =>
    [
        .. Directory.GetDirectories($"/proc/{process}/task")
            .Select(thread => Field($"{thread}/status", field)),
    ];

    public static string Status(int process, string field) => Field($"/proc/{process}/status", field);

    public static string Link(string path) => new FileInfo(path).LinkTarget ?? string.Empty;

    /// <summary>Waits for a condition, with a deadline.</summary>
    public static void Await(string what, Func<bool> holds)
    {
        DateTime deadline = DateTime.UtcNow.AddSeconds(30);
        while (!holds())
        {
            Assert.True(DateTime.UtcNow < deadline, $"not within 30 s: {what}");
            Thread.Sleep(5);
        }
    }

    private static string Field(string file, string field) => File.ReadLines(file)
        .First(line => line.StartsWith(field + ":", StringComparison.Ordinal))[(field.Length + 1)..].Trim();
}
