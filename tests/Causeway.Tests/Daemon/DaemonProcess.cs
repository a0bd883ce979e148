using System.Diagnostics;
using System.Globalization;
using Causeway.Driver;

namespace Causeway.Tests.Daemon;

/// <summary>
/// The program as people run it, in a process of its own: the NativeAOT binary when <c>./build</c> has made one, else the
/// one beside the tests.
/// </summary>
internal sealed class DaemonProcess : IDisposable
{
    private const string ReadyMessage = "Waiting for vhost-user socket connection";
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    private readonly List<string> _log = [];
    private readonly ManualResetEventSlim _isReady = new();
    private readonly Thread _reader;
    private volatile bool _hasEnded;

    private DaemonProcess(Process process, string socketPath)
    {
        Process = process;
        SocketPath = socketPath;
        _reader = new Thread(ReadLog) { IsBackground = true, Name = "daemon-log" };
    }

    /// <summary>The folder of the repository that the tests run in.</summary>
    public static string RepositoryRoot { get; } = FindRepositoryRoot();

    public static string NativeBinary => Path.Combine(RepositoryRoot, "artifacts", "causeway");

    public Process Process { get; }

    public string SocketPath { get; }

    public TimeSpan TimeToReady { get; private set; }

    public static string Program => File.Exists(NativeBinary)
        ? NativeBinary
        : Path.Combine(AppContext.BaseDirectory, "causeway");

    /// <summary>Starts a daemon for a directory and waits until it is ready.</summary>
    /// <param name="directory">What to share.</param>
    /// <param name="options">Further options.</param>
    /// <param name="limit">What the shell's ulimit is told before, for example "-n 4096".</param>
    /// <param name="socket">Where it listens; a new path when null.</param>
    /// <param name="program">What a shell runs instead of the program, for example as another user.</param>
    public static DaemonProcess Start(
        string directory, string options = "", string? limit = null, string? socket = null, string? program = null)
    {
        socket ??= Path.Combine(Path.GetTempPath(), $"causeway-{Guid.NewGuid():N}.sock");
        string command = $"exec {program ?? $"'{Program}'"} serve --shared-dir '{directory}' --socket-path '{socket}' "
            + $"--sandbox none --persistent {options}";
        if (limit is not null)
        {
            command = $"ulimit {limit}; {command}";
        }

        var start = new ProcessStartInfo("/bin/sh", ["-c", command])
        {
            RedirectStandardError = true,
            RedirectStandardInput = true,
        };
        var watch = Stopwatch.StartNew();
        var daemon = new DaemonProcess(Process.Start(start)!, socket);
        daemon.AwaitReady(watch);
        return daemon;
    }

    /// <summary>Runs the program to its end.</summary>
    public static (int Status, string Error) RunToEnd(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments)
        {
            RedirectStandardError = true,
            RedirectStandardOutput = true,
            RedirectStandardInput = true,
        };
        using Process process = Process.Start(start)!;
        process.StandardInput.Close();
        string error = process.StandardError.ReadToEnd();
        process.StandardOutput.ReadToEnd();
        Assert.True(process.WaitForExit(Patience), "the program does not end");
        return (process.ExitCode, error);
    }

    public VirtioFsDriver Connect(VirtioFsDriverOptions? options = null) => VirtioFsDriver.Connect(SocketPath, options);

    /// <summary>What the process holds: descriptors, threads, mappings of guest memory.</summary>
    public (int Descriptors, int Threads, int Mappings) CountResources() => (
        Directory.GetFiles($"/proc/{Process.Id}/fd").Length,
        Directory.GetDirectories($"/proc/{Process.Id}/task").Length,
        File.ReadLines($"/proc/{Process.Id}/maps").Count(line => line.Contains("memfd:causeway", StringComparison.Ordinal)));

    /// <summary>A figure of /proc/PID/status in KiB: VmRSS, VmHWM.</summary>
    public long StatusKilobytes(string name)
    {
        string line = File.ReadLines($"/proc/{Process.Id}/status")
            .First(line => line.StartsWith(name + ":", StringComparison.Ordinal));
        return long.Parse(line.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture);
    }

    /// <summary>The log so far, without the messages that every run has.</summary>
    public IReadOnlyList<string> Complaints()
    {
        lock (_log)
        {
            return [.. _log.Where(line => !line.Contains(" INFO ", StringComparison.Ordinal)
                && !line.Contains("limit of open files", StringComparison.Ordinal))];
        }
    }

    /// <summary>The whole log so far.</summary>
    public IReadOnlyList<string> Log()
    {
        lock (_log)
        {
            return [.. _log];
        }
    }

    public void Dispose()
    {
        if (!Process.HasExited)
        {
            Process.Kill();
        }

        Process.WaitForExit();
        _reader.Join();
        Process.Dispose();
        _isReady.Dispose();
        File.Delete(SocketPath);
        File.Delete(SocketPath + ".pid");
    }

    private static string FindRepositoryRoot()
    {
        string? directory = AppContext.BaseDirectory;
        while (directory is not null && !File.Exists(Path.Combine(directory, "Causeway.slnx")))
        {
            directory = Path.GetDirectoryName(directory);
        }

        return directory ?? throw new InvalidOperationException("the tests run outside the repository");
    }

    private void AwaitReady(Stopwatch watch)
    {
        _reader.Start();
        if (_isReady.Wait(Patience) && !_hasEnded)
        {
            TimeToReady = watch.Elapsed;
            return;
        }

        Dispose();
        throw new InvalidOperationException($"the daemon does not get ready: {string.Join('\n', _log)}");
    }

    private void ReadLog()
    {
        while (Process.StandardError.ReadLine() is { } line)
        {
            Keep(line);
            if (line.Contains(ReadyMessage, StringComparison.Ordinal))
            {
                _isReady.Set();
            }
        }

        _hasEnded |= !_isReady.IsSet;
        _isReady.Set();
    }

    private void Keep(string line)
    {
        lock (_log)
        {
            if (line.Length > 0)
            {
                _log.Add(line);
            }
        }
    }
}
