// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Daemon;
using Causeway.Tests.Server;

namespace Causeway.Tests.Driver;

/// <summary>The raw request layer against our own server.</summary>
public sealed class TransportTests : IDisposable
{
    private readonly TemporaryDirectory _share = new();
    private readonly Share _opened;
    private readonly PassthroughFileSystem _fileSystem;
    private readonly Loopback _loopback;

    public TransportTests()
    {
        _opened = Share.Open(new PassthroughOptions { SharedDirectory = _share.Path });
        _fileSystem = new PassthroughFileSystem(_opened);
        _loopback = new Loopback(_fileSystem, tag: "loop");
    }

    public void Dispose()
    {
        _loopback.Dispose();
        _fileSystem.Dispose();
        _opened.Dispose();
        _share.Dispose();
    }

    [Fact]
    public async Task Many_requests_of_many_threads_come_back_each_to_its_own()
    {
        using VirtioFsTransport transport = Connect(new VirtioFsTransportOptions { MaxRequestQueues = 2, Calls = 32 });
        Assert.Equal("loop", transport.Tag);
        await RawRequests.InitializeAsync(transport);
        const int PerThread = 300;

        async Task<int> Send(int thread)
        {
            int right = 0;
            for (int i = 0; i < PerThread; i++)
            {
                FuseCall call = await transport.RentCallAsync(TestContext.Current.CancellationToken);

                // Names that are all different, so that a reply that went to the wrong caller shows.
                RawRequests.Write(call, transport, FuseOpcode.Lookup, NodeId.Root, "none"u8);
                FuseReply reply = await call.SubmitAsync((thread + i) % transport.RequestQueueCount);
                right += reply is { Status: FuseReplyStatus.Answered, Error: Errno.Success or Errno.ENOENT } ? 1 : 0;
                call.Return();
            }

            return right;
        }

        int[] results = await Task.WhenAll(Enumerable.Range(0, 16).Select(i => Task.Run(() => Send(i))));
        Assert.All(results, right => Assert.Equal(PerThread, right));
        Assert.Equal(0, transport.RentedCalls);
        Assert.Equal(0, transport.MalformedReplies);
    }

    [Fact]
    public async Task Payloads_move_in_buffers_of_guest_memory()
    {
        byte[] content = new byte[300_000];
        new Random(1).NextBytes(content);
        File.WriteAllBytes(_share.File("file"), content);
        using VirtioFsTransport transport = Connect();
        await RawRequests.InitializeAsync(transport);
        NodeId node = (await RawRequests.CallAsync<NodeEntry>(transport, FuseOpcode.Lookup, NodeId.Root, "file\0"u8.ToArray())).NodeId;
        FuseOpenOut open = await RawRequests.CallAsync<FuseOpenOut>(
            transport, FuseOpcode.Open, node, RawRequests.Bytes(new FuseOpenIn { Flags = 2 }));

        GuestBuffer buffer = await transport.RentBufferAsync(TestContext.Current.CancellationToken);
        FuseCall call = await transport.RentCallAsync(TestContext.Current.CancellationToken);
        RawRequests.Write(
            call, transport, FuseOpcode.Read, node, RawRequests.Bytes(new FuseReadIn { Handle = open.Handle, Size = 1 << 20 }));
        call.ReplyCapacity = FuseCall.ReplyHeaderBytes;
        call.ReplyPayload = new GuestPiece(buffer, 0, 1 << 20);
        FuseReply reply = await call.SubmitAsync(0);
        Assert.Equal(Errno.Success, reply.Error);
        Assert.Equal(content.Length, reply.BodyLength);
        Assert.True(buffer.Span[..content.Length].SequenceEqual(content));

        // Back to the file from the same buffer, in reverse order and with a hole before.
        buffer.Span[..content.Length].Reverse();
        call.ReplyPayload = default;
        call.Return();
        call = await transport.RentCallAsync(TestContext.Current.CancellationToken);
        RawRequests.Write(
            call,
            transport,
            FuseOpcode.Write,
            node,
            RawRequests.Bytes(new FuseWriteIn { Handle = open.Handle, Offset = 1000, Size = (uint)content.Length }),
            payload: content.Length);
        call.RequestPayload = new GuestPiece(buffer, 0, content.Length);
        call.ReplyCapacity = FuseCall.ReplyHeaderBytes + Unsafe.SizeOf<FuseWriteOut>();
        reply = await call.SubmitAsync(0);
        Assert.True(call.TryReadBody(reply, out FuseWriteOut written));
        Assert.Equal((uint)content.Length, written.Size);
        call.Return();
        Array.Reverse(content);
        Assert.Equal(content, File.ReadAllBytes(_share.File("file"))[1000..]);
    }

    [Fact]
    public void Nothing_is_allocated_from_submission_to_completion()
    {
        using VirtioFsTransport transport = Connect(new VirtioFsTransportOptions { MaxRequestQueues = 1, Calls = 8 });
        RawRequests.InitializeAsync(transport).GetAwaiter().GetResult();
        using var done = new SemaphoreSlim(0);
        long onCompletion = 0;
        long lastOnCompletion = 0;
        int failures = 0;
        void Handle(FuseCall call, FuseReply reply)
        {
            failures += reply.Error == Errno.Success ? 0 : 1;
            call.Return();
            long now = GC.GetAllocatedBytesForCurrentThread();
            onCompletion += now - lastOnCompletion;
            lastOnCompletion = now;
            done.Release();
        }

        FuseCompletion handler = Handle;
        void Run(int count)
        {
            for (int i = 0; i < count; i++)
            {
                FuseCall call = transport.TryRentCall()!;
                RawRequests.Write(call, transport, FuseOpcode.GetAttr, NodeId.Root, RawRequests.NoArguments);
                call.Submit(0, handler);
                done.Wait();
            }
        }

        Run(2000);
        long completing = long.MaxValue;
        long submitting = Allocations.Least(() =>
        {
            onCompletion = 0;
            Run(1000);
            completing = Math.Min(completing, onCompletion);
        });

        // A semaphore and the runtime itself have a few bytes of their own now and then; one request with an allocation of
        // 24 bytes each would be 24,000.
        Assert.InRange(submitting, 0, 4000);
        Assert.InRange(completing, 0, 4000);
        Assert.Equal(0, failures);
    }

    [Fact]
    public async Task More_calls_than_a_ring_has_descriptors_wait_for_their_turn()
    {
        using VirtioFsTransport transport = Connect(
            new VirtioFsTransportOptions { MaxRequestQueues = 1, Calls = 64, QueueSize = 4 });
        await RawRequests.InitializeAsync(transport);
        var replies = new List<ValueTask<FuseReply>>();
        var calls = new List<FuseCall>();
        for (int i = 0; i < 64; i++)
        {
            FuseCall call = transport.TryRentCall()!;
            calls.Add(call);
            RawRequests.Write(call, transport, FuseOpcode.GetAttr, NodeId.Root, RawRequests.NoArguments);
            replies.Add(call.SubmitAsync(0));
        }

        Assert.Null(transport.TryRentCall());
        ValueTask<FuseCall> waiting = transport.RentCallAsync(TestContext.Current.CancellationToken);
        for (int i = 0; i < 64; i++)
        {
            Assert.Equal(Errno.Success, (await replies[i]).Error);
            calls[i].Return();
        }

        (await waiting).Return();
    }

    [Fact]
    public async Task Memory_stays_until_the_last_call_is_back()
    {
        VirtioFsTransport transport = Connect();
        await RawRequests.InitializeAsync(transport);
        FuseCall call = transport.TryRentCall()!;
        transport.Dispose();
        call.Request.Fill(7);
        Assert.Equal(7, call.Request[4095]);
        call.RequestLength = FuseCall.RequestHeaderBytes;
        call.ReplyCapacity = FuseCall.ReplyHeaderBytes;
        Assert.Equal(FuseReplyStatus.Lost, (await call.SubmitAsync(0)).Status);
        Assert.Equal(DeviceFailure.Closed, transport.Loss!.Failure);
        call.Return();
        Assert.Throws<ObjectDisposedException>(() => transport.TryRentCall());
    }

    private VirtioFsTransport Connect(VirtioFsTransportOptions? options = null) =>
        VirtioFsTransport.Connect(_loopback.SocketPath, options);
}

/// <summary>Messages for tests of the raw request layer.</summary>
internal static class RawRequests
{
    public static readonly byte[] NoArguments = new byte[16];

    public static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();

    public static void Write(
        FuseCall call, VirtioFsTransport transport, FuseOpcode opcode, NodeId node, ReadOnlySpan<byte> arguments, int payload = 0)
    {
        // Names end in a zero byte, which arguments without one get here.
        int zero = opcode == FuseOpcode.Lookup && arguments is not [.., 0] ? 1 : 0;
        call.RequestLength = FuseCall.RequestHeaderBytes + arguments.Length + zero;
        MemoryMarshal.Write(call.Request, new FuseInHeader
        {
            Length = (uint)(call.RequestLength + payload),
            Opcode = opcode,
            Unique = transport.NextUnique(),
            NodeId = node,
        });
        arguments.CopyTo(call.Request[FuseCall.RequestHeaderBytes..]);
        call.Request[FuseCall.RequestHeaderBytes + arguments.Length] = 0;
        call.ReplyCapacity = FuseCall.ControlBytes;
    }

    public static async Task<T> CallAsync<T>(VirtioFsTransport transport, FuseOpcode opcode, NodeId node, byte[] arguments)
        where T : unmanaged
    {
        FuseCall call = await transport.RentCallAsync();
        Write(call, transport, opcode, node, arguments);
        FuseReply reply = await call.SubmitAsync(0);
        Assert.Equal(Errno.Success, reply.Error);
        Assert.True(call.TryReadBody(reply, out T body));
        call.Return();
        return body;
    }

    public static Task InitializeAsync(VirtioFsTransport transport) => CallAsync<FuseInitOut>(
        transport,
        FuseOpcode.Init,
        NodeId.None,
        Bytes(new FuseInitIn { Major = 7, Minor = 38, MaxReadahead = 1 << 17, Flags = (uint)FuseFeatures.MaxPages }));
}
