// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Diagnostics;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Bridge;
using Causeway.Tests.Sandbox;

namespace Causeway.Tests.Daemon;

/// <summary>The program as people run it, with several guests.</summary>
public sealed class SeveralGuestsTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData("none")]
    [InlineData("chroot")]
    [InlineData("namespace")]
    public void Two_sockets_two_guests_each_and_SIGTERM_ends_it(string sandbox)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess || sandbox != "chroot", "NOT TESTED: chroot needs root");
        using var share = new TemporaryDirectory();
        using var run = new TemporaryDirectory();
        string[] sockets = [run.File("one"), run.File("two")];
        using DaemonProcess daemon = DaemonProcess.Start(
            share.Path, $"--socket-path '{sockets[1]}' --max-guests 2 --sandbox {sandbox} --tag all", socket: sockets[0]);
        // By a shell, since .NET respects the lock.
        string both = $"{daemon.Process.Id}\n{daemon.Process.Id}";
        Assert.Equal((0, both), Shell.Try(run.Path, "cat one.pid two.pid"));
        VirtioFsDriver[] drivers = [.. sockets.Concat(sockets).Select(socket => VirtioFsDriver.Connect(socket))];
        FuseClient[] clients = [.. drivers.Select(driver => new FuseClient(driver))];
        Assert.All(clients, client => Assert.False(client.Initialize().IsError));
        for (int i = 0; i < clients.Length; i++)
        {
            FuseCreateOut file = clients[i].Create(NodeId.Root, $"file{i}", flags: 2).Value;
            Assert.Equal(5u, clients[i].Write(file.Entry.NodeId, file.Open.Handle, 0, "hello"u8.ToArray()).Value.Size);
            Assert.All(clients, client => Assert.Equal(5UL, client.Lookup(NodeId.Root, $"file{i}").Value.Attributes.Size));
        }

        // Its operator sees who sent what.
        Assert.Equal(0, DaemonProcess.RunToEnd("/bin/kill", "-USR1", $"{daemon.Process.Id}").Status);
        for (int guest = 1; guest <= 4; guest++)
        {
            SandboxedDaemon.Await($"the counters of guest {guest} are in the log", () => daemon.Log().Any(
                line => line.Contains($"Requests of guest {guest} so far: Lookup 4", StringComparison.Ordinal)));
        }

        Array.ForEach(drivers, driver => driver.Dispose());
        using (VirtioFsDriver later = VirtioFsDriver.Connect(sockets[1]))
        {
            Assert.False(new FuseClient(later).Initialize().IsError);
        }

        Assert.Empty(daemon.Complaints());
        Assert.Equal(0, DaemonProcess.RunToEnd("/bin/kill", "-TERM", $"{daemon.Process.Id}").Status);
        Assert.True(daemon.Process.WaitForExit(s_patience));
        Assert.All(sockets, socket => Assert.False(File.Exists(socket) || File.Exists(socket + ".pid")));
    }

    [Fact]
    public void Two_hundred_connections_beside_a_guest_that_stays_leave_nothing_behind()
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "--max-guests 3");
        using VirtioFsDriver staying = daemon.Connect();
        var client = new FuseClient(staying);
        Assert.False(client.Initialize().IsError);

        // The first make what is made once.
        Cycle(daemon, 20);
        (int Descriptors, int Threads, int Mappings) before = daemon.CountResources();
        long memory = daemon.StatusKilobytes("VmRSS");
        Cycle(daemon, 200);

        SandboxedDaemon.Await(
            $"descriptors, threads and mappings are {before} again, and not {daemon.CountResources()}",
            () => daemon.CountResources() is var now && now.Descriptors <= before.Descriptors && now.Threads <= before.Threads
                && now.Mappings <= before.Mappings);
        Assert.InRange(daemon.StatusKilobytes("VmRSS"), 0, memory + (8 << 10));
        Assert.False(client.Lookup(NodeId.Root, "file").IsError);
        Assert.Empty(daemon.Complaints());
    }

    [Theory]
    [InlineData("fanotify")]
    [InlineData("directories")]
    [InlineData("inotify")]
    public async Task Every_guest_is_told_of_changes_on_the_host_and_by_others(string how)
    {
        Assert.SkipUnless(how != "fanotify" || Environment.IsPrivilegedProcess, "NOT TESTED: fanotify needs root");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, $"--max-guests 3 --notify {how}");
        File.WriteAllText(share.File("file"), "0");
        var options = new VirtioFsClientOptions { Cache = Causeway.Driver.CacheMode.Always };
        var clients = new List<VirtioFsClient>();
        for (int i = 0; i < 3; i++)
        {
            clients.Add(await VirtioFsClient.ConnectAsync(daemon.SocketPath, options));
            Assert.Equal(1, (await clients[i].GetStatusAsync("file")).Length);
        }

        // What they know they would keep for good.
        for (int size = 2; size < 40; size++)
        {
            if (size % 4 == 0)
            {
                File.WriteAllBytes(share.File("file"), new byte[size]);
            }
            else
            {
                await using VirtioFsFile file = await clients[size % 4 - 1].OpenFileAsync(
                    "file", new OpenFileOptions { Access = FileAccess.Write });
                await file.SetLengthAsync(size);
            }

            foreach (VirtioFsClient client in clients)
            {
                var watch = Stopwatch.StartNew();
                while ((await client.GetStatusAsync("file")).Length != size)
                {
                    Assert.True(watch.Elapsed < s_patience, $"size {size} is not seen");
                    await Task.Yield();
                }
            }
        }

        foreach (VirtioFsClient client in clients)
        {
            await client.DisposeAsync();
        }

        Assert.Empty(daemon.Complaints());
    }

    [Theory]
    [InlineData("fanotify", "fanotify sdev:", 1)]
    [InlineData("directories", "fanotify ino:", 2)]
    [InlineData("inotify", "inotify wd:", 2)]
    public async Task The_host_is_watched_once_for_all_guests_and_only_while_one_looks(string how, string mark, int marks)
    {
        Assert.SkipUnless(how != "fanotify" || Environment.IsPrivilegedProcess, "NOT TESTED: fanotify needs root");
        using var share = new TemporaryDirectory();
        Directory.CreateDirectory(share.File("d"));
        File.WriteAllText(share.File("d/file"), "");
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, $"--max-guests 3 --version-table --notify {how}");
        Assert.Equal((1, 0), CountWatches(daemon, mark));
        var clients = new List<VirtioFsClient>();
        for (int i = 0; i < 3; i++)
        {
            clients.Add(await VirtioFsClient.ConnectAsync(
                daemon.SocketPath, new VirtioFsClientOptions { Cache = Causeway.Driver.CacheMode.Coherent }));
            Assert.Equal(0, (await clients[i].GetStatusAsync("d/file")).Length);
        }

        Assert.True(SpinWait.SpinUntil(() => CountWatches(daemon, mark) == (1, marks), s_patience));
        foreach (VirtioFsClient client in clients)
        {
            await client.DisposeAsync();
        }

        Assert.True(SpinWait.SpinUntil(() => CountWatches(daemon, mark) == (1, 0), s_patience));
        Assert.Empty(daemon.Complaints());
    }

    // How many of the daemon's descriptors watch, and what.
    private static (int Descriptors, int Marks) CountWatches(DaemonProcess daemon, string mark)
    {
        string directory = $"/proc/{daemon.Process.Id}";
        string[] watching =
        [
            .. Directory.EnumerateFiles($"{directory}/fd").Where(path => new FileInfo(path).LinkTarget is { } target
                && (target.Contains("fanotify", StringComparison.Ordinal) || target.Contains("inotify", StringComparison.Ordinal))),
        ];
        return (
            watching.Length,
            watching.Sum(path => File.ReadLines(path.Replace("/fd/", "/fdinfo/", StringComparison.Ordinal))
                .Count(line => line.StartsWith(mark, StringComparison.Ordinal))));
    }

    [Theory]
    [InlineData("from 1 to 64", "--max-guests 65")]
    [InlineData("'--max-guests N'", "--socket-path {socket}")]
    [InlineData("start another one", "--socket-path {socket}2 --max-guests 33")]
    [InlineData("--max-guests", "--max-guests 0")]
    public void What_cannot_be_is_refused_by_name(string named, string more)
    {
        using var share = new TemporaryDirectory();
        string socket = share.File("x.sock");
        (int status, string error) = DaemonProcess.RunToEnd(
            DaemonProcess.Program,
            ["serve", "--shared-dir", share.Path, "--socket-path", socket, "--sandbox", "none",
                .. more.Replace("{socket}", socket, StringComparison.Ordinal).Split(' ')]);

        Assert.Equal(2, status);
        Assert.Contains(named, error, StringComparison.Ordinal);
        Assert.False(File.Exists(socket));
    }

    // Two at a time, by turns orderly and not.
    private static void Cycle(DaemonProcess daemon, int count)
    {
        for (int i = 0; i < count; i += 2)
        {
            using VirtioFsDriver one = daemon.Connect();
            using VirtioFsDriver other = daemon.Connect();
            foreach (VirtioFsDriver driver in (VirtioFsDriver[])[one, other])
            {
                var client = new FuseClient(driver);
                Assert.False(client.Initialize().IsError);
                NodeId node = client.Lookup(NodeId.Root, "file").Value.NodeId;
                Assert.False(client.Open(node, 0).IsError);
            }

            if (i % 4 == 0)
            {
                one.Frontend.Dispose();
            }
        }
    }
}
