namespace Causeway.Tests.Daemon;

/// <summary>Bad input from the operator: one line that names the thing and the fix, and virtiofsd's exit status.</summary>
public sealed class ErrorTests
{
    [Theory]
    [InlineData(1, "/no/such/dir", "--shared-dir /no/such/dir --socket-path /tmp/causeway-never.sock --sandbox none")]
    [InlineData(1, "not a directory", "--shared-dir /etc/passwd --socket-path /tmp/causeway-never.sock --sandbox none")]
    [InlineData(1, "/no/such", "--shared-dir /tmp --socket-path /no/such/x.sock --sandbox none")]
    [InlineData(1, "not a socket", "--shared-dir /tmp --socket-path /etc/passwd --sandbox none")]
    [InlineData(1, "not a socket", "--shared-dir /tmp --fd 0 --sandbox none")]
    [InlineData(1, "not open", "--shared-dir /tmp --fd 99 --sandbox none")]
    [InlineData(1, "fs.nr_open", "--shared-dir /tmp --socket-path /tmp/causeway-never.sock --rlimit-nofile 4294967295 --sandbox none")]
    [InlineData(2, "--cache", "--shared-dir /tmp --socket-path /tmp/causeway-never.sock --sandbox none --cache maybe")]
    [InlineData(2, "--bogus", "--shared-dir /tmp --socket-path /tmp/causeway-never.sock --sandbox none --bogus")]
    public void What_is_wrong_is_said_in_one_line(int status, string named, string options)
    {
        (int actual, string error) = DaemonProcess.RunToEnd(DaemonProcess.Program, ["serve", .. options.Split(' ')]);

        Assert.Equal(status, actual);
        string line = Assert.Single(error.Split('\n', StringSplitOptions.RemoveEmptyEntries), IsOurs);
        Assert.Contains(named, line, StringComparison.Ordinal);
    }

    [Fact]
    public void A_directory_that_the_daemon_may_not_read_is_refused()
    {
        using var share = new TemporaryDirectory();
        File.SetUnixFileMode(share.Path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);

        (int status, string error) = DaemonProcess.RunToEnd(
            "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", DaemonProcess.Program, "serve",
            "--shared-dir", share.Path, "--socket-path", share.File("x.sock"), "--sandbox", "none");

        Assert.SkipWhen(status is 126 or 127, "the repository is where other users cannot run the daemon");
        Assert.Equal(1, status);
        Assert.Contains(share.Path, Assert.Single(error.Split('\n'), IsOurs), StringComparison.Ordinal);
    }

    [Fact]
    public void A_path_that_is_too_long_is_refused_with_the_limit()
    {
        string path = "/tmp/" + new string('x', 108);

        (int status, string error) = DaemonProcess.RunToEnd(
            DaemonProcess.Program, "serve", "--shared-dir", "/tmp", "--socket-path", path, "--sandbox", "none");

        Assert.Equal(1, status);
        Assert.Contains("107", error, StringComparison.Ordinal);
    }

    [Fact]
    public void A_socket_that_is_in_use_is_left_alone()
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path);

        (int status, string error) = DaemonProcess.RunToEnd(
            DaemonProcess.Program, "serve", "--shared-dir", share.Path, "--socket-path", daemon.SocketPath, "--sandbox", "none");

        Assert.Equal(1, status);
        Assert.Contains(daemon.SocketPath, error, StringComparison.Ordinal);
        Assert.True(File.Exists(daemon.SocketPath));
        using (daemon.Connect())
        {
        }
    }

    [Fact]
    public void A_file_at_the_socket_path_is_not_removed()
    {
        using var share = new TemporaryDirectory();
        string path = share.File("precious");
        File.WriteAllText(path, "data");

        (int status, _) = DaemonProcess.RunToEnd(
            DaemonProcess.Program, "serve", "--shared-dir", share.Path, "--socket-path", path, "--sandbox", "none");

        Assert.Equal(1, status);
        Assert.Equal("data", File.ReadAllText(path));
    }

    [Fact]
    public void A_socket_that_a_killed_daemon_left_behind_is_replaced()
    {
        using var share = new TemporaryDirectory();
        string path;
        using (DaemonProcess killed = DaemonProcess.Start(share.Path))
        {
            path = killed.SocketPath;
            killed.Process.Kill();
            killed.Process.WaitForExit();
            Assert.True(File.Exists(path));
            File.Move(path, share.File("left.sock"));
        }

        (int status, string error) = DaemonProcess.RunToEnd(
            DaemonProcess.Program, "serve", "--shared-dir", "/no/such/dir", "--socket-path", share.File("left.sock"), "--sandbox", "none");
        Assert.Equal(1, status);
        Assert.Contains("/no/such/dir", error, StringComparison.Ordinal);
        Assert.True(File.Exists(share.File("left.sock")));

        using DaemonProcess next = DaemonProcess.Start(share.Path, $"--socket-path '{share.File("left.sock")}'");
        using var driver = Causeway.Driver.VirtioFsDriver.Connect(share.File("left.sock"));
    }

    private static bool IsOurs(string line) => line.StartsWith("causeway: ", StringComparison.Ordinal);
}
