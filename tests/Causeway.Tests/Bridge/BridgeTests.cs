using System.Diagnostics;
using System.Globalization;
using Causeway.Driver.Bridge;
using Causeway.Linux;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Bridge;

/// <summary>How a share that is mounted through /dev/fuse begins and ends.</summary>
public sealed class BridgeTests
{
    private const int SigInt = 2;
    private const int SigTerm = 15;

    [Theory]
    [InlineData(SigInt)]
    [InlineData(SigTerm)]
    public void A_signal_unmounts(int signal)
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath);
        Assert.NotNull(mount.MountLine);

        mount.Signal(signal);

        Assert.Equal(0, mount.AwaitEnd());
        Assert.Null(mount.MountLine);

        // The daemon is free for the next one.
        using MountProcess next = MountProcess.Start(daemon.SocketPath);
        File.WriteAllText(next.File("x"), "x");
    }

    // The number of threads that are there, of those that the documentation promises.
    [Theory]
    [InlineData("nohandover,noio_uring", false)]
    [InlineData("io_uring", true)]
    [InlineData("nohandover,noio_uring,threads=3", null)]
    [InlineData("io_uring,threads=1", null)]
    public void Without_threads_it_has_one_per_processor_over_io_uring_and_half_as_many_over_the_device(
        string options, bool? isOnePerProcessor)
    {
        int processors = Environment.ProcessorCount;
        int expected = isOnePerProcessor switch
        {
            true => Math.Min(processors, 4),
            false => Math.Clamp(processors / 2, 1, 4),
            null => int.Parse(options[^1..], CultureInfo.InvariantCulture),
        };
        using var share = new TemporaryDirectory();
        using FuseIoUring? ring = FuseIoUring.For(options);
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "--num-request-queues 8");
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, options);

        int threads = Directory.GetDirectories($"/proc/{mount.Process.Id}/task")
            .Count(thread => File.ReadAllText($"{thread}/comm").StartsWith("bridge:", StringComparison.Ordinal));
        Assert.Equal(expected, threads);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public void Over_io_uring_a_thread_runs_on_the_processors_whose_queues_it_serves(int threads)
    {
        IReadOnlyList<int> own = Processors.GetAffinity();
        Assert.SkipWhen(own.Count < 2, "NOT TESTED: a single processor has a single queue");
        using var share = new TemporaryDirectory();
        using FuseIoUring? ring = FuseIoUring.For("io_uring");
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "--num-request-queues 8");
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, $"io_uring,threads={threads}");
        File.WriteAllText(mount.File("file"), "content");

        foreach (string thread in Directory.GetDirectories($"/proc/{mount.Process.Id}/task"))
        {
            string name = File.ReadAllText($"{thread}/comm").Trim();
            int index = name.StartsWith("bridge:", StringComparison.Ordinal)
                ? int.Parse(name["bridge:".Length..], CultureInfo.InvariantCulture)
                : 0;
            int shares = name.StartsWith("bridge:", StringComparison.Ordinal) ? threads : 1;
            string allowed = File.ReadLines($"{thread}/status").Single(line => line.StartsWith("Cpus_allowed_list:", StringComparison.Ordinal));
            Assert.True(Processors.TryParse(allowed.Split('\t')[1], out IReadOnlyList<int> processors), allowed);
            Assert.Equal(own.Where(processor => processor % shares == index), processors);
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("nohandover")]
    [InlineData("io_uring")]
    public void A_signal_unmounts_even_while_a_file_is_open(string options)
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, options);
        using FileStream open = File.OpenRead(mount.File("file"));

        mount.Signal(SigTerm);

        Assert.Equal(0, mount.AwaitEnd());
        Assert.Null(mount.MountLine);
        Assert.Throws<IOException>(() => RandomAccess.Read(open.SafeFileHandle, new byte[10], 3));
    }

    [Theory]
    [InlineData("")]
    [InlineData("nohandover")]
    [InlineData("io_uring")]
    public void Umount_ends_the_bridge(string options)
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, options);

        (int status, string error) = DaemonProcess.RunToEnd(DaemonProcess.Program, "umount", mount.Path);

        Assert.Equal("", error);
        Assert.Equal(0, status);
        Assert.Equal(0, mount.AwaitEnd());
    }

    [Fact]
    public void Umount_says_that_a_mount_is_in_use()
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath);
        using FileStream open = File.OpenRead(mount.File("file"));

        (int status, string error) = DaemonProcess.RunToEnd(DaemonProcess.Program, "umount", mount.Path);
        Assert.Equal(1, status);
        Assert.Contains("in use", error, StringComparison.Ordinal);
        Assert.NotNull(mount.MountLine);

        (status, error) = DaemonProcess.RunToEnd(DaemonProcess.Program, "umount", "--lazy", mount.Path);
        Assert.Equal("", error);
        Assert.Equal(0, status);
        Assert.Null(mount.MountLine);
        Assert.Equal('c', open.ReadByte());
    }

    [Theory]
    [InlineData("")]
    [InlineData("nohandover")]
    [InlineData("io_uring")]
    public void After_a_bridge_is_killed_the_next_one_mounts_at_once(string options)
    {
        using var share = new TemporaryDirectory();
        using var place = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = Serve(share);
        using (MountProcess mount = MountProcess.Start(daemon.SocketPath, options, place.Path))
        {
            Process[] load = StartLoad(mount);
            mount.Process.Kill();
            mount.AwaitEnd();
            // At once, or as soon as a daemon that serves it by itself has seen that.
            Assert.True(SpinWait.SpinUntil(() => Shell.Try("/", $"ls '{mount.Path}'").Status != 0, TimeSpan.FromMinutes(1)));

            using MountProcess next = MountProcess.Start(daemon.SocketPath, path: place.Path);
            Assert.Equal("content", File.ReadAllText(next.File("file")));
            AwaitErrors(load);
        }

        Assert.DoesNotContain(File.ReadLines("/proc/mounts"), line => line.Contains(place.Path, StringComparison.Ordinal));
    }

    [Fact]
    public void What_a_killed_bridge_has_left_is_removed_though_there_is_no_daemon_any_more()
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath);
        mount.Process.Kill();
        mount.AwaitEnd();
        daemon.Process.Kill();
        Assert.True(daemon.Process.WaitForExit(TimeSpan.FromMinutes(1)));
        Assert.NotNull(mount.MountLine);

        (int status, string error) = DaemonProcess.RunToEnd(DaemonProcess.Program, "mount", daemon.SocketPath, mount.Path);

        Assert.Equal(1, status);
        Assert.Contains("connect to", error, StringComparison.Ordinal);
        Assert.Null(mount.MountLine);
    }

    [Fact]
    public void Umount_removes_what_a_killed_bridge_has_left()
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath);
        mount.Process.Kill();
        mount.AwaitEnd();
        Assert.NotNull(mount.MountLine);

        (int status, string error) = DaemonProcess.RunToEnd(DaemonProcess.Program, "umount", mount.Path);

        Assert.Equal("", error);
        Assert.Equal(0, status);
        Assert.Null(mount.MountLine);
        Assert.True(Directory.Exists(mount.Path));
    }

    [Theory]
    [InlineData("")]
    [InlineData("nohandover")]
    [InlineData("io_uring")]
    public void When_the_daemon_is_killed_under_load_programs_get_errors_and_the_mount_goes(string options)
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, options);
        Process[] load = StartLoad(mount);
        daemon.Process.Kill();

        AwaitErrors(load);
        Assert.Equal(1, mount.AwaitEnd());
        Assert.Contains("has closed the connection", mount.Log, StringComparison.Ordinal);
        Assert.Null(mount.MountLine);
    }

    [Theory]
    [InlineData("")]
    [InlineData("nohandover")]
    [InlineData("io_uring")]
    public void A_lazy_unmount_under_load_ends_the_bridge_once_nobody_uses_it(string options)
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, options);
        Process[] load = StartLoad(mount);

        Shell.Run("/", $"umount --lazy '{mount.Path}'");
        Assert.Null(mount.MountLine);
        foreach (Process process in load)
        {
            // In the middle of something; its working directory is the last that keeps the mount.
            process.Kill(entireProcessTree: true);
            Assert.True(process.WaitForExit(TimeSpan.FromMinutes(1)), "a program cannot be killed");
            process.Dispose();
        }

        Assert.Equal(0, mount.AwaitEnd());
    }

    [Theory]
    [InlineData("")]
    [InlineData("nohandover")]
    [InlineData("io_uring")]
    public void A_forced_unmount_under_load_fails_what_is_in_flight_and_ends_the_bridge(string options)
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, options);
        Process[] load = StartLoad(mount);

        Shell.Run("/", $"umount --force --lazy '{mount.Path}'");

        AwaitErrors(load);
        Assert.Equal(0, mount.AwaitEnd());
        Assert.Null(mount.MountLine);
    }

    [Fact]
    public void Without_io_uring_in_the_kernel_a_mount_that_asks_for_it_works_and_says_so()
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);

        // Waiting for the next daemon excludes it, which is the same from here on as a kernel without it.
        using MountProcess mount = MountProcess.Launch(daemon.SocketPath, "io_uring,lost=wait");
        mount.AwaitReady();

        Assert.Contains("io_uring is not used: ", mount.Log, StringComparison.Ordinal);
        File.WriteAllText(mount.File("x"), "x");
        Assert.Equal("x", File.ReadAllText(share.File("x")));
    }

    [Fact]
    public void A_mount_that_waits_goes_on_with_the_next_daemon()
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess first = Serve(share);
        using MountProcess mount = MountProcess.Start(first.SocketPath, "lost=wait");
        Directory.CreateDirectory(mount.File("d"));
        File.WriteAllText(mount.File("d/file"), "content");
        File.WriteAllText(share.File("d/unread"), "content");
        // In a program of its own: one that has files of the mount open cannot start others while it waits, since exec closes them.
        using Process reader = Shell.Start(
            mount.Path, "exec 5< d/unread; echo open; while read; do cat <&5 2> /dev/null || echo failed; done");
        Assert.Equal("open", reader.StandardOutput.ReadLine());
        using Process load = Shell.Start(
            mount.Path, "for i in $(seq 1000000); do cat d/file > /dev/null 2>&1 && echo turn || echo failed; done 2> /dev/null");
        Assert.Equal("turn", load.StandardOutput.ReadLine());

        for (int round = 0; round < 3; round++)
        {
            first.Process.Kill();
            Assert.True(first.Process.WaitForExit(TimeSpan.FromMinutes(1)));
            File.Delete(first.SocketPath);
            using DaemonProcess next = DaemonProcess.Start(share.Path, "--cache auto", socket: first.SocketPath);

            // The same program goes on, and finds the same files.
            AwaitTurns(load, 50);
            Assert.Equal("content", File.ReadAllText(mount.File("d/file")));
            File.WriteAllText(mount.File($"d/new{round}"), "new");
            Assert.Equal("new", File.ReadAllText(share.File($"d/new{round}")));
            reader.StandardInput.WriteLine();
            Assert.Equal("failed", reader.StandardOutput.ReadLine());
            next.Process.Kill();
            next.Process.WaitForExit();
        }

        // Nobody is there: a program waits, and can be ended; so can the mount.
        using Process waiting = Shell.Start(mount.Path, "echo go; cat d/file");
        Assert.Equal("go", waiting.StandardOutput.ReadLine());
        waiting.Kill(entireProcessTree: true);
        Assert.True(waiting.WaitForExit(TimeSpan.FromMinutes(1)), "a waiting program cannot be killed");
        mount.Signal(SigTerm);
        Assert.Equal(0, mount.AwaitEnd());
        Assert.Null(mount.MountLine);
        load.Kill(entireProcessTree: true);
        reader.Kill(entireProcessTree: true);
    }

    [Fact]
    public void Options_of_mount_are_in_force()
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(
            daemon.SocketPath, "ro,nosuid,nodev,noexec,noatime,max_read=65536,fsname=my-share -o allow_other");

        string[] line = mount.MountLine!.Split(' ');
        Assert.Equal("my-share", line[0]);
        Assert.Equal("fuse.causeway", line[2]);
        Assert.Superset(
            new HashSet<string> { "ro", "nosuid", "nodev", "noexec", "noatime", "default_permissions", "allow_other", "max_read=65536" },
            line[3].Split(',').ToHashSet());
        Assert.Throws<IOException>(() => File.WriteAllText(mount.File("file"), "changed"));
        Assert.Equal("content", File.ReadAllText(mount.File("file")));
    }

    [Theory]
    [InlineData("")]
    [InlineData("io_uring")]
    public void Moving_messages_allocates_nothing(string options)
    {
        using var share = new TemporaryDirectory();
        using var place = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using FuseIoUring? uring = FuseIoUring.For(options);
        using FuseBridge bridge = FuseBridge.Mount(
            new BridgeOptions
            {
                SocketPath = daemon.SocketPath,
                MountPoint = place.Path,
                Cache = BridgeCache.None,
                UsesIoUring = uring is not null,
                HandsOver = false,
            });
        Assert.Equal(uring is not null, bridge.UsesIoUring);
        var thread = new Thread(() => bridge.Run()) { IsBackground = true };
        thread.Start();
        try
        {
            // Only by other processes: a thread of ours in the mount would wait for threads of ours.
            const string Work = """
                for i in $(seq 20); do echo $i > f$i; cat f$i f$i > /dev/null; mv f$i g$i; ls -l > /dev/null; rm g$i; done
                dd if=/dev/zero of=big bs=1M count=8 status=none; dd if=big of=/dev/null bs=4k status=none
                """;
            Shell.Run(place.Path, Work);
            Shell.Run(place.Path, Work);
            long requests = bridge.RequestCount;
            long allocated = bridge.AllocatedBytes;

            Shell.Run(place.Path, Work);

            Assert.InRange(bridge.RequestCount - requests, 500, long.MaxValue);
            Assert.Equal(0, bridge.AllocatedBytes - allocated);
        }
        finally
        {
            bridge.Stop();
            thread.Join();
        }
    }

    [Theory]
    [InlineData("wrong", 2, "'-o wrong' is not a mount option")]
    [InlineData("max_read=12", 2, "from 4096")]
    [InlineData("", 1, "connect to")]
    public void What_cannot_be_mounted_is_said_in_one_line(string options, int status, string message)
    {
        using var place = new TemporaryDirectory();
        string[] list = options.Length > 0 ? ["-o", options] : [];
        (int actual, string error) = DaemonProcess.RunToEnd(
            DaemonProcess.Program, ["mount", place.File("no.sock"), place.Path, .. list]);

        Assert.Equal(status, actual);
        Assert.Contains(message, error, StringComparison.Ordinal);
        Assert.Single(error.Trim().Split('\n'));
    }

    [Fact]
    public void An_ordinary_user_mounts_by_fusermount3()
    {
        Assert.SkipWhen(!Shell.Has("fusermount3"), "NOT TESTED: there is no fusermount3; install the package 'fuse3'");
        using var share = new TemporaryDirectory();
        using var place = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = Serve(share);
        Shell.Run("/", $"chmod 666 '{daemon.SocketPath}'; chown 65534:65534 '{place.Path}'; chmod 755 '{share.Path}'");
        const string AsNobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";

        // In a mount namespace with a /dev/fuse that everyone may open, as it is on most machines and not on all.
        using var devices = new TemporaryDirectory();
        Shell.Run(devices.Path, "mknod fuse c 10 229; chmod 666 fuse");
        using MountProcess mount = MountProcess.Start(
            daemon.SocketPath,
            path: place.Path,
            prefix: $"unshare --mount sh -c 'mount --bind {devices.File("fuse")} /dev/fuse && exec {AsNobody} \"$@\"' --");

        string[] line = mount.OwnMountLine!.Split(' ');
        Assert.Equal("fuse.causeway", line[2]);
        Assert.Superset(new HashSet<string> { "nosuid", "nodev", "user_id=65534" }, line[3].Split(',').ToHashSet());
        string enter = $"nsenter --mount --target {mount.Process.Id}";
        Assert.Equal("content", Shell.Run("/", $"{enter} {AsNobody} cat '{mount.File("file")}'"));

        // Not even root, unless the user allows it.
        (int status, string output) = Shell.Try("/", $"{enter} cat '{mount.File("file")}'");
        Assert.Equal(1, status);
        Assert.Contains("Permission denied", output, StringComparison.Ordinal);

        mount.Signal(SigTerm);
        Assert.Equal(0, mount.AwaitEnd());
    }

    private static DaemonProcess Serve(TemporaryDirectory share)
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        return DaemonProcess.Start(share.Path, "--cache auto");
    }

    /// <summary>Programs that work in a mount until something fails; each is in the middle of it.</summary>
    private static Process[] StartLoad(MountProcess mount)
    {
        Process[] load = [.. Enumerable.Range(0, 4).Select(i => Shell.Start(
            mount.Path, $"while :; do seq 10000 > f{i}; cat f{i} > /dev/null; stat f{i} > /dev/null; echo turn; done 2> /dev/null"))];
        foreach (Process process in load)
        {
            Assert.Equal("turn", process.StandardOutput.ReadLine());
        }

        return load;
    }

    /// <summary>Every program ends by itself, because what it does fails.</summary>
    private static void AwaitErrors(Process[] load)
    {
        foreach (Process process in load)
        {
            process.StandardOutput.ReadToEnd();
            Assert.True(process.WaitForExit(TimeSpan.FromMinutes(1)), "a program is stuck");
            Assert.NotEqual(0, process.ExitCode);
            process.Dispose();
        }
    }

    private static void AwaitTurns(Process load, int count)
    {
        while (count > 0)
        {
            string? line = load.StandardOutput.ReadLine();
            Assert.NotNull(line);
            count -= line == "turn" ? 1 : 0;
        }
    }
}
