using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Server.Queues;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Server;

/// <summary>Requests that nobody waits for gather before a thread is woken for them.</summary>
public sealed class GatheringTests
{
    [Fact]
    public void While_many_come_it_goes_on_gathering()
    {
        var gathering = new Gathering(isOn: true);
        for (int count = 10; count < 1000; count += 10)
        {
            Assert.True(gathering.TryBegin(count));
        }
    }

    [Fact]
    public void When_nothing_comes_it_waits_to_be_woken()
    {
        var gathering = new Gathering(isOn: true);
        Assert.True(gathering.TryBegin(1));
        Assert.False(gathering.TryBegin(1));
        Assert.False(gathering.TryBegin(1));
    }

    [Fact]
    public void For_single_requests_it_gathers_less_and_less_and_learns_again()
    {
        var gathering = new Gathering(isOn: true);
        int begun = 0;
        int count = 0;
        for (int i = 0; i < 10_000; i++)
        {
            begun += gathering.TryBegin(++count) ? 1 : 0;
            // What it is asked when the time was for nothing.
            gathering.TryBegin(count);
        }

        Assert.InRange(begun, 2, 20);
        int rounds = 0;
        for (int successes = 0; successes < 20; rounds++)
        {
            successes = gathering.TryBegin(count += 100) ? successes + 1 : 0;
        }

        Assert.InRange(rounds, 20, 10_000);
    }

    [Fact]
    public void Queues_whose_requests_somebody_waits_for_never_gather()
    {
        var gathering = new Gathering(isOn: false);
        Assert.False(gathering.TryBegin(1000));
        Assert.False(gathering.TryBegin(2000));
    }

    [Fact]
    public void What_is_forgotten_while_requests_gather_is_forgotten_all_the_same()
    {
        using var share = new TemporaryDirectory();
        using Share opened = Share.Open(new PassthroughOptions { SharedDirectory = share.Path });
        using var fileSystem = new PassthroughFileSystem(opened);
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect();
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        const int Files = 50;
        const int Rounds = 40;
        for (int i = 0; i < Files; i++)
        {
            File.WriteAllBytes(share.File($"f{i}"), []);
        }

        for (int round = 0; round < Rounds; round++)
        {
            for (int i = 0; i < Files; i++)
            {
                NodeEntry entry = client.Lookup(NodeId.Root, $"f{i}").Value;
                client.Forget(entry.NodeId, 1);
            }
        }

        Assert.True(SpinWait.SpinUntil(() => fileSystem.Figures.Nodes == 0, TimeSpan.FromSeconds(30)));
    }

    [Fact]
    public void What_gathers_is_done_by_the_thread_of_a_request_queue_too()
    {
        using var fileSystem = new ForgetfulFileSystem();
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect();
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);

        fileSystem.Gate.Set();
        Assert.True(DoUntil(driver, client, () => fileSystem.IsHelped));
        int sent = _sent;
        Assert.True(SpinWait.SpinUntil(() => fileSystem.Forgotten == sent, TimeSpan.FromSeconds(30)));
        driver.Stop();
        Assert.Equal(sent, fileSystem.Forgotten);
    }

    [Fact]
    public void Long_ones_are_left_to_the_thread_of_their_own_queue()
    {
        using var fileSystem = new ForgetfulFileSystem();
        fileSystem.Gate.Set();
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect();
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);

        Assert.True(DoUntil(driver, client, () => fileSystem.IsHelped));
        VirtioFsQueue queue = driver.HighPriorityQueue;
        byte[] message = BatchForget(100);
        for (int sent = 0; sent < 100;)
        {
            sent += queue.TrySubmit(message, replyCapacity: 0, out _) ? 1 : 0;
            int end = _sent + 20;
            Assert.True(DoUntil(driver, client, () => _sent >= end));
        }

        int expected = _sent + (100 * 100);
        Assert.True(SpinWait.SpinUntil(() => fileSystem.Forgotten == expected, TimeSpan.FromSeconds(30)));
        Assert.False(fileSystem.HasBatchElsewhere);
    }

    [Fact]
    public void One_that_takes_long_there_holds_up_neither_queue()
    {
        using var fileSystem = new ForgetfulFileSystem();
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect();
        // Before the others, also when the test fails: they wait for the request.
        using var opening = new Opening(fileSystem.Gate);
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);

        // The request queue's thread is stuck in a FORGET once this is true.
        Assert.True(DoUntil(driver, client, () => fileSystem.IsHelped));
        int before = fileSystem.Forgotten;
        Assert.False(client.GetAttr(NodeId.Root).IsError);
        Assert.True(DoUntil(driver, client, () => fileSystem.Forgotten > before + 100));

        fileSystem.Gate.Set();
        int sent = _sent;
        Assert.True(SpinWait.SpinUntil(() => fileSystem.Forgotten == sent, TimeSpan.FromSeconds(30)));
        Assert.False(client.GetAttr(NodeId.Root).IsError);
        Assert.True(DoUntil(driver, client, () => fileSystem.Forgotten > sent + 100));
        driver.Stop();
        Assert.Equal(_sent, fileSystem.Forgotten);
    }

    [Fact]
    public void Queues_stop_and_start_while_others_do_what_gathers()
    {
        using var fileSystem = new ForgetfulFileSystem();
        fileSystem.Gate.Set();
        using var loopback = new Loopback(fileSystem);
        int helped = 0;
        for (int round = 0; round < 200 || helped == 0; round++)
        {
            Assert.InRange(round, 0, 20_000);
            fileSystem.IsHelped = false;
            using VirtioFsDriver driver = loopback.Connect();
            var client = new FuseClient(driver);
            Assert.False(client.Initialize().IsError);
            int end = _sent + 50;
            Assert.True(DoUntil(driver, client, () => _sent >= end));
            // What is in the ring and was not begun stays there.
            driver.Stop();
            helped += fileSystem.IsHelped ? 1 : 0;
            Assert.InRange(fileSystem.Forgotten, 0, _sent);
        }
    }

    private const ulong BatchNode = 200;

    private int _sent;

    // Sends FORGETs, without waiting for them, and requests that have the other queue's thread awake.
    private bool DoUntil(VirtioFsDriver driver, FuseClient client, Func<bool> condition)
    {
        VirtioFsQueue queue = driver.HighPriorityQueue;
        byte[] message = Forget();
        long began = Environment.TickCount64;
        while (!condition())
        {
            if (Environment.TickCount64 - began > 30_000)
            {
                return false;
            }

            while (queue.TryTake(out int done, out _))
            {
                queue.Release(done);
            }

            if (queue.TrySubmit(message, replyCapacity: 0, out _))
            {
                _sent++;
                queue.Kick();
            }

            Assert.False(client.GetAttr(NodeId.Root).IsError);
        }

        return true;
    }

    private static byte[] Forget()
    {
        byte[] message = new byte[Unsafe.SizeOf<FuseInHeader>() + Unsafe.SizeOf<FuseForgetIn>()];
        var header = new FuseInHeader
        {
            Length = (uint)message.Length,
            Opcode = FuseOpcode.Forget,
            NodeId = new NodeId(100),
        };
        MemoryMarshal.Write(message, in header);
        MemoryMarshal.Write(message.AsSpan(Unsafe.SizeOf<FuseInHeader>()), new FuseForgetIn { LookupCount = 1 });
        return message;
    }

    private static byte[] BatchForget(int count)
    {
        int head = Unsafe.SizeOf<FuseInHeader>() + Unsafe.SizeOf<FuseBatchForgetIn>();
        byte[] message = new byte[head + (count * Unsafe.SizeOf<FuseForgetOne>())];
        var header = new FuseInHeader { Length = (uint)message.Length, Opcode = FuseOpcode.BatchForget };
        MemoryMarshal.Write(message, in header);
        MemoryMarshal.Write(
            message.AsSpan(Unsafe.SizeOf<FuseInHeader>()), new FuseBatchForgetIn { Count = (uint)count });
        for (int i = 0; i < count; i++)
        {
            var one = new FuseForgetOne { NodeId = new NodeId(BatchNode), LookupCount = 1 };
            MemoryMarshal.Write(message.AsSpan(head + (i * Unsafe.SizeOf<FuseForgetOne>())), in one);
        }

        return message;
    }

    private sealed class Opening(ManualResetEventSlim gate) : IDisposable
    {
        public void Dispose() => gate.Set();
    }

    /// <summary>Counts FORGETs; the first that the thread of a request queue has to do waits.</summary>
    private sealed class ForgetfulFileSystem : FuseFileSystem
    {
        private int _forgotten;

        public ManualResetEventSlim Gate { get; } = new();

        public int Forgotten => Volatile.Read(ref _forgotten);

        public volatile bool IsHelped;

        public volatile bool HasBatchElsewhere;

        public override void Forget(NodeId node, ulong lookupCount)
        {
            if (!IsHelped && Thread.CurrentThread.Name == "vq:1")
            {
                IsHelped = true;
                Gate.Wait();
            }

            HasBatchElsewhere |= node.Value == BatchNode && Thread.CurrentThread.Name != "vq:0";
            Interlocked.Increment(ref _forgotten);
        }

        public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(
            NodeId node, FuseGetAttrIn arguments, RequestContext context) =>
            new(new FuseAttrOut { Attributes = new FuseAttributes { Inode = node.Value, Mode = 0x41ED } });

        protected override void Dispose(bool disposing)
        {
            Gate.Dispose();
            base.Dispose(disposing);
        }
    }
}
