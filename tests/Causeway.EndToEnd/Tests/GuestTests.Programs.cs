namespace Causeway.EndToEnd;

public abstract partial class GuestTests
{
    [Fact]
    public async Task Git_clones_commits_and_finds_its_repository_sound()
    {
        await GuestAsync(
            """
            export GIT_AUTHOR_NAME=guest GIT_AUTHOR_EMAIL=guest@localhost
            export GIT_COMMITTER_NAME=guest GIT_COMMITTER_EMAIL=guest@localhost
            git init --quiet --initial-branch=main origin
            cp -r /usr/include/linux/netfilter_ipv4* /usr/include/linux/netfilter.h origin/
            git -C origin add .
            git -C origin commit --quiet --message=first
            git clone --quiet --no-local origin clone
            echo change >>clone/netfilter.h
            git -C clone commit --quiet --all --message=second
            git -C clone gc --quiet
            git -C clone fsck --strict
            git -C clone push --quiet origin HEAD:second
            """,
            seconds: 300);

        // The host's git judges what the guest's wrote.
        await HostAsync("git -c safe.directory='*' -C clone fsck --strict; git -c safe.directory='*' -C origin fsck --strict");
        await AssertSameAsync("git -c safe.directory='*' -C origin log --format='%H %s' second");
        Assert.Equal("", await GuestAsync("git -C clone status --porcelain"));
    }

    [Fact]
    public async Task Make_builds_a_program_that_runs()
    {
        await GuestAsync(
            """
            for n in 1 2 3 4; do
                printf '#include "all.h"\nint part%d(int x) { return x + %d; }\n' $n $n >part$n.c
            done
            printf 'int part1(int); int part2(int); int part3(int); int part4(int);\n' >all.h
            printf '#include <stdio.h>\n#include "all.h"\nint main(void) { printf("%%d\\n", part1(part2(part3(part4(0))))); }\n' >main.c
            cat >Makefile <<'END'
            objects = main.o part1.o part2.o part3.o part4.o
            program: $(objects)
            	$(CC) -o $@ $(objects)
            $(objects): all.h
            END
            make --silent -j2
            """,
            seconds: 300);

        Assert.Equal("10\n", await GuestAsync("./program"));
        Assert.Equal("10\n", await HostAsync("./program"));
        // Times are right if make sees nothing to do, and what depends on a touched file otherwise.
        Assert.Equal("", await GuestAsync("make --silent"));
        Assert.Equal("cc    -c -o part2.o part2.c\n", await GuestAsync("touch part2.c; make --dry-run | grep -v -e ' -o program'"));
    }

    [Fact]
    public async Task Sqlite_keeps_every_row_of_concurrent_writers()
    {
        const int writers = 3;
        const int rows = 15;
        await GuestAsync(
            $$"""
            sqlite3 database 'create table entries (writer, number, unique (writer, number))'
            write() {
                for number in $(seq {{rows}}); do
                    sqlite3 -cmd '.timeout 100000' database "insert into entries values ($1, $number)" || return 1
                done
            }
            pids=
            for writer in $(seq {{writers}}); do write $writer & pids+=" $!"; done
            for pid in $pids; do wait $pid; done
            """,
            seconds: 300);

        string check = "sqlite3 database 'pragma integrity_check; select count(*), count(distinct writer) from entries'";
        Assert.Equal($"ok\n{writers * rows}|{writers}\n", await GuestAsync(check));
        Assert.Equal($"ok\n{writers * rows}|{writers}\n", await HostAsync(check));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Fio_reads_back_what_it_wrote(bool direct)
    {
        await GuestAsync(
            $"""
            fio --name=verify --filename=file --rw=randrw --bs=4k-64k --size=12m --ioengine=psync --direct={(direct ? 1 : 0)} \
                --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_state_save=0 --fsync=64 --randseed=7 >log
            grep -q 'err= 0' log
            """,
            seconds: 300);

        Assert.Equal(12 << 20, new FileInfo(HostPath("file")).Length);
        await AssertSameAsync("sha256sum file");
    }
}
