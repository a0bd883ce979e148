using System.Diagnostics;

namespace Causeway.Tests.Bridge;

/// <summary>Programs as people run them in a directory.</summary>
internal static class Shell
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(3);

    /// <summary>Whether a program is installed.</summary>
    public static bool Has(string program) => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':')
        .Any(directory => File.Exists(Path.Combine(directory, program)));

    /// <summary>Runs a script that stops at its first error, and expects it to succeed.</summary>
    /// <param name="directory">Where it runs.</param>
    /// <param name="script">The script.</param>
    /// <returns>What it printed.</returns>
    public static string Run(string directory, string script)
    {
        (int status, string output) = Try(directory, script);
        Assert.True(status == 0, $"exit status {status}: {output}");
        return output;
    }

    /// <summary>Runs a script.</summary>
    public static (int Status, string Output) Try(string directory, string script)
    {
        using Process process = Start(directory, $"exec 2>&1; {script}");
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        if (!process.WaitForExit(s_patience))
        {
            process.Kill(entireProcessTree: true);
            Assert.Fail($"the script does not end: {script}");
        }

        return (process.ExitCode, output.GetAwaiter().GetResult().Trim());
    }

    /// <summary>Starts a script, to be ended by the caller.</summary>
    public static Process Start(string directory, string script)
    {
        var start = new ProcessStartInfo("/bin/bash", ["-euc", script])
        {
            RedirectStandardOutput = true,
            RedirectStandardInput = true,
            WorkingDirectory = directory,
        };
        start.Environment["HOME"] = "/nonexistent";
        start.Environment["LC_ALL"] = "C";
        start.Environment["GIT_CONFIG_NOSYSTEM"] = "1";
        return Process.Start(start)!;
    }
}
