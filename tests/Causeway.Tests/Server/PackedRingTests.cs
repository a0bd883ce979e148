using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Daemon;
using Causeway.VhostUser.Messages;

namespace Causeway.Tests.Server;

/// <summary>Both ends with either kind of ring.</summary>
public sealed class PackedRingTests
{
    [Theory]
    [InlineData(true, 8)]
    [InlineData(true, 1024)]
    [InlineData(false, 8)]
    public void Requests_are_answered_over_many_laps_and_after_a_queue_was_stopped(bool isPacked, int size)
    {
        using var share = new TemporaryDirectory();
        byte[] content = new byte[70_000];
        new Random(1).NextBytes(content);
        File.WriteAllBytes(share.File("file"), content);
        using Share opened = Share.Open(new PassthroughOptions { SharedDirectory = share.Path });
        using var fileSystem = new PassthroughFileSystem(opened);
        using var loopback = new Loopback(fileSystem);
        using VirtioFsDriver driver = loopback.Connect(
            new VirtioFsDriverOptions { QueueSize = size, RequestsPerQueue = 4, UsesPackedRings = isPacked });
        Assert.Equal(isPacked, (driver.Frontend.NegotiatedFeatures & VirtioFeatures.PackedRing) != 0);
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        NodeId node = client.Lookup(NodeId.Root, "file").Value.NodeId;
        HandleId file = client.Open(node, flags: 0).Value.Handle;

        // Queue 1 is the request queue. Each time it goes on elsewhere in the ring.
        for (int round = 0; round < 5; round++)
        {
            for (int i = 0; i < 500; i++)
            {
                Assert.Equal((ulong)content.Length, client.GetAttr(node).Value.Attributes.Size);
            }

            Assert.Equal(Errno.Success, client.Read(node, file, 0, content.Length, out ReadOnlySpan<byte> read));
            Assert.True(read.SequenceEqual(content));
            uint next = driver.Frontend.StopRing(1);

            // All has come back, so both places of a packed ring are the same; a split ring has one.
            Assert.Equal(isPacked ? next & 0xffff : 0, next >> 16);
            driver.RestartQueue(1, next);
        }
    }
}
