using System.Globalization;
using System.Text.RegularExpressions;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Bridge;

/// <summary>Mounts that keep everything as long as the version table says that it is true.</summary>
public sealed partial class CoherentMountTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    [Theory]
    [InlineData("coherent,noio_uring")]
    [InlineData("strict,noio_uring")]
    [InlineData("coherent,io_uring")]
    public void Git_status_of_20_000_files_sends_nothing_the_second_time(string mode)
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        Assert.SkipWhen(!Shell.Has("git"), "NOT TESTED: there is no git; install the package of that name");
        using var share = new TemporaryDirectory();
        Shell.Run(
            share.Path,
            """
            export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
            git init -q -b main .; git config gc.auto 0; git config maintenance.auto false
            for d in $(seq 200); do mkdir d$d; for f in $(seq 100); do echo $d $f > d$d/f$f; done; done
            git add -A; git commit -qm first; sleep 1.1; git status > /dev/null
            """);
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, $"cache={mode}");
        const string Status = "git -c safe.directory='*' --no-optional-locks status --porcelain";
        Assert.Equal("", Shell.Run(mount.Path, Status));
        long before = CountRequests(daemon);
        Assert.True(before > 20_000, $"only {before} requests: nothing was looked at");

        // On a machine so busy that the heartbeat is not seen for a second, everything is dropped, and asked again.
        bool wasSilent = false;
        for (int run = 0; run < 5 && !wasSilent; run++)
        {
            before = CountRequests(daemon);
            Assert.Equal("", Shell.Run(mount.Path, Status));
            wasSilent = CountRequests(daemon) == before;
        }

        Assert.True(wasSilent, "each run has sent requests");

        // What another mount changes is asked for again: that file, and what git reads of it.
        using MountProcess other = MountProcess.Start(daemon.SocketPath, "noio_uring");
        File.AppendAllText(other.File("d7/f7"), "changed");
        before = CountRequests(daemon);
        Assert.True(AwaitTrue(() => Shell.Run(mount.Path, Status) == "M d7/f7"));
        Assert.InRange(CountRequests(daemon) - before, 1, before / 2);
    }

    [Fact]
    public void What_another_mount_changes_is_seen_at_once_in_strict_mode()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using MountProcess one = MountProcess.Start(daemon.SocketPath, "cache=strict,noio_uring");
        using MountProcess two = MountProcess.Start(daemon.SocketPath, "cache=strict,noio_uring");
        for (int i = 0; i < 2000; i++)
        {
            Assert.Equal(0, TrialOf(i, one, two));
        }
    }

    [Fact]
    public void With_a_lifetime_of_a_second_it_is_not()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using MountProcess one = MountProcess.Start(daemon.SocketPath, "cache=auto,nonotify,noio_uring");
        using MountProcess two = MountProcess.Start(daemon.SocketPath, "cache=auto,nonotify,noio_uring");
        Assert.NotEqual(0, Enumerable.Range(0, 200).Sum(i => TrialOf(i, one, two)));
    }

    [Fact]
    public void In_coherent_mode_it_is_seen_soon_whatever_it_is()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using MountProcess one = MountProcess.Start(daemon.SocketPath, "cache=coherent,noio_uring");
        using MountProcess two = MountProcess.Start(daemon.SocketPath, "cache=coherent,noio_uring");
        for (int i = 0; i < 200; i++)
        {
            string name = $"f{i % 5}";
            string content = new('x', i + 1);
            File.WriteAllText(one.File(name), content);
            Assert.True(AwaitTrue(() => ReadIfThere(two.File(name)) == content), $"content {i} is not seen");
            Assert.True(AwaitTrue(() => new FileInfo(two.File(name)).Length == i + 1), $"length {i} is not seen");
            File.Move(two.File(name), two.File("moved"), overwrite: true);
            Assert.True(AwaitTrue(() => !File.Exists(one.File(name)) && ReadIfThere(one.File("moved")) == content), $"move {i}");
            Assert.True(AwaitTrue(() => Directory.GetFileSystemEntries(one.Path).Contains(one.File("moved"))), $"listing {i}");
            File.Delete(one.File("moved"));
            Assert.True(AwaitTrue(() => !File.Exists(two.File("moved"))), $"deletion {i} is not seen");
        }
    }

    [Fact]
    public void A_file_that_is_open_and_was_never_opened_at_the_daemon_can_be_read_after_it_is_deleted()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, "cache=coherent,noio_uring");
        byte[] content = new byte[3 << 20];
        new Random(1).NextBytes(content);
        File.WriteAllBytes(mount.File("f"), content);
        Assert.Equal(content, File.ReadAllBytes(mount.File("f")));

        // From now on it is opened without the daemon; then its pages go from the kernel, and its name.
        using FileStream open = File.OpenRead(mount.File("f"));
        using FileStream second = File.OpenRead(mount.File("f"));
        Shell.Run("/", $"dd of={mount.File("f")} oflag=nocache conv=notrunc,fdatasync count=0 status=none");
        File.Delete(mount.File("f"));

        byte[] read = new byte[content.Length];
        Parallel.For(0, 12, i =>
        {
            FileStream stream = i % 2 == 0 ? open : second;
            int length = content.Length / 12;
            Assert.Equal(length, RandomAccess.Read(stream.SafeFileHandle, read.AsSpan(i * length, length), i * length));
        });
        Assert.Equal(content, read);
    }

    [Fact]
    public void What_the_kernel_forgets_is_forgotten_at_the_daemon_too()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var share = new TemporaryDirectory();
        for (int i = 0; i < 500; i++)
        {
            File.WriteAllText(share.File($"f{i}"), "x");
        }

        using DaemonProcess daemon = Serve(share, "--inode-file-handles=never");
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, "cache=strict,noio_uring");
        int descriptors = daemon.CountResources().Descriptors;
        for (int round = 0; round < 3; round++)
        {
            Shell.Run(mount.Path, "ls -l > /dev/null; stat f* > /dev/null");
        }

        Assert.True(daemon.CountResources().Descriptors >= descriptors + 500);
        Assert.True(AwaitTrue(() =>
        {
            File.WriteAllText("/proc/sys/vm/drop_caches", "2");
            return daemon.CountResources().Descriptors < descriptors + 100;
        }));
        Assert.Equal(500, Directory.GetFiles(mount.Path).Length);
    }

    [Fact]
    public void A_daemon_without_a_table_is_refused_and_what_to_do_is_said()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "");
        using MountProcess mount = MountProcess.Launch(daemon.SocketPath, "cache=coherent");
        Assert.NotEqual(0, mount.AwaitEnd());
        Assert.Contains("--version-table", mount.Log, StringComparison.Ordinal);
    }

    [Fact]
    public void A_daemon_that_is_killed_ends_the_mount()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = Serve(share);
        using MountProcess mount = MountProcess.Start(daemon.SocketPath, "cache=coherent,noio_uring");
        File.WriteAllText(mount.File("f"), "x");
        daemon.Process.Kill();
        Assert.NotEqual(0, mount.AwaitEnd());
        Assert.Null(mount.MountLine);
    }

    private static DaemonProcess Serve(TemporaryDirectory share, string options = "") =>
        DaemonProcess.Start(share.Path, $"--version-table=exclusive --max-guests 3 {options}");

    // Whether something old was seen after a change had returned.
    private static int TrialOf(int i, MountProcess one, MountProcess two)
    {
        (MountProcess changer, MountProcess other) = i % 2 == 0 ? (one, two) : (two, one);
        string name = $"f{i % 7}";
        int stale = 0;
        switch (i % 4)
        {
            case 0:
                File.WriteAllText(changer.File(name), new string('x', i));
                stale += File.Exists(other.File(name)) && new FileInfo(other.File(name)).Length == i ? 0 : 1;
                stale += ReadIfThere(other.File(name)) == new string('x', i) ? 0 : 1;
                break;
            case 1:
                bool existed = File.Exists(other.File(name));
                File.Delete(changer.File(name));
                stale += existed && File.Exists(other.File(name)) ? 1 : 0;
                break;
            case 2:
                _ = File.Exists(other.File($"d{i}"));
                Directory.CreateDirectory(changer.File($"d{i}"));
                stale += Directory.Exists(other.File($"d{i}")) ? 0 : 1;
                Directory.Delete(other.File($"d{i}"));
                stale += Directory.Exists(changer.File($"d{i}")) ? 1 : 0;
                break;
            default:
                File.WriteAllText(changer.File(name), "x");
                File.SetUnixFileMode(changer.File(name), (UnixFileMode)(0x180 + (i % 64)));
                stale += (int)File.GetUnixFileMode(other.File(name)) == 0x180 + (i % 64) ? 0 : 1;
                break;
        }

        return stale;
    }

    private static string? ReadIfThere(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (FileNotFoundException)
        {
            return null;
        }
    }

    private static bool AwaitTrue(Func<bool> condition)
    {
        long end = Environment.TickCount64 + (long)s_patience.TotalMilliseconds;
        while (!condition())
        {
            if (Environment.TickCount64 > end)
            {
                return false;
            }

            Thread.Sleep(1);
        }

        return true;
    }

    private static long CountRequests(DaemonProcess daemon)
    {
        int lines = Counters(daemon).Count;
        Assert.Equal(0, DaemonProcess.RunToEnd("/bin/kill", "-USR1", $"{daemon.Process.Id}").Status);
        Assert.True(AwaitTrue(() => Counters(daemon).Count >= lines + 3));
        return Counters(daemon)[lines..].Sum();
    }

    // The sums of all lines that the daemon has logged of its guests' requests.
    private static List<long> Counters(DaemonProcess daemon) =>
    [
        .. daemon.Log()
            .Where(line => line.Contains("Requests of guest", StringComparison.Ordinal))
            .Select(line => Count().Matches(line[line.IndexOf("so far", StringComparison.Ordinal)..])
                .Sum(match => long.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture))),
    ];

    [GeneratedRegex("[A-Za-z0-9]+ ([0-9]+)")]
    private static partial Regex Count();
}
