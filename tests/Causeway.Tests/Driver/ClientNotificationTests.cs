// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Diagnostics;
using System.Globalization;
using System.Text;
using Causeway.Driver;
using Causeway.Linux;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Driver;

/// <summary>Changes on the host, seen by a client that keeps everything, because our daemon reports them.</summary>
public sealed class ClientNotificationTests(ITestOutputHelper output)
{
    private const int Trials = 1000;

    // For a machine with far more to do than it can; what is measured is printed.
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData("auto")]
    [InlineData("fanotify")]
    [InlineData("inotify")]
    public async Task Every_change_of_a_thousand_is_seen_though_everything_is_kept(string how)
    {
        Assert.SkipUnless(how != "fanotify" || Environment.IsPrivilegedProcess, "NOT TESTED: fanotify needs root");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, $"--notify {how}");
        Directory.CreateDirectory(share.File("d"));
        File.WriteAllText(share.File("d/file"), "0");
        await using VirtioFsClient client = await VirtioFsClient.ConnectAsync(
            daemon.SocketPath, new VirtioFsClientOptions { Cache = CacheMode.Always });
        Assert.True(client.Transport.HasNotifications);
        Assert.Equal("0", await ReadAsync(client, "d/file"));
        var delays = new List<double>();

        for (int i = 1; i <= Trials; i++)
        {
            // What the client knows now, it would keep for good.
            string text = i.ToString(CultureInfo.InvariantCulture);
            string name = (i - 1).ToString(CultureInfo.InvariantCulture);
            var time = new DateTime(2000 + (i % 20), 1, 1, 0, 0, 0, DateTimeKind.Utc);
            (Action change, Func<Task<bool>> isSeen) = (i % 4) switch
            {
                0 => ((Action, Func<Task<bool>>))(
                    () => File.WriteAllText(share.File("d/file"), text),
                    async () => await ReadAsync(client, "d/file") == text),
                1 => (
                    () => File.WriteAllText(share.File($"d/new{text}"), text),
                    async () => await ReadAsync(client, $"d/new{text}") == text),
                2 => (
                    () => File.Move(share.File($"d/new{name}"), share.File("d/file"), overwrite: true),
                    async () => await ReadAsync(client, $"d/new{name}") is null && await ReadAsync(client, "d/file") == name),
                _ => (
                    () => File.SetLastWriteTimeUtc(share.File("d/file"), time),
                    async () => (await client.GetStatusAsync("d/file")).ModificationTime.UtcDateTime == time),
            };
            await isSeen();
            change();
            var watch = Stopwatch.StartNew();
            while (!await isSeen())
            {
                Assert.True(watch.Elapsed < s_patience, $"trial {i} is not seen");
                await Task.Yield();
            }

            delays.Add(watch.Elapsed.TotalMilliseconds);
        }

        delays.Sort();
        output.WriteLine(
            $"{how}: {Trials} of {Trials} seen; median {delays[Trials / 2]:F2} ms, 99 % {delays[Trials * 99 / 100]:F2} ms, "
            + $"longest {delays[^1]:F2} ms, {delays.Count(delay => delay < 50)} within 50 ms");
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
