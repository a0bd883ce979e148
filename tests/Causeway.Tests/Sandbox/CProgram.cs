using System.Diagnostics;

namespace Causeway.Tests.Sandbox;

/// <summary>A small C program that a test compiles: for what only a process without a runtime can do.</summary>
internal sealed class CProgram : IDisposable
{
    private readonly Daemon.TemporaryDirectory _directory = new();

    public CProgram(string source)
    {
        string file = _directory.File("program.c");
        File.WriteAllText(file, source);
        (int status, string output) = RunProgram("cc", "-w", "-O1", "-o", Path, file);
        Assert.True(status == 0, output);
    }

    public static bool HasCompiler => (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':')
        .Any(directory => File.Exists(System.IO.Path.Combine(directory, "cc")));

    public string Path => _directory.File("program");

    public string Folder => _directory.Path;

    public (int Status, string Output) Run(params string[] arguments) => RunProgram(Path, arguments);

    public void Dispose() => _directory.Dispose();

    private static (int Status, string Output) RunProgram(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments)
        {
            RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true,
        };
        using Process process = Process.Start(start)!;
        process.StandardInput.Close();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + errors.GetAwaiter().GetResult());
    }
}
