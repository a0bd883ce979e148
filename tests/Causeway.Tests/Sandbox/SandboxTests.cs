using System.Diagnostics;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Daemon;
using Microsoft.Win32.SafeHandles;
using static Causeway.Tests.Sandbox.SandboxedDaemon;

namespace Causeway.Tests.Sandbox;

/// <summary>The real program in each sandbox, read back from outside (passthrough reference, 7.13).</summary>
public sealed class SandboxTests
{
    private const string RootOnly = "NOT CHECKED: needs root";
    private static readonly string[] _modes = ["namespace", "chroot", "none"];
    private static readonly string[] _forms = ["relative", "slash", "dot", "link", "link and slash", "relative link"];

    public static MatrixTheoryData<string, string> Names => new(_modes, _forms);

    [Fact]
    public void In_a_namespace_nothing_is_visible_but_the_share()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = DaemonProcess.Start(
            share.Path, "--sandbox namespace --xattr 7</etc/passwd 8</usr 9>/dev/full");
        using VirtioFsDriver driver = daemon.Connect();
        var client = new FuseClient(driver);
        client.Initialize();
        Assert.Equal("content", ReadFile(client, "file"));
        int worker = daemon.Worker();
        Assert.NotEqual(daemon.Process.Id, worker);

        string[] mounts = [.. File.ReadLines($"/proc/{worker}/mountinfo").Select(line => line.Split(' ')[4])];
        Assert.Equal(["/", "/share"], mounts.Order());
        Assert.Equal(["share"], Directory.GetFileSystemEntries($"/proc/{worker}/root/").Select(Path.GetFileName));
        Assert.Throws<IOException>(() => File.WriteAllText($"/proc/{worker}/root/new", "x"));
        foreach (string name in (string[])["mnt", "pid", "net", "ipc"])
        {
            Assert.NotEqual(Link($"/proc/self/ns/{name}"), Link($"/proc/{worker}/ns/{name}"));
        }

        Assert.Equal("1", Status(worker, "NSpid").Split('\t')[^1]);
        Assert.Equal(["lo"], File.ReadLines($"/proc/{worker}/net/dev").Skip(2).Select(line => line.Trim().Split(':')[0]));
        string[] open = [.. Directory.GetFiles($"/proc/{worker}/fd").Select(Link)];
        Assert.DoesNotContain(open, target => target is "/etc/passwd" or "/usr" or "/dev/full");
    }

    [Theory]
    [InlineData("namespace", "", "00000000080000df")]
    [InlineData("namespace", "--xattr", "00000000880000df")]
    [InlineData("namespace", "--xattr --inode-file-handles=never", "00000000880000db")]
    [InlineData("namespace", "--modcaps=+sys_admin:-mknod", "00000000002000df")]
    [InlineData("chroot", "", "00000000080000df")]
    [InlineData("chroot", "--readonly", "0000000000000004")]
    [InlineData("none", "", "00000000080000df")]
    [InlineData("none", "--modcaps=+linux_immutable", "00000000080002df")]
    public void Every_thread_has_the_few_rights_it_needs_and_a_filter(string mode, string options, string capabilities)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        Assert.SkipUnless(
            File.Exists(DaemonProcess.NativeBinary),
            "NOT CHECKED: the runtime's own threads are out of reach without ./build");
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, $"--sandbox {mode} {options}");
        using VirtioFsDriver driver = daemon.Connect();
        var client = new FuseClient(driver);
        client.Initialize();
        Assert.Equal("content", ReadFile(client, "file"));
        int worker = daemon.Worker();
        int threads = StatusOfThreads(worker, "Name").Count;

        // Main, finalizer, signals, monitor, and two queues.
        Assert.True(threads >= 6, $"only {threads} threads");
        foreach ((string field, string expected) in ((string, string)[])
            [("CapEff", capabilities), ("CapPrm", capabilities), ("CapInh", "0000000000000000"),
             ("CapBnd", "0000000000000000"), ("CapAmb", "0000000000000000"), ("NoNewPrivs", "1"), ("Seccomp", "2")])
        {
            Assert.All(StatusOfThreads(worker, field), actual => Assert.Equal(expected, actual));
        }

        Assert.Equal(mode == "none", daemon.Process.Id == worker);
        if (mode != "none")
        {
            foreach (string field in (string[])["CapEff", "CapPrm", "CapBnd"])
            {
                Assert.All(StatusOfThreads(daemon.Process.Id, field), actual => Assert.Equal("0000000000000000", actual));
            }
        }
    }

    [Theory]
    [InlineData("namespace")]
    [InlineData("chroot")]
    [InlineData("none")]
    public void The_root_directory_is_where_the_mode_says(string mode)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, $"--sandbox {mode} 7</etc/passwd");
        string root = Link($"/proc/{daemon.Worker()}/root");

        Assert.Equal(mode == "chroot" ? share.Path : "/", root);
        Assert.DoesNotContain("/etc/passwd", Directory.GetFiles($"/proc/{daemon.Worker()}/fd").Select(Link));
    }

    [Theory]
    [InlineData("namespace")]
    [InlineData("chroot")]
    [InlineData("none")]
    public void The_whole_host_can_be_the_share(string mode)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var directory = new TemporaryDirectory();
        File.WriteAllText(directory.File("file"), "content");
        using DaemonProcess daemon = DaemonProcess.Start("/", $"--sandbox {mode}");
        using VirtioFsDriver driver = daemon.Connect();
        var client = new FuseClient(driver);
        client.Initialize();

        Assert.Equal("content", ReadFile(client, directory.File("file")[1..]));
        // Other file systems, too, and what they are mounted on.
        Assert.Equal(File.ReadAllText("/proc/sys/kernel/ostype"), ReadFile(client, "proc/sys/kernel/ostype"));
        Assert.Empty(daemon.Complaints());
        Assert.True(client.Lookup(NodeId.Root, "..").IsError);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void The_share_may_be_named_in_any_way(string mode, string form)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var directory = new TemporaryDirectory();
        string share = directory.File("share");
        string link = directory.File("link");
        Directory.CreateDirectory(share);
        File.WriteAllText(Path.Combine(share, "file"), "content");
        File.CreateSymbolicLink(link, "share");
        string here = Environment.CurrentDirectory;
        string name = form switch
        {
            "relative" => Path.GetRelativePath(here, share),
            "slash" => share + "/",
            "dot" => $"{share}/../share/.",
            "link" => link,
            "link and slash" => link + "/",
            _ => Path.GetRelativePath(here, link),
        };
        using DaemonProcess daemon = DaemonProcess.Start(name, $"--sandbox {mode}");
        using VirtioFsDriver driver = daemon.Connect();
        var client = new FuseClient(driver);
        client.Initialize();

        Assert.Equal("content", ReadFile(client, "file"));
        Assert.False(client.Mkdir(NodeId.Root, "made").IsError);
        Assert.True(Directory.Exists(Path.Combine(share, "made")));
        Assert.True(client.Lookup(NodeId.Root, "link").IsError);
        Assert.Empty(daemon.Complaints());
    }

    [Theory]
    [InlineData("namespace", "TERM", 1)]
    [InlineData("namespace", "HUP", 1)]
    [InlineData("namespace", "INT", 130)]
    [InlineData("chroot", "TERM", 1)]
    [InlineData("none", "TERM", 1)]
    public void A_signal_ends_both_processes_and_removes_the_socket(string mode, string signal, int status)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, $"--sandbox {mode}");
        int worker = daemon.Worker();

        Send(signal, daemon.Process.Id);

        Assert.True(daemon.Process.WaitForExit(TimeSpan.FromSeconds(30)));
        Assert.Equal(status, daemon.Process.ExitCode);
        Assert.False(Directory.Exists($"/proc/{worker}"));
        Assert.False(File.Exists(daemon.SocketPath));
    }

    [Theory]
    [InlineData("namespace")]
    [InlineData("chroot")]
    [InlineData("none")]
    public void SIGUSR1_to_the_process_that_was_started_has_the_counters_logged(string mode)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, $"--sandbox {mode}");

        Send("USR1", daemon.Process.Id);

        Await("the counters are in the log", () => daemon.Log().Any(
            line => line.Contains("Requests so far", StringComparison.Ordinal)));
        Assert.False(daemon.Process.HasExited);
    }

    [Fact]
    public void When_the_serving_process_is_killed_the_waiting_one_says_so()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "--sandbox namespace");

        Send("KILL", daemon.Worker());

        Assert.True(daemon.Process.WaitForExit(TimeSpan.FromSeconds(30)));
        Assert.Equal(256 - 9, daemon.Process.ExitCode);
        Assert.False(File.Exists(daemon.SocketPath));
    }

    [Theory]
    [InlineData("namespace")]
    [InlineData("chroot")]
    public void When_the_waiting_process_is_killed_the_serving_one_ends(string mode)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, $"--sandbox {mode}");
        int worker = daemon.Worker();

        Send("KILL", daemon.Process.Id);

        Await("the serving process ends", () => !Directory.Exists($"/proc/{worker}") || Status(worker, "State")[0] == 'Z');
    }

    [Theory]
    [InlineData("namespace")]
    [InlineData("chroot")]
    [InlineData("none")]
    public void When_the_front_end_leaves_the_daemon_ends_well_and_cleans_up(string mode)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var share = new TemporaryDirectory();
        string socket = share.File("socket");
        var start = new ProcessStartInfo(
            DaemonProcess.Program,
            ["serve", "--shared-dir", share.Path, "--socket-path", socket, "--sandbox", mode, "--rlimit-nofile", "0"])
        {
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        string? ready = process.StandardError.ReadLine();
        while (ready is not null && !ready.Contains("Waiting", StringComparison.Ordinal))
        {
            ready = process.StandardError.ReadLine();
        }

        Assert.NotNull(ready);
        using (VirtioFsDriver driver = VirtioFsDriver.Connect(socket))
        {
            Assert.False(new FuseClient(driver).Initialize().IsError);
        }

        Assert.True(process.WaitForExit(TimeSpan.FromSeconds(30)));
        Assert.Equal(0, process.ExitCode);
        Assert.False(File.Exists(socket));
    }

    [Fact]
    public void A_forbidden_system_call_ends_the_daemon_with_virtiofsds_status()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        Assert.SkipUnless(CProgram.HasCompiler, "NOT CHECKED: there is no C compiler (cc); install gcc and libc6-dev");
        Assert.SkipUnless(
            RuntimeInformation.ProcessArchitecture == Architecture.X64, "NOT CHECKED: the injected code is for x86-64");
        using var injector = new CProgram(Injector);
        using var share = new TemporaryDirectory();
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "--sandbox namespace");

        // getuid, which is allowed, first: the injection itself must do no harm.
        Assert.Equal((0, "came back\n"), injector.Run($"{daemon.Worker()}", "102"));
        using (daemon.Connect())
        {
        }

        // socket(AF_UNIX, SOCK_STREAM, 0).
        Assert.Equal((0, "signal 31\n"), injector.Run($"{daemon.Worker()}", "41"));
        Assert.True(daemon.Process.WaitForExit(TimeSpan.FromSeconds(30)));
        Assert.Equal(256 - 31, daemon.Process.ExitCode);
    }

    [Theory]
    [InlineData(1, "needs root", "setpriv --reuid=65534 --regid=65534 --clear-groups", "--sandbox chroot")]
    [InlineData(1, "--uid-map", "", "--uid-map :0:0:1:")]
    [InlineData(1, "--gid-map", "setpriv --reuid=65534 --regid=65534 --clear-groups", "--sandbox none --gid-map :0:0:1:")]
    [InlineData(2, "--uid-map", "", "--uid-map 0:0:1")]
    [InlineData(2, "--sandbox", "", "--sandbox jail")]
    [InlineData(2, "--seccomp", "", "--seccomp maybe")]
    [InlineData(1, "fly", "", "--modcaps +fly")]
    [InlineData(1, "--inode-file-handles=never", "", "--modcaps -dac_read_search")]
    [InlineData(1, "CAP_SYS_ADMIN", "setpriv --bounding-set=-sys_admin", "--sandbox namespace")]
    [InlineData(1, "CAP_SYS_CHROOT", "setpriv --bounding-set=-sys_chroot", "--sandbox chroot")]
    [InlineData(1, "newgidmap", "setpriv --reuid=65534 --regid=65534 --clear-groups env PATH=/none",
        "--uid-map :0:65534:1: --gid-map :0:100000:9:")]
    public void What_cannot_be_done_is_refused_by_name(int status, string named, string prefix, string options)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var program = new ProgramForEverybody();
        using var share = new TemporaryDirectory();
        File.SetUnixFileMode(share.Path, (UnixFileMode)0b111_111_111);
        string[] command =
        [
            .. prefix.Split(' ', StringSplitOptions.RemoveEmptyEntries), program.Path, "serve", "--shared-dir", share.Path,
            "--socket-path", share.File("socket"), "--rlimit-nofile=0", .. options.Split(' '),
        ];

        (int actual, string error) = DaemonProcess.RunToEnd("/usr/bin/env", command);

        Assert.Equal(status, actual);
        string line = Assert.Single(
            error.Split('\n'), line => line.StartsWith("causeway: ", StringComparison.Ordinal));
        Assert.Contains(named, line);
        Assert.False(File.Exists(share.File("socket")));
    }

    // Only the limit of an ordinary user counts, so it is here that threads can be refused.
    [Fact]
    public async Task A_daemon_that_is_refused_a_thread_asks_again_until_it_gets_one()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var program = new ProgramForEverybody();
        using var share = new TemporaryDirectory();
        Run("chown", "-R", "65534:65534", share.Path);
        using DaemonProcess daemon = DaemonProcess.Start(
            share.Path, program: $"setpriv --reuid=65534 --regid=65534 --clear-groups {program.Path}");
        LimitThreads(daemon, 1);

        Task<VirtioFsDriver> connecting = Task.Run(() => daemon.Connect());
        Assert.True(
            SpinWait.SpinUntil(() => HasComplained(daemon, "gets no further thread"), TimeSpan.FromMinutes(1)),
            string.Join('\n', daemon.Log()));
        using VirtioFsDriver driver = await connecting;
        Task<bool> initializing = Task.Run(() => new FuseClient(driver).Initialize().IsError);
        LimitThreads(daemon, 4096);

        Assert.False(await initializing);
        Assert.False(new FuseClient(driver).GetAttr(NodeId.Root).IsError);
        Assert.False(daemon.Process.HasExited);

        static bool HasComplained(DaemonProcess daemon, string words) =>
            daemon.Complaints().Any(line => line.Contains(words, StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_wait_for_a_lock_that_gets_no_thread_is_refused()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var program = new ProgramForEverybody();
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        Run("chown", "-R", "65534:65534", share.Path);
        using SafeFileHandle host = File.OpenHandle(
            share.File("file"), FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        SetHostLock(RecordLockType.Write);
        using DaemonProcess daemon = DaemonProcess.Start(
            share.Path, program: $"setpriv --reuid=65534 --regid=65534 --clear-groups {program.Path}");
        using VirtioFsDriver driver = daemon.Connect(new VirtioFsDriverOptions { RequestQueues = 2 });
        var client = new FuseClient(driver);
        Assert.False(client.Initialize().IsError);
        NodeId file = client.Lookup(NodeId.Root, "file").Value.NodeId;
        HandleId handle = client.Open(file, flags: 2).Value.Handle;
        Assert.False(new FuseClient(driver, requestQueue: 1).GetAttr(file).IsError);

        // Without the thread that looks after all, and then without one for the second that waits.
        LimitThreads(daemon, 1);
        Assert.Equal(Errno.ENOLCK, WaitForLock(client, owner: 1));
        LimitThreads(daemon, 4096);
        Task<Errno> waiting = Task.Run(() => WaitForLock(new FuseClient(driver, requestQueue: 1), owner: 2));
        // In the kernel: a thread that has only been started might take the third, and the second be refused.
        string number = Output("stat", "-c", "%i", share.File("file"));
        Assert.True(SpinWait.SpinUntil(
            () => File.ReadLines("/proc/locks").Any(
                line => line.Contains("-> OFDLCK", StringComparison.Ordinal)
                    && line.Contains($":{number} ", StringComparison.Ordinal)),
            TimeSpan.FromMinutes(1)));
        LimitThreads(daemon, 1);
        Assert.Equal(Errno.ENOLCK, WaitForLock(client, owner: 3));
        Assert.False(waiting.IsCompleted);
        SetHostLock(RecordLockType.Unlock);

        Assert.Equal(Errno.Success, await waiting);
        Assert.False(client.GetAttr(NodeId.Root).IsError);
        Assert.False(daemon.Process.HasExited);

        void SetHostLock(RecordLockType type) => Assert.False(FileLocks.SetRecord(
            (int)host.DangerousGetHandle(), new RecordLock { Type = type }).IsError);

        Errno WaitForLock(FuseClient client, ulong owner)
        {
            var wanted = new FuseLkIn { Handle = handle, Owner = owner, End = 9, Type = FuseLockType.Write, ProcessId = 1 };
            return client.Call(
                FuseOpcode.SetLkWait, file, MemoryMarshal.AsBytes(new ReadOnlySpan<FuseLkIn>(in wanted)), replyCapacity: 0, out _);
        }
    }

    private static void LimitThreads(DaemonProcess daemon, int count) => Run(
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "prlimit", $"--pid={daemon.Process.Id}", $"--nproc={count}:");

    [Theory]
    [InlineData("--sandbox namespace", "0000000088")]
    [InlineData("--sandbox namespace --uid-map :0:65534:1: --gid-map :0:65534:1:", "0000000088")]
    [InlineData("--sandbox none", "0000000000000000")]
    public void An_ordinary_user_shares_his_own_files(string options, string capabilities)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var program = new ProgramForEverybody();
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        Run("chown", "-R", "65534:65534", share.Path);
        using DaemonProcess daemon = DaemonProcess.Start(
            share.Path, $"--xattr {options}", program: $"setpriv --reuid=65534 --regid=65534 --clear-groups {program.Path}");
        using VirtioFsDriver driver = daemon.Connect();
        var client = new FuseClient(driver);
        client.Initialize();

        Assert.Equal("content", ReadFile(client, "file"));
        FuseCreateOut made = client.Create(NodeId.Root, "made", flags: 2).Value;
        Assert.Equal(4u, client.Write(made.Entry.NodeId, made.Open.Handle, 0, "made"u8).Value.Size);
        Assert.Equal("made", File.ReadAllText(share.File("made")));
        Assert.Equal("65534", Output("stat", "-c", "%u", share.File("made")));
        client.Credentials = (33, 33);
        Assert.Equal(Errno.EPERM, client.Create(NodeId.Root, "foreign", flags: 2).Error);
        Assert.StartsWith(capabilities, Status(daemon.Worker(), "CapEff"), StringComparison.Ordinal);
        Assert.Contains(daemon.Log(), line => line.Contains("without privileges", StringComparison.Ordinal));
        Assert.Empty(daemon.Complaints());
        if (options == "--sandbox namespace")
        {
            Assert.NotEqual(Link("/proc/self/ns/user"), Link($"/proc/{daemon.Worker()}/ns/user"));
            Assert.All(StatusOfThreads(daemon.Worker(), "Seccomp"), value => Assert.Equal("2", value));
            Assert.Equal(["share"], Directory.GetFileSystemEntries($"/proc/{daemon.Worker()}/root/").Select(Path.GetFileName));
        }
    }

    [Fact]
    public void With_further_ids_an_ordinary_user_serves_other_users_of_the_guest()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        Assert.SkipUnless(File.Exists("/usr/bin/newuidmap"), "NOT CHECKED: no newuidmap; install the package uidmap");
        using var program = new ProgramForEverybody();
        using var share = new TemporaryDirectory();
        Run("chown", "65534:65534", share.Path);
        File.WriteAllText(share.File("ids"), "65534:200000:65536\n");
        string start = $"unshare --mount sh -c 'touch /etc/subuid /etc/subgid && mount --bind {share.File("ids")} /etc/subuid "
            + $"&& mount --bind {share.File("ids")} /etc/subgid && exec setpriv --reuid=65534 --regid=65534 --clear-groups "
            + $"{program.Path} \"$@\"' sh";
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "--sandbox namespace", program: start);
        using VirtioFsDriver driver = daemon.Connect();
        var client = new FuseClient(driver);
        client.Initialize();

        Assert.False(client.Create(NodeId.Root, "own", flags: 2).IsError);
        client.Credentials = (33, 34);
        File.SetUnixFileMode(share.Path, (UnixFileMode)0b111_111_111);
        Assert.False(client.Create(NodeId.Root, "other", flags: 2).IsError);

        Assert.Equal("65534:65534", Output("stat", "-c", "%u:%g", share.File("own")));
        Assert.Equal("200033:200034", Output("stat", "-c", "%u:%g", share.File("other")));
    }

    [Theory]
    [InlineData("namespace")]
    [InlineData("none")]
    public void The_filter_lets_everything_pass_that_the_runtime_does(string mode)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, RootOnly);
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        // Collections all the time (the figure is hexadecimal), threads that come and go, and every kind of end.
        using DaemonProcess daemon = DaemonProcess.Start(
            share.Path, $"--sandbox {mode}", limit: "-c 0; export DOTNET_GCgen0size=4000 DOTNET_GCHeapHardLimit=2000000");
        for (int i = 0; i < 40; i++)
        {
            using VirtioFsDriver driver = daemon.Connect(new VirtioFsDriverOptions { RequestQueues = 4 });
            var client = new FuseClient(driver, requestQueue: i % 4);
            Assert.False(client.Initialize().IsError);
            Assert.Equal("content", ReadFile(client, "file"));
        }

        Assert.Empty(daemon.Complaints());
    }

    // Stops a thread of a process, has it make a system call without arguments but (1, 1, 0), and lets it go on as if nothing
    // had happened.
    private const string Injector =
        """
        #include <signal.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/ptrace.h>
        #include <sys/user.h>
        #include <sys/wait.h>
        int main(int argc, char **argv)
        {
            int pid = atoi(argv[1]), status;
            struct user_regs_struct before, regs;
            if (ptrace(PTRACE_ATTACH, pid, 0, 0)) { perror("attach"); return 1; }
            waitpid(pid, &status, __WALL);
            ptrace(PTRACE_GETREGS, pid, 0, &before);
            long code = ptrace(PTRACE_PEEKTEXT, pid, before.rip, 0);
            ptrace(PTRACE_POKETEXT, pid, before.rip, (code & ~0xffffL) | 0x050f);
            regs = before;
            regs.rax = atoi(argv[2]); regs.orig_rax = -1; regs.rdi = 1; regs.rsi = 1; regs.rdx = 0;
            ptrace(PTRACE_SETREGS, pid, 0, &regs);
            ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
            waitpid(pid, &status, __WALL);
            if (WIFSIGNALED(status)) { printf("signal %d\n", WTERMSIG(status)); return 0; }
            ptrace(PTRACE_POKETEXT, pid, before.rip, code);
            ptrace(PTRACE_SETREGS, pid, 0, &before);
            ptrace(PTRACE_DETACH, pid, 0, 0);
            puts("came back");
            return 0;
        }
        """;

    private static string ReadFile(FuseClient client, string name)
    {
        NodeId node = name.Split('/').Aggregate(NodeId.Root, (parent, part) => client.Lookup(parent, part).Value.NodeId);
        HandleId handle = client.Open(node, 0).Value.Handle;
        Assert.Equal(Errno.Success, client.Read(node, handle, 0, 100, out ReadOnlySpan<byte> data));
        string text = System.Text.Encoding.UTF8.GetString(data);
        client.Release(node, handle);
        return text;
    }

    private static void Send(string signal, int process) => Run("kill", $"-{signal}", $"{process}");

    private static void Run(string program, params string[] arguments) => Output(program, arguments);

    private static string Output(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true };
        using Process process = Process.Start(start)!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        return output.Trim();
    }
}
