using Causeway.Tests.Daemon;

namespace Causeway.Tests.Sandbox;

/// <summary>A copy of the program where every user may run it; the repository may be in a directory that only root can enter.</summary>
internal sealed class ProgramForEverybody : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public ProgramForEverybody()
    {
        Assert.SkipUnless(
            File.Exists(DaemonProcess.NativeBinary), "NOT CHECKED: no artifacts/causeway; run ./build first");
        File.Copy(DaemonProcess.NativeBinary, Path);
        File.SetUnixFileMode(_directory.Path, (UnixFileMode)0b111_101_101);
        File.SetUnixFileMode(Path, (UnixFileMode)0b111_101_101);
    }

    public string Path => _directory.File("causeway");

    public void Dispose() => _directory.Dispose();
}
