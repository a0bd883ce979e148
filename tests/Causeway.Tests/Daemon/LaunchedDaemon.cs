using System.Diagnostics;

namespace Causeway.Tests.Daemon;

/// <summary>The program in virtiofsd's place: started under a name that ends so, with a launcher's words.</summary>
internal sealed class LaunchedDaemon : IDisposable
{
    public const string ReadyMessage = "Waiting for vhost-user socket connection";
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    // Listens at a path as a launcher does, and becomes the program, which inherits the socket. '{fd}' stands for its number.
    private const string Inherit =
        """
        use Socket; $^F = 255;
        socket(S, AF_UNIX, SOCK_STREAM, 0) && bind(S, sockaddr_un(shift)) && listen(S, 1) || die $!;
        my $n = fileno(S); s/\{fd\}/$n/ for @ARGV; exec @ARGV or die $!;
        """;

    private readonly List<string> _log = [];
    private readonly Thread _reader;
    private readonly ManualResetEventSlim _isReady = new();

    private LaunchedDaemon(Process process)
    {
        Process = process;
        _reader = new Thread(ReadLog) { IsBackground = true, Name = "daemon-log" };
        _reader.Start();
    }

    public Process Process { get; }

    /// <summary>The log so far.</summary>
    public IReadOnlyList<string> Log
    {
        get
        {
            lock (_log)
            {
                return [.. _log];
            }
        }
    }

    /// <summary>Makes the link by which a test starts the program.</summary>
    public static string MakeLink(TemporaryDirectory directory)
    {
        string link = directory.File("virtiofsd");
        if (!File.Exists(link))
        {
            File.CreateSymbolicLink(link, DaemonProcess.Program);
        }

        return link;
    }

    /// <summary>Starts a program.</summary>
    public static LaunchedDaemon Start(string program, params IEnumerable<string> words) => new(
        Process.Start(new ProcessStartInfo(program, words)
        {
            RedirectStandardError = true,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        })!);

    /// <summary>Starts a program that inherits a listening socket; <c>{fd}</c> in its words is the descriptor.</summary>
    public static LaunchedDaemon StartWithSocket(string path, string program, params IEnumerable<string> words) =>
        Start("perl", ["-e", Inherit, path, program, .. words]);

    /// <summary>Waits for the line that launchers wait for.</summary>
    public LaunchedDaemon AwaitReady()
    {
        Assert.True(
            _isReady.Wait(s_patience) && Log.Any(line => line.Contains(ReadyMessage, StringComparison.Ordinal)),
            $"the daemon does not get ready: {string.Join('\n', Log)}");
        return this;
    }

    /// <summary>Waits for the end.</summary>
    /// <returns>The exit status.</returns>
    public int AwaitEnd()
    {
        Assert.True(Process.WaitForExit(s_patience), $"the daemon does not end: {string.Join('\n', Log)}");
        _reader.Join();
        return Process.ExitCode;
    }

    public void Dispose()
    {
        if (!Process.HasExited)
        {
            Process.Kill(entireProcessTree: true);
        }

        Process.WaitForExit();
        _reader.Join();
        Process.Dispose();
        _isReady.Dispose();
    }

    private void ReadLog()
    {
        while (Process.StandardError.ReadLine() is { } line)
        {
            lock (_log)
            {
                _log.Add(line);
            }

            if (line.Contains(ReadyMessage, StringComparison.Ordinal))
            {
                _isReady.Set();
            }
        }

        _isReady.Set();
    }
}
