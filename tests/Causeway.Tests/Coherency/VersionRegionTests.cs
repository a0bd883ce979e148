// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Numerics;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Tests.Daemon;
using Causeway.Tests.Driver;
using Causeway.Tests.Server;
using CacheMode = Causeway.Driver.CacheMode;

namespace Causeway.Tests.Coherency;

/// <summary>The table's region as front ends see it, and INIT with daemons that know nothing of it.</summary>
public sealed class VersionRegionTests
{
    [Theory]
    [InlineData(0UL)]
    [InlineData(2UL << 20)]
    [InlineData(8UL << 20)]
    [InlineData(16UL << 20)]
    [InlineData(1UL << 30)]
    public void Window_and_table_together_are_a_power_of_two_or_else_QEMU_aborts(ulong window)
    {
        using var directory = new TemporaryDirectory();
        using Share share = Share.Open(new PassthroughOptions
        {
            SharedDirectory = directory.Path, VersionTable = VersionTableLayout.Default,
        });
        using var fileSystem = new PassthroughFileSystem(share);
        using var loopback = new Loopback(fileSystem, daxWindow: window);
        using VirtioFsDriver driver = loopback.Connect();
        ulong table = driver.Frontend.GetSharedMemorySize(VersionTableLayout.RegionId);
        Assert.Equal(window, driver.Frontend.GetSharedMemorySize(region: 0));
        Assert.True(table >= VersionTableLayout.Default.RegionSize);
        Assert.True(BitOperations.IsPow2(window + table), $"{window} and {table}");
    }

    [Theory]
    [InlineData("Debian's virtiofsd")]
    [InlineData("Rust virtiofsd")]
    public async Task A_stock_daemon_that_is_offered_the_table_does_not_take_it_and_serves_as_ever(string daemon)
    {
        using var directory = new TemporaryDirectory();
        File.WriteAllText(directory.File("f"), "text");
        using (ForeignDaemon server = ForeignDaemon.Start(daemon, directory.Path))
        {
            using VirtioFsDriver driver = Connect(server.SocketPath);
            var client = new FuseClient(driver);
            FuseFeatures offered = FuseFeatures.InitExt | FuseFeatures.VersionTable;
            var arguments = new FuseInitIn
            {
                Major = 7,
                Minor = 38,
                Flags = (uint)offered,
                Flags2 = (uint)((ulong)offered >> 32),
                VersionTableMagic = VersionTableLayout.InitMagic,
                VersionTableAbi = VersionTableLayout.Abi,
            };
            Assert.Equal(
                Errno.Success,
                client.Call(
                    FuseOpcode.Init, NodeId.None, MemoryMarshal.AsBytes(new ReadOnlySpan<FuseInitIn>(in arguments)), 64,
                    out ReadOnlySpan<byte> body));
            FuseInitOut reply = default;
            body.CopyTo(MemoryMarshal.AsBytes(new Span<FuseInitOut>(ref reply)));
            FuseFeatures granted = (FuseFeatures)(reply.Flags | ((ulong)reply.Flags2 << 32));
            Assert.False(granted.HasFlag(FuseFeatures.VersionTable));
            Assert.Equal((0, 0, 0), (reply.VersionTableAnswer, reply.VersionTableAbi, reply.VersionTableRegion));
            Assert.Equal(4UL, Passthrough.Guest.Good(client.Lookup(NodeId.Root, "f")).Attributes.Size);
        }

        // Our client, asked for what it cannot have, says so; and else does with timeouts what it always did.
        using (ForeignDaemon server = ForeignDaemon.Start(daemon, directory.Path))
        {
            VirtioFsDeviceException refusal = await Assert.ThrowsAsync<VirtioFsDeviceException>(
                () => server.ConnectAsync(new VirtioFsClientOptions { Cache = CacheMode.Coherent }));
            Assert.Equal(DeviceFailure.NotSupported, refusal.Failure);
        }

        using (ForeignDaemon server = ForeignDaemon.Start(daemon, directory.Path))
        {
            await using VirtioFsClient client = await server.ConnectAsync(new VirtioFsClientOptions { Cache = CacheMode.Auto });
            Assert.Equal(4, (await client.GetStatusAsync("f")).Length);
        }
    }

    // The socket may be there before somebody listens.
    private static VirtioFsDriver Connect(string path)
    {
        VirtioFsDriver? driver = null;
        HostileDeviceTests.Until(() =>
        {
            try
            {
                driver = VirtioFsDriver.Connect(path);
            }
            catch (ErrnoException)
            {
                return false;
            }

            return true;
        });
        return driver!;
    }
}
