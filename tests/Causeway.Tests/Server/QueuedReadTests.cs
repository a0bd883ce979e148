using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Fuse;
using Causeway.Tests.Passthrough;

namespace Causeway.Tests.Server;

/// <summary>READs that wait for the disk together, from ring to ring.</summary>
public sealed class QueuedReadTests
{
    private const int PageSize = 4096;
    private const int Pages = 1024;
    private const int Depth = 32;
    private static readonly int s_header = Unsafe.SizeOf<FuseOutHeader>();

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Every_read_is_answered_once_with_its_own_bytes_whatever_else_goes_on(bool isPacked)
    {
        using var rig = new Rig(isPacked);
        VirtioFsQueue queue = rig.Driver.RequestQueues[0];
        var asked = new Dictionary<int, (ulong Unique, long Page)>();
        var random = new Random(2);
        ulong unique = 1000;
        for (int done = 0; done < 4000;)
        {
            while (asked.Count < Depth)
            {
                // Every eighth is about something else.
                long page = random.Next(8) == 0 ? -1 : random.Next(Pages);
                byte[] request = page < 0 ? rig.GetAttr(unique) : rig.Read(unique, page);
                Assert.True(queue.TrySubmit(request, s_header + PageSize, out int slot));
                asked.Add(slot, (unique++, page));
            }

            queue.Kick();
            int length = queue.Take(out int taken);
            ReadOnlySpan<byte> reply = queue.Reply(taken, length);
            Assert.True(asked.Remove(taken, out (ulong Unique, long Page) expected));
            Assert.Equal(expected.Unique, MemoryMarshal.Read<ulong>(reply[8..]));
            Assert.Equal(0, MemoryMarshal.Read<int>(reply[4..]));
            if (expected.Page >= 0)
            {
                Assert.Equal(s_header + PageSize, length);
                Assert.Equal(expected.Page, MemoryMarshal.Read<int>(reply[s_header..]));
                Assert.Equal(expected.Page, MemoryMarshal.Read<int>(reply[^4..]));
            }

            queue.Release(taken);
            done++;
        }

        Assert.True(rig.Share.Reads!.StartedCount > 1000, "hardly a read was queued");
    }

    [Fact]
    public void A_guest_that_goes_away_leaves_nothing_behind()
    {
        using var rig = new Rig(isPacked: false);
        for (int round = 0; round < 20; round++)
        {
            VirtioFsQueue queue = rig.Driver.RequestQueues[0];
            for (int i = 0; i < Depth; i++)
            {
                Assert.True(queue.TrySubmit(rig.Read((ulong)(1000 + i), (round * Depth) + i), s_header + PageSize, out _));
            }

            queue.Kick();
            rig.Driver.Dispose();
            rig.Connect();
            Assert.Equal(0, rig.Share.Reads!.InFlight);
            Assert.Equal(1, rig.FileSystem.Figures.OpenFiles);
        }
    }

    private sealed class Rig : IDisposable
    {
        private readonly HostDirectory _host = new("/var/tmp");
        private readonly Loopback _loopback;
        private readonly bool _isPacked;
        private NodeId _file;
        private HandleId _handle;

        public Rig(bool isPacked)
        {
            _isPacked = isPacked;
            _host.WriteNumberedPages("f", Pages);
            PassthroughOptions options = _host.Options with { AllowDirectIo = true };
            SyscallResult result = Share.TryCreateRing(options, out IoUring? ring);
            if (ring is null)
            {
                _host.Dispose();
                Assert.Skip($"there is no io_uring here: {result}");
            }

            Share = Share.Open(options, ring: ring);
            FileSystem = new PassthroughFileSystem(Share);
            _loopback = new Loopback(FileSystem);
            Connect();
        }

        public Share Share { get; }

        public PassthroughFileSystem FileSystem { get; }

        public VirtioFsDriver Driver { get; private set; } = null!;

        public void Connect()
        {
            Driver = _loopback.Connect(
                new VirtioFsDriverOptions { QueueSize = 128, RequestsPerQueue = 2 * Depth, UsesPackedRings = _isPacked });
            var client = new FuseClient(Driver);
            Assert.False(client.Initialize().IsError);
            _file = client.Lookup(NodeId.Root, "f").Value.NodeId;
            _handle = client.Open(_file, (uint)(OpenFlags.ReadOnly | OpenFlags.Direct)).Value.Handle;
        }

        public byte[] Read(ulong unique, long page) => Message.Request(
                FuseOpcode.Read,
                _file.Value,
                Message.Bytes(new FuseReadIn { Handle = _handle, Offset = (ulong)page * PageSize, Size = PageSize }))
            .WithUnique(unique);

        public byte[] GetAttr(ulong unique) =>
            Message.Request(FuseOpcode.GetAttr, _file.Value, Message.Bytes(default(FuseGetAttrIn))).WithUnique(unique);

        public void Dispose()
        {
            Driver.Dispose();
            _loopback.Dispose();
            FileSystem.Dispose();
            Share.Dispose();
            _host.Dispose();
        }
    }
}
