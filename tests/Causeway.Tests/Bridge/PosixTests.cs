// The runs end before what they use does.
#pragma warning disable CA2025

using Causeway.Posix;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Bridge;

/// <summary>The system calls of tests/posix on mounts of a share, compared with the host's own file system.</summary>
public sealed class PosixTests
{
    [Fact]
    public async Task System_calls_answer_as_on_the_hosts_own_file_system()
    {
        Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
        Assert.SkipWhen(!Shell.Has("gcc"), "NOT TESTED: there is no C compiler; install gcc and libc6-dev");
        string root = Path.GetDirectoryName(Path.GetDirectoryName(DaemonProcess.NativeBinary))!;
        using var directory = new TemporaryDirectory();
        string program = directory.File("posix-checks");
        Shell.Run(Path.Combine(root, "tests", "posix"), PosixChecks.Compiler(program));

        // It sleeps most of the time, so all at once; each in a directory of the same file system.
        Task<string> onHost = Task.Run(() => RunAsync(directory, "host", directory.File("host")));
        (string Name, string Cache, string Daemon, string Mount)[] modes =
        [
            ("auto", "auto", "--cache auto", ""),
            ("writeback", "writeback", "--cache always --writeback", ""),
            ("never", "never", "--cache auto", "cache=none"),
            ("coherent", "coherent", "--cache auto --version-table=exclusive", "cache=coherent"),
            ("strict", "coherent", "--cache auto --version-table=exclusive", "cache=strict"),
        ];
        if (FuseIoUring.Obstacle is null)
        {
            modes =
            [
                .. modes,
                ("io_uring", "auto", "--cache auto", "io_uring"),
                ("io_uring_never", "never", "--cache auto", "io_uring,cache=none"),
            ];
        }

        Task<string>[] onMounts = [.. modes.Select(mode => Task.Run(async () =>
        {
            using var share = new TemporaryDirectory();
            // The first capability is for attributes of the names trusted and security.
            using DaemonProcess daemon = DaemonProcess.Start(
                share.Path, $"{mode.Daemon} --posix-acl --modcaps +sys_admin:+linux_immutable");
            using MountProcess mount = MountProcess.Start(daemon.SocketPath, mode.Mount);
            string output = await RunAsync(directory, mode.Name, mount.File("here"));
            Assert.Empty(daemon.Complaints());
            return output;
        }))];
        string host = await onHost;
        string[] mounts = await Task.WhenAll(onMounts);

        Assert.True(PosixChecks.Count(host) > 1000, "the program has not run to its end");
        string kernel = Environment.OSVersion.Version >= new Version(6, 6) ? "newer" : "debian12";
        Assert.Empty(modes.Zip(mounts).SelectMany(run => PosixChecks.Compare(
            Path.Combine(root, "docs", "posix.md"), host, run.Second, "mount", kernel, "privileges", "killpriv", run.First.Cache)));
    }

    private static async Task<string> RunAsync(TemporaryDirectory directory, string name, string place)
    {
        string answers = directory.File($"{name}.txt");
        Shell.Run(directory.Path, $"mkdir {place}; ./posix-checks {place} > {answers}");
        return await File.ReadAllTextAsync(answers);
    }
}
