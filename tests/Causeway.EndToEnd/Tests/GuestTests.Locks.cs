namespace Causeway.EndToEnd;

public abstract partial class GuestTests
{
    /// <summary>With the others the tree is the guest's alone, and so are its locks.</summary>
    private bool AreLocksRemote => Configuration.Cache is CacheMode.Never or CacheMode.Auto;

    [Fact]
    public async Task Locks_hold_against_the_host_where_the_cache_mode_says_so()
    {
        await HostAsync("echo 0123456789 >file");
        const string tryBoth = """
            import fcntl
            for name, lock in ("flock", fcntl.flock), ("fcntl", lambda file, kind: fcntl.lockf(file, kind, 5)):
                with open("file", "r+") as file:
                    try:
                        lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        print(name, "taken")
                    except BlockingIOError:
                        print(name, "refused")
            """;
        string held = AreLocksRemote ? "flock refused\nfcntl refused\n" : "flock taken\nfcntl taken\n";
        Task<string> waiting;
        // .NET takes an flock(2) for this sharing mode, and Lock is fcntl(2).
        using (var file = new FileStream(HostPath("file"), FileMode.Open, FileAccess.ReadWrite, FileShare.None))
        {
            file.Lock(0, 3);
            Assert.Equal(held, await GuestPythonAsync(tryBoth));
            waiting = GuestAsync("touch waiting; flock file echo got it");
            await Deadline.UntilAsync(
                "the guest is about to wait", TimeSpan.FromSeconds(60), () => File.Exists(HostPath("waiting")));
        }

        Assert.Equal("got it\n", await waiting);
        Assert.Equal("flock taken\nfcntl taken\n", await GuestPythonAsync(tryBoth));
    }

    [Fact]
    public async Task Locks_exclude_within_the_guest_and_end_with_close_and_exit() => Assert.Equal(
        "parent: fcntl refused\nparent: flock refused\nparent: fcntl taken\nparent: flock taken\nclosed\n",
        await GuestPythonAsync("""
            import fcntl
            open("file", "w").write("0123456789")
            kinds = (("fcntl", lambda file, how: fcntl.lockf(file, how, 5)), ("flock", fcntl.flock))

            def report(who):
                for name, lock in kinds:
                    with open("file", "r+") as file:
                        try:
                            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                            print(f"{who}: {name} taken", flush=True)
                        except BlockingIOError:
                            print(f"{who}: {name} refused", flush=True)

            ready, go = os.pipe(), os.pipe()
            child = os.fork()
            if child == 0:
                file = open("file", "r+")
                for name, lock in kinds:
                    lock(file, fcntl.LOCK_EX)
                os.write(ready[1], b"x")
                os.read(go[0], 1)
                os._exit(0)
            os.read(ready[0], 1)
            report("parent")
            os.write(go[1], b"x")
            os.waitpid(child, 0)
            report("parent")

            # Any close of the file by the process gives its record locks back.
            first, second = open("file", "r+"), open("file", "r+")
            fcntl.lockf(first, fcntl.LOCK_EX, 5)
            second.close()
            child = os.fork()
            if child == 0:
                try:
                    fcntl.lockf(open("file", "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB, 5)
                    print("closed", flush=True)
                except BlockingIOError:
                    print("still locked", flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            """));

    [Fact]
    public async Task Flags_birth_times_and_files_without_a_name_are_the_hosts()
    {
        await GuestAsync("touch file; mkdir directory; chattr +d file directory; chattr -d directory");
        await AssertSameAsync("lsattr -d file directory");
        if (Configuration.Platform == "newer")
        {
            // Linux asks for it since 6.6.
            await AssertSameAsync("stat -c '%n %W %.W' file directory");
        }

        if (!Configuration.Privileges)
        {
            await GuestAsync("refused chattr +i file; refused chattr +a file; echo more >>file");
        }

        Assert.Equal("12 0\n12 1\n", await GuestPythonAsync("""
            file = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
            os.write(file, b"without name")
            status = os.fstat(file)
            print(status.st_size, status.st_nlink)
            os.link(f"/proc/self/fd/{file}", "named", src_dir_fd=os.open(".", os.O_RDONLY))
            status = os.fstat(file)
            print(status.st_size, status.st_nlink)
            """));
        Assert.Equal("without name", await File.ReadAllTextAsync(HostPath("named")));
    }
}
