using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Daemon;

public sealed class LifeCycleTests
{
    [Fact]
    public void A_hundred_connections_mounts_and_unmounts_leave_nothing_behind()
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = DaemonProcess.Start(share.Path);
        var options = new VirtioFsDriverOptions { RequestQueues = 4 };

        // The first cycles make what is made once: threads, the runtime's own descriptors.
        for (int i = 0; i < 3; i++)
        {
            Cycle(daemon, options, isOrderly: i % 2 == 0);
        }

        var before = AwaitStable(daemon, expected: null);
        for (int i = 0; i < 100; i++)
        {
            Cycle(daemon, options, isOrderly: i % 2 == 0);
        }

        Assert.Equal(before, AwaitStable(daemon, before));
        Assert.Equal(0, before.Mappings);
        Assert.Empty(daemon.Complaints());
    }

    [Fact]
    public void A_guest_that_starts_anew_finds_no_handle_or_node_of_before()
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = DaemonProcess.Start(share.Path);
        using VirtioFsDriver driver = daemon.Connect();
        var client = new FuseClient(driver);
        client.Initialize();
        NodeId node = client.Lookup(NodeId.Root, "file").Value.NodeId;
        HandleId handle = client.Open(node, 0).Value.Handle;

        Assert.False(client.Initialize().IsError);

        Assert.Equal(Errno.EBADF, client.Read(node, handle, 0, 10, out _));
        Assert.True(client.GetAttr(node).IsError);
        Assert.False(client.GetAttr(NodeId.Root).IsError);
    }

    [Fact]
    public void A_device_reset_ends_the_session()
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path);
        using VirtioFsDriver driver = daemon.Connect();
        new FuseClient(driver).Initialize();
        driver.Stop();
        driver.Frontend.ResetDevice();
        driver.Dispose();

        using VirtioFsDriver next = daemon.Connect();
        Assert.Equal(Errno.EIO, new FuseClient(next).GetAttr(NodeId.Root).Error);
    }

    [Fact]
    public void A_limit_of_the_hosts_on_file_sizes_is_an_error_and_not_the_end()
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, limit: "-f 8");
        using VirtioFsDriver driver = daemon.Connect();
        var client = new FuseClient(driver);
        client.Initialize();
        FuseCreateOut file = client.Create(NodeId.Root, "file", flags: 2).Value;

        Assert.Equal(
            Errno.EFBIG, client.Write(file.Entry.NodeId, file.Open.Handle, offset: 1 << 20, new byte[4096]).Error);
        Assert.Equal(4096u, client.Write(file.Entry.NodeId, file.Open.Handle, offset: 0, new byte[4096]).Value.Size);
    }

    [Fact]
    public void Under_a_name_that_ends_in_virtiofsd_the_options_stand_alone()
    {
        using var share = new TemporaryDirectory();
        string link = share.File("my-virtiofsd");
        File.CreateSymbolicLink(link, DaemonProcess.Program);

        (int status, string error) = DaemonProcess.RunToEnd(
            link, "--shared-dir", "/no/such/dir", "--socket-path", share.File("x.sock"), "--sandbox", "none");

        Assert.Equal(1, status);
        Assert.Contains("/no/such/dir", error, StringComparison.Ordinal);
    }

    private static void Cycle(DaemonProcess daemon, VirtioFsDriverOptions options, bool isOrderly)
    {
        using VirtioFsDriver driver = daemon.Connect(options);
        var client = new FuseClient(driver, requestQueue: 1);
        Assert.False(client.Initialize().IsError);
        NodeId node = client.Lookup(NodeId.Root, "file").Value.NodeId;
        FuseOpenOut open = client.Open(node, 0).Value;
        Assert.Equal(Errno.Success, client.Read(node, open.Handle, 0, 100, out ReadOnlySpan<byte> data));
        Assert.Equal("content"u8, data);
        Assert.False(new FuseClient(driver, requestQueue: 3).GetAttr(node).IsError);
        if (isOrderly)
        {
            // As a guest unmounts and shuts down. Otherwise: as QEMU is killed, with the file open.
            client.Release(node, open.Handle);
            client.Forget(node, 1);
            client.Destroy();
            driver.Stop();
        }
    }

    // The daemon notices the end of a connection a moment after we have closed it.
    private static (int Descriptors, int Threads, int Mappings) AwaitStable(
        DaemonProcess daemon, (int Descriptors, int Threads, int Mappings)? expected)
    {
        DateTime deadline = DateTime.UtcNow.AddSeconds(10);
        (int Descriptors, int Threads, int Mappings) last = default;
        while (DateTime.UtcNow < deadline)
        {
            var now = daemon.CountResources();
            if (expected is null ? now == last && now.Mappings == 0 : now == expected)
            {
                return now;
            }

            last = now;
            Thread.Sleep(20);
        }

        return last;
    }
}
