// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Net.Sockets;
using System.Text;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Server;
using Causeway.Tests.Daemon;
using Causeway.VhostUser.Backend;

namespace Causeway.Tests.Server;

/// <summary>One server, several front ends at the same time, on one share.</summary>
public sealed class SeveralGuestsTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);
    private static readonly VirtioFsClientOptions s_uncached = new() { Cache = Causeway.Driver.CacheMode.None };
    private static readonly OpenFileOptions s_both = new() { Access = FileAccess.ReadWrite };

    [Fact]
    public async Task Guests_of_one_socket_and_of_two_see_each_others_changes()
    {
        using var rig = new Rig(sockets: 2, guests: 2);
        var clients = new List<VirtioFsClient>();
        for (int i = 0; i < 4; i++)
        {
            clients.Add(await VirtioFsClient.ConnectAsync(rig.Sockets[i % 2], s_uncached));
        }

        for (int writer = 0; writer < clients.Count; writer++)
        {
            string text = $"written by {writer}";
            await clients[writer].CreateDirectoryAsync($"d{writer}");
            await using (VirtioFsFile file = await clients[writer].OpenFileAsync(
                $"d{writer}/file", new OpenFileOptions { Mode = System.IO.FileMode.Create, Access = FileAccess.Write }))
            {
                await file.WriteAsync(Encoding.ASCII.GetBytes(text), 0);
            }

            foreach (VirtioFsClient reader in clients)
            {
                Assert.Equal(text, await ReadAsync(reader, $"d{writer}/file"));
            }

            await clients[(writer + 1) % 4].DeleteFileAsync($"d{writer}/file");
            foreach (VirtioFsClient reader in clients)
            {
                Assert.Equal(
                    Errno.ENOENT,
                    (await Assert.ThrowsAsync<VirtioFsException>(async () => await reader.GetStatusAsync($"d{writer}/file"))).Error);
            }
        }

        foreach (VirtioFsClient client in clients)
        {
            await client.DisposeAsync();
        }
    }

    [Fact]
    public async Task Locks_hold_between_guests_and_end_with_the_one_that_dies()
    {
        using var rig = new Rig(sockets: 1, guests: 2);
        File.WriteAllText(rig.Share.File("file"), "content");
        await using VirtioFsClient second = await VirtioFsClient.ConnectAsync(rig.Sockets[0], s_uncached);
        VirtioFsClient first = await VirtioFsClient.ConnectAsync(rig.Sockets[0], s_uncached);
        VirtioFsFile one = await first.OpenFileAsync("file", s_both);
        await using VirtioFsFile two = await second.OpenFileAsync("file", s_both);

        Assert.True(await one.TryLockAsync(LockMode.Exclusive, 0, 100));
        Assert.True(await one.TryFlockAsync(LockMode.Exclusive));
        Assert.False(await two.TryLockAsync(LockMode.Shared, 99, 10));
        Assert.False(await two.TryFlockAsync(LockMode.Shared));
        Assert.True(await two.TryLockAsync(LockMode.Exclusive, 100, 10));
        Assert.False(await one.TryLockAsync(LockMode.Shared, 105, 1));
        Assert.Equal(100, (await two.FindLockAsync(LockMode.Exclusive))!.Value.Length);

        // The first guest is gone without a word; what the second waits for is its own then.
        Task waiting = two.LockAsync(LockMode.Exclusive, 0, 100).AsTask();
        Assert.NotNull(await two.FindLockAsync(LockMode.Shared, 0, 1));
        Assert.False(waiting.IsCompleted);
        await first.DisposeAsync();
        await waiting.WaitAsync(s_patience);
        Assert.True(await two.TryFlockAsync(LockMode.Exclusive));
    }

    [Fact]
    public void A_guest_that_dies_inside_a_request_disturbs_nobody_and_its_place_is_free_afterwards()
    {
        var systems = new List<GatedFileSystem>();
        using var rig = new Rig(sockets: 1, guests: 2, () =>
        {
            systems.Add(new GatedFileSystem());
            return systems[^1];
        });
        using VirtioFsDriver good = VirtioFsDriver.Connect(rig.Sockets[0]);
        var client = new FuseClient(good);
        Assert.False(client.Initialize().IsError);
        GatedFileSystem other = systems.Single(system => system.Sessions == 0);

        VirtioFsDriver dying = VirtioFsDriver.Connect(rig.Sockets[0]);
        Assert.False(new FuseClient(dying).Initialize().IsError);
        Assert.Equal(1, other.Sessions);
        Assert.True(dying.RequestQueues[0].TrySubmit(GatedFileSystem.SlowRequest, 120, out _));
        dying.RequestQueues[0].Kick();
        Assert.True(other.IsInside.Wait(s_patience));
        dying.Frontend.Dispose();
        Assert.False(client.GetAttr(NodeId.Root).IsError);

        // Both places are taken: who comes now waits.
        using var third = new Waiting(rig.Sockets[0]);
        for (int i = 0; i < 100; i++)
        {
            Assert.False(client.GetAttr(NodeId.Root).IsError);
        }

        Assert.False(third.IsServed);
        other.Gate.Set();
        using VirtioFsDriver driver = third.Await();
        Assert.Equal(2, other.Sessions);
        Assert.False(client.GetAttr(NodeId.Root).IsError);
        dying.Dispose();
    }

    [Theory]
    [InlineData("")]
    [InlineData("ffffffff01000000ffffffff")]
    [InlineData("0100000001000000")]
    [InlineData("05000000010000000800000000000000000000ff")]
    public void A_front_end_that_breaks_the_protocol_loses_only_its_own_connection(string hex)
    {
        using var rig = new Rig(sockets: 1, guests: 2);
        using VirtioFsDriver good = VirtioFsDriver.Connect(rig.Sockets[0]);
        var client = new FuseClient(good);
        Assert.False(client.Initialize().IsError);
        for (int i = 0; i < 20; i++)
        {
            using var socket = new Socket(AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, ProtocolType.Unspecified);
            socket.Connect(new UnixDomainSocketEndPoint(rig.Sockets[0]));
            socket.Send(Convert.FromHexString(hex));
            if (i % 2 == 0)
            {
                // Waits until the server hangs up, unless it waits for the rest of a message.
                socket.Shutdown(System.Net.Sockets.SocketShutdown.Send);
                socket.ReceiveTimeout = (int)s_patience.TotalMilliseconds;
                Assert.Equal(0, TryReceive(socket));
            }

            Assert.False(client.GetAttr(NodeId.Root).IsError);
        }

        using VirtioFsDriver next = VirtioFsDriver.Connect(rig.Sockets[0]);
        Assert.False(new FuseClient(next).Initialize().IsError);
        Assert.False(client.GetAttr(NodeId.Root).IsError);
    }

    [Fact]
    public void The_sessions_of_a_process_divide_its_descriptors()
    {
        using var share = new TemporaryDirectory();
        using Share alone = Share.Open(new PassthroughOptions { SharedDirectory = share.Path });
        using Share shared = Share.Open(new PassthroughOptions { SharedDirectory = share.Path, MaxSessions = 4 });

        Limits.GetOpenFiles(out ResourceLimit limit).ThrowIfError("read the limit of open files");
        Assert.InRange(shared.MaxDescriptors, PassthroughOptions.SmallestBudget, (long)limit.Current / 4);
        Assert.True(shared.MaxDescriptors < alone.MaxDescriptors);
        Assert.Throws<ArgumentException>(() => Share.Open(shared.Options with { MaxSessions = 1 << 29 }));
    }

    [Fact]
    public void Several_guests_need_a_function_and_have_a_limit()
    {
        using var fileSystem = new GatedFileSystem();
        string path = Path.Combine(Path.GetTempPath(), $"causeway-{Guid.NewGuid():N}.sock");
        var options = new VirtioFsServerOptions { SocketPath = path, MaxGuests = 2 };

        Assert.Throws<ArgumentException>(() => new VirtioFsServer(fileSystem, options));
        Assert.Throws<ArgumentException>(() => new VirtioFsServer(() => fileSystem, options with { MaxGuests = 0 }));
        Assert.Throws<ArgumentException>(() => new VirtioFsServer(() => fileSystem, options with { MaxGuests = 65 }));
        Assert.False(File.Exists(path));
    }

    private static int TryReceive(Socket socket)
    {
        try
        {
            return socket.Receive(new byte[1]);
        }
        catch (SocketException exception) when (exception.SocketErrorCode == SocketError.ConnectionReset)
        {
            return 0;
        }
    }

    private static async Task<string> ReadAsync(VirtioFsClient client, string path)
    {
        await using VirtioFsFile file = await client.OpenFileAsync(path);
        byte[] content = new byte[100];
        return Encoding.ASCII.GetString(content, 0, await file.ReadAsync(content, 0));
    }

    /// <summary>A server for a directory, or for file systems of the test's own.</summary>
    private sealed class Rig : IDisposable
    {
        private readonly Share _opened;
        private readonly VirtioFsServer _server;
        private readonly Thread _thread;
        private Exception? _failure;

        public Rig(int sockets, int guests, Func<FuseFileSystem>? create = null)
        {
            _opened = Causeway.Passthrough.Share.Open(
                new PassthroughOptions { SharedDirectory = Share.Path, MaxSessions = sockets * guests });
            Sockets = [.. Enumerable.Range(0, sockets).Select(_ => Path.Combine(Path.GetTempPath(), $"causeway-{Guid.NewGuid():N}.sock"))];
            var options = new VirtioFsServerOptions
            {
                Listeners = [.. Sockets.Select(path => VhostUserListener.Bind(path))],
                MaxGuests = guests,
            };
            _server = new VirtioFsServer(create ?? (() => new PassthroughFileSystem(_opened)), options);
            _thread = new Thread(Run) { IsBackground = true, Name = "several-guests" };
            _thread.Start();
        }

        public TemporaryDirectory Share { get; } = new();

        public string[] Sockets { get; }

        public void Dispose()
        {
            _server.Stop();
            Assert.True(_thread.Join(s_patience), "the server does not stop");
            _server.Dispose();
            _opened.Dispose();
            Share.Dispose();
            Assert.Null(_failure);
            Assert.DoesNotContain(Sockets, File.Exists);
        }

        private void Run()
        {
            try
            {
                _server.Run();
            }
            catch (Exception exception)
            {
                _failure = exception;
            }
        }
    }

    /// <summary>A front end that connects on a thread of its own, because it may have to wait.</summary>
    private sealed class Waiting : IDisposable
    {
        private readonly Task<VirtioFsDriver> _connecting;

        public Waiting(string socket) => _connecting = Task.Factory.StartNew(
            () =>
            {
                VirtioFsDriver driver = VirtioFsDriver.Connect(socket);
                Assert.False(new FuseClient(driver).Initialize().IsError);
                return driver;
            },
            CancellationToken.None,
            TaskCreationOptions.LongRunning,
            TaskScheduler.Default);

        public bool IsServed => _connecting.IsCompleted;

        public VirtioFsDriver Await()
        {
            Assert.True(_connecting.Wait(s_patience), "nobody serves the one that waits");
            return _connecting.Result;
        }

        public void Dispose() => Assert.True(((IAsyncResult)_connecting).AsyncWaitHandle.WaitOne(s_patience));
    }

    /// <summary>Answers at once, except for one node, whose requests wait on the thread that runs them.</summary>
    private sealed class GatedFileSystem : FuseFileSystem
    {
        private const byte SlowNode = 100;

        public static ReadOnlySpan<byte> SlowRequest =>
        [
            56, 0, 0, 0, (byte)FuseOpcode.GetAttr, 0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0, SlowNode, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];

        public ManualResetEventSlim Gate { get; } = new();

        public ManualResetEventSlim IsInside { get; } = new();

        public int Sessions { get; private set; }

        public override ValueTask<Errno> InitializeAsync(FuseNegotiation negotiation)
        {
            Sessions++;
            return new(Errno.Success);
        }

        public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(
            NodeId node, FuseGetAttrIn arguments, RequestContext context)
        {
            if (node.Value == SlowNode)
            {
                IsInside.Set();
                Gate.Wait();
            }

            return new(new FuseAttrOut { Attributes = new FuseAttributes { Inode = node.Value, Mode = 0x41ED } });
        }

        protected override void Dispose(bool disposing)
        {
            Gate.Dispose();
            IsInside.Dispose();
            base.Dispose(disposing);
        }
    }
}
