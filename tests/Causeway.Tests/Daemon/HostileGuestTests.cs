using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Virtio;
using CsCheck;

namespace Causeway.Tests.Daemon;

/// <summary>
/// What a hostile guest kernel can put on the queues of a running daemon (passthrough reference, 7.12): afterwards it is
/// alive, serves the next request, and holds no more descriptors than before.
/// </summary>
public sealed class HostileGuestTests : IDisposable
{
    private const int HeaderSize = 40;

    private readonly TemporaryDirectory _share = new();
    private readonly DaemonProcess _daemon;
    private readonly VirtioFsDriver _driver;
    private readonly FuseClient _client;
    private readonly int _descriptors;

    public HostileGuestTests()
    {
        Directory.CreateDirectory(_share.File("d"));
        File.WriteAllText(_share.File("file"), "content");
        _daemon = DaemonProcess.Start(_share.Path);
        _driver = _daemon.Connect();
        _client = new FuseClient(_driver);
        Assert.False(_client.Initialize().IsError);
        _client.Walk("file");
        _descriptors = _daemon.CountResources().Descriptors;
    }

    public void Dispose()
    {
        // Whatever the test did: the daemon lives, answers, and has let go of everything.
        Assert.False(_client.GetAttr(NodeId.Root).IsError);

        // What it has made and not forgotten may have a descriptor; with the session that ends.
        Assert.False(_client.Initialize().IsError);
        Assert.InRange(_daemon.CountResources().Descriptors, 0, _descriptors + 1);
        _driver.Dispose();
        _daemon.Dispose();
        _share.Dispose();
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(39u)]
    [InlineData(57u)]
    [InlineData(0xffffffffu)]
    public void A_length_that_lies_is_an_error(uint length)
    {
        byte[] request = Request(FuseOpcode.GetAttr, 1, new byte[16]);
        BinaryPrimitives.WriteUInt32LittleEndian(request, length);

        Assert.NotEqual(0, ErrorOf(Exchange(request, 120)));
    }

    [Fact]
    public void A_request_shorter_than_its_header_comes_back() =>
        Assert.InRange(Exchange(new byte[20], 120).Length, 0, 16);

    [Theory]
    [InlineData(0, 0)]
    [InlineData(8, 0)]
    [InlineData(16, 16)]
    [InlineData(119, 16)]
    public void Too_little_room_for_the_reply_gets_a_bare_error_or_nothing(int room, int expected) =>
        Assert.Equal(expected, Exchange(Request(FuseOpcode.GetAttr, 1, new byte[16]), room).Length);

    [Fact]
    public void Buffers_outside_of_memory_come_back_unused()
    {
        VirtioFsQueue queue = _driver.RequestQueues[0];
        GuestRange outside = new(new GuestAddress(1UL << 60), 4096);
        GuestRange wrapping = new(new GuestAddress(ulong.MaxValue - 100), 4096);
        foreach (GuestRange range in (GuestRange[])[outside, wrapping])
        {
            Assert.True(queue.TrySubmit([range], [], out int slot));
            queue.Kick();
            Assert.Equal(0, queue.Take(out int taken));
            Assert.Equal(slot, taken);
            queue.Release(taken);
        }
    }

    [Fact]
    public void Request_and_reply_may_be_the_same_memory()
    {
        VirtioFsQueue queue = _driver.RequestQueues[0];
        Assert.True(queue.TrySubmit(Request(FuseOpcode.GetAttr, 1, new byte[16]), 120, out int filled));
        (GuestAddress request, _) = queue.Buffers(filled);
        Assert.True(queue.TrySubmit(
            [new GuestRange(request, 56)], [new GuestRange(request, 120)], out _));
        queue.Kick();
        for (int i = 0; i < 2; i++)
        {
            queue.Take(out int slot);
            queue.Release(slot);
        }
    }

    [Fact]
    public void Malformed_requests_between_good_ones_change_nothing_for_those()
    {
        VirtioFsQueue queue = _driver.RequestQueues[0];
        var good = new List<int>();
        for (int i = 0; i < 30; i++)
        {
            bool isGood = i % 2 == 0;
            byte[] request = isGood ? Request(FuseOpcode.GetAttr, 1, new byte[16]) : Request(FuseOpcode.Lookup, 1, []);
            Assert.True(queue.TrySubmit(request, 120, out int slot));
            if (isGood)
            {
                good.Add(slot);
            }
        }

        queue.Kick();
        for (int i = 0; i < 30; i++)
        {
            int length = queue.Take(out int slot);
            Assert.Equal(good.Contains(slot) ? 120 : 16, length);
            queue.Release(slot);
        }
    }

    [Fact]
    public void Any_request_is_answered_on_the_high_priority_queue()
    {
        VirtioFsQueue queue = _driver.HighPriorityQueue;
        Assert.True(queue.TrySubmit(Request(FuseOpcode.GetAttr, 1, new byte[16]), 120, out _));
        queue.Kick();

        Assert.Equal(120, queue.Take(out int slot));
        queue.Release(slot);
    }

    [Fact]
    public void In_flight_requests_are_complete_when_the_queue_has_stopped()
    {
        const int submitted = 60;
        VirtioFsQueue queue = _driver.RequestQueues[0];
        for (int i = 0; i < submitted; i++)
        {
            Assert.True(queue.TrySubmit(Request(FuseOpcode.GetAttr, 1, new byte[16]), 120, out _));
        }

        queue.Kick();
        uint next = _driver.Frontend.StopRing(1);
        int completed = 0;
        while (queue.TryTake(out int slot, out int length))
        {
            Assert.Equal(120, length);
            queue.Release(slot);
            completed++;
        }

        // INIT and LOOKUP of the set-up came before. Each took one descriptor, so that either kind of ring is at the same place.
        Assert.Equal(completed, (int)(next & 0x7fff) - 2);
        _driver.RestartQueue(1, next);

        // The stop may come before all were popped: the others are for the restarted queue, and none is lost.
        for (; completed < submitted; completed++)
        {
            Assert.Equal(120, queue.Take(out int slot));
            queue.Release(slot);
        }

        Assert.False(queue.TryTake(out _, out _));
    }

    [Theory]
    [InlineData("..")]
    [InlineData(".")]
    [InlineData("/")]
    [InlineData("/etc/passwd")]
    [InlineData("../victim")]
    [InlineData("d/..")]
    [InlineData("d/")]
    [InlineData("")]
    public void No_name_leads_out_of_the_share(string name)
    {
        string victim = Path.Combine(Path.GetDirectoryName(_share.Path)!, "victim");
        File.WriteAllText(victim, "untouched");
        NodeId directory = _client.Lookup(NodeId.Root, "d").Value.NodeId;
        try
        {
            foreach (NodeId parent in (NodeId[])[NodeId.Root, directory])
            {
                Assert.Equal(Errno.EINVAL, _client.Lookup(parent, name).Error);
                Assert.Equal(Errno.EINVAL, _client.Mkdir(parent, name).Error);
                Assert.Equal(Errno.EINVAL, _client.Create(parent, name, flags: 2).Error);
                Assert.Equal(Errno.EINVAL, _client.Unlink(parent, name));
                Assert.Equal(Errno.EINVAL, _client.Rmdir(parent, name));
            }

            Assert.Equal("untouched", File.ReadAllText(victim));
            Assert.True(Directory.Exists(_share.File("d")));
        }
        finally
        {
            File.Delete(victim);
        }
    }

    [Fact]
    public void Random_requests_never_end_the_daemon()
    {
        // A known header with anything behind it reaches every opcode's decoder; opcodes 0 to 60 include unknown ones.
        Gen<byte[]> requests =
            from opcode in Gen.UInt[0, 60].Where(opcode => opcode is not (uint)FuseOpcode.Init and not (uint)FuseOpcode.Destroy)
            from node in Gen.OneOf(Gen.Const(1UL), Gen.ULong)
            from body in Gen.Byte.Array[0, 200]
            select Request((FuseOpcode)opcode, node, body);

        requests.Sample(
            request =>
            {
                byte[] reply = Exchange(request, 4096);
                Assert.True(reply.Length is 0 or >= 16);
            },
            iter: 5000,
            threads: 1);
    }

    private static byte[] Request(FuseOpcode opcode, ulong node, ReadOnlySpan<byte> body)
    {
        byte[] request = new byte[HeaderSize + body.Length];
        var header = new FuseInHeader
        {
            Length = (uint)request.Length,
            Opcode = opcode,
            Unique = new RequestId(77),
            NodeId = new NodeId(node),
        };
        MemoryMarshal.Write(request, in header);
        body.CopyTo(request.AsSpan(Unsafe.SizeOf<FuseInHeader>()));
        return request;
    }

    private static int ErrorOf(byte[] reply) => BinaryPrimitives.ReadInt32LittleEndian(reply.AsSpan(4));

    private byte[] Exchange(byte[] request, int room)
    {
        VirtioFsQueue queue = _driver.RequestQueues[0];
        Assert.True(queue.TrySubmit(request, room, out _));
        queue.Kick();
        int length = queue.Take(out int slot);
        byte[] reply = queue.Reply(slot, length).ToArray();
        queue.Release(slot);
        return reply;
    }
}
