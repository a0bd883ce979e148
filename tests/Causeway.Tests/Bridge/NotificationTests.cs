using System.Diagnostics;
using System.Globalization;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Tests.Daemon;
using Causeway.Tests.Driver;
using Causeway.VhostUser.Messages;

namespace Causeway.Tests.Bridge;

/// <summary>Changes on the host, seen through mounts that keep everything.</summary>
public sealed class NotificationTests(ITestOutputHelper output)
{
    // For a machine with far more to do than it can.
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    [Theory]
    [InlineData("fanotify")]
    [InlineData("directories")]
    [InlineData("inotify")]
    public async Task Every_change_of_a_thousand_is_seen_though_everything_is_kept(string how)
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share, how);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, "cache=always");
        var trials = new NotificationTrials(
            share,
            path => Task.FromResult(ReadIfThere(mount.File(path))),
            path => Task.FromResult(File.GetLastWriteTimeUtc(mount.File(path))),
            output);
        await trials.RunAsync(how);
        Assert.Empty(daemon.Complaints());
    }

    [Fact]
    public void Without_notifications_what_is_kept_is_stale()
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share, "auto");
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, "cache=always,nonotify");
        File.WriteAllText(share.File("file"), "old");
        File.WriteAllText(share.File("name"), "");
        Assert.Equal(3, new FileInfo(mount.File("file")).Length);
        Assert.True(File.Exists(mount.File("name")));

        File.WriteAllText(share.File("file"), "new and longer");
        File.Delete(share.File("name"));

        // No event can make it visible; a hundred looks are as good as a thousand.
        for (int i = 0; i < 100; i++)
        {
            Assert.Equal(3, new FileInfo(mount.File("file")).Length);
            Assert.True(File.Exists(mount.File("name")));
        }
    }

    [Fact]
    public void What_the_kernel_writes_itself_is_not_invalidated()
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share, "fanotify");
        using NotifiedDriver guest = new(daemon.SocketPath);
        FuseCreateOut file = guest.Client.Create(NodeId.Root, "file", flags: 2).Value;
        Assert.False(guest.Client.Write(file.Entry.NodeId, file.Open.Handle, 0, new byte[100]).IsError);
        Assert.Equal(Causeway.Linux.Errno.Success, guest.Client.Unlink(NodeId.Root, "file"));

        // Notifications come in order: what ours would have caused comes before this.
        File.WriteAllText(share.File("marker"), "");
        Assert.True(AwaitTrue(() => guest.Messages.Any(message => message.StartsWith("InvalEntry 1 marker", StringComparison.Ordinal))));
        Assert.DoesNotContain(guest.Messages, message => message.Contains("file", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("fanotify")]
    [InlineData("directories")]
    [InlineData("inotify")]
    public void The_messages_name_what_changed(string how)
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        Directory.CreateDirectory(share.File("d"));
        using DaemonProcess daemon = Serve(share, how);
        using NotifiedDriver guest = new(daemon.SocketPath);
        ulong file = guest.Client.Lookup(NodeId.Root, "file").Value.NodeId.Value;
        ulong directory = guest.Client.Lookup(NodeId.Root, "d").Value.NodeId.Value;

        // By name, inotify finds what is still there; so one after the other.
        Shell.Run(share.Path, "echo x >> file; chmod 600 file; touch d/new");
        ExpectAll(
            guest, $"InvalInode {file} 0", $"InvalInode {file} -1", $"InvalEntry {directory} new", $"InvalInode {directory} 0");

        Shell.Run(share.Path, "mv file d/moved; rm d/new");
        ExpectAll(guest, "InvalEntry 1 file", "InvalInode 1 0", $"InvalEntry {directory} moved");
    }

    [Fact]
    public void A_deletion_names_what_is_gone()
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = Serve(share, "fanotify");
        using NotifiedDriver guest = new(daemon.SocketPath);
        guest.Client.Lookup(NodeId.Root, "file");

        File.Delete(share.File("file"));

        ExpectAll(guest, "Delete 1 file");
    }

    private static void ExpectAll(NotifiedDriver guest, params string[] expected)
    {
        foreach (string message in expected)
        {
            Assert.True(
                AwaitTrue(() => guest.Messages.Any(seen => seen.StartsWith(message, StringComparison.Ordinal))),
                $"'{message}' did not come; there are: {string.Join(", ", guest.Messages)}");
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Notifications_come_in_order_over_either_kind_of_ring_for_many_laps_of_few_buffers(bool isPacked)
    {
        const int buffers = 4;
        const int laps = 100;
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "--notify inotify");
        using NotifiedDriver guest = new(daemon.SocketPath, new() { UsesPackedRings = isPacked, QueueSize = buffers, RequestsPerQueue = 1 });
        Assert.True(guest.Driver.HasNotifications);
        Assert.Equal(isPacked, (guest.Driver.Frontend.NegotiatedFeatures & VirtioFeatures.PackedRing) != 0);

        // The device has to wait for a buffer, and is kicked for it.
        guest.IsDeaf = true;
        Shell.Run(share.Path, $"seq {buffers * laps / 2} | xargs touch");
        guest.IsDeaf = false;
        Shell.Run(share.Path, $"seq {(buffers * laps / 2) + 1} {buffers * laps} | xargs touch");

        string[] expected = [.. Enumerable.Range(1, buffers * laps).Select(number => $"InvalEntry 1 {number}")];
        Assert.True(AwaitTrue(() => guest.Messages.Contains(expected[^1])), $"{guest.Messages.Count} messages came");
        Assert.Equal(expected, guest.Messages.Where(message => message.StartsWith("InvalEntry", StringComparison.Ordinal)).Distinct());
    }

    [Fact]
    public void A_queue_that_overflows_invalidates_everything()
    {
        using var share = new TemporaryDirectory();
        Directory.CreateDirectory(share.File("d"));
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = Serve(share, "fanotify");
        using NotifiedDriver guest = new(daemon.SocketPath) { IsDeaf = true };
        ulong file = guest.Client.Lookup(NodeId.Root, "file").Value.NodeId.Value;
        guest.Client.Lookup(NodeId.Root, "d");

        // More different names than the kernel keeps events (fs.fanotify.max_queued_events), while nobody listens.
        int most = int.Parse(File.ReadAllText("/proc/sys/fs/fanotify/max_queued_events"), CultureInfo.InvariantCulture);
        Assert.SkipWhen(most > 100_000, $"NOT TESTED: fs.fanotify.max_queued_events is {most}, too many to overflow");
        Shell.Run(share.Path, $"seq {most + 2000} | sed 's/^/d\\//' | xargs touch");
        guest.IsDeaf = false;

        Assert.True(AwaitTrue(() => guest.Messages.Contains("IncEpoch")), "the overflow is not told");
        Assert.True(AwaitTrue(() => guest.Messages.Any(message => message == $"InvalInode {file} 0")));
    }

    [Fact]
    public void A_guest_that_does_not_ask_has_its_queues_where_they_were()
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = Serve(share, "auto");
        using VirtioFsDriver driver = daemon.Connect(new VirtioFsDriverOptions { RequestQueues = 2 });
        var client = new FuseClient(driver, requestQueue: 1);

        Assert.False(driver.HasNotifications);
        Assert.False(client.Initialize().IsError);
        Assert.False(client.Lookup(NodeId.Root, "file").IsError);
    }

    [Fact]
    public void A_daemon_that_is_not_told_to_offers_no_notifications()
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path);
        using NotifiedDriver guest = new(daemon.SocketPath);

        Assert.False(guest.Driver.HasNotifications);
    }

    private static DaemonProcess Serve(TemporaryDirectory share, string how)
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        return DaemonProcess.Start(share.Path, $"--cache auto --notify {how}");
    }

    private static string? ReadIfThere(string path)
    {
        try
        {
            return File.Exists(path) ? File.ReadAllText(path) : null;
        }
        catch (FileNotFoundException)
        {
            // Gone in between.
            return null;
        }
    }

    private static bool AwaitTrue(Func<bool> condition)
    {
        var watch = Stopwatch.StartNew();
        while (!condition())
        {
            if (watch.Elapsed > s_patience)
            {
                return false;
            }

            Thread.Yield();
        }

        return true;
    }

    /// <summary>Our own driver with its notifications as text.</summary>
    private sealed class NotifiedDriver : IDisposable
    {
        private readonly List<string> _messages = [];
        private readonly ManualResetEventSlim _listens = new(true);

        public NotifiedDriver(string socket, VirtioFsDriverOptions? options = null)
        {
            Driver = VirtioFsDriver.Connect(socket, (options ?? new()) with { OnNotification = Keep });
            Client = new FuseClient(Driver);
            Assert.False(Client.Initialize().IsError);
        }

        public VirtioFsDriver Driver { get; }

        public FuseClient Client { get; }

        public bool IsDeaf
        {
            set
            {
                if (value)
                {
                    _listens.Reset();
                }
                else
                {
                    _listens.Set();
                }
            }
        }

        public IReadOnlyList<string> Messages
        {
            get
            {
                lock (_messages)
                {
                    return [.. _messages];
                }
            }
        }

        public void Dispose()
        {
            _listens.Set();
            Driver.Dispose();
            _listens.Dispose();
        }

        private void Keep(FuseNotifyCode code, ReadOnlySpan<byte> payload)
        {
            _listens.Wait();
            string text = code switch
            {
                FuseNotifyCode.InvalInode => $"{BitConverter.ToUInt64(payload)} {BitConverter.ToInt64(payload[8..])}",
                FuseNotifyCode.InvalEntry => $"{BitConverter.ToUInt64(payload)} {System.Text.Encoding.UTF8.GetString(payload[16..^1])}",
                FuseNotifyCode.Delete => $"{BitConverter.ToUInt64(payload)} {System.Text.Encoding.UTF8.GetString(payload[24..^1])}",
                _ => "",
            };
            lock (_messages)
            {
                _messages.Add($"{code} {text}".Trim());
            }
        }
    }
}
