namespace Causeway.EndToEnd;

public abstract partial class GuestTests
{
    private const long FiveGigabytes = 5L << 30;

    [Fact]
    public async Task A_file_over_four_gigabytes_is_sparse_and_its_holes_are_found()
    {
        await GuestPythonAsync($"""
            large = os.open('large', os.O_CREAT | os.O_RDWR)
            assert os.pwrite(large, b'head', 0) == 4
            assert os.pwrite(large, b'tail', {FiveGigabytes}) == 4
            os.fsync(large)
            assert os.fstat(large).st_size == {FiveGigabytes} + 4
            assert os.pread(large, 100, {FiveGigabytes} - 2) == b'\0\0tail'
            assert os.pread(large, 4, (4 << 30)) == b'\0' * 4
            """);

        string seeks = """
            python3 - <<'END'
            import os
            large = os.open('large', os.O_RDONLY)
            hole = os.lseek(large, 0, os.SEEK_HOLE)
            print(hole, os.lseek(large, hole, os.SEEK_DATA), os.lseek(large, 1 << 32, os.SEEK_DATA))
            END
            """;
        await AssertSameAsync(seeks);
        await AssertSameAsync("stat -c '%s %b' large; du -k large");
        Assert.Equal(FiveGigabytes + 4, new FileInfo(HostPath("large")).Length);
        Assert.Equal("tail", await HostAsync("tail -c 4 large"));
        Assert.True(int.Parse((await HostAsync("du -k large")).Split('\t')[0]) < 1024, "the file is not sparse");
    }

    [Fact]
    public async Task A_setuid_program_that_a_user_has_changed_runs_as_that_user()
    {
        // The guest has looked at the mode before, and does not look between the write and the start.
        string users = await GuestAsync(
            """
            cp "$(command -v id)" program
            chmod 4777 program
            cat >change.py <<'PROGRAM'
            import os
            os.setgid(1000); os.setuid(1000)
            status = os.stat('program')
            file = os.open('program', os.O_WRONLY)
            os.pwrite(file, b'x', status.st_size)
            os.close(file)
            os.execv('./program', ['program', '-u'])
            PROGRAM
            setpriv --reuid=1000 --regid=1000 --clear-groups ./program -u
            python3 change.py
            stat -c %a program
            """);

        // Without a cache a kernel that clears the bits itself forgets to.
        bool isForgotten = !Configuration.KillPriv && Configuration.Cache == CacheMode.Never;
        Assert.Equal(isForgotten ? "0\n0\n4777\n" : "0\n1000\n777\n", users);
    }

    [Fact]
    public async Task An_unlinked_file_lives_on_while_it_is_open()
    {
        await GuestPythonAsync("""
            file = os.open('file', os.O_CREAT | os.O_RDWR)
            os.write(file, b'before ')
            os.unlink('file')
            assert not os.path.exists('file')
            os.write(file, b'after')
            os.fsync(file)
            os.ftruncate(file, 10)
            assert os.pread(file, 100, 0) == b'before aft'
            assert os.fstat(file).st_nlink == 0 and os.fstat(file).st_size == 10
            os.fchmod(file, 0o600)

            os.mkdir('directory')
            directory = os.open('directory', os.O_RDONLY)
            os.rmdir('directory')
            assert os.listdir(directory) == []
            """);

        Assert.Empty(Directory.GetFileSystemEntries(HostDirectory));
    }

    [Fact]
    public async Task Renaming_over_an_open_file_leaves_its_reader_the_old_content()
    {
        await GuestPythonAsync("""
            open('old', 'w').write('old content')
            open('new', 'w').write('new content')
            reader = open('old')
            os.rename('new', 'old')
            assert reader.read() == 'old content'
            assert os.fstat(reader.fileno()).st_nlink == 0
            assert open('old').read() == 'new content'
            """);

        Assert.Equal("new content", await File.ReadAllTextAsync(HostPath("old")));
        Assert.Single(Directory.GetFileSystemEntries(HostDirectory));
    }

    [Fact]
    public async Task Stores_into_a_shared_mapping_reach_the_host_after_msync()
    {
        string mapped = await GuestPythonAsync("""
            import errno, mmap
            file = os.open('file', os.O_CREAT | os.O_RDWR)
            os.write(file, b'.' * 20000)
            try:
                memory = mmap.mmap(file, 20000)
            except OSError as error:
                print(errno.errorcode[error.errno])
                sys.exit()
            memory[5000:5006] = b'stored'
            memory[19999:20000] = b'!'
            memory.flush()
            assert os.pread(file, 6, 5000) == b'stored'
            print('mapped')
            """);

        // Without a cache Linux has no shared writable mappings, unless the daemon allows them and the kernel is new enough.
        if (Configuration.Cache == CacheMode.Never && mapped == "ENODEV\n")
        {
            return;
        }

        Assert.Equal("mapped\n", mapped);
        string expected = new string('.', 5000) + "stored" + new string('.', 20_000 - 5000 - 6 - 1) + "!";
        Assert.Equal(expected, await File.ReadAllTextAsync(HostPath("file")));
    }

    [Fact]
    public async Task Programs_run_from_the_share_and_private_mappings_stay_private()
    {
        Assert.Equal("it runs\n", await GuestAsync("cp /bin/echo program; ./program it runs"));
        await GuestPythonAsync("""
            import mmap
            open('file', 'wb').write(b'original')
            file = os.open('file', os.O_RDONLY)
            memory = mmap.mmap(file, 8, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            memory[:7] = b'changed'
            assert bytes(memory) == b'changedl'
            """);

        Assert.Equal("original", await File.ReadAllTextAsync(HostPath("file")));
    }

    [Fact]
    public async Task Two_processes_append_without_overwriting_each_other()
    {
        const int lines = 300;
        await GuestPythonAsync($"""
            def append(letter):
                file = os.open('file', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
                for n in range({lines}):
                    line = b'%c%d\n' % (letter, n)
                    assert os.write(file, line) == len(line)
            children = []
            for letter in b'AB':
                child = os.fork()
                if child == 0:
                    append(letter)
                    os._exit(0)
                children.append(child)
            for child in children:
                assert os.waitpid(child, 0)[1] == 0
            """);

        string[] written = await File.ReadAllLinesAsync(HostPath("file"));
        foreach (char letter in "AB")
        {
            // Nothing is lost, and each process's lines are in their order.
            Assert.Equal(Enumerable.Range(0, lines).Select(n => $"{letter}{n}"), written.Where(line => line[0] == letter));
        }

        Assert.Equal(2 * lines, written.Length);
    }

    [Fact]
    public async Task Space_is_allocated_and_holes_are_punched()
    {
        await GuestAsync("""
            head -c 1048576 /dev/zero | tr '\0' x >punched
            sync punched
            fallocate --punch-hole --offset 4096 --length 524288 punched
            fallocate --length 1MiB allocated
            touch kept
            fallocate --keep-size --length 1MiB kept
            """);

        Assert.Equal("1048576 0\n", await HostAsync("echo $(stat -c %s allocated kept)"));
        Assert.True(int.Parse(await HostAsync("stat -c %b kept")) >= 2048, "no space was allocated");
        Assert.True(int.Parse(await HostAsync("stat -c %b punched")) <= 1024 + 64, "the hole takes space");
        byte[] punched = await File.ReadAllBytesAsync(HostPath("punched"));
        Assert.Equal(1_048_576, punched.Length);
        Assert.True(punched.AsSpan(4096, 524_288).IndexOfAnyExcept((byte)0) < 0, "the hole has bytes");
        Assert.True(punched.AsSpan(4096 + 524_288).IndexOfAnyExcept((byte)'x') < 0, "bytes after the hole have changed");
        await AssertSameAsync("sha256sum punched allocated");
    }

    [Fact]
    public async Task Copy_file_range_copies_between_offsets()
    {
        await HostAsync("head -c 3000000 /dev/urandom >source");
        await GuestPythonAsync("""
            source = os.open('source', os.O_RDONLY)
            target = os.open('target', os.O_CREAT | os.O_RDWR)
            left, position = 2000000, 0
            while left:
                copied = os.copy_file_range(source, target, left, 500000 + position, 100 + position)
                assert copied > 0
                left, position = left - copied, position + copied
            os.fsync(target)
            """);

        byte[] source = await File.ReadAllBytesAsync(HostPath("source"));
        byte[] target = await File.ReadAllBytesAsync(HostPath("target"));
        Assert.Equal(2_000_100, target.Length);
        Assert.True(source.AsSpan(500_000, 2_000_000).SequenceEqual(target.AsSpan(100)), "the copied bytes differ");
        await AssertSameAsync("sha256sum target");
    }
}
