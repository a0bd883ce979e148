using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Server;
using Causeway.Server.Queues;

namespace Causeway.Tests.Server;

/// <summary>How many bytes of requests one guest can have in work, and that it gets on when it has as many.</summary>
public sealed class InFlightTests
{
    private const long Limit = VirtioFsServerOptions.LeastInFlightBytes;
    private const ulong SlowNode = 100;

    // The longest reply that the driver has room for.
    private const int Room = (1 << 20) + 4096;

    // One for free, and as many as fit.
    private const int Together = 1 + (int)(Limit / (InFlightBudget.FixedCost + RequestLength + Room));
    private const int RequestLength = 56;

    [Fact]
    public void Requests_beyond_the_limit_stay_in_the_queue_until_others_are_done()
    {
        const int count = 50;
        using var fileSystem = new PatientFileSystem();
        using var loopback = new Loopback(fileSystem, maxInFlight: Limit);
        using VirtioFsDriver driver = Connect(loopback);
        VirtioFsQueue queue = driver.RequestQueues[0];
        Submit(queue, count);
        for (int i = 0; i < count; i++)
        {
            fileSystem.WaitUntilStarted(Math.Min(count, Together + i));
            // Now the oldest, now the newest: the one that costs nothing ends among the others.
            fileSystem.Complete(i % 2 == 0 ? 0 : ^1);
            queue.Take(out int slot);
            queue.Release(slot);
        }

        Assert.Equal(count, fileSystem.Started);
        Assert.Equal(Together, fileSystem.Peak);
    }

    [Fact]
    public void Every_queue_gets_one_request_done_whatever_the_others_have()
    {
        using var fileSystem = new PatientFileSystem();
        using var loopback = new Loopback(fileSystem, maxInFlight: Limit);
        using VirtioFsDriver driver = Connect(loopback);
        (VirtioFsQueue greedy, VirtioFsQueue other) = (driver.RequestQueues[0], driver.RequestQueues[1]);
        Submit(greedy, Together);
        fileSystem.WaitUntilStarted(Together);

        // One at a time gets through, the second of two has to wait for the other queue.
        var client = new FuseClient(driver, requestQueue: 1);
        for (int i = 0; i < 10; i++)
        {
            Assert.False(client.GetAttr(NodeId.Root).IsError);
        }

        Submit(other, 2);
        fileSystem.WaitUntilStarted(Together + 1);

        // What ends the waits of others never waits itself.
        Submit(driver.HighPriorityQueue, 3, room: 120);
        fileSystem.WaitUntilStarted(Together + 4);
        Assert.Equal(Together + 4, fileSystem.Peak);

        // Not the greedy queue's first, which has taken nothing that it could give back.
        fileSystem.Complete(1);
        fileSystem.WaitUntilStarted(Together + 5);
        Assert.Equal(Together + 4, fileSystem.Peak);
    }

    [Fact]
    public void A_queue_at_its_limit_can_be_stopped()
    {
        using var fileSystem = new PatientFileSystem();
        int answered = 0;
        using var loopback = new Loopback(fileSystem, maxInFlight: Limit);
        using (VirtioFsDriver driver = Connect(loopback))
        {
            VirtioFsQueue queue = driver.RequestQueues[0];
            Submit(queue, 2 * Together);
            fileSystem.WaitUntilStarted(Together);
            driver.Stop();

            for (; queue.TryTake(out int slot, out int length); answered++)
            {
                Assert.Equal(-(int)Errno.EINTR, MemoryMarshal.Read<int>(queue.Reply(slot, length)[4..]));
            }

            // A queue that is stopped just before it meets its limit may take some more into the places of those that end.
            Assert.InRange(answered, Together, 2 * Together);
        }

        // What was in work has given back all.
        using VirtioFsDriver next = Connect(loopback);
        Submit(next.RequestQueues[0], Together);
        fileSystem.WaitUntilStarted(answered + Together);
    }

    [Fact]
    public void No_bytes_are_lost_or_made_by_queues_that_race()
    {
        const int threads = 4;
        const long limit = 1 << 20;
        var budget = new InFlightBudget(limit, []);
        long most = 0;
        var racers = new Thread[threads];
        for (int i = 0; i < threads; i++)
        {
            var random = new Random(i);
            racers[i] = new Thread(() =>
            {
                for (int round = 0; round < 100_000; round++)
                {
                    long bytes = random.Next(1, (int)limit);
                    if (budget.TryTake(bytes))
                    {
                        InterlockedMax(ref most, budget.Used);
                        budget.Return(bytes);
                    }
                }
            });
            racers[i].Start();
        }

        foreach (Thread racer in racers)
        {
            racer.Join();
        }

        Assert.Equal(0, budget.Used);
        Assert.InRange(most, 1, limit);
        Assert.False(budget.TryTake(limit + 1));
        Assert.True(budget.TryTake(limit));
        Assert.False(budget.TryTake(1));
        budget.Return(limit);
        Assert.Equal(0, Allocations.Least(() =>
        {
            budget.TryTake(1);
            budget.Announce();
            budget.Return(1);
        }));
    }

    [Fact]
    public void A_chain_costs_what_can_be_moved_and_no_more_than_the_least_limit()
    {
        Assert.True(InFlightBudget.MaxCost < Limit);
        var options = new VirtioFsServerOptions { SocketPath = "/s", MaxInFlightBytes = Limit - 1 };
        Assert.Contains("16 MiB", Assert.Throws<ArgumentException>(options.Validate).Message, StringComparison.Ordinal);
        (options with { MaxInFlightBytes = Limit }).Validate();
    }

    private static void InterlockedMax(ref long place, long value)
    {
        long seen = Volatile.Read(ref place);
        while (value > seen)
        {
            long previous = Interlocked.CompareExchange(ref place, value, seen);
            if (previous == seen)
            {
                return;
            }

            seen = previous;
        }
    }

    private static VirtioFsDriver Connect(Loopback loopback)
    {
        VirtioFsDriver driver = loopback.Connect(new VirtioFsDriverOptions { RequestQueues = 2 });
        Assert.False(new FuseClient(driver).Initialize().IsError);
        return driver;
    }

    private static void Submit(VirtioFsQueue queue, int count, int room = Room)
    {
        byte[] message = new byte[RequestLength];
        var header = new FuseInHeader
        {
            Length = RequestLength,
            Opcode = FuseOpcode.GetAttr,
            Unique = new RequestId(1002),
            NodeId = new NodeId(SlowNode),
        };
        Assert.Equal(RequestLength, Unsafe.SizeOf<FuseInHeader>() + Unsafe.SizeOf<FuseGetAttrIn>());
        MemoryMarshal.Write(message, in header);
        for (int i = 0; i < count; i++)
        {
            Assert.True(queue.TrySubmit(message, room, out _));
        }

        queue.Kick();
    }

    /// <summary>Answers requests for one node when the test says so, or when they are cancelled; all others at once.</summary>
    private sealed class PatientFileSystem : FuseFileSystem
    {
        private readonly object _gate = new();
        private readonly List<TaskCompletionSource<Result<FuseAttrOut>>> _pending = [];

        public int Started { get; private set; }

        /// <summary>How many were in work at the same time.</summary>
        public int Peak { get; private set; }

        public void WaitUntilStarted(int count)
        {
            lock (_gate)
            {
                while (Started < count)
                {
                    Assert.True(Monitor.Wait(_gate, TimeSpan.FromMinutes(1)), $"only {Started} of {count} requests were taken");
                }
            }
        }

        public void Complete(Index which)
        {
            TaskCompletionSource<Result<FuseAttrOut>> request;
            lock (_gate)
            {
                int index = which.GetOffset(_pending.Count);
                request = _pending[index];
                _pending.RemoveAt(index);
            }

            request.SetResult(Attributes(SlowNode));
        }

        public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(
            NodeId node, FuseGetAttrIn arguments, RequestContext context)
        {
            if (node.Value != SlowNode)
            {
                return new(Attributes(node.Value));
            }

            var request = new TaskCompletionSource<Result<FuseAttrOut>>();
            lock (_gate)
            {
                _pending.Add(request);
                Peak = Math.Max(Peak, _pending.Count);
                Started++;
                Monitor.PulseAll(_gate);
            }

            context.CancellationToken.Register(() =>
            {
                lock (_gate)
                {
                    _pending.Remove(request);
                }

                request.TrySetResult(Errno.EINTR);
            });
            return new(request.Task);
        }

        private static FuseAttrOut Attributes(ulong node) =>
            new() { Attributes = new FuseAttributes { Inode = node, Mode = 0x41ED } };
    }
}
