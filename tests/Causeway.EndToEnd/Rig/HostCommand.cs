using System.Diagnostics;

namespace Causeway.EndToEnd;

/// <summary>Programs run on the host, whose answers are compared with the guest's.</summary>
internal static class HostCommand
{
    /// <summary>Runs a bash script in a directory and returns what it prints; throws if it fails.</summary>
    public static async Task<string> BashAsync(string directory, string script)
    {
        (int status, string output, string error) = await RunAsync("/bin/bash", ["-c", "set -euo pipefail\n" + script], directory);
        return status == 0
            ? output
            : throw new InvalidOperationException($"on the host, in {directory}: status {status}\n{script}\n{error}");
    }

    /// <summary>Runs one of the scripts in eng/; its progress lines go to the test run's output.</summary>
    public static async Task<string> ScriptAsync(string name, params string[] arguments)
    {
        (int status, string output, string error) =
            await RunAsync(Repository.Script(name), arguments, Repository.Root, Console.Error.WriteLine);
        return status == 0 ? output.TrimEnd() : throw new InvalidOperationException($"eng/{name} failed: {error}");
    }

    private static async Task<(int Status, string Output, string Error)> RunAsync(
        string program, IEnumerable<string> arguments, string directory, Action<string>? onErrorLine = null)
    {
        var start = new ProcessStartInfo(program, arguments)
        {
            WorkingDirectory = directory,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["LC_ALL"] = "C.UTF-8";
        using Process process = Process.Start(start) ?? throw new InvalidOperationException($"{program} does not start");
        process.StandardInput.Close();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        var error = new System.Text.StringBuilder();
        while (await process.StandardError.ReadLineAsync() is { } line)
        {
            error.AppendLine(line);
            onErrorLine?.Invoke(line);
        }

        await process.WaitForExitAsync();
        return (process.ExitCode, await output, error.ToString());
    }
}
