// The program is waited for with a deadline.
#pragma warning disable xUnit1051, xUnit1031

using System.Diagnostics;
using System.Text.Json;
using Causeway.Cli.Client;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Cli;

/// <summary>The commands that use a share, as people run them: the program against a daemon.</summary>
public sealed class ClientCommandTests : IDisposable
{
    private readonly TemporaryDirectory _share = new();
    private readonly TemporaryDirectory _local = new();
    private readonly DaemonProcess _daemon;

    public ClientCommandTests()
    {
        Directory.CreateDirectory(_share.File("dir/inner"));
        File.WriteAllText(_share.File("dir/b.txt"), "content of b");
        File.WriteAllText(_share.File("dir/inner/deep.txt"), "deep");
        File.CreateSymbolicLink(_share.File("dir/link"), "b.txt");
        _daemon = DaemonProcess.Start(_share.Path);
    }

    private string Socket => _daemon.SocketPath;

    public void Dispose()
    {
        _daemon.Dispose();
        _share.Dispose();
        _local.Dispose();
    }

    [Fact]
    public void A_share_is_listed_shown_and_searched()
    {
        Assert.Equal("b.txt\ninner\nlink\n", Succeeds("ls", $"{Socket}:dir"));
        string[] lines = Succeeds("ls", "-l", $"{Socket}:dir").TrimEnd().Split('\n');
        Assert.StartsWith("-rw-r--r--", lines[0], StringComparison.Ordinal);
        Assert.Contains("12 B", lines[0], StringComparison.Ordinal);
        Assert.StartsWith("lrwxrwxrwx", lines[2], StringComparison.Ordinal);
        Assert.Contains("size: 12 B (12 bytes", Succeeds("stat", $"{Socket}:dir/b.txt"), StringComparison.Ordinal);
        Assert.Contains("-> b.txt", Succeeds("stat", $"{Socket}:dir/link"), StringComparison.Ordinal);
        Assert.Equal(
            ["dir", "dir/b.txt", "dir/inner", "dir/inner/deep.txt", "dir/link"],
            Succeeds("find", $"{Socket}:dir").TrimEnd().Split('\n').Order(StringComparer.Ordinal));
        Assert.Equal("dir/inner/deep.txt\n", Succeeds("find", $"{Socket}:dir", "--name", "d*.txt", "--type", "f"));
        Assert.Contains("%", Succeeds("df", Socket), StringComparison.Ordinal);
    }

    [Fact]
    public void Scripts_get_json()
    {
        using JsonDocument list = JsonDocument.Parse(Succeeds("ls", "--json", $"{Socket}:dir"));
        Assert.Equal(
            ["b.txt", "inner", "link"], list.RootElement.EnumerateArray().Select(entry => entry.GetProperty("name").GetString()));
        using JsonDocument status = JsonDocument.Parse(Succeeds("stat", "--json", $"{Socket}:dir/b.txt"));
        Assert.Equal(12, status.RootElement.GetProperty("size").GetInt64());
        Assert.Equal("file", status.RootElement.GetProperty("type").GetString());
        Assert.Equal("0644", status.RootElement.GetProperty("mode").GetString());
        Assert.All(
            Succeeds("find", "--json", $"{Socket}:dir").TrimEnd().Split('\n'),
            line => Assert.StartsWith("dir", JsonDocument.Parse(line).RootElement.GetProperty("path").GetString()!, StringComparison.Ordinal));
        using JsonDocument space = JsonDocument.Parse(Succeeds("df", "--json", Socket));
        Assert.InRange(space.RootElement.GetProperty("size").GetInt64(), 1, long.MaxValue);
    }

    [Fact]
    public void Files_are_copied_out_in_and_within()
    {
        byte[] content = new byte[(9 << 20) + 77];
        new Random(11).NextBytes(content);
        File.WriteAllBytes(_share.File("big"), content);
        File.SetUnixFileMode(_share.File("big"), (UnixFileMode)0x1A0);

        Succeeds("cp", $"{Socket}:big", _local.Path);
        Assert.True(content.AsSpan().SequenceEqual(File.ReadAllBytes(_local.File("big"))));
        Assert.Equal((UnixFileMode)0x1A0, File.GetUnixFileMode(_local.File("big")));
        Succeeds("cp", _local.File("big"), $"{Socket}:dir/again");
        Assert.True(content.AsSpan().SequenceEqual(File.ReadAllBytes(_share.File("dir/again"))));
        Succeeds("cp", $"{Socket}:big", $"{Socket}:third");
        Assert.True(content.AsSpan().SequenceEqual(File.ReadAllBytes(_share.File("third"))));
        Assert.Equal("content of bcontent of b", Succeeds("cat", $"{Socket}:dir/b.txt", $"{Socket}:/dir/link"));

        Succeeds("cp", "-r", $"{Socket}:dir", _local.Path);
        Assert.Equal("deep", File.ReadAllText(_local.File("dir/inner/deep.txt")));
        Assert.Equal("b.txt", new FileInfo(_local.File("dir/link")).LinkTarget);
        Succeeds("cp", "-r", _local.File("dir"), $"{Socket}:copy");
        Assert.Equal("deep", File.ReadAllText(_share.File("copy/inner/deep.txt")));
    }

    [Fact]
    public void Errors_say_what_failed_on_what_and_why()
    {
        Fails(1, "stat 'nothing': No such file or directory (ENOENT)", "ls", $"{Socket}:nothing");
        Fails(1, "open 'dir': Is a directory (EISDIR)", "cat", $"{Socket}:dir");
        Fails(2, "say -r", "cp", $"{Socket}:dir", _local.Path);
        Fails(2, "there is no socket '/none'", "ls", "/none:dir");
        Fails(2, "is not a socket", "ls", $"{_share.File("dir/b.txt")}:dir");
        Fails(2, "none of the places is SOCK:PATH", "cp", "a", "b");
    }

    [Fact]
    public void A_socket_of_another_kind_is_an_error()
    {
        // Something that listens, answers in its own language, and closes.
        string path = _local.File("other.sock");
        using var listener = new System.Net.Sockets.Socket(
            System.Net.Sockets.AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, System.Net.Sockets.ProtocolType.Unspecified);
        listener.Bind(new System.Net.Sockets.UnixDomainSocketEndPoint(path));
        listener.Listen(1);
        var thread = new Thread(() =>
        {
            using System.Net.Sockets.Socket peer = listener.Accept();
            peer.Send("220 mail.example ESMTP ready\r\n"u8);
        });
        thread.Start();
        Fails(1, "is not a vhost-user device", "ls", $"{path}:/");
        thread.Join();
    }

    [Theory]
    [InlineData(0, "0 B")]
    [InlineData(999, "999 B")]
    [InlineData(1000, "0.98 KiB")]
    [InlineData(1536, "1.50 KiB")]
    [InlineData(15 << 20, "15.0 MiB")]
    [InlineData(150 << 20, "150 MiB")]
    public void Sizes_are_for_people(long bytes, string expected) => Assert.Equal(expected, Display.Size(bytes));

    [Fact]
    public void Progress_shows_how_much_how_fast_and_how_long()
    {
        Assert.Equal(
            "file  [============            ]  50%  50.0 MiB of 100 MiB  10.0 MiB/s  0:00:05 left",
            CopyProgress.Line("file", 50 << 20, 100 << 20, TimeSpan.FromSeconds(5)));
        Assert.Equal("file  2.00 MiB  1.00 MiB/s", CopyProgress.Line("file", 2 << 20, 0, TimeSpan.FromSeconds(2)));
    }

    private static (int Status, string Output, string Error) Run(params string[] arguments)
    {
        var start = new ProcessStartInfo(DaemonProcess.Program, arguments)
        {
            RedirectStandardError = true,
            RedirectStandardOutput = true,
        };
        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        Assert.True(process.WaitForExit(TimeSpan.FromSeconds(60)), "the program does not end");
        return (process.ExitCode, output, error.GetAwaiter().GetResult());
    }

    private static string Succeeds(params string[] arguments)
    {
        (int status, string output, string error) = Run(arguments);
        Assert.Equal((0, ""), (status, error));
        return output;
    }

    private static void Fails(int expected, string message, params string[] arguments)
    {
        (int status, _, string error) = Run(arguments);
        Assert.StartsWith("causeway: ", error, StringComparison.Ordinal);
        Assert.Contains(message, error, StringComparison.Ordinal);
        Assert.Equal(expected, status);
        Assert.Single(error.TrimEnd().Split('\n'));
    }
}
