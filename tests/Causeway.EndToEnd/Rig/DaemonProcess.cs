using System.Diagnostics;
using System.Text.RegularExpressions;

namespace Causeway.EndToEnd;

/// <summary>What a daemon holds on to, as the kernel counts it.</summary>
public readonly record struct DaemonResources(int Descriptors, int Threads, int GuestMemoryMappings);

/// <summary>The daemon under test, serving one share; and its log, in which no warning may appear that is not expected.</summary>
internal sealed partial class DaemonProcess : IAsyncDisposable
{
    private const string ReadyLine = "Waiting for vhost-user socket connection";

    /// <summary>Warnings that say nothing about the daemon's work. Each needs its reason.</summary>
    private static readonly string[] _expectedWarnings =
    [
        // The machine's hard limit of open files is lower than what the daemon would like: virtiofsd's words, and ours.
        "hard limit",
        "The limit of open files is",
    ];

    private readonly Process _process;
    private readonly List<string> _log = [];
    private readonly StreamWriter _logFile;
    private readonly Task _reading;

    private DaemonProcess(Process process, string logPath)
    {
        _process = process;
        _logFile = new StreamWriter(logPath) { AutoFlush = true };
        _reading = Task.WhenAll(ReadAsync(process.StandardError), ReadAsync(process.StandardOutput));
    }

    public int LogLength
    {
        get
        {
            lock (_log)
            {
                return _log.Count;
            }
        }
    }

    /// <summary>A daemon under virtiofsd's name is virtiofsd, and that has one request queue and no verbs.</summary>
    public static bool IsVirtiofsd => Path.GetFileName(Repository.Binary).EndsWith("virtiofsd", StringComparison.Ordinal);

    public static async Task<DaemonProcess> StartAsync(
        GuestConfiguration configuration, string share, string socket, string logPath, params string[] moreOptions)
    {
        string[] verb = IsVirtiofsd ? [] : ["serve", $"--num-request-queues={configuration.Queues}"];
        string[] options =
        [
            $"--sandbox={configuration.Sandbox}", "--xattr", "--announce-submounts", $"--shared-dir={share}", $"--socket-path={socket}",
        ];
        var start = new ProcessStartInfo(Repository.Binary, [.. verb, .. options, .. configuration.GetDaemonOptions(), .. moreOptions])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        Process process = Process.Start(start) ?? throw new InvalidOperationException($"{Repository.Binary} does not start");
        var daemon = new DaemonProcess(process, logPath);
        await Deadline.UntilAsync(
            $"the daemon says '{ReadyLine}' (log: {logPath})",
            TimeSpan.FromSeconds(20),
            () => process.HasExited
                ? throw new InvalidOperationException($"the daemon ended with status {process.ExitCode}: {daemon.LogSince(0)}")
                : daemon.LogSince(0).Contains(ReadyLine, StringComparison.Ordinal));
        return daemon;
    }

    /// <summary>The process that serves: in a sandbox a child of the one that was started.</summary>
    public int Worker
    {
        get
        {
            string children = File.ReadAllText($"/proc/{_process.Id}/task/{_process.Id}/children").Trim();
            return children.Length > 0 ? int.Parse(children) : _process.Id;
        }
    }

    public DaemonResources CountResources()
    {
        int worker = Worker;
        return new(
            Directory.GetFileSystemEntries($"/proc/{worker}/fd").Length,
            Directory.GetDirectories($"/proc/{worker}/task").Length,
            File.ReadLines($"/proc/{worker}/maps").Count(line => line.Contains("memfd:memory", StringComparison.Ordinal)));
    }

    /// <summary>The unexpected warnings and errors logged since the log had this length.</summary>
    public IReadOnlyList<string> WarningsSince(int length)
    {
        lock (_log)
        {
            return _log
                .Skip(length)
                .Where(line => Warning().IsMatch(line))
                .Where(line => !_expectedWarnings.Any(expected => line.Contains(expected, StringComparison.Ordinal)))
                .ToList();
        }
    }

    /// <summary>Whether a line of the log has these words.</summary>
    public bool HasLogged(string words) => LogSince(0).Contains(words, StringComparison.Ordinal);

    /// <summary>Asks the daemon, by SIGUSR1, how many requests of each kind there were.</summary>
    /// <param name="guest">Of which guest, where it has several; they are counted from 1.</param>
    public async Task<IReadOnlyDictionary<string, long>> CountRequestsAsync(int? guest = null)
    {
        string mark = guest is null ? "Requests so far: " : $"Requests of guest {guest} so far: ";
        int length = LogLength;
        await HostCommand.BashAsync("/", $"kill -USR1 {_process.Id}");
        string line = "";
        await Deadline.UntilAsync("the daemon logs its counters", TimeSpan.FromSeconds(20), () =>
        {
            line = LogSince(length).Split('\n').FirstOrDefault(line => line.Contains(mark, StringComparison.Ordinal)) ?? "";
            return line.Length > 0;
        });
        return line[(line.IndexOf(mark, StringComparison.Ordinal) + mark.Length)..]
            .Split(", ")
            .Select(count => count.Split(' '))
            .ToDictionary(count => count[0], count => long.Parse(count[1]));
    }

    /// <summary>Waits for the daemon to end by itself, as it should when its front end is gone; returns its exit status.</summary>
    public async Task<int> WaitForExitAsync()
    {
        await Deadline.UntilAsync(
            "the daemon ends after its front end has disconnected", TimeSpan.FromSeconds(10), () => _process.HasExited);
        return _process.ExitCode;
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
        }

        await _process.WaitForExitAsync();
        await _reading;
        await _logFile.DisposeAsync();
        _process.Dispose();
    }

    // "[... WARN  virtiofsd]" and "warn: Causeway..." are the two forms in use.
    [GeneratedRegex(@"\b(WARN|ERROR|CRITICAL|FATAL|panicked)\b|^(warn|fail|crit)\b|Unhandled exception")]
    private static partial Regex Warning();

    private string LogSince(int length)
    {
        lock (_log)
        {
            return string.Join('\n', _log.Skip(length));
        }
    }

    private async Task ReadAsync(StreamReader reader)
    {
        while (await reader.ReadLineAsync() is { } line)
        {
            lock (_log)
            {
                _log.Add(line);
                _logFile.WriteLine(line);
            }
        }
    }
}
