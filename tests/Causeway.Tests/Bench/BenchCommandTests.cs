// The program is waited for with a deadline.
#pragma warning disable xUnit1051, xUnit1031

using System.Diagnostics;
using System.Text.Json;
using Causeway.Cli;
using Causeway.Cli.Bench.Workloads;
using Causeway.Passthrough;
using Causeway.Tests.Daemon;
using Causeway.Tests.Driver;
using Causeway.Tests.Passthrough;
using Causeway.Tests.Server;

namespace Causeway.Tests.Bench;

/// <summary><c>causeway bench</c> as people run it, in runs that are too short to measure anything.</summary>
public sealed class BenchCommandTests
{
    private static readonly string s_ours =
        $"ours='{DaemonProcess.Program}' serve --sandbox none --socket-path {{socket}} --shared-dir {{dir}} --xattr";

    [Fact]
    public void Every_operation_works_with_our_daemon_under_every_kind_of_load()
    {
        using var folder = new TemporaryDirectory("/dev/shm");
        foreach ((string depth, string queues, string client) in new[] { ("1", "1", "blocking"), ("8", "2", "polling") })
        {
            using JsonDocument json = JsonDocument.Parse(Succeeds(
                "--daemon", s_ours, "--dir", folder.Path, "--slices", "1", "--slice", "20", "--json", "-",
                "--depth", depth, "--queues", queues, "--client", client));
            JsonElement[] results = [.. json.RootElement.GetProperty("results").EnumerateArray()];
            Assert.Equal(
                Catalog.Find([]).Select(operation => operation.Name),
                results.Select(result => result.GetProperty("operation").GetString()));
            foreach (JsonElement daemon in results.Select(result => result.GetProperty("daemons")[0]))
            {
                Assert.Equal(int.Parse(queues), daemon.GetProperty("queues").GetInt32());
                JsonElement slice = daemon.GetProperty("slices")[0];
                Assert.True(slice.GetProperty("cpuNanoseconds").GetInt64() > 0);
            }
        }

        Assert.Empty(Directory.GetFileSystemEntries(folder.Path));
    }

    [Fact]
    public void Daemons_are_compared_in_a_table_a_drawing_and_json()
    {
        string virtiofsd = ForeignDaemon.RustProgram();
        Assert.SkipUnless(File.Exists(virtiofsd), "there is no virtiofsd; 'eng/guest-platform newer' fetches it");
        using var folder = new TemporaryDirectory("/dev/shm");
        string json = folder.File("result.json");
        string chart = folder.File("result.svg");
        string output = Succeeds(
            "--daemon", s_ours,
            "--daemon", $"virtiofsd='{virtiofsd}' --sandbox none --socket-path {{socket}} --shared-dir {{dir}} --xattr",
            "--dir", folder.Path, "--slices", "3", "--slice", "50", "--only", "getattr,read-4k,create-user,readdirplus-cold",
            "--json", json, "--chart", chart);
        Assert.Matches(@"\ngetattr +ours +\d", output);
        Assert.Matches(@"\n +virtiofsd +[\d.]+  [\d.]+ \([\d.]+-[\d.]+\)", output);
        Assert.Matches(@"\nmean, metadata +virtiofsd +\d", output);
        Assert.StartsWith("<svg", File.ReadAllText(chart), StringComparison.Ordinal);
        using JsonDocument document = JsonDocument.Parse(File.ReadAllText(json));
        foreach (JsonElement result in document.RootElement.GetProperty("results").EnumerateArray())
        {
            Assert.All(
                result.GetProperty("daemons").EnumerateArray(),
                daemon => Assert.Contains(
                    daemon.GetProperty("slices").EnumerateArray(), slice => slice.GetProperty("operations").GetInt64() > 0));
        }
    }

    [Theory]
    [InlineData("getattr", "the reply to GETATTR says inode")]
    [InlineData("read-4k", "the reply to READ has other bytes than the file")]
    [InlineData("write-4k", "was answered, and the file has other bytes there")]
    public void A_daemon_that_lies_is_found_out(string operation, string message)
    {
        using var folder = new TemporaryDirectory("/dev/shm");
        string shared = Directory.CreateDirectory(folder.File("shared")).FullName;
        using Share share = Share.Open(new PassthroughOptions { SharedDirectory = shared });
        using var honest = new PassthroughFileSystem(share);
        using var loopback = new Loopback(new LyingFileSystem(honest));

        // Its directory and its socket are links to those of the daemon in this process.
        string script = folder.File("daemon");
        File.WriteAllText(script, $"rmdir \"$2\" && ln -s '{shared}' \"$2\" && ln -s '{loopback.SocketPath}' \"$1\" && exec sleep 1000\n");
        Fails(
            "the daemon 'liar' answers wrongly: ", message,
            "--daemon", $"liar=sh '{script}' {{socket}} {{dir}}", "--dir", folder.Path, "--only", operation, "--slice", "50",
            "--slices", "1");
    }

    [Fact]
    public void What_is_wrong_is_said_with_the_last_words_of_the_daemon()
    {
        using var folder = new TemporaryDirectory("/dev/shm");
        Fails(
            "the daemon 'none' has ended with status 3; ", "I cannot",
            "--daemon", "none=sh -c 'echo I cannot; exit 3' {socket} {dir}", "--dir", folder.Path);
        Fails("is not a directory", "--dir", "--dir", folder.File("nothing"));
        Fails("two daemons have the name 'ours'", "", "--daemon", s_ours, "--daemon", s_ours);
        Fails("'--client' takes blocking, polling", "not 'asleep'", "--client", "asleep");
        Assert.Empty(Directory.GetFileSystemEntries(folder.Path));
    }

    [Fact]
    public void Operations_are_listed()
    {
        string[] lines = Succeeds("--list").TrimEnd().Split('\n');
        Assert.Equal(Catalog.Operations.Count, lines.Length);
        Assert.StartsWith("noop              metadata", lines[0], StringComparison.Ordinal);
    }

    private static string Succeeds(params string[] arguments)
    {
        (int status, string output, string error) = Run(arguments);
        Assert.Equal((ExitStatus.Success, ""), (status, error));
        return output;
    }

    private static void Fails(string message, string detail, params string[] arguments)
    {
        (int status, _, string error) = Run(arguments);
        Assert.Contains(message, error, StringComparison.Ordinal);
        Assert.Contains(detail, error, StringComparison.Ordinal);
        Assert.NotEqual(ExitStatus.Success, status);
    }

    private static (int Status, string Output, string Error) Run(string[] arguments)
    {
        var start = new ProcessStartInfo(DaemonProcess.Program, ["bench", .. arguments])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        process.StandardInput.Close();
        Task<string> error = process.StandardError.ReadToEndAsync();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Assert.True(process.WaitForExit(TimeSpan.FromMinutes(4)));
        return (process.ExitCode, output.GetAwaiter().GetResult(), error.GetAwaiter().GetResult());
    }
}
