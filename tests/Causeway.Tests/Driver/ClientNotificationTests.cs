// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Text;
using Causeway.Driver;
using Causeway.Linux;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Driver;

/// <summary>Changes on the host, seen by a client that keeps everything, because our daemon reports them.</summary>
public sealed class ClientNotificationTests(ITestOutputHelper output)
{
    [Theory]
    [InlineData("auto")]
    [InlineData("fanotify")]
    [InlineData("directories")]
    [InlineData("inotify")]
    public async Task Every_change_of_a_thousand_is_seen_though_everything_is_kept(string how)
    {
        Assert.SkipUnless(how != "fanotify" || Environment.IsPrivilegedProcess, "NOT TESTED: fanotify needs root");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, $"--notify {how}");
        await using VirtioFsClient client = await VirtioFsClient.ConnectAsync(
            daemon.SocketPath, new VirtioFsClientOptions { Cache = CacheMode.Always });
        Assert.True(client.Transport.HasNotifications);
        var trials = new NotificationTrials(
            share,
            path => ReadAsync(client, path),
            async path => (await client.GetStatusAsync(path)).ModificationTime.UtcDateTime,
            output);
        await trials.RunAsync(how);
        Assert.Empty(daemon.Complaints());
    }

    [Theory]
    [InlineData("fanotify")]
    [InlineData("directories")]
    [InlineData("inotify")]
    public async Task Every_change_of_a_thousand_is_seen_by_who_keeps_everything_by_the_version_table(string how)
    {
        Assert.SkipUnless(how != "fanotify" || Environment.IsPrivilegedProcess, "NOT TESTED: fanotify needs root");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, $"--version-table=watched --notify {how}");
        await using VirtioFsClient client = await VirtioFsClient.ConnectAsync(
            daemon.SocketPath, new VirtioFsClientOptions { Cache = CacheMode.Coherent });
        var trials = new NotificationTrials(
            share,
            path => ReadAsync(client, path),
            async path => (await client.GetStatusAsync(path)).ModificationTime.UtcDateTime,
            output);
        await trials.RunAsync($"version table, {how}");
        Assert.Empty(daemon.Complaints());
    }

    [Fact]
    public async Task Without_notifications_what_is_kept_is_stale()
    {
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path);
        File.WriteAllText(share.File("file"), "old");
        await using VirtioFsClient client = await VirtioFsClient.ConnectAsync(
            daemon.SocketPath, new VirtioFsClientOptions { Cache = CacheMode.Always });
        Assert.False(client.Transport.HasNotifications);
        Assert.Equal("old", await ReadAsync(client, "file"));

        File.WriteAllText(share.File("file"), "new");

        // No event can make it visible; a hundred looks are as good as a thousand.
        for (int i = 0; i < 100; i++)
        {
            Assert.Equal("old", await ReadAsync(client, "file"));
        }
    }

    /// <returns>The content; null when there is no such file.</returns>
    private static async Task<string?> ReadAsync(VirtioFsClient client, string path)
    {
        try
        {
            await using VirtioFsFile file = await client.OpenFileAsync(path);
            byte[] bytes = new byte[100];
            return Encoding.UTF8.GetString(bytes, 0, await file.ReadAsync(bytes, 0));
        }
        catch (VirtioFsException exception) when (exception.Error == Errno.ENOENT)
        {
            return null;
        }
    }
}
