using System.Diagnostics;
using System.Globalization;
using System.Text;
using Causeway.Driver;
using Causeway.Driver.Bridge;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Daemon;
using Causeway.Tests.Server;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Bridge;

/// <summary>Mounts whose requests the daemon takes from the kernel by itself.</summary>
public sealed class HandoverTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    public HandoverTests() => Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");

    [Theory]
    [InlineData("", null, true)]
    [InlineData("handover,cache=none", null, true)]
    [InlineData("nohandover", null, false)]
    [InlineData("handover,lost=wait", "a mount with 'lost=wait' is without", false)]
    [InlineData("handover,io_uring", "io_uring is wanted", false)]
    public void Who_serves_a_mount_is_said_and_seen(string options, string? obstacle, bool isHandedOver)
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "");
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, options);
        File.WriteAllText(mount.File("file"), "content");
        Assert.Equal("content", File.ReadAllText(share.File("file")));

        Assert.Equal(isHandedOver, mount.Log.Contains("served by the daemon", StringComparison.Ordinal));
        Assert.Equal(isHandedOver, !ThreadsOf(mount.Process).Contains("bridge:0"));
        Assert.Equal(isHandedOver, ThreadsOf(daemon.Process).Contains("fuse:0"));
        Assert.Equal(obstacle is not null, mount.Log.Contains("is not handed over", StringComparison.Ordinal));
        Assert.Contains(obstacle ?? "", mount.Log, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("handover", false)]
    [InlineData("handover,nopoll", true)]
    public void The_mount_says_whether_requests_are_waited_for_awake(string options, bool isAsleep)
    {
        Assert.SkipWhen(!isAsleep && Environment.ProcessorCount < 2, "NOT TESTED: on a single processor nobody waits awake");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "--log-level debug");
        using (MountProcess mount = MountProcess.Start(daemon.SocketPath, $"{options},cache=none"))
        {
            Shell.Run(mount.Path, "dd if=/dev/zero of=file bs=4k count=500 status=none; dd if=file of=/dev/null bs=4k status=none");
        }

        string[] Looks() => [.. daemon.Log().Where(line => line.Contains("Connection fuse:", StringComparison.Ordinal))];
        Assert.True(SpinWait.SpinUntil(() => Looks().Length > 0, s_patience), string.Join('\n', daemon.Log()));
        Assert.Equal(isAsleep, Array.TrueForAll(Looks(), line => line.Contains("(0, 0, 0)", StringComparison.Ordinal)));
    }

    // What the mount's cache mode says is in the replies, whoever edits them: with 'none' each stat(2) asks.
    [Theory]
    [InlineData(BridgeCache.None, 20)]
    [InlineData(BridgeCache.Always, 1)]
    public void The_cache_mode_of_the_mount_is_in_force(BridgeCache cache, int expected)
    {
        using var fileSystem = new OneFile();
        using var rig = new Rig(fileSystem, cache);
        Shell.Run(rig.Path, "for i in $(seq 20); do stat file > /dev/null; done");
        Assert.InRange(rig.Server.Requests(FuseOpcode.Lookup), expected, expected + 2);
    }

    [Fact]
    public void A_request_that_takes_long_holds_up_nobody()
    {
        using var fileSystem = new OneFile();
        using var rig = new Rig(fileSystem);
        using Process slow = Shell.Start(rig.Path, "cat slow");
        Assert.True(fileSystem.IsWaiting.Wait(s_patience, TestContext.Current.CancellationToken));

        Shell.Run(rig.Path, "for i in $(seq 20); do stat file > /dev/null; done");
        Assert.False(slow.HasExited);

        fileSystem.Gate.Set();
        Assert.True(slow.WaitForExit(s_patience));
        Assert.Equal(0, slow.ExitCode);

        // The thread that was late is of use again.
        Shell.Run(rig.Path, "for i in $(seq 20); do stat file > /dev/null; done");
    }

    [Fact]
    public void A_mount_can_end_while_a_request_takes_long()
    {
        using var fileSystem = new OneFile();
        using var server = new Loopback(fileSystem);
        using (var rig = new Rig(fileSystem, server: server))
        {
            using Process slow = Shell.Start(rig.Path, "cat slow 2> /dev/null");
            Assert.True(fileSystem.IsWaiting.Wait(s_patience, TestContext.Current.CancellationToken));
            Shell.Run(rig.Path, "stat file > /dev/null");
            rig.Bridge.Stop();
            slow.Kill(entireProcessTree: true);
            Assert.True(slow.WaitForExit(s_patience));
        }

        fileSystem.Gate.Set();
        using VirtioFsDriver driver = server.Connect();
        Assert.False(new FuseClient(driver).Initialize().IsError);
    }

    // The front end goes, without DESTROY: so what completes later hears of it only when the connection has to come to rest. Whoever tells
    // it so then waits for what takes long, again and again, and ends the session afterwards.
    [Fact]
    public void A_session_does_not_end_before_a_request_that_takes_long()
    {
        using var fileSystem = new OneFile();
        using var server = new Loopback(fileSystem);
        using var place = new TemporaryDirectory();
        using SafeFileHandle looking = MountPoint.Mount(new BridgeOptions { SocketPath = server.SocketPath, MountPoint = place.Path });
        using SafeFileHandle waiting = Open("/dev/fuse");
        using SafeFileHandle ended = Events.CreateEvent();
        Process? slow = null;
        try
        {
            Assert.False(FuseDevice.Clone((int)waiting.DangerousGetHandle(), (int)looking.DangerousGetHandle()).IsError);
            using (VirtioFsDriver driver = server.Connect())
            {
                driver.Frontend.AddFuseDevice(looking, waiting, ended, new FuseDeviceDescription(1, FuseDeviceFlags.None));
                slow = Shell.Start(place.Path, "cat slow 2> /dev/null & cat late 2> /dev/null & wait");
                Assert.True(fileSystem.IsWaiting.Wait(s_patience, TestContext.Current.CancellationToken));
                Assert.True(fileSystem.IsLate.Wait(s_patience, TestContext.Current.CancellationToken));
            }

            Assert.True(fileSystem.IsToRest.Wait(s_patience, TestContext.Current.CancellationToken));
            int waits = fileSystem.WaitsOfControl();
            Assert.True(SpinWait.SpinUntil(() => fileSystem.HasEnded || fileSystem.WaitsOfControl() >= waits + 5, s_patience));
            Assert.False(fileSystem.HasEnded);

            fileSystem.Gate.Set();
            using VirtioFsDriver next = server.Connect();
            Assert.False(new FuseClient(next).Initialize().IsError);
            Assert.True(fileSystem.HasEnded);
        }
        finally
        {
            fileSystem.Gate.Set();
            slow?.Kill(entireProcessTree: true);
            slow?.Dispose();
            MountPoint.Unmount(place.Path, isLazy: true);
        }
    }

    [Fact]
    public void Requests_allocate_nothing()
    {
        using var fileSystem = new OneFile();
        using var rig = new Rig(fileSystem);
        const string Work = "for i in $(seq 300); do stat file > /dev/null; done";
        Shell.Run(rig.Path, Work);
        fileSystem.ForgetAllocations();

        Shell.Run(rig.Path, Work);

        Assert.InRange(fileSystem.Rounds, 200, int.MaxValue);
        // A collection adds what was left of an allocation buffer; what a request allocates is there each time.
        Assert.InRange(fileSystem.AllocatingRounds, 0, fileSystem.Rounds / 10);
    }

    // INTERRUPT comes the same way as everything else then.
    [Fact]
    public void A_program_that_waits_for_a_lock_can_be_killed()
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "");
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "");
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, "handover");
        using Process holder = Shell.Start(share.Path, "exec 9> file; flock 9; echo held; read");
        Assert.Equal("held", holder.StandardOutput.ReadLine());
        using Process waiter = Shell.Start(mount.Path, "exec 9> file; echo begins; flock 9");
        Assert.Equal("begins", waiter.StandardOutput.ReadLine());
        Assert.True(SpinWait.SpinUntil(() => ThreadsOf(daemon.Process).Contains("lock-waiter"), s_patience), "nothing waits");
        Assert.False(waiter.HasExited);

        waiter.Kill(entireProcessTree: true);

        Assert.True(waiter.WaitForExit(s_patience));
        Assert.Equal("0", Shell.Run(mount.Path, "stat -c %s file"));
        holder.Kill(entireProcessTree: true);
        Assert.Equal("got", Shell.Run(mount.Path, "exec 9> file; flock 9; echo got"));
    }

    [Fact]
    public void The_daemon_keeps_no_descriptor_of_a_mount_that_ended()
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "");
        for (int round = 0; round < 3; round++)
        {
            using MountProcess mount = MountProcess.Start(daemon.SocketPath, "handover");
            File.WriteAllText(mount.File("file"), "content");
            Assert.InRange(FuseDescriptors(daemon.Process), 1, 16);
            if (round == 1)
            {
                mount.Process.Kill();
            }
        }

        Assert.True(SpinWait.SpinUntil(() => FuseDescriptors(daemon.Process) == 0, s_patience));
    }

    [Fact]
    public void What_is_no_connection_is_refused_or_found_to_be_over()
    {
        using var fileSystem = new OneFile();
        using var server = new Loopback(fileSystem);
        using VirtioFsDriver driver = server.Connect();
        using SafeFileHandle ended = Events.CreateEvent();
        using SafeFileHandle looking = Open("/dev/fuse");
        using SafeFileHandle waiting = Open("/dev/fuse");
        using SafeFileHandle other = Open("/dev/null");
        FuseDeviceDescription plain = default;

        VhostUserFrontend frontend = driver.Frontend;
        Assert.Throws<VhostUserRefusedException>(() => frontend.AddFuseDevice(other, waiting, ended, plain));
        Assert.Throws<VhostUserRefusedException>(() => frontend.AddFuseDevice(looking, other, ended, plain));
        Assert.Throws<VhostUserRefusedException>(() => frontend.AddFuseDevice(looking, waiting, other, plain));
        Assert.Throws<VhostUserRefusedException>(
            () => frontend.AddFuseDevice(looking, waiting, ended, plain with { Caching = 4 }));
        Assert.Throws<VhostUserRefusedException>(
            () => frontend.AddFuseDevice(looking, waiting, ended, plain with { Flags = (FuseDeviceFlags)2 }));
        Assert.Equal(PollEvents.None, Poll.Now((int)ended.DangerousGetHandle(), PollEvents.Readable));

        // Nothing is mounted there.
        for (int i = 0; i < FuseDeviceDescription.Most; i++)
        {
            frontend.AddFuseDevice(looking, waiting, ended, plain);
        }

        Assert.True(SpinWait.SpinUntil(
            () => Poll.Now((int)ended.DangerousGetHandle(), PollEvents.Readable) == PollEvents.Readable, s_patience));
        Assert.Throws<VhostUserRefusedException>(() => frontend.AddFuseDevice(looking, waiting, ended, plain));
        Assert.False(new FuseClient(driver).Initialize().IsError);
    }

    [Fact]
    public void Who_has_not_negotiated_it_is_refused()
    {
        using var fileSystem = new OneFile();
        using var server = new Loopback(fileSystem);
        using VhostUserFrontend frontend = VhostUserFrontend.Connect(server.SocketPath);
        var options = new FrontendOptions();
        frontend.Negotiate(
            options with { ProtocolFeatures = options.ProtocolFeatures & ~VhostUserProtocolFeatures.FuseDevices });
        using SafeFileHandle device = Open("/dev/fuse");
        using SafeFileHandle ended = Events.CreateEvent();
        Assert.Throws<VhostUserRefusedException>(() => frontend.AddFuseDevice(device, device, ended, default));
    }

    // The flags of the descriptors are the front end's to change, at any time.
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Descriptors_that_block_where_they_should_not_or_the_other_way_round_harm_nobody(bool areBlocking)
    {
        using var fileSystem = new OneFile();
        using var server = new Loopback(fileSystem);
        using var place = new TemporaryDirectory();
        using SafeFileHandle looking = MountPoint.Mount(new BridgeOptions { SocketPath = server.SocketPath, MountPoint = place.Path });
        using SafeFileHandle waiting = Open("/dev/fuse");
        using SafeFileHandle ended = Events.CreateEvent();
        try
        {
            int first = (int)looking.DangerousGetHandle();
            int second = (int)waiting.DangerousGetHandle();
            Assert.False(FuseDevice.Clone(second, first).IsError);
            using (VirtioFsDriver driver = server.Connect())
            {
                // Without INIT by the front end: the kernel's comes first, and is answered like any other request.
                driver.Frontend.AddFuseDevice(looking, waiting, ended, new FuseDeviceDescription(1, FuseDeviceFlags.None));
                Assert.False(Descriptors.SetNonBlocking(first, isOn: !areBlocking).IsError);
                Assert.False(Descriptors.SetNonBlocking(second, isOn: !areBlocking).IsError);
                Shell.Run(place.Path, "for i in $(seq 20); do stat file > /dev/null; done");
            }

            // The front end goes, nobody has unmounted, and the device is there for the next one all the same.
            using VirtioFsDriver next = server.Connect();
            Assert.False(new FuseClient(next).Initialize().IsError);
        }
        finally
        {
            MountPoint.Unmount(place.Path, isLazy: true);
        }
    }

    private static string[] ThreadsOf(Process process) => [.. Directory.GetDirectories($"/proc/{process.Id}/task")
        .Select(thread => File.ReadAllText($"{thread}/comm").Trim())];

    private static int FuseDescriptors(Process process) => Directory.GetFileSystemEntries($"/proc/{process.Id}/fd").Count(IsFuse);

    private static bool IsFuse(string entry)
    {
        try
        {
            return File.ResolveLinkTarget(entry, returnFinalTarget: false)?.FullName == "/dev/fuse";
        }
        catch (FileNotFoundException)
        {
            // Closed meanwhile.
            return false;
        }
    }

    private static SafeFileHandle Open(string path) => new(
        Files.Openat(Files.WorkingDirectory, Encoding.UTF8.GetBytes(path + '\0'), OpenFlags.ReadWrite | OpenFlags.CloseOnExec)
            .ThrowIfError($"open {path}").Descriptor,
        ownsHandle: true);

    /// <summary>A file system in a device of this process, mounted by a bridge of this process and used by others only.</summary>
    private sealed class Rig : IDisposable
    {
        private readonly TemporaryDirectory _place = new();
        private readonly Loopback? _ownServer;
        private readonly Thread _thread;

        public Rig(FuseFileSystem fileSystem, BridgeCache cache = BridgeCache.None, Loopback? server = null)
        {
            _ownServer = server is null ? new Loopback(fileSystem) : null;
            Server = server ?? _ownServer!;
            Bridge = FuseBridge.Mount(new BridgeOptions
            {
                SocketPath = Server.SocketPath,
                MountPoint = _place.Path,
                Cache = cache,
                HandsOver = true,
                Threads = 1,
            });
            Assert.True(Bridge.IsHandedOver);
            _thread = new Thread(() => Bridge.Run()) { IsBackground = true };
            _thread.Start();
        }

        public FuseBridge Bridge { get; }

        public Loopback Server { get; }

        public string Path => _place.Path;

        public void Dispose()
        {
            Bridge.Stop();
            Assert.True(_thread.Join(s_patience));
            Bridge.Dispose();
            _ownServer?.Dispose();
            _place.Dispose();
        }
    }

    /// <summary>Has a file, one whose opening takes long, and one whose opening completes late.</summary>
    private sealed class OneFile : FuseFileSystem
    {
        private static readonly NodeId s_file = new(2);
        private static readonly NodeId s_slow = new(3);
        private static readonly NodeId s_late = new(4);

        [ThreadStatic]
        private static long t_allocated;

        private string? _control;

        public ManualResetEventSlim Gate { get; } = new();

        public ManualResetEventSlim IsWaiting { get; } = new();

        public ManualResetEventSlim IsLate { get; } = new();

        /// <summary>What completes late has been told to.</summary>
        public ManualResetEventSlim IsToRest { get; } = new();

        public bool HasEnded { get; private set; }

        /// <summary>How many times a thread came back with the next LOOKUP, and how often it had allocated something since.</summary>
        public int Rounds { get; private set; }

        public int AllocatingRounds { get; private set; }

        public void ForgetAllocations() => (Rounds, AllocatingRounds) = (0, 0);

        /// <summary>How often the thread has gone to sleep that told it so.</summary>
        public int WaitsOfControl()
        {
            const string key = "voluntary_ctxt_switches:";
            string line = File.ReadLines($"{_control}/status").First(line => line.StartsWith(key, StringComparison.Ordinal));
            return int.Parse(line.AsSpan(key.Length), CultureInfo.InvariantCulture);
        }

        public override void Destroy() => HasEnded = true;

        public override ValueTask<Result<NodeEntry>> LookupAsync(NodeId parent, FileName name, RequestContext context)
        {
            long allocated = GC.GetAllocatedBytesForCurrentThread();
            Rounds++;
            AllocatingRounds += allocated != t_allocated ? 1 : 0;
            t_allocated = allocated;
            return name.Bytes.SequenceEqual("file"u8) ? new(Entry(s_file))
                : name.Bytes.SequenceEqual("slow"u8) ? new(Entry(s_slow))
                : name.Bytes.SequenceEqual("late"u8) ? new(Entry(s_late))
                : new(Errno.ENOENT);
        }

        public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(
            NodeId node, FuseGetAttrIn arguments, RequestContext context) => new(new FuseAttrOut { Attributes = Attributes(node) });

        public override ValueTask<Result<FuseOpenOut>> OpenAsync(NodeId node, FuseOpenIn arguments, RequestContext context)
        {
            if (node == s_slow)
            {
                IsWaiting.Set();
                Gate.Wait();
            }

            return node == s_late ? OpenLateAsync(context.CancellationToken) : new(new FuseOpenOut { Handle = new HandleId(1) });
        }

        private async ValueTask<Result<FuseOpenOut>> OpenLateAsync(CancellationToken toRest)
        {
            var told = new TaskCompletionSource();
            using CancellationTokenRegistration registration = toRest.Register(() =>
            {
                _control = File.ResolveLinkTarget("/proc/thread-self", returnFinalTarget: false)!.FullName;
                told.SetResult();
                IsToRest.Set();
            });
            IsLate.Set();
            await told.Task;
            return Errno.EIO;
        }

        public override ValueTask<Result<int>> ReadAsync(
            NodeId node, FuseReadIn arguments, IoVectorList destination, RequestContext context) => new(0);

        protected override void Dispose(bool disposing)
        {
            Gate.Dispose();
            IsWaiting.Dispose();
            IsLate.Dispose();
            IsToRest.Dispose();
            base.Dispose(disposing);
        }

        private static NodeEntry Entry(NodeId node) => new() { NodeId = node, Attributes = Attributes(node) };

        private static FuseAttributes Attributes(NodeId node) => new()
        {
            Inode = node.Value,
            Mode = node == NodeId.Root ? 0x41EDu : 0x81A4u,
            LinkCount = 1,
        };
    }
}
