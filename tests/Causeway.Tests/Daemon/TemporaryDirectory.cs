namespace Causeway.Tests.Daemon;

/// <summary>A directory that is gone after the test.</summary>
internal sealed class TemporaryDirectory : IDisposable
{
    public TemporaryDirectory(string? parent = null)
    {
        Path = System.IO.Path.Combine(parent ?? System.IO.Path.GetTempPath(), $"causeway-{Guid.NewGuid():N}");
        Directory.CreateDirectory(Path);
    }

    public string Path { get; }

    public string File(string name) => System.IO.Path.Combine(Path, name);

    // By rm, because Directory.Delete does not find names that are not UTF-8.
    public void Dispose()
    {
        using System.Diagnostics.Process process = System.Diagnostics.Process.Start("rm", ["-rf", Path]);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }
}
