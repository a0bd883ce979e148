using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Server;

/// <summary>What a request costs between ring and file system: calls of the driver, and managed memory.</summary>
public sealed class BatchTests
{
    [Fact]
    public void A_batch_of_requests_is_answered_with_one_call()
    {
        using var share = new TemporaryDirectory();
        using Share opened = Share.Open(new PassthroughOptions { SharedDirectory = share.Path });
        using var fileSystem = new PassthroughFileSystem(opened);
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect();
        Assert.False(new FuseClient(driver).Initialize().IsError);
        VirtioFsQueue queue = driver.RequestQueues[0];
        int callEvent = (int)queue.Ring.CallEvent.DangerousGetHandle();
        Events.Drain(callEvent, out _);
        const int Batches = 20;
        const int Requests = 16;
        ulong calls = 0;
        for (int batch = 0; batch < Batches; batch++)
        {
            for (int i = 0; i < Requests; i++)
            {
                Assert.True(queue.TrySubmit(GetAttr((ulong)(100 + i)), 120, out _));
            }

            Assert.True(queue.ArmCalls());
            queue.Kick();
            TakeAll(queue, Requests);
            Poll.Wait([new PollDescriptor(callEvent, PollEvents.Readable)], Poll.Forever);
            Events.Drain(callEvent, out ulong count);
            calls += count;
        }

        // Once the queues are stopped no further call can come.
        driver.Stop();
        Events.Drain(callEvent, out ulong late);

        // On a busy machine a thread may lose its turn in the middle of a batch, which then gets a second call.
        Assert.InRange(calls + late, (ulong)Batches, Batches + 5UL);
    }

    [Fact]
    public void The_reply_to_a_large_request_does_not_wait_for_those_behind_it()
    {
        using var share = new TemporaryDirectory();
        File.WriteAllBytes(share.File("file"), new byte[64 << 10]);
        using Share opened = Share.Open(new PassthroughOptions { SharedDirectory = share.Path });
        using var inner = new PassthroughFileSystem(opened);
        using var isSeen = new ManualResetEventSlim();
        using var fileSystem = new WaitingFileSystem(inner, isSeen);
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect(new VirtioFsDriverOptions { ReplyTimeout = TimeSpan.FromSeconds(10) });
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        NodeId node = client.Lookup(NodeId.Root, "file").Value.NodeId;
        HandleId file = client.Open(node, flags: 2).Value.Handle;

        // One batch: the second request is not done before the reply to the first is there.
        VirtioFsQueue queue = driver.RequestQueues[0];
        var read = new FuseReadIn { Handle = file, Size = 64 << 10 };
        var header = new FuseInHeader
        {
            Length = (uint)(Unsafe.SizeOf<FuseInHeader>() + Unsafe.SizeOf<FuseReadIn>()),
            Opcode = FuseOpcode.Read,
            Unique = new RequestId(1000),
            NodeId = node,
        };
        byte[] request = [.. MemoryMarshal.AsBytes(new Span<FuseInHeader>(ref header)), .. MemoryMarshal.AsBytes(new Span<FuseReadIn>(ref read))];
        Assert.True(queue.TrySubmit(request, 16 + (64 << 10), out int first));
        Assert.True(queue.TrySubmit(GetAttr(1001), 120, out int second));
        queue.Kick();
        Assert.Equal(16 + (64 << 10), queue.Take(out int slot));
        Assert.Equal(first, slot);
        queue.Release(slot);
        isSeen.Set();
        Assert.Equal(120, queue.Take(out slot));
        Assert.Equal(second, slot);
        queue.Release(slot);
    }

    [Theory]
    [InlineData(FuseOpcode.GetAttr)]
    [InlineData(FuseOpcode.Lookup)]
    [InlineData(FuseOpcode.Read)]
    [InlineData(FuseOpcode.Write)]
    [InlineData(FuseOpcode.ReadDirPlus)]
    [InlineData(FuseOpcode.SetAttr)]
    [InlineData(FuseOpcode.Open)]
    [InlineData(FuseOpcode.Create)]
    public void Nothing_is_allocated_for_a_request_from_ring_to_ring(FuseOpcode opcode)
    {
        using var share = new TemporaryDirectory();
        File.WriteAllBytes(share.File("file"), new byte[8192]);
        using Share opened = Share.Open(new PassthroughOptions { SharedDirectory = share.Path });
        using var inner = new PassthroughFileSystem(opened);
        using var fileSystem = new AllocationMeter(inner);
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect();
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        NodeId node = client.Lookup(NodeId.Root, "file").Value.NodeId;
        HandleId file = client.Open(node, flags: 2).Value.Handle;
        HandleId directory = client.OpenDir(NodeId.Root).Value.Handle;
        byte[] data = new byte[4096];
        var entries = new List<(string Name, NodeEntry Entry)>();

        // Everything that is made once is made in the first requests.
        for (int i = 0; i < 200 + AllocationMeter.Samples; i++)
        {
            if (i == 200)
            {
                fileSystem.Start();
            }

            Errno error = opcode switch
            {
                FuseOpcode.GetAttr => client.GetAttr(node).Error,
                FuseOpcode.Lookup => client.Lookup(NodeId.Root, "file").Error,
                FuseOpcode.Read => client.Read(node, file, 0, 4096, out _),
                FuseOpcode.Write => client.Write(node, file, 0, data).Error,
                FuseOpcode.SetAttr => client.SetAttr(node, new FuseSetAttrIn { Valid = SetAttrValid.Mode, Mode = 0x1a4 }).Error,
                FuseOpcode.Open => client.Release(node, client.Open(node, flags: 0).Value.Handle),
                FuseOpcode.Create => CreateAndRemove(client),
                _ => client.ReadDirPlus(NodeId.Root, directory, 0, 4096, entries).Error,
            };
            Assert.Equal(Errno.Success, error);
        }

        // On a busy machine a thread may lose its turn while it waits for a processor. The one that takes over needs a slot
        // of its own, which is made once; there are at most eight such threads.
        Assert.InRange(fileSystem.RequestsThatAllocated(), 0, 8);
    }

    private static Errno CreateAndRemove(FuseClient client)
    {
        FuseCreateOut made = client.Create(NodeId.Root, "made", flags: 2).Value;
        Assert.Equal(Errno.Success, client.Release(made.Entry.NodeId, made.Open.Handle));
        Assert.Equal(Errno.Success, client.Unlink(NodeId.Root, "made"));
        client.Forget(made.Entry.NodeId, 1);
        return Errno.Success;
    }

    /// <summary>Answers GETATTR only once something was seen.</summary>
    private sealed class WaitingFileSystem(PassthroughFileSystem inner, ManualResetEventSlim isSeen) : FuseFileSystem
    {
        public override ValueTask<Errno> InitializeAsync(FuseNegotiation negotiation) => inner.InitializeAsync(negotiation);

        public override void Destroy() => inner.Destroy();

        public override ValueTask<Result<NodeEntry>> LookupAsync(NodeId parent, FileName name, RequestContext context) =>
            inner.LookupAsync(parent, name, context);

        public override ValueTask<Result<FuseOpenOut>> OpenAsync(NodeId node, FuseOpenIn arguments, RequestContext context) =>
            inner.OpenAsync(node, arguments, context);

        public override ValueTask<Result<int>> ReadAsync(
            NodeId node, FuseReadIn arguments, IoVectorList destination, RequestContext context) =>
            inner.ReadAsync(node, arguments, destination, context);

        public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(NodeId node, FuseGetAttrIn arguments, RequestContext context)
        {
            isSeen.Wait(TimeSpan.FromSeconds(20));
            return inner.GetAttrAsync(node, arguments, context);
        }
    }

    // Looks without waiting, so that nobody but the test reads the call event.
    private static void TakeAll(VirtioFsQueue queue, int count)
    {
        while (count > 0)
        {
            if (queue.TryTake(out int slot, out _))
            {
                queue.Release(slot);
                count--;
            }
        }
    }

    private static byte[] GetAttr(ulong unique)
    {
        byte[] message = new byte[Unsafe.SizeOf<FuseInHeader>() + Unsafe.SizeOf<FuseGetAttrIn>()];
        var header = new FuseInHeader
        {
            Length = (uint)message.Length,
            Opcode = FuseOpcode.GetAttr,
            Unique = new RequestId(unique),
            NodeId = NodeId.Root,
        };
        MemoryMarshal.Write(message, in header);
        return message;
    }

    /// <summary>Notes, at each request, how much its thread has allocated so far.</summary>
    private sealed class AllocationMeter(FuseFileSystem inner) : FuseFileSystem
    {
        public const int Samples = 1000;

        private readonly (int Thread, long Bytes)[] _samples = new (int, long)[Samples];
        private int _count = Samples;

        public void Start() => Volatile.Write(ref _count, 0);

        /// <summary>
        /// How many requests were followed by an allocation before the next one on the same thread: a request's own share
        /// lies between its note and the next.
        /// </summary>
        public int RequestsThatAllocated()
        {
            int allocating = 0;
            int pairs = 0;
            for (int i = 1; i < Volatile.Read(ref _count); i++)
            {
                if (_samples[i].Thread == _samples[i - 1].Thread)
                {
                    allocating += _samples[i].Bytes != _samples[i - 1].Bytes ? 1 : 0;
                    pairs++;
                }
            }

            Assert.InRange(pairs, Samples / 2, Samples);
            return allocating;
        }

        public override ValueTask<Errno> InitializeAsync(FuseNegotiation negotiation) =>
            inner.InitializeAsync(negotiation);

        public override void Destroy() => inner.Destroy();

        public override int Settle() => inner.Settle();

        public override ValueTask<Result<NodeEntry>> LookupAsync(NodeId parent, FileName name, RequestContext context)
        {
            Note();
            return inner.LookupAsync(parent, name, context);
        }

        public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(
            NodeId node, FuseGetAttrIn arguments, RequestContext context)
        {
            Note();
            return inner.GetAttrAsync(node, arguments, context);
        }

        public override ValueTask<Result<FuseOpenOut>> OpenAsync(
            NodeId node, FuseOpenIn arguments, RequestContext context)
        {
            Note();
            return inner.OpenAsync(node, arguments, context);
        }

        public override ValueTask<Errno> ReleaseAsync(NodeId node, FuseReleaseIn arguments, RequestContext context)
        {
            Note();
            return inner.ReleaseAsync(node, arguments, context);
        }

        public override ValueTask<Result<FuseAttrOut>> SetAttrAsync(
            NodeId node, FuseSetAttrIn arguments, RequestContext context)
        {
            Note();
            return inner.SetAttrAsync(node, arguments, context);
        }

        public override ValueTask<Result<FuseCreateOut>> CreateAsync(
            NodeId parent, FileName name, FuseCreateIn arguments, RequestContext context)
        {
            Note();
            return inner.CreateAsync(parent, name, arguments, context);
        }

        public override ValueTask<Errno> UnlinkAsync(NodeId parent, FileName name, RequestContext context)
        {
            Note();
            return inner.UnlinkAsync(parent, name, context);
        }

        // Its thread is the high-priority queue's, whose requests are not those that are counted.
        public override void Forget(NodeId node, ulong lookupCount) => inner.Forget(node, lookupCount);

        public override ValueTask<Result<FuseOpenOut>> OpenDirAsync(
            NodeId node, FuseOpenIn arguments, RequestContext context) => inner.OpenDirAsync(node, arguments, context);

        public override ValueTask<Result<int>> ReadAsync(
            NodeId node, FuseReadIn arguments, IoVectorList destination, RequestContext context)
        {
            Note();
            return inner.ReadAsync(node, arguments, destination, context);
        }

        public override ValueTask<Result<int>> WriteAsync(
            NodeId node, FuseWriteIn arguments, IoVectorList source, RequestContext context)
        {
            Note();
            return inner.WriteAsync(node, arguments, source, context);
        }

        public override ValueTask<Errno> ReadDirAsync(
            NodeId node, FuseReadIn arguments, DirectoryWriter entries, RequestContext context)
        {
            Note();
            return inner.ReadDirAsync(node, arguments, entries, context);
        }

        private void Note()
        {
            int index = _count;
            if (index < Samples)
            {
                _samples[index] = (Environment.CurrentManagedThreadId, GC.GetAllocatedBytesForCurrentThread());
                Volatile.Write(ref _count, index + 1);
            }
        }
    }
}
