using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Daemon;

/// <summary>The process as launchers know virtiofsd's: files it makes, lines it writes, signals, exit statuses.</summary>
public sealed class ProcessTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly string _program;
    private readonly string _socket;
    private readonly string _pidFile;

    public ProcessTests()
    {
        _program = LaunchedDaemon.MakeLink(_directory);
        _socket = _directory.File("x.sock");
        _pidFile = _socket + ".pid";
        Directory.CreateDirectory(_directory.File("share"));
    }

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void Socket_and_pid_file_are_for_the_owner_only_and_the_pid_is_the_process()
    {
        using LaunchedDaemon daemon = Start().AwaitReady();

        Assert.Equal("700 socket", Stat(_socket, "%a %F"));
        Assert.Equal("600 regular file", Stat(_pidFile, "%a %F"));
        Assert.Equal($"{daemon.Process.Id}\n", ReadPidFile());
    }

    [Theory]
    [InlineData("daemon")]
    [InlineData("1")]
    public void The_members_of_a_socket_group_may_connect(string group)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "NOT CHECKED: only root gives files to any group");
        using LaunchedDaemon daemon = Start("--socket-group", group).AwaitReady();

        Assert.Equal("770 0:1", Stat(_socket, "%a %u:%g"));
    }

    [Fact]
    public void A_socket_group_that_does_not_exist_is_refused_by_name()
    {
        using LaunchedDaemon daemon = Start("--socket-group", "no-such-group");

        Assert.Equal(1, daemon.AwaitEnd());
        Assert.Contains("no-such-group", Assert.Single(daemon.Log, IsOurs), StringComparison.Ordinal);
        Assert.False(File.Exists(_pidFile));
    }

    [Fact]
    public void A_second_daemon_is_refused_with_the_number_of_the_first_and_changes_nothing()
    {
        using LaunchedDaemon first = Start().AwaitReady();
        using LaunchedDaemon second = Start();

        Assert.Equal(1, second.AwaitEnd());
        string line = Assert.Single(second.Log, IsOurs);
        Assert.Contains(_socket, line, StringComparison.Ordinal);
        Assert.Contains($"process {first.Process.Id}", line, StringComparison.Ordinal);
        Assert.Equal($"{first.Process.Id}\n", ReadPidFile());
        using VirtioFsDriver driver = VirtioFsDriver.Connect(_socket);
    }

    [Fact]
    public void A_pid_file_that_was_left_behind_is_taken_over_without_what_it_said()
    {
        File.WriteAllText(_pidFile, "12345678901234567890 and more\n");

        using LaunchedDaemon daemon = Start().AwaitReady();

        Assert.Equal($"{daemon.Process.Id}\n", ReadPidFile());
    }

    [Fact]
    public void A_link_in_the_place_of_the_pid_file_is_not_followed()
    {
        string precious = _directory.File("precious");
        File.WriteAllText(precious, "data");
        File.CreateSymbolicLink(_pidFile, precious);

        using LaunchedDaemon daemon = Start();

        Assert.Equal(1, daemon.AwaitEnd());
        Assert.Contains(_pidFile, Assert.Single(daemon.Log, IsOurs), StringComparison.Ordinal);
        Assert.Equal("data", File.ReadAllText(precious));
    }

    [Fact]
    public void The_end_of_the_front_end_is_the_daemons_and_leaves_no_file()
    {
        using LaunchedDaemon daemon = Start().AwaitReady();
        using (VirtioFsDriver driver = VirtioFsDriver.Connect(_socket))
        {
        }

        Assert.Equal(0, daemon.AwaitEnd());
        Assert.False(File.Exists(_socket));
        Assert.False(File.Exists(_pidFile));
    }

    [Theory]
    [InlineData("TERM", 1, 0)]
    [InlineData("HUP", 1, 0)]
    [InlineData("INT", 0, 2)]
    public void Signals_end_the_daemon_as_they_end_virtiofsd(string signal, int status, int bySignal)
    {
        // A parent that can tell an exit status from a signal: .NET cannot.
        const string parent =
            """
            my $child = fork; if (!$child) { $SIG{INT} = 'DEFAULT'; exec @ARGV or die $! }
            waitpid($child, 0); print $? >> 8, ' ', $? & 127, "\n";
            """;
        using LaunchedDaemon perl = LaunchedDaemon.Start(
            "perl", ["-e", parent, _program, .. Words()]).AwaitReady();
        string pid = ReadPidFile().Trim();
        // In the middle of something.
        using VirtioFsDriver driver = VirtioFsDriver.Connect(_socket);
        Assert.False(new FuseClient(driver).Initialize().IsError);

        Run("kill", $"-{signal}", pid);

        Assert.Equal($"{status} {bySignal}\n", perl.Process.StandardOutput.ReadToEnd());
        Assert.False(File.Exists(_socket));
        Assert.False(File.Exists(_pidFile));
    }

    [Fact]
    public void The_line_that_launchers_wait_for_comes_once_and_after_listening()
    {
        using LaunchedDaemon daemon = Start("--readonly").AwaitReady();
        using (VirtioFsDriver driver = VirtioFsDriver.Connect(_socket))
        {
        }

        Assert.Equal(0, daemon.AwaitEnd());
        string line = Assert.Single(daemon.Log, line => line.Contains(LaunchedDaemon.ReadyMessage, StringComparison.Ordinal));
        Assert.Matches(@"^\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO  [a-z:]+\] Waiting for vhost-user socket connection\.\.\.$", line);
    }

    [Fact]
    public void An_inherited_socket_is_served_and_no_file_made_or_removed()
    {
        using LaunchedDaemon daemon = LaunchedDaemon.StartWithSocket(
            _socket, _program, "--shared-dir", _directory.File("share"), "--fd={fd}", "--sandbox=none").AwaitReady();
        Assert.False(File.Exists(_pidFile));
        using (VirtioFsDriver driver = VirtioFsDriver.Connect(_socket))
        {
            Assert.False(new FuseClient(driver).Initialize().IsError);
        }

        Assert.Equal(0, daemon.AwaitEnd());
        Assert.True(File.Exists(_socket));
    }

    [Fact]
    public void The_limit_of_open_files_is_what_was_asked_for_or_kept()
    {
        using (LaunchedDaemon daemon = Start("--rlimit-nofile", "2000").AwaitReady())
        {
            Assert.Equal(("2000", "2000"), OpenFiles(daemon.Process.Id));
        }

        // What 0 keeps is the hard limit: the runtime has raised the other one to it by then.
        using (LaunchedDaemon daemon = LaunchedDaemon.Start(
            "/bin/sh", ["-c", "ulimit -n 1900; exec \"$@\"", "sh", _program, "--rlimit-nofile=0", .. Words()]).AwaitReady())
        {
            Assert.Equal(("1900", "1900"), OpenFiles(daemon.Process.Id));
        }
    }

    [Fact]
    public void All_threads_that_serve_run_on_the_processors_asked_for()
    {
        int processor = Causeway.Linux.Processors.GetAffinity()[^1];
        using LaunchedDaemon daemon = Start("--cpu-affinity", $"{processor}").AwaitReady();
        using VirtioFsDriver driver = VirtioFsDriver.Connect(_socket);
        Assert.False(new FuseClient(driver).Initialize().IsError);

        string[] tasks = [.. Directory.GetDirectories($"/proc/{daemon.Process.Id}/task")
            .Where(task => File.ReadAllText($"{task}/comm").StartsWith("vq:", StringComparison.Ordinal))];
        Assert.NotEmpty(tasks);
        Assert.All(tasks, task => Assert.Contains(
            $"Cpus_allowed_list:\t{processor}\n", File.ReadAllText($"{task}/status"), StringComparison.Ordinal));
    }

    [Fact]
    public void A_processor_that_is_not_there_is_named()
    {
        using LaunchedDaemon daemon = Start("--cpu-affinity", "8000");

        Assert.Equal(1, daemon.AwaitEnd());
        Assert.Contains("processor 8000", Assert.Single(daemon.Log, IsOurs), StringComparison.Ordinal);
    }

    [Fact]
    public void A_guest_that_walks_more_than_there_is_memory_for_is_refused_until_it_forgets()
    {
        // 6.5 MiB are for nodes of 112 bytes.
        const int room = (13 << 19) / 112;
        const int files = room + 2000;
        for (int i = 0; i < files; i++)
        {
            using FileStream file = File.Create(_directory.File($"share/{i}"));
        }

        using LaunchedDaemon daemon = Start("--memory-max", "48M").AwaitReady();
        using VirtioFsDriver driver = VirtioFsDriver.Connect(_socket);
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        client.Lookup(NodeId.Root, "0");
        long before = Resident(daemon.Process.Id);
        var known = new List<NodeId>();
        Errno refused = Errno.Success;
        for (int i = 1; i < files && refused == Errno.Success; i++)
        {
            Result<NodeEntry> found = client.Lookup(NodeId.Root, $"{i}");
            refused = found.Error;
            known.Add(found.IsError ? NodeId.Root : found.Value.NodeId);
        }

        Assert.Equal(Errno.ENFILE, refused);
        Assert.InRange(known.Count, room - 10, room + 10);
        // All that grows together; the runtime of a test's daemon is not the one it is shipped with.
        long afterLookups = Resident(daemon.Process.Id);
        Assert.InRange(afterLookups - before, 1 << 20, 32 << 20);

        // Half a MiB is for listings that were begun: of each some 60 KiB would be kept for the next READDIR.
        var listing = new List<(string Name, NodeEntry Entry)>();
        int begun = 0;
        for (Result<FuseOpenOut> opened; begun < 2000 && !(opened = client.OpenDir(NodeId.Root)).IsError; begun++)
        {
            Assert.NotNull(client.ReadDirPlus(NodeId.Root, opened.Value.Handle, 0, 1000, listing).Value);
        }

        Assert.Equal(2000, begun);
        Assert.InRange(Resident(daemon.Process.Id) - afterLookups, long.MinValue, 8 << 20);
        foreach (NodeId node in known.SkipLast(1))
        {
            client.Forget(node, 1);
        }

        Assert.True(SpinWait.SpinUntil(
            () => !client.Lookup(NodeId.Root, $"{files - 1}").IsError, TimeSpan.FromSeconds(60)));
    }

    [Fact]
    public void Nothing_is_collected_while_a_guest_is_served()
    {
        File.WriteAllBytes(_directory.File("share/f"), new byte[8192]);
        using LaunchedDaemon daemon = Start().AwaitReady();
        using VirtioFsDriver driver = VirtioFsDriver.Connect(_socket);
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        Work(100);
        int before = Collections(daemon);
        Work(5000);
        Assert.Equal(before, Collections(daemon));

        void Work(int rounds)
        {
            for (int i = 0; i < rounds; i++)
            {
                NodeEntry entry = client.Lookup(NodeId.Root, "f").Value;
                ulong handle = client.Open(entry.NodeId, flags: 2).Value.Handle.Value;
                Assert.False(client.GetAttr(entry.NodeId).IsError);
                Assert.Equal(Errno.ENOENT, client.Lookup(NodeId.Root, "none").Error);
                Assert.Equal(Errno.Success, client.Release(entry.NodeId, new HandleId(handle)));
                client.Forget(entry.NodeId, 1);
            }
        }
    }

    // What the daemon says when it is asked by a signal.
    private static int Collections(LaunchedDaemon daemon)
    {
        const string mark = "garbage collections so far: ";
        int lines = daemon.Log.Count(line => line.Contains(mark, StringComparison.Ordinal));
        Run("kill", "-USR1", daemon.Process.Id.ToString(CultureInfo.InvariantCulture));
        string[] found = [];
        Assert.True(SpinWait.SpinUntil(
            () => (found = [.. daemon.Log.Where(line => line.Contains(mark, StringComparison.Ordinal))]).Length > lines,
            TimeSpan.FromSeconds(60)));
        return int.Parse(found[^1].AsSpan(found[^1].IndexOf(mark, StringComparison.Ordinal) + mark.Length), CultureInfo.InvariantCulture);
    }

    private static long Resident(int process) => 1024 * long.Parse(
        File.ReadLines($"/proc/{process}/status").Single(line => line.StartsWith("RssAnon:", StringComparison.Ordinal))
            .Split(' ', StringSplitOptions.RemoveEmptyEntries)[^2],
        CultureInfo.InvariantCulture);

    [Fact]
    public void Capabilities_are_a_JSON_object_of_two_members()
    {
        (int status, string output) = Ask("--print-capabilities");

        Assert.Equal(0, status);
        using JsonDocument answer = JsonDocument.Parse(output);
        Assert.Equal(["type", "features"], answer.RootElement.EnumerateObject().Select(member => member.Name));
        Assert.Equal("fs", answer.RootElement.GetProperty("type").GetString());
        string[] features = [.. answer.RootElement.GetProperty("features").EnumerateArray().Select(name => name.GetString()!)];
        Assert.Contains("separate-options", features);
        // Nothing that virtiofsd's managers do not know, in virtiofsd's order.
        string[] known =
            ["migrate-precopy", "posix-acl-negotiation-mode", "security-label-negotiation-mode", "separate-options"];
        Assert.Equal(known.Where(features.Contains), features);
    }

    [Theory]
    [InlineData("--version", "virtiofsd 1.14.0 (causeway ")]
    [InlineData("-V", "virtiofsd 1.14.0 (causeway ")]
    [InlineData("--help", "--shared-dir")]
    [InlineData("-h", "--shared-dir")]
    [InlineData("--print-capabilities --shared-dir /no/such --socket-path /no/such", "separate-options")]
    public void Questions_are_answered_with_status_0(string question, string answered)
    {
        (int status, string output) = Ask(question.Split(' '));

        Assert.Equal(0, status);
        Assert.Contains(answered, output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("")]
    [InlineData("extra")]
    [InlineData("--bogus")]
    [InlineData("--shared-dir")]
    [InlineData("--print-capabilities --socket-group root")]
    [InlineData("--print-capabilities --fd 3 --socket-path x")]
    [InlineData("--shared-dir / --socket-path x --socket-group root --fd 3")]
    [InlineData("--shared-dir / --fd -1")]
    public void A_wrong_command_line_has_status_2(string line)
    {
        (int status, string output) = Ask(line.Split(' ', StringSplitOptions.RemoveEmptyEntries));

        Assert.Equal(2, status);
        Assert.Empty(output);
    }

    [Theory]
    [InlineData("--log-level off", false)]
    [InlineData("--log-level warn", false)]
    [InlineData("--log-level error -d", true)]
    [InlineData("--log-level debug -o loglevel=err", false)]
    public void The_log_level_decides_whether_the_line_appears(string options, bool appears)
    {
        using LaunchedDaemon daemon = Start(options.Split(' '));
        ConnectOnce(daemon);

        Assert.Equal(0, daemon.AwaitEnd());
        Assert.Equal(appears, daemon.Log.Any(line => line.Contains(LaunchedDaemon.ReadyMessage, StringComparison.Ordinal)));
    }

    [Fact]
    public void Messages_for_the_systems_log_go_there_and_not_to_standard_error()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "NOT CHECKED: needs root, to put a log of ours at /dev/log");
        string path = _directory.File("log");
        using var log = new Socket(AddressFamily.Unix, System.Net.Sockets.SocketType.Dgram, ProtocolType.Unspecified);
        log.Bind(new UnixDomainSocketEndPoint(path));
        log.ReceiveTimeout = 60_000;
        // A /dev of its own for the daemon, with our log in it.
        const string script =
            """
            set -e; mkdir "$1/dev"; mount -t tmpfs none "$1/dev"
            for n in null zero full random urandom log; do : >"$1/dev/$n"; done
            for n in null zero full random urandom; do mount --bind "/dev/$n" "$1/dev/$n"; done
            mount --bind "$1/log" "$1/dev/log"; mount --rbind "$1/dev" /dev
            shift; exec "$@"
            """;
        using LaunchedDaemon daemon = LaunchedDaemon.Start(
            "unshare", ["--mount", "sh", "-c", script, "sh", _directory.Path, _program, "--syslog", .. Words()]);

        byte[] buffer = new byte[1000];
        string message;
        do
        {
            message = Encoding.UTF8.GetString(buffer, 0, log.Receive(buffer));
            // Facility "user" is 1: 8 and the severity.
            Assert.Matches(@"^<(12|14)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d virtiofsd\[\d+\]: \[", message);
        }
        while (!message.Contains(LaunchedDaemon.ReadyMessage, StringComparison.Ordinal));
        using (VirtioFsDriver driver = VirtioFsDriver.Connect(_socket))
        {
        }

        Assert.Equal(0, daemon.AwaitEnd());
        Assert.Empty(daemon.Log);
    }

    // Not by .NET's own means, which want a lock of their own for reading.
    private string ReadPidFile() => Run("cat", _pidFile);

    private static bool IsOurs(string line) => line.StartsWith("causeway: ", StringComparison.Ordinal);

    private static string Stat(string path, string format) => Run("stat", "-c", format, path).Trim();

    private static (string Soft, string Hard) OpenFiles(int process)
    {
        string[] words = File.ReadLines(string.Create(CultureInfo.InvariantCulture, $"/proc/{process}/limits"))
            .Single(line => line.StartsWith("Max open files", StringComparison.Ordinal))
            .Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return (words[3], words[4]);
    }

    private static string Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(
            new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true })!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        return output;
    }

    private string[] Words() =>
        ["--shared-dir", _directory.File("share"), "--socket-path", _socket, "--sandbox", "none"];

    private LaunchedDaemon Start(params string[] more) => LaunchedDaemon.Start(_program, [.. Words(), .. more]);

    private void ConnectOnce(LaunchedDaemon daemon)
    {
        DateTime deadline = DateTime.UtcNow.AddSeconds(60);
        while (true)
        {
            try
            {
                VirtioFsDriver.Connect(_socket).Dispose();
                return;
            }
            catch (IOException) when (DateTime.UtcNow < deadline && !daemon.Process.HasExited)
            {
                Thread.Sleep(20);
            }
        }
    }

    private (int Status, string Output) Ask(params string[] words)
    {
        using LaunchedDaemon daemon = LaunchedDaemon.Start(_program, words);
        daemon.Process.StandardInput.Close();
        string output = daemon.Process.StandardOutput.ReadToEnd();
        return (daemon.AwaitEnd(), output);
    }
}
