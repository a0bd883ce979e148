using System.Diagnostics;
using Causeway.Driver;

namespace Causeway.Cli.Bench;

/// <summary>A daemon that was started to be measured, with the directory that it shares.</summary>
internal sealed class DaemonProcess : IDisposable
{
    private const int Terminate = 15;
    private const int LinesShown = 5;

    // Debug builds and loaded machines take seconds; what hangs takes for ever (arbitrary).
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20);

    private readonly Process _process;
    private readonly string _folder;

    private DaemonProcess(DaemonLine line, string folder, string share)
    {
        Line = line;
        Share = share;
        _folder = folder;
        // A file, so that a daemon that says much never waits for us.
        string command = $"exec {line.Fill(SocketPath, share)} >'{LogPath}' 2>&1 </dev/null";
        _process = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", command]))!;
        Tree = new ProcessTree(_process.Id);
    }

    /// <summary>How it was started.</summary>
    public DaemonLine Line { get; }

    /// <summary>The directory that it shares.</summary>
    public string Share { get; }

    /// <summary>Its processes.</summary>
    public ProcessTree Tree { get; }

    private string SocketPath => Path.Combine(_folder, "socket");

    private string LogPath => Path.Combine(_folder, "log");

    /// <summary>Starts a daemon.</summary>
    /// <param name="line">How.</param>
    /// <param name="folder">An empty folder for its socket and its log.</param>
    /// <param name="share">The directory to share, which exists.</param>
    public static DaemonProcess Start(DaemonLine line, string folder, string share) => new(line, folder, share);

    /// <summary>Connects once it listens.</summary>
    /// <exception cref="StartupException">It has ended, or does not listen.</exception>
    public VirtioFsDriver Connect(VirtioFsDriverOptions options)
    {
        long began = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                if (File.Exists(SocketPath))
                {
                    VirtioFsDriver driver = VirtioFsDriver.Connect(SocketPath, options);
                    Tree.Refresh();
                    return driver;
                }
            }
            catch (IOException) when (!_process.HasExited && Stopwatch.GetElapsedTime(began) < s_patience)
            {
                // Bound, and not listening yet.
            }
            catch (IOException exception)
            {
                throw new StartupException($"cannot use the daemon '{Line.Name}': {exception.Message}{LastWords()}");
            }

            if (_process.WaitForExit(10))
            {
                throw new StartupException($"the daemon '{Line.Name}' has ended with status {_process.ExitCode}{LastWords()}");
            }

            if (Stopwatch.GetElapsedTime(began) > s_patience)
            {
                throw new StartupException(
                    $"the daemon '{Line.Name}' does not listen after {s_patience.TotalSeconds:0} seconds{LastWords()}");
            }
        }
    }

    /// <summary>What to add to a message about the daemon: whether it has ended, and the end of its log.</summary>
    public string LastWords()
    {
        string ended = _process.HasExited ? $"; it has ended with status {_process.ExitCode}" : "";
        if (!File.Exists(LogPath))
        {
            return ended;
        }

        string[] lines = File.ReadAllLines(LogPath);
        return lines.Length == 0
            ? ended
            : $"{ended}; its log ends with:\n{string.Join('\n', lines.TakeLast(LinesShown).Select(line => $"  {line}"))}";
    }

    /// <summary>Ends the daemon and waits for that. Any thread may call it, several times.</summary>
    public void End()
    {
        if (_process.HasExited)
        {
            return;
        }

        Tree.Resume();
        _ = Linux.Children.Signal(_process.Id, Terminate);
        if (!_process.WaitForExit(2000))
        {
            _process.Kill(entireProcessTree: true);
            _process.WaitForExit();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        End();
        _process.Dispose();
    }
}
