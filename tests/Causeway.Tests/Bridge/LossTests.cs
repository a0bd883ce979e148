using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Driver.Bridge;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Daemon;
using Causeway.Tests.Driver;

namespace Causeway.Tests.Bridge;

/// <summary>Daemons that die while programs write, and devices that are of no use.</summary>
public sealed class LossTests
{
    private const int SigTerm = 15;

    [Theory]
    [InlineData("--cache auto")]
    [InlineData("--cache always --writeback")]
    public void Nothing_that_fsync_has_acknowledged_is_lost_when_daemons_are_killed_under_writers(string options)
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var share = new TemporaryDirectory();
        DaemonProcess daemon = DaemonProcess.Start(share.Path, options);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, "lost=wait");
        List<Writer> writers = [.. Enumerable.Range(0, 3).Select(number => new Writer(mount.Path, number))];
        try
        {
            for (int round = 0; round < 5; round++)
            {
                writers.ForEach(writer => writer.AwaitStored(4));

                // In the middle of whatever they do.
                daemon.Process.Kill();
                Assert.True(daemon.Process.WaitForExit(TimeSpan.FromMinutes(1)));
                string socket = daemon.SocketPath;
                daemon.Dispose();
                File.Delete(socket);
                daemon = DaemonProcess.Start(share.Path, options, socket: socket);
            }

            foreach (Writer writer in writers)
            {
                writer.AwaitStored(4);
                writer.Kill();
            }
        }
        finally
        {
            writers.ForEach(writer => writer.Dispose());
        }

        foreach (Writer writer in writers)
        {
            // An attempt that failed may have been carried out, so that a number can be there twice.
            HashSet<int> stored =
                [.. File.ReadLines(share.File(writer.Name)).Select(line => int.Parse(line, CultureInfo.InvariantCulture))];
            Assert.Subset(stored, Enumerable.Range(1, writer.Stored).ToHashSet());
            Assert.InRange(stored.Max(), writer.Stored, writer.Stored + 1);
        }

        Assert.Equal("here", Shell.Run(mount.Path, "echo here > last; cat last"));
        mount.Signal(SigTerm);
        Assert.Equal(0, mount.AwaitEnd());
        Assert.Null(mount.MountLine);
        daemon.Dispose();
    }

    [Fact]
    public void A_socket_that_never_answers_is_given_up()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var place = new TemporaryDirectory();
        using var socket = new Socket(AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, ProtocolType.Unspecified);
        socket.Bind(new UnixDomainSocketEndPoint(place.File("sock")));
        socket.Listen();
        Directory.CreateDirectory(place.File("mnt"));

        (int status, string error) = DaemonProcess.RunToEnd(
            DaemonProcess.Program, "mount", place.File("sock"), place.File("mnt"));

        Assert.Equal(1, status);
        Assert.Contains("did not answer", error, StringComparison.Ordinal);
        Assert.Contains(place.File("sock"), error, StringComparison.Ordinal);
        Assert.Single(error.Trim().Split('\n'));
    }

    [Fact]
    public void A_device_without_a_request_queue_is_not_mounted()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var place = new TemporaryDirectory();
        using var daemon = new LyingDaemon(_ => null) { QueueCount = 1 };

        (int status, string error) = DaemonProcess.RunToEnd(DaemonProcess.Program, "mount", daemon.SocketPath, place.Path);

        Assert.Equal(1, status);
        Assert.Contains("has 1 queues, and a virtio-fs device has at least 2", error, StringComparison.Ordinal);
        Assert.Single(error.Trim().Split('\n'));
    }

    [Theory]
    [InlineData("noio_uring,threads=4")]
    [InlineData("io_uring,threads=4")]
    public void A_device_with_fewer_queues_than_threads_is_used_with_those_it_has(string options)
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var daemon = new LyingDaemon(_ => null);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, options);

        Process[] programs = [.. Enumerable.Range(0, 4).Select(_ => Shell.Start(
            mount.Path, "for i in $(seq 50); do ! stat name$i 2> /dev/null; done"))];
        foreach (Process program in programs)
        {
            Assert.True(program.WaitForExit(TimeSpan.FromMinutes(1)), "a program is stuck");
            Assert.Equal(0, program.ExitCode);
            program.Dispose();
        }

        string threads = string.Join(
            ' ',
            Directory.GetDirectories($"/proc/{mount.Process.Id}/task").Select(task => File.ReadAllText($"{task}/comm").Trim()));
        Assert.Contains("bridge:0", threads, StringComparison.Ordinal);
        Assert.DoesNotContain("bridge:1", threads, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("noio_uring")]
    [InlineData("io_uring")]
    public void A_device_is_told_of_what_is_forgotten_without_further_requests(string options)
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var daemon = new LyingDaemon(request => request.Opcode switch
        {
            FuseOpcode.Lookup => LyingDaemon.Reply(request.Unique, new NodeEntry
            {
                NodeId = new NodeId(5),
                Attributes = new FuseAttributes { Inode = 5, Mode = 0x81A4, LinkCount = 1 },
            }),
            FuseOpcode.Unlink => LyingDaemon.Reply(request.Unique.Value, 0, 16, 0),
            _ => null,
        });
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, options);

        Shell.Run(mount.Path, "rm -f name");

        HostileDeviceTests.Until(() => daemon.Unanswered > 0);
    }

    [Fact]
    public void What_is_forgotten_is_collected_and_an_interrupt_is_not()
    {
        using var daemon = new LyingDaemon(_ => null);
        using VirtioFsDriver driver = VirtioFsDriver.Connect(daemon.SocketPath);
        var channel = new HighPriorityChannel(driver.HighPriorityQueue, () => false);
        byte[] forget = Message(FuseOpcode.Forget);

        // Not available to the device, so that it cannot find them by looking either.
        SendForgets(15);
        Assert.Equal(0, daemon.Unanswered);
        channel.Flush();
        HostileDeviceTests.Until(() => daemon.Unanswered == 15);

        SendForgets(3);
        Assert.False(channel.Send(Message(FuseOpcode.Interrupt)));
        HostileDeviceTests.Until(() => daemon.Unanswered == 19);

        // More than this do not wait for each other.
        SendForgets(16);
        HostileDeviceTests.Until(() => daemon.Unanswered == 35);

        void SendForgets(int count)
        {
            for (int i = 0; i < count; i++)
            {
                Assert.True(channel.Send(forget));
            }
        }
    }

    private static byte[] Message(FuseOpcode opcode)
    {
        byte[] message = new byte[48];
        MemoryMarshal.Write(message, new FuseInHeader { Length = 48, Opcode = opcode, NodeId = new NodeId(5) });
        return message;
    }

    /// <summary>A program that appends one number after the other, and goes on with the next when it is on the disk.</summary>
    private sealed class Writer : IDisposable
    {
        private readonly Process _process;

        public Writer(string directory, int number)
        {
            Name = $"numbers{number}";
            _process = Shell.Start(
                directory,
                $$"""
                n=0
                while n=$((n + 1)); do
                    until echo $n | dd of={{Name}} oflag=append conv=notrunc,fsync status=none 2> /dev/null; do :; done
                    echo $n
                done
                """);
        }

        public string Name { get; }

        /// <summary>The last number that it says is stored.</summary>
        public int Stored { get; private set; }

        public void AwaitStored(int count)
        {
            for (int end = Stored + count; Stored < end;)
            {
                Assert.True(Read(), "a writer has ended");
            }
        }

        public void Kill()
        {
            _process.Kill(entireProcessTree: true);
            Assert.True(_process.WaitForExit(TimeSpan.FromMinutes(1)), "a writer cannot be killed");
            while (Read())
            {
                // What it said before it died.
            }
        }

        public void Dispose()
        {
            if (!_process.HasExited)
            {
                _process.Kill(entireProcessTree: true);
                _process.WaitForExit();
            }

            _process.Dispose();
        }

        private bool Read()
        {
            string? line = _process.StandardOutput.ReadLine();
            Stored = line is null ? Stored : int.Parse(line, CultureInfo.InvariantCulture);
            return line is not null;
        }
    }
}
