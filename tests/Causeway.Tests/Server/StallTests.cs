using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Server;

public sealed class StallTests
{
    private const ulong SlowNode = 100;

    [Fact]
    public void A_request_that_takes_long_holds_up_nobody_on_its_queue()
    {
        using var fileSystem = new GatedFileSystem();
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect();
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        VirtioFsQueue queue = driver.RequestQueues[0];

        // One that waits, and behind it one that does not.
        Assert.True(queue.TrySubmit(GetAttr(unique: 1001, new NodeId(SlowNode)), 120, out int slow));
        Assert.True(queue.TrySubmit(GetAttr(unique: 1002, NodeId.Root), 120, out int fast));
        queue.Kick();

        queue.Take(out int first);
        Assert.Equal(fast, first);
        queue.Release(first);

        fileSystem.Gate.Set();
        queue.Take(out int second);
        Assert.Equal(slow, second);
        queue.Release(second);
        Assert.False(client.GetAttr(NodeId.Root).IsError);
    }

    [Fact]
    public void Many_slow_requests_and_their_replies_come_back_exactly_once()
    {
        using var fileSystem = new GatedFileSystem();
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect();
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        VirtioFsQueue queue = driver.RequestQueues[0];

        // As many as there may be threads, so that the fast ones behind them still find one.
        const int SlowCount = 8;
        const int FastCount = 40;
        var expected = new HashSet<int>();
        for (int i = 0; i < SlowCount + FastCount; i++)
        {
            NodeId node = i < SlowCount ? new NodeId(SlowNode) : NodeId.Root;
            Assert.True(queue.TrySubmit(GetAttr((ulong)(2000 + i), node), 120, out int slot));
            expected.Add(slot);
        }

        queue.Kick();
        var seen = new List<int>();
        for (int i = 0; i < FastCount; i++)
        {
            queue.Take(out int slot);
            seen.Add(slot);
        }

        fileSystem.Gate.Set();
        for (int i = 0; i < SlowCount; i++)
        {
            queue.Take(out int slot);
            seen.Add(slot);
        }

        Assert.Equal(expected.Order(), seen.Order());
        Assert.False(queue.TryTake(out _, out _));
        seen.ForEach(queue.Release);
    }

    [Fact]
    public void Stopping_a_queue_waits_for_a_request_that_lost_its_turn()
    {
        using var fileSystem = new GatedFileSystem();
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect();
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        VirtioFsQueue queue = driver.RequestQueues[0];
        Assert.True(queue.TrySubmit(GetAttr(1, new NodeId(SlowNode)), 120, out int slow));
        Assert.True(queue.TrySubmit(GetAttr(2, NodeId.Root), 120, out _));
        queue.Kick();
        queue.Take(out _);

        var stopping = new Thread(driver.Stop);
        stopping.Start();
        fileSystem.Gate.Set();
        stopping.Join();

        // The reply is there, without waiting, once the ring is stopped.
        Assert.True(queue.TryTake(out int slot, out _));
        Assert.Equal(slow, slot);
    }

    private static byte[] GetAttr(ulong unique, NodeId node)
    {
        byte[] message = new byte[Unsafe.SizeOf<FuseInHeader>() + Unsafe.SizeOf<FuseGetAttrIn>()];
        var header = new FuseInHeader
        {
            Length = (uint)message.Length,
            Opcode = FuseOpcode.GetAttr,
            Unique = new RequestId(unique),
            NodeId = node,
        };
        MemoryMarshal.Write(message, in header);
        return message;
    }

    /// <summary>Answers at once, except for one node, whose requests wait on the thread that runs them.</summary>
    private sealed class GatedFileSystem : FuseFileSystem
    {
        public ManualResetEventSlim Gate { get; } = new();

        public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(
            NodeId node, FuseGetAttrIn arguments, RequestContext context)
        {
            if (node.Value == SlowNode)
            {
                Gate.Wait();
            }

            return new(new FuseAttrOut { Attributes = new FuseAttributes { Inode = node.Value, Mode = 0x41ED } });
        }

        protected override void Dispose(bool disposing)
        {
            Gate.Dispose();
            base.Dispose(disposing);
        }
    }
}
