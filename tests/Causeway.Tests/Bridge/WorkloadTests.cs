using System.Diagnostics;
using System.Globalization;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Bridge;

/// <summary>What people do with files, on a share that is mounted through /dev/fuse.</summary>
public sealed class WorkloadTests
{
    [Theory]
    [InlineData("")]
    [InlineData("nohandover")]
    [InlineData("io_uring")]
    [InlineData("io_uring,nopoll,threads=1,cache=none")]
    [InlineData("handover,threads=3,cache=none")]
    [InlineData("cache=coherent")]
    [InlineData("cache=strict,noio_uring")]
    public void What_is_done_on_a_mount_is_done_on_the_host(string options)
    {
        using MountedShare share = new(mountOptions: options);

        Shell.Run(
            share.Mount.Path,
            """
            mkdir -p a/b/c; echo one > a/one; ln a/one a/two; ln -s ../one a/b/link; mkfifo a/pipe
            seq 100000 > a/b/numbers; dd if=/dev/zero of=sparse bs=1 count=1 seek=100M status=none
            mv a/b/numbers a/b/c/renamed; chmod 640 a/one; touch -d 2001-02-03 a/b/c/renamed
            test "$(stat -c %h a/two)" = 2; test "$(cat a/b/link)" = one; truncate -s 5 a/b/c/renamed
            for i in $(seq 300); do echo $i > "a/file $i"; done; rm a/file\ 1*; cp -a a copy; rm -r a/b
            exec 9<>deleted; rm deleted; echo kept >&9; test "$(wc -c < /proc/self/fd/9)" = 5
            """);

        string onMount = Shell.Run(share.Mount.Path, "find . -printf '%p %y %m %s %n %T@ %l\\n' | sort; find . -type f | sort | xargs -d '\\n' sha256sum");
        string onHost = Shell.Run(share.Path, "find . -printf '%p %y %m %s %n %T@ %l\\n' | sort; find . -type f | sort | xargs -d '\\n' sha256sum");
        Assert.Equal(onHost, onMount);
        Assert.Contains("copy/b/c/renamed", onHost, StringComparison.Ordinal);
        Assert.Empty(share.Daemon.Complaints());
    }

    [Theory]
    [InlineData("")]
    [InlineData("cache=coherent")]
    public void Git_works_on_a_mount(string options)
    {
        using MountedShare share = new(mountOptions: options);

        Shell.Run(
            share.Mount.Path,
            """
            export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
            git init -q -b main one; cd one
            for i in $(seq 200); do mkdir -p d$((i % 10)); seq $i > d$((i % 10))/f$i; done
            git add -A; git commit -qm first; git mv d1 e1; seq 5000 > d2/f2; git commit -qam second
            cd ..; git clone -q one two; cd two; git fsck --strict; git checkout -q HEAD~1; git checkout -q main
            git gc -q; git fsck --strict; test -z "$(git status --porcelain)"
            """);

        // The host's git judges what was written through the mount.
        const string Git = "git -C two -c safe.directory='*'";
        Assert.Equal("200", Shell.Run(share.Path, $"{Git} fsck --strict; test -z \"$({Git} status --porcelain)\"; {Git} ls-files | wc -l"));
    }

    [Fact]
    public void Make_builds_a_program_on_a_mount_that_runs()
    {
        Assert.SkipWhen(!Shell.Has("cc"), "NOT TESTED: there is no C compiler; install gcc and libc6-dev");
        Assert.SkipWhen(!Shell.Has("make"), "NOT TESTED: there is no make; install the package of that name");
        using MountedShare share = new();

        Shell.Run(
            share.Mount.Path,
            """
            for i in $(seq 40); do
                printf '#include "all.h"\nint f%d(void) { return %d; }\n' $i $i > f$i.c; echo "int f$i(void);" >> all.h
            done
            { printf '#include <stdio.h>\n#include "all.h"\nint main(void) { int s = 0;\n'
              for i in $(seq 40); do echo "s += f$i();"; done; echo 'printf("%d\n", s); return 0; }'; } > main.c
            printf 'objects = $(patsubst %%.c,%%.o,$(wildcard *.c))\nprogram: $(objects)\n\tcc -o $@ $(objects)\n' > Makefile
            printf '$(objects): all.h\n%%.o: %%.c\n\tcc -O1 -c -o $@ $<\n' >> Makefile
            make --silent -j3
            """);

        Assert.Equal("820", Shell.Run(share.Mount.Path, "./program"));
        Assert.Equal("820", Shell.Run(share.Path, "./program"));

        // Times are right if make sees nothing to do, and afterwards what depends on the file that was touched.
        Assert.Equal("", Shell.Run(share.Mount.Path, "make --silent"));
        Assert.Equal("cc -O1 -c -o f7.o f7.c", Shell.Run(share.Mount.Path, "touch f7.c; make --dry-run | grep -v -e ' -o program'"));
    }

    [Theory]
    [InlineData("wal")]
    [InlineData("delete")]
    public void A_database_on_a_mount_survives_the_death_of_its_programs(string journal)
    {
        Assert.SkipWhen(!Shell.Has("sqlite3"), "NOT TESTED: there is no sqlite3; install the package of that name");
        using MountedShare share = new();
        Shell.Run(
            share.Mount.Path,
            $"sqlite3 db 'pragma journal_mode={journal}; create table t(w int, n int, v blob, primary key(w, n))' > /dev/null");
        List<DatabaseWriter> writers = [.. Enumerable.Range(0, 3).Select(number => new DatabaseWriter(share.Mount.Path, number))];
        try
        {
            for (int round = 0; round < 5; round++)
            {
                // The others go on while one is killed, whatever it has locked or half written.
                DatabaseWriter victim = writers[^3];
                victim.AwaitCommits(5);
                victim.Kill();
                writers.Add(new DatabaseWriter(share.Mount.Path, writers.Count));
            }

            foreach (DatabaseWriter writer in writers[^3..])
            {
                writer.AwaitCommits(3);
                writer.Kill();
            }
        }
        finally
        {
            writers.ForEach(writer => writer.Dispose());
        }

        string[] lines = Shell.Run(
            share.Mount.Path,
            "sqlite3 -cmd '.timeout 60000' db 'pragma integrity_check; select sum(n) from t; "
            + "select w, max(n) from t group by w order by w'").Split('\n');
        Assert.Equal(["ok", "0"], lines[..2]);

        // What a writer was told is committed is there, and at most the transaction more that it was in.
        foreach ((DatabaseWriter writer, string line) in writers.Zip(lines[2..]))
        {
            int last = int.Parse(line.Split('|')[1], CultureInfo.InvariantCulture);
            Assert.InRange(last, writer.Committed, writer.Committed + 1);
        }

        Assert.Equal(writers.Count, lines.Length - 2);
        Assert.Equal("ok", Shell.Run(share.Path, "sqlite3 db 'pragma integrity_check'"));
    }

    [Theory]
    [InlineData("psync", "--bs=7000 --bs_unaligned=1 --numjobs=2 --offset_increment=16M", "")]
    [InlineData("libaio", "--bs=64k --direct=1 --iodepth=8 --numjobs=2 --offset_increment=16M", "")]
    [InlineData("mmap", "--bs=16k --numjobs=1", "")]
    [InlineData("psync", "--bs=7000 --bs_unaligned=1 --numjobs=2 --offset_increment=16M", "nohandover")]
    [InlineData("libaio", "--bs=64k --direct=1 --iodepth=8 --numjobs=2 --offset_increment=16M", "nohandover")]
    [InlineData("psync", "--bs=7000 --bs_unaligned=1 --numjobs=2 --offset_increment=16M", "io_uring")]
    [InlineData("libaio", "--bs=64k --direct=1 --iodepth=8 --numjobs=2 --offset_increment=16M", "io_uring")]
    [InlineData("mmap", "--bs=16k --numjobs=1", "io_uring")]
    public void Fio_reads_back_what_it_wrote(string engine, string options, string mountOptions)
    {
        Assert.SkipWhen(!Shell.Has("fio"), "NOT TESTED: there is no fio; install the package of that name");
        using MountedShare share = new(mountOptions: mountOptions);

        Shell.Run(
            share.Mount.Path,
            $"fio --name=v --filename=f --size=16M --rw=randwrite --ioengine={engine} {options} --verify=crc32c "
            + "--do_verify=1 --verify_fatal=1 --minimal > /dev/null");

        Assert.InRange(new FileInfo(Path.Combine(share.Path, "f")).Length, 15 << 20, 32 << 20);
    }

    [Theory]
    [InlineData("")]
    [InlineData("nohandover")]
    [InlineData("io_uring")]
    public void Many_kinds_of_file_operations_at_once_find_what_they_expect(string options)
    {
        Assert.SkipWhen(!Shell.Has("stress-ng"), "NOT TESTED: there is no stress-ng; install the package of that name");
        using MountedShare share = new("--xattr", options);

        // All at the same time, until each has done so much or the time is up. Locks without waiting: programs that wait for
        // each other would do so for ten minutes (docs/locks.md).
        Shell.Run(
            share.Mount.Path,
            """
            stressors=
            for each in access:100 chmod:20 chown:20 copy-file:10 dentry:100 dir:100 dirdeep:100 dirmany:500 fallocate:1 fault:100 \
                fcntl:200 filename:5 flock:200 fstat:200 getdent:100 hdd:200 io:10 iomix:100 lease:100 locka:200 lockf:200 lockofd:200 \
                mknod:20 open:200 rename:300 seek:300 sendfile:100 sync-file:3 touch:200 utime:200 xattr:10; do
                stressors+=" --${each%:*} 1 --${each%:*}-ops ${each#*:}"
            done
            stress-ng $stressors --lockf-nonblock --copy-file-bytes 128M --fallocate-bytes 4M --hdd-bytes 2M --iomix-bytes 2M \
                --seek-size 1M --verify --timeout 20 --temp-path . --quiet
            """);

        Assert.Equal("", Shell.Run(share.Path, "ls -A"));
        Assert.Empty(share.Daemon.Complaints());
    }

    /// <summary>A directory of the host, the daemon that serves it, and where it is mounted.</summary>
    private sealed class MountedShare : IDisposable
    {
        private readonly TemporaryDirectory _directory;

        public MountedShare(string options = "", string mountOptions = "")
        {
            Assert.SkipWhen(MountProcess.Obstacle is not null, MountProcess.Obstacle ?? "");
            _directory = new TemporaryDirectory();
            bool needsTable = mountOptions.Contains("coherent", StringComparison.Ordinal)
                || mountOptions.Contains("strict", StringComparison.Ordinal);
            Daemon = DaemonProcess.Start(
                _directory.Path, $"--cache auto {(needsTable ? "--version-table=exclusive" : "")} {options}");
            Mount = MountProcess.Start(Daemon.SocketPath, mountOptions);
        }

        public string Path => _directory.Path;

        public DaemonProcess Daemon { get; }

        public MountProcess Mount { get; }

        public void Dispose()
        {
            Mount.Dispose();
            Daemon.Dispose();
            _directory.Dispose();
        }
    }

    /// <summary>A program that writes to a database without end: in each transaction n and -n, so that they add up to zero.</summary>
    private sealed class DatabaseWriter : IDisposable
    {
        private readonly Process _process;

        public DatabaseWriter(string directory, int number) => _process = Shell.Start(
            directory,
            $$"""
            { echo 'pragma busy_timeout=120000;'
              for n in $(seq 1000000); do echo "begin immediate; insert into t values({{number}}, $n, randomblob(3000));
              insert into t values({{number}}, -$n, randomblob(50000)); commit; select 'committed $n';"; done; } | exec sqlite3 -bail db
            """);

        /// <summary>The last transaction that it says is committed.</summary>
        public int Committed { get; private set; }

        public void AwaitCommits(int count)
        {
            for (int end = Committed + count; Committed < end;)
            {
                Assert.True(Read(), "a writer has ended");
            }
        }

        public void Kill()
        {
            _process.Kill(entireProcessTree: true);
            Assert.True(_process.WaitForExit(TimeSpan.FromMinutes(1)), "a writer cannot be killed");
            while (Read())
            {
                // What it said before it died.
            }
        }

        public void Dispose()
        {
            if (!_process.HasExited)
            {
                _process.Kill(entireProcessTree: true);
                _process.WaitForExit();
            }

            _process.Dispose();
        }

        private bool Read()
        {
            string? line = _process.StandardOutput.ReadLine();
            if (line?.StartsWith("committed ", StringComparison.Ordinal) == true)
            {
                Committed = int.Parse(line["committed ".Length..], CultureInfo.InvariantCulture);
            }

            return line is not null;
        }
    }
}
