using Causeway.Driver;
using Causeway.Fuse;

namespace Causeway.Tests.Daemon;

/// <summary>The command lines of launchers, word by word, in a process of its own; a guest then reads a file.</summary>
/// <remarks>
/// <c>{dir}</c>, <c>{socket}</c> and <c>{fd}</c> stand for what differs from run to run. Where from: Kata Containers'
/// virtiofsd.go and share_virtio_fs_standalone.rs, libvirt's qemu_virtiofs.c, the documents of Cloud Hypervisor and of QEMU.
/// </remarks>
public sealed class LauncherTests
{
    [Theory]
    [InlineData("Kata, Go runtime", "--syslog --cache=auto --shared-dir={dir} --fd={fd} --thread-pool-size=1 --announce-submounts")]
    [InlineData("Kata, Rust runtime", "--socket-path {socket} --shared-dir {dir} --cache never --sandbox none --seccomp none --inode-file-handles prefer --xattr")]
    [InlineData("libvirt", "--fd={fd} --shared-dir {dir} --cache always --xattr --thread-pool-size=16 --rlimit-nofile=4096")]
    [InlineData("libvirt, -o", "--fd={fd} -o source={dir},cache=always,xattr,no_flock,no_posix_lock --thread-pool-size=4 -d")]
    [InlineData("podman machine", "--fd {fd} --shared-dir {dir} --cache never")]
    [InlineData("Cloud Hypervisor", "--log-level error --socket-path={socket} --shared-dir={dir} --cache=never --thread-pool-size=4")]
    [InlineData("C virtiofsd", "-f --socket-path={socket} -o source={dir} -o cache=none -o no_posix_lock,no_flock,no_xattr --thread-pool-size=64")]
    public void A_guest_reads_a_file_of_a_daemon_that_was_started_by(string launcher, string line)
    {
        using var directory = new TemporaryDirectory();
        string share = directory.File("share");
        string socket = directory.File("x.sock");
        Directory.CreateDirectory(share);
        File.WriteAllText(Path.Combine(share, "file"), launcher);
        string[] words = line.Replace("{dir}", share, StringComparison.Ordinal)
            .Replace("{socket}", socket, StringComparison.Ordinal)
            .Split(' ');
        string program = LaunchedDaemon.MakeLink(directory);
        using LaunchedDaemon daemon = line.Contains("{fd}", StringComparison.Ordinal)
            ? LaunchedDaemon.StartWithSocket(socket, program, words)
            : LaunchedDaemon.Start(program, words);
        if (!line.Contains("error", StringComparison.Ordinal) && !line.Contains("--syslog", StringComparison.Ordinal))
        {
            daemon.AwaitReady();
        }

        using (VirtioFsDriver driver = Connect(socket, daemon))
        {
            var client = new FuseClient(driver);
            Assert.False(client.Initialize().IsError);
            NodeId node = client.Lookup(NodeId.Root, "file").Value.NodeId;
            HandleId handle = client.Open(node, 0).Value.Handle;
            Assert.Equal(Causeway.Linux.Errno.Success, client.Read(node, handle, 0, 100, out ReadOnlySpan<byte> data));
            Assert.Equal(launcher, System.Text.Encoding.UTF8.GetString(data));
        }

        Assert.Equal(0, daemon.AwaitEnd());
        Assert.Equal(line.Contains("{fd}", StringComparison.Ordinal), File.Exists(socket));
        Assert.False(File.Exists(socket + ".pid"));
    }

    // Some launchers do not wait for the line, and connect as soon as there is a socket.
    private static VirtioFsDriver Connect(string socket, LaunchedDaemon daemon)
    {
        DateTime deadline = DateTime.UtcNow.AddSeconds(60);
        while (true)
        {
            try
            {
                return VirtioFsDriver.Connect(socket);
            }
            catch (IOException) when (DateTime.UtcNow < deadline && !daemon.Process.HasExited)
            {
                Thread.Sleep(20);
            }
        }
    }
}
