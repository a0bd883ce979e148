using System.Diagnostics;
using System.Globalization;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Sandbox;

namespace Causeway.Tests.Daemon;

/// <summary>Memory, descriptors and size: what the program may cost.</summary>
public sealed class BudgetTests
{
    private const int Million = 1_000_000;

    [Fact]
    public void The_binary_and_the_idle_daemon_are_small()
    {
        Assert.SkipUnless(File.Exists(DaemonProcess.NativeBinary), "no artifacts/causeway; run ./build first");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path);
        TestContext.Current.TestOutputHelper!.WriteLine(
            $"binary {new FileInfo(DaemonProcess.NativeBinary).Length >> 10} KiB, resident "
            + $"{daemon.StatusKilobytes("VmRSS")} KiB, ready after {daemon.TimeToReady.TotalMilliseconds:F0} ms");

        Assert.InRange(new FileInfo(DaemonProcess.NativeBinary).Length, 0, 8 << 20);
        Assert.InRange(daemon.StatusKilobytes("VmRSS"), 0, 20 << 10);
    }

    // What an operator has for each virtual machine: two processes and no more, the second of them little bigger than one that runs
    // without a sandbox. How long they take to start is for eng/measure-start.
    [Fact]
    public void The_sandboxed_pair_is_small()
    {
        Assert.SkipUnless(File.Exists(DaemonProcess.NativeBinary), "no artifacts/causeway; run ./build first");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "--sandbox namespace");
        int worker = daemon.Worker();
        TestContext.Current.TestOutputHelper!.WriteLine(
            $"private {PrivateKilobytes(daemon.Process.Id)} KiB and {PrivateKilobytes(worker)} KiB, "
            + $"{Threads(daemon.Process.Id)} and {Threads(worker)} threads");

        Assert.Equal([worker], Children(daemon.Process.Id));
        Assert.Empty(Children(worker));
        Assert.InRange(Threads(daemon.Process.Id), 1, 4);
        Assert.InRange(Threads(worker), 1, 6);
        Assert.InRange(PrivateKilobytes(daemon.Process.Id), 0, 5 << 10);
        Assert.InRange(PrivateKilobytes(worker), 0, 8 << 10);
    }

    // Of all threads of a process.
    private static int[] Children(int process) =>
    [
        .. Directory.GetDirectories($"/proc/{process}/task").SelectMany(
            task => File.ReadAllText($"{task}/children").Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Select(number => int.Parse(number, CultureInfo.InvariantCulture)),
    ];

    private static int Threads(int process) => Directory.GetDirectories($"/proc/{process}/task").Length;

    // What the two do not share with each other, or with the daemons of other machines: the program's own pages are there once.
    private static long PrivateKilobytes(int process) => File.ReadLines($"/proc/{process}/smaps_rollup")
        .Where(line => line.StartsWith("Private_", StringComparison.Ordinal))
        .Sum(line => long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture));

    [Fact]
    public void A_walk_over_a_million_files_fits_in_200_megabytes_and_4096_descriptors()
    {
        // On tmpfs: making a million files there takes seconds, and handles work there as on disk.
        using var share = new TemporaryDirectory("/dev/shm");
        MakeTree(share.Path);
        using DaemonProcess daemon = DaemonProcess.Start(
            share.Path, "--cache always --rlimit-nofile 0", limit: "-n 4096");
        using VirtioFsDriver driver = daemon.Connect();
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);

        // As find does, with a guest that forgets nothing.
        int files = Walk(client, NodeId.Root);

        TestContext.Current.TestOutputHelper!.WriteLine(
            $"peak {daemon.StatusKilobytes("VmHWM") >> 10} MiB, {daemon.CountResources().Descriptors} descriptors");
        Assert.Equal(Million, files);
        Assert.InRange(daemon.StatusKilobytes("VmHWM"), 0, 200 << 10);
        Assert.InRange(daemon.CountResources().Descriptors, 0, 4096);
        Assert.Empty(daemon.Complaints());
    }

    // Without the limit it has more than 100 MiB then.
    [Fact]
    public void A_guest_that_looks_up_a_million_names_does_not_get_past_memory_max()
    {
        Assert.SkipUnless(File.Exists(DaemonProcess.NativeBinary), "no artifacts/causeway; run ./build first");
        using var share = new TemporaryDirectory("/dev/shm");
        MakeTree(share.Path);
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "--cache always --memory-max 64M");
        using VirtioFsDriver driver = daemon.Connect();
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        int known = 0;
        int refused = 0;
        NodeId[] directories = [.. Enumerable.Range(1, 1000).Select(name => client.Lookup(NodeId.Root, $"{name}").Value.NodeId)];
        foreach (NodeId directory in directories)
        {
            for (int file = 1; file <= 1000; file++)
            {
                Errno error = client.Lookup(directory, $"{file}").Error;
                Assert.True(error is Errno.Success or Errno.ENFILE, $"{error}");
                known += error == Errno.Success ? 1 : 0;
                refused += error == Errno.Success ? 0 : 1;
            }
        }

        TestContext.Current.TestOutputHelper!.WriteLine(
            $"{known} known, {refused} refused, peak {daemon.StatusKilobytes("VmHWM")} KiB, anonymous {daemon.StatusKilobytes("RssAnon")} KiB");
        Assert.InRange(known, 90_000, 500_000);
        Assert.Equal(Million, known + refused);
        Assert.InRange(daemon.StatusKilobytes("VmHWM"), 0, 64 << 10);
    }

    private static int Walk(FuseClient client, NodeId directory)
    {
        HandleId handle = client.OpenDir(directory).Value.Handle;
        var subdirectories = new List<NodeId>();
        var entries = new List<(string Name, NodeEntry Entry)>();
        int files = 0;
        ulong? next = 0;
        while (next is { } offset)
        {
            entries.Clear();
            Result<ulong?> result = client.ReadDirPlus(directory, handle, offset, 64 << 10, entries);
            Assert.Equal(Errno.Success, result.Error);
            next = result.Value;
            foreach ((_, NodeEntry entry) in entries.Where(entry => entry.Entry.NodeId != NodeId.None))
            {
                if ((entry.Attributes.Mode & 0xF000) == 0x4000)
                {
                    subdirectories.Add(entry.NodeId);
                }
                else
                {
                    files++;
                }
            }
        }

        Assert.Equal(Errno.Success, client.ReleaseDir(directory, handle));
        return files + subdirectories.Sum(subdirectory => Walk(client, subdirectory));
    }

    // A thousand directories of a thousand files.
    private static void MakeTree(string root)
    {
        var start = new ProcessStartInfo(
            "/bin/sh",
            ["-c", $"cd '{root}' && seq 1000 | xargs mkdir && for d in *; do (cd $d && seq 1000 | xargs touch); done"]);
        using Process process = Process.Start(start)!;
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }
}
