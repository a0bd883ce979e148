namespace Causeway.EndToEnd;

public abstract partial class GuestTests
{
    [Fact]
    public async Task Names_may_be_255_bytes_long_and_no_longer()
    {
        string name = new('n', 255);
        await GuestAsync($"echo content >{name}; mkdir -p deep/{name}; echo below >deep/{name}/{name}; refused touch {name}x");

        Assert.Equal("content\n", await File.ReadAllTextAsync(HostPath(name)));
        Assert.Equal("below\n", await File.ReadAllTextAsync(HostPath($"deep/{name}/{name}")));
        await GuestAsync($"mv deep/{name}/{name} moved; rm {name}; rmdir deep/{name}");
        Assert.Equal(["deep", "moved"], Directory.GetFileSystemEntries(HostDirectory).Select(Path.GetFileName).Order());
    }

    [Fact]
    public async Task Names_are_bytes_of_any_kind()
    {
        await HostAsync("""touch $'host-\xff\xfe' $'host-\n' $'host-\x01'""");
        await GuestAsync("""touch $'guest-\xff\xfe' $'guest-\n' $'guest-\x80' 'guest-\' guest-ä -- -rf '*' ' '""");

        await AssertSameAsync(@"find . -mindepth 1 -printf '%f\0' | sort -z | od -An -c");
        Assert.Equal("11\n", await HostAsync("""find . -mindepth 1 -printf x | wc -c | tr -d ' '"""));
    }

    [Fact]
    public async Task Special_files_are_what_they_are_on_both_sides()
    {
        await GuestPythonAsync("""
            import socket
            os.umask(0o022)
            os.mkfifo('fifo', 0o640)
            os.mknod('character', 0o020660, os.makedev(1, 3))
            os.mknod('block', 0o060600, os.makedev(7, 200))
            server = socket.socket(socket.AF_UNIX)
            server.bind('socket')
            """);

        Assert.Equal(
            "fifo fifo 640\nblock special file block 600 7 c8\ncharacter special file character 640 1 3\nsocket socket 755\n",
            await HostAsync("""
                stat -c '%F %n %a' fifo
                stat -c '%F %n %a %t %T' block character
                stat -c '%F %n %a' socket
                """));
        await AssertSameAsync("stat -c '%n %F %a %t %T %i %u:%g' *");
    }

    [Fact]
    public async Task A_fifo_and_a_socket_connect_processes_of_the_guest()
    {
        Assert.Equal("through the fifo\n", await GuestAsync("mkfifo fifo; echo 'through the fifo' >fifo & cat fifo; wait"));
        Assert.Equal("through the socket\n", await GuestPythonAsync("""
            import socket
            server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
            server.bind('socket')
            server.listen()
            client.connect('socket')
            connection, _ = server.accept()
            client.send(b'through the socket')
            print(connection.recv(100).decode())
            """));
    }

    [Fact]
    public async Task Symbolic_links_keep_their_targets_whatever_these_are()
    {
        string longTarget = string.Join('/', Enumerable.Repeat(new string('t', 99), 40));
        await GuestAsync($"""
            ln -s missing dangling
            ln -s /etc/hostname absolute
            ln -s ../{TestName}/file around
            ln -s {longTarget} long
            ln -s loop loop
            echo content >file
            [ "$(cat around)" = content ]
            refused cat loop
            """);

        Assert.Equal("missing", new FileInfo(HostPath("dangling")).LinkTarget);
        Assert.Equal("/etc/hostname", new FileInfo(HostPath("absolute")).LinkTarget);
        Assert.Equal(longTarget, new FileInfo(HostPath("long")).LinkTarget);
        await AssertSameAsync("for link in *; do [ ! -L $link ] || stat -c '%N %s %F' $link; done");
    }

    [Fact]
    public async Task Hard_links_are_one_file_with_several_names()
    {
        await GuestAsync("""
            echo first >one
            mkdir sub
            ln one sub/two
            ln sub/two three
            echo second >>three
            [ "$(cat one)" = "$(printf 'first\nsecond')" ]
            rm one
            """);

        Assert.Equal("first\nsecond\n", await File.ReadAllTextAsync(HostPath("sub/two")));
        Assert.Equal("2 2\n", await HostAsync("echo $(stat -c '%h' three sub/two)"));
        await AssertSameAsync("stat -c '%i %h %s' three sub/two");
    }

    [Fact]
    public async Task Renaming_replaces_exchanges_and_refuses()
    {
        await GuestPythonAsync("""
            import ctypes, errno
            libc = ctypes.CDLL(None, use_errno=True)
            def rename(old, new, flags):
                if libc.renameat2(-100, old, -100, new, flags):
                    return ctypes.get_errno()
            NOREPLACE, EXCHANGE = 1, 2
            for name in 'a', 'b', 'c':
                open(name, 'w').write(name)
            os.mkdir('full'); os.mkdir('empty'); open('full/file', 'w').close()
            assert rename(b'a', b'b', NOREPLACE) == errno.EEXIST
            assert rename(b'a', b'b', EXCHANGE) is None
            assert (open('a').read(), open('b').read()) == ('b', 'a')
            os.rename('a', 'c')
            try:
                os.rename('empty', 'full')
                assert False, 'a full directory was replaced'
            except OSError as error:
                assert error.errno == errno.ENOTEMPTY, error
            os.rename('full', 'empty')
            assert rename(b'empty', b'new', NOREPLACE) is None
            """);

        Assert.Equal("./b a\n./c b\n./new/file \n", await HostAsync("""for file in $(find . -type f | sort); do echo "$file $(cat $file)"; done"""));
    }
}
