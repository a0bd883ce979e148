// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Bridge;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Driver;

/// <summary>What people do with files, by the client, against the daemons that people run.</summary>
public sealed class ClientWorkloadTests
{
    private static readonly OpenFileOptions s_both = new() { Access = FileAccess.ReadWrite };

    public static TheoryData<string, CacheMode, WriteMode> Modes
    {
        get
        {
            var data = new TheoryData<string, CacheMode, WriteMode>();
            foreach (string daemon in (string[])["causeway", "Debian's virtiofsd", "Rust virtiofsd"])
            {
                data.Add(daemon, CacheMode.None, WriteMode.Through);
                foreach (CacheMode cache in (CacheMode[])[CacheMode.Auto, CacheMode.Always])
                {
                    data.Add(daemon, cache, WriteMode.Through);
                    data.Add(daemon, cache, WriteMode.Back);
                }
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Modes))]
    public async Task What_was_written_at_random_is_read_back(string daemon, CacheMode cache, WriteMode writes)
    {
        // Not aligned to anything, and several times of what the cache holds.
        const int blockBytes = 7_000;
        const int blocks = 600;
        const int writers = 4;
        using var share = new TemporaryDirectory();
        File.WriteAllBytes(share.File("file"), new byte[blocks * blockBytes]);
        using ForeignDaemon server = ForeignDaemon.Start(daemon, share.Path);
        await using VirtioFsClient client = await server.ConnectAsync(
            new VirtioFsClientOptions { Cache = cache, Writes = writes, MaxCachedBytes = 1 << 20 });

        // Each writer has its own blocks, next to those of the others. A block says which it is and how often it was written.
        int[] versions = new int[blocks];
        await Task.WhenAll(Enumerable.Range(0, writers).Select(writer => Task.Run(async () =>
        {
            var random = new Random(writer);
            byte[] bytes = new byte[blockBytes];
            await using VirtioFsFile file = await client.OpenFileAsync("file", s_both);
            for (int i = 0; i < 400; i++)
            {
                int block = (random.Next(blocks / writers) * writers) + writer;
                if (random.Next(3) == 0)
                {
                    await ReadWholeAsync(file, bytes, (long)block * blockBytes);
                    Assert.True(bytes.AsSpan().SequenceEqual(Content(block, versions[block], blockBytes)), $"block {block}");
                    continue;
                }

                await file.WriteAsync(Content(block, ++versions[block], blockBytes), (long)block * blockBytes);
                if (random.Next(50) == 0)
                {
                    await file.FlushAsync();
                }
            }
        })));

        byte[] onHost = File.ReadAllBytes(share.File("file"));
        byte[] byClient = new byte[onHost.Length];
        await using (VirtioFsFile file = await client.OpenFileAsync("file"))
        {
            await ReadWholeAsync(file, byClient, 0);
        }

        byte[] expected = [.. Enumerable.Range(0, blocks).SelectMany(block => Content(block, versions[block], blockBytes))];
        Assert.True(expected.AsSpan().SequenceEqual(onHost), "what the host has is not what was written");
        Assert.True(expected.AsSpan().SequenceEqual(byClient), "what the client reads is not what was written");
        Assert.Equal(0, client.CacheUsage.DirtyBytes);
        Assert.Equal(0, client.Transport.MalformedReplies);
    }

    [Theory]
    [MemberData(nameof(Modes))]
    public async Task A_tree_is_copied_with_all_that_belongs_to_it(string daemon, CacheMode cache, WriteMode writes)
    {
        using var share = new TemporaryDirectory();
        Shell.Run(
            share.Path,
            """
            mkdir -p from/a/b/c from/many; ln -s ../many from/a/link; ln -s nowhere from/dangling; touch from/a/b/empty
            for i in $(seq 150); do seq $((i * 13)) > "from/many/file $i"; done
            head -c 3000001 /dev/urandom > from/a/b/c/large; truncate -s 5M from/sparse; printf end >> from/sparse
            chmod 640 from/many/file\ 7; chmod 4755 from/a/b/empty; chmod 700 from/a/b; chown 12:34 from/many/file\ 8
            touch -d '2001-02-03 04:05:06.7' from/many/file\ 9 from/a/b/c
            """);
        using ForeignDaemon server = ForeignDaemon.Start(daemon, share.Path);
        await using (VirtioFsClient client = await server.ConnectAsync(
            new VirtioFsClientOptions { Cache = cache, Writes = writes, MaxCachedBytes = 1 << 20 }))
        {
            await CopyDirectoryAsync(client, "from", "to");
            Assert.Equal(0, client.Transport.MalformedReplies);
        }

        Shell.Run(share.Path, "diff --recursive --no-dereference from to");

        // Times to 100 ns, which is what the client has.
        const string list = "find . -printf '%p %y %m %U %G %l %T@ ' \\( -type d -printf '\\n' -o -printf '%s\\n' \\) | "
            + "sed -E 's/(\\.[0-9]{7})[0-9]{3} /\\1 /' | sort";
        Assert.Equal(Shell.Run(share.File("from"), list), Shell.Run(share.File("to"), list));
    }

    [Theory]
    [InlineData("causeway", CacheMode.None)]
    [InlineData("causeway", CacheMode.Auto)]
    [InlineData("causeway", CacheMode.Always)]
    [InlineData("Debian's virtiofsd", CacheMode.Auto)]
    [InlineData("Rust virtiofsd", CacheMode.Auto)]
    public async Task Calls_answer_as_posix_says(string daemon, CacheMode cache)
    {
        using var share = new TemporaryDirectory();
        using ForeignDaemon server = ForeignDaemon.Start(daemon, share.Path);
        await using VirtioFsClient client = await server.ConnectAsync(new VirtioFsClientOptions { Cache = cache });
        var wrong = new List<string>();
        foreach ((string what, Func<VirtioFsClient, Task> check) in s_checks)
        {
            try
            {
                await check(client);
            }
            catch (Exception exception) when (exception is VirtioFsException or Xunit.Sdk.XunitException)
            {
                wrong.Add($"{what}: {exception.Message}");
            }
        }

        Assert.True(wrong.Count == 0, string.Join(Environment.NewLine, wrong));
        Assert.Equal(0, client.Transport.MalformedReplies);
    }

    private static readonly (string What, Func<VirtioFsClient, Task> Check)[] s_checks =
    [
        ("open(O_EXCL) of what exists", async client =>
        {
            await WriteAsync(client, "excl", "x");
            await FailsAsync(Errno.EEXIST, OpenAsync(client, "excl", FileMode.CreateNew));
        }),
        ("open(O_TRUNC) empties", async client =>
        {
            await WriteAsync(client, "trunc", "content");
            await using VirtioFsFile file = await OpenAsync(client, "trunc", FileMode.Truncate);
            Assert.Equal(0, (await file.GetStatusAsync()).Length);
        }),
        ("open of a directory for writing", async client =>
        {
            await client.CreateDirectoryAsync("opened");
            await FailsAsync(Errno.EISDIR, OpenAsync(client, "opened", FileMode.Open));
        }),
        ("a file without a name stays until it is closed", async client =>
        {
            await using VirtioFsFile file = await OpenAsync(client, "nameless", FileMode.Create);
            await file.WriteAsync("kept"u8.ToArray(), 0);
            await client.DeleteFileAsync("nameless");
            await FailsAsync(Errno.ENOENT, client.GetStatusAsync("nameless").AsTask());
            byte[] bytes = new byte[10];
            Assert.Equal(4, await file.ReadAsync(bytes, 0));
            Assert.Equal("kept"u8, bytes.AsSpan(0, 4));
        }),
        ("a replaced file stays for who has it open", async client =>
        {
            await WriteAsync(client, "old", "old");
            await WriteAsync(client, "new", "newer");
            await using VirtioFsFile file = await OpenAsync(client, "old", FileMode.Open);
            await client.RenameAsync("new", "old");
            byte[] bytes = new byte[10];
            Assert.Equal(3, await file.ReadAsync(bytes, 0));
            Assert.Equal(5, (await client.GetStatusAsync("old")).Length);
        }),
        ("rename of a directory below itself", async client =>
        {
            await client.CreateDirectoryAsync("outer");
            await client.CreateDirectoryAsync("outer/inner");
            await FailsAsync(Errno.EINVAL, client.RenameAsync("outer", "outer/inner/outer").AsTask());
        }),
        ("rename onto a directory with something in it", async client =>
        {
            await client.CreateDirectoryAsync("source");
            await client.CreateDirectoryAsync("full");
            await client.CreateDirectoryAsync("full/x");
            await FailsAsync(Errno.ENOTEMPTY, client.RenameAsync("source", "full").AsTask(), Errno.EEXIST);
        }),
        ("rename onto an empty directory", async client =>
        {
            await client.CreateDirectoryAsync("moved");
            await client.CreateDirectoryAsync("moved/x");
            await client.CreateDirectoryAsync("empty");
            await client.RenameAsync("moved", "empty");
            Assert.Equal(FileKind.Directory, (await client.GetStatusAsync("empty/x")).Kind);
            await FailsAsync(Errno.ENOENT, client.GetStatusAsync("moved").AsTask());
        }),
        ("rename of a file onto a directory, and the other way round", async client =>
        {
            await WriteAsync(client, "a-file", "x");
            await client.CreateDirectoryAsync("a-directory");
            await FailsAsync(Errno.EISDIR, client.RenameAsync("a-file", "a-directory").AsTask());
            await FailsAsync(Errno.ENOTDIR, client.RenameAsync("a-directory", "a-file").AsTask());
        }),
        ("rename to another name of the same file", async client =>
        {
            await WriteAsync(client, "one-name", "x");
            await client.CreateHardLinkAsync("other-name", "one-name");
            await client.RenameAsync("one-name", "other-name");
            Assert.Equal(2u, (await client.GetStatusAsync("one-name")).LinkCount);
        }),
        ("rename exchanges", async client =>
        {
            await WriteAsync(client, "left", "1");
            await WriteAsync(client, "right", "22");
            await client.RenameAsync("left", "right", RenameFlags.Exchange);
            Assert.Equal(2, (await client.GetStatusAsync("left")).Length);
            Assert.Equal(1, (await client.GetStatusAsync("right")).Length);
        }),
        ("unlink of a directory, rmdir of a file", async client =>
        {
            await client.CreateDirectoryAsync("no-file");
            await WriteAsync(client, "no-directory", "x");
            await FailsAsync(Errno.EISDIR, client.DeleteFileAsync("no-file").AsTask());
            await FailsAsync(Errno.ENOTDIR, client.DeleteDirectoryAsync("no-directory").AsTask());
        }),
        ("link to a directory", async client =>
        {
            await client.CreateDirectoryAsync("linked");
            await FailsAsync(Errno.EPERM, client.CreateHardLinkAsync("link-to-linked", "linked").AsTask());
        }),
        ("names of 255 bytes, and of 256", async client =>
        {
            await WriteAsync(client, new string('n', 255), "x");
            Assert.Equal(1, (await client.GetStatusAsync(new string('n', 255))).Length);
            await FailsAsync(Errno.ENAMETOOLONG, OpenAsync(client, new string('n', 256), FileMode.Create));
        }),
        ("a long target of a symbolic link", async client =>
        {
            string target = string.Join('/', Enumerable.Repeat("ten-bytes", 360));
            await client.CreateSymbolicLinkAsync("long-link", target);
            Assert.Equal(target, await client.ReadLinkAsync("long-link"));
            Assert.Equal(target.Length, (await client.GetStatusAsync("long-link", LinkHandling.NoFollow)).Length);
        }),
        ("truncate lengthens with zeros, and what was cut off does not come back", async client =>
        {
            await WriteAsync(client, "cut", "abcdef");
            await using VirtioFsFile file = await OpenAsync(client, "cut", FileMode.Open);
            await file.SetLengthAsync(3);
            await file.SetLengthAsync(6);
            byte[] bytes = new byte[10];
            await ReadWholeAsync(file, bytes.AsMemory(0, 6), 0);
            Assert.Equal("abc\0\0\0"u8, bytes.AsSpan(0, 6));
            Assert.Equal(0, await file.ReadAsync(bytes, 6));
        }),
        ("two that append do not overwrite each other", async client =>
        {
            var appending = new OpenFileOptions { Mode = FileMode.OpenOrCreate, Access = FileAccess.Write, IsAppending = true };
            await using VirtioFsFile one = await client.OpenFileAsync("log", appending);
            await using VirtioFsFile two = await client.OpenFileAsync("log", appending);
            for (int i = 0; i < 10; i++)
            {
                await one.WriteAsync("1"u8.ToArray(), 0);
                await two.WriteAsync("22"u8.ToArray(), 0);
            }

            Assert.Equal(30, (await client.GetStatusAsync("log")).Length);
        }),
        ("writing changes the modification time, chmod the time of change", async client =>
        {
            await WriteAsync(client, "times", "x");
            DateTimeOffset past = new(2001, 2, 3, 4, 5, 6, TimeSpan.Zero);
            await client.SetTimesAsync("times", past, past);
            Assert.Equal(past, (await client.GetStatusAsync("times")).ModificationTime);
            await client.SetPermissionsAsync("times", 0x180);
            FileStatus status = await client.GetStatusAsync("times");
            Assert.Equal(past, status.ModificationTime);
            Assert.True(status.ChangeTime > past);
            await using (VirtioFsFile file = await OpenAsync(client, "times", FileMode.Open))
            {
                await file.WriteAsync("y"u8.ToArray(), 0);
            }

            Assert.True((await client.GetStatusAsync("times")).ModificationTime > past);
        }),
        ("links of a directory are counted", async client =>
        {
            await client.CreateDirectoryAsync("counted");
            uint before = (await client.GetStatusAsync("counted")).LinkCount;
            await client.CreateDirectoryAsync("counted/one");
            await client.CreateDirectoryAsync("counted/two");
            await client.DeleteDirectoryAsync("counted/one");
            uint after = (await client.GetStatusAsync("counted")).LinkCount;

            // Some file systems say 1 whatever is in it.
            Assert.Equal(before == 1 ? 1 : before + 1, after);
        }),
        ("a listing shows what is there", async client =>
        {
            await client.CreateDirectoryAsync("listed");
            for (int i = 0; i < 20; i++)
            {
                await WriteAsync(client, $"listed/{i}", "x");
            }

            for (int i = 0; i < 20; i += 2)
            {
                await client.DeleteFileAsync($"listed/{i}");
            }

            var names = new List<string>();
            await foreach (DirectoryItem item in client.EnumerateAsync("listed"))
            {
                names.Add(item.Name);
            }

            Assert.Equal(
                Enumerable.Range(0, 10).Select(i => $"{(2 * i) + 1}").Order(StringComparer.Ordinal),
                names.Order(StringComparer.Ordinal));
        }),
        ("a path through a file", async client =>
        {
            await WriteAsync(client, "through", "x");
            await FailsAsync(Errno.ENOTDIR, client.GetStatusAsync("through/x").AsTask());
            await FailsAsync(Errno.ENOENT, client.GetStatusAsync("nowhere/x").AsTask());
        }),
    ];

    private static byte[] Content(int block, int version, int length)
    {
        byte[] bytes = new byte[length];
        if (version > 0)
        {
            new Random((block * 1009) + version).NextBytes(bytes);
        }

        return bytes;
    }

    private static async Task ReadWholeAsync(VirtioFsFile file, Memory<byte> bytes, long offset)
    {
        for (int done = 0; done < bytes.Length;)
        {
            int count = await file.ReadAsync(bytes[done..], offset + done);
            Assert.NotEqual(0, count);
            done += count;
        }
    }

    private static async Task CopyDirectoryAsync(VirtioFsClient client, string from, string to)
    {
        await client.CreateDirectoryAsync(to);
        await foreach (DirectoryItem item in client.EnumerateAsync(from))
        {
            (string source, string target) = ($"{from}/{item.Name}", $"{to}/{item.Name}");
            switch (item.Kind)
            {
                case FileKind.Directory:
                    await CopyDirectoryAsync(client, source, target);
                    break;

                case FileKind.SymbolicLink:
                    await client.CreateSymbolicLinkAsync(target, await client.ReadLinkAsync(source));
                    await CopyAttributesAsync(client, source, target, LinkHandling.NoFollow);
                    break;

                default:
                    await using (VirtioFsFile input = await client.OpenFileAsync(source))
                    await using (VirtioFsFile output = await client.OpenFileAsync(target, OpenFileOptions.ForWriting))
                    await using (Stream reading = input.AsStream())
                    await using (Stream writing = output.AsStream())
                    {
                        await reading.CopyToAsync(writing);
                    }

                    await CopyAttributesAsync(client, source, target, LinkHandling.Follow);
                    break;
            }
        }

        await CopyAttributesAsync(client, from, to, LinkHandling.Follow);
    }

    private static async Task CopyAttributesAsync(VirtioFsClient client, string from, string to, LinkHandling links)
    {
        FileStatus status = await client.GetStatusAsync(from, links);
        if (links == LinkHandling.Follow)
        {
            await client.SetOwnerAsync(to, status.UserId, status.GroupId);
            await client.SetPermissionsAsync(to, status.Permissions);
        }

        await client.SetTimesAsync(to, status.AccessTime, status.ModificationTime, links);
    }

    private static Task<VirtioFsFile> OpenAsync(VirtioFsClient client, string path, FileMode mode) =>
        client.OpenFileAsync(path, new OpenFileOptions { Mode = mode, Access = FileAccess.ReadWrite }).AsTask();

    private static async Task WriteAsync(VirtioFsClient client, string path, string content)
    {
        await using VirtioFsFile file = await OpenAsync(client, path, FileMode.Create);
        await file.WriteAsync(System.Text.Encoding.UTF8.GetBytes(content), 0);
    }

    private static async Task FailsAsync(Errno error, Task task, Errno? orElse = null)
    {
        VirtioFsException exception = await Assert.ThrowsAsync<VirtioFsException>(() => task);
        Assert.True(exception.Error == error || exception.Error == orElse, $"{exception.Error} instead of {error}");
    }
}
