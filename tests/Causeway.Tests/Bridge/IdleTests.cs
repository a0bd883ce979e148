using Causeway.Tests.Daemon;

namespace Causeway.Tests.Bridge;

/// <summary>What a mount costs that nobody uses: counted by what the kernel has run of it, whatever time passes.</summary>
public sealed class IdleTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    // Threads that are asleep stay as they are over any time, and a thread that polls, or wakes up now and then, does not.
    private static readonly TimeSpan s_look = TimeSpan.FromMilliseconds(400);

    [Theory]
    [InlineData("", "fuse:0")]
    [InlineData(",nohandover", "bridge:0")]
    public void A_mount_and_its_daemon_run_nothing_once_nobody_uses_them(string options, string thread)
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "");
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, "cache=none" + options);

        // One request after the other, so that looking for the next one pays.
        Shell.Run(mount.Path, "dd if=/dev/zero of=file bs=4k count=500 status=none; dd if=file of=/dev/null bs=4k status=none");

        string last = Activity(daemon.Process.Id, mount.Process.Id);
        string now = "";
        bool isQuiet = SpinWait.SpinUntil(
            () =>
            {
                Thread.Sleep(s_look);
                now = Activity(daemon.Process.Id, mount.Process.Id);
                (bool isSame, last) = (now == last, now);
                return isSame;
            },
            s_patience);
        Assert.True(isQuiet, $"something still runs: {now}");
        Assert.Contains("vq:1", now, StringComparison.Ordinal);
        Assert.Contains(thread, now, StringComparison.Ordinal);
    }

    // Of each thread: nanoseconds on a processor, nanoseconds of waiting for one, and how many times it got one.
    private static string Activity(params ReadOnlySpan<int> processes)
    {
        var lines = new List<string>();
        foreach (int process in processes)
        {
            foreach (string thread in Directory.GetDirectories($"/proc/{process}/task").Order(StringComparer.Ordinal))
            {
                lines.Add($"{File.ReadAllText($"{thread}/comm").Trim()} {File.ReadAllText($"{thread}/schedstat").Trim()}");
            }
        }

        return string.Join("; ", lines);
    }
}
