// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Diagnostics;
using System.Text;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Driver;

/// <summary>The client against the daemons that people run: ours, and both programs called virtiofsd.</summary>
public sealed class ClientTests
{
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData("causeway", CacheMode.None)]
    [InlineData("causeway", CacheMode.Auto)]
    [InlineData("causeway", CacheMode.Always)]
    [InlineData("Debian's virtiofsd", CacheMode.None)]
    [InlineData("Debian's virtiofsd", CacheMode.Auto)]
    [InlineData("Rust virtiofsd", CacheMode.None)]
    [InlineData("Rust virtiofsd", CacheMode.Auto)]
    public async Task A_program_works_with_files_of_a_share(string daemon, CacheMode mode)
    {
        using var share = new TemporaryDirectory();
        using ForeignDaemon server = ForeignDaemon.Start(daemon, share.Path);
        foreach (WriteMode writes in mode == CacheMode.None
            ? [WriteMode.Through]
            : (WriteMode[])[WriteMode.Through, WriteMode.Back])
        {
            await using VirtioFsClient client = await server.ConnectAsync(
                new VirtioFsClientOptions { Cache = mode, Writes = writes });
            await WorkAsync(client, share);
            await client.DeleteDirectoryAsync("dir");
            if (!server.IsPersistent)
            {
                break;
            }
        }
    }

    [Fact]
    public async Task Errors_carry_the_errno_and_the_path()
    {
        await using var rig = new ClientRig();
        File.WriteAllText(rig.Host("file"), "content");
        Directory.CreateDirectory(rig.Host("dir/inner"));
        File.CreateSymbolicLink(rig.Host("loop"), "loop");
        VirtioFsClient client = await rig.ConnectAsync();

        await FailsAsync(Errno.ENOENT, "nothing", () => client.GetStatusAsync("nothing").AsTask());
        await FailsAsync(Errno.ENOTDIR, "file/x", () => client.GetStatusAsync("file/x").AsTask());
        await FailsAsync(Errno.ELOOP, "loop", () => client.GetStatusAsync("loop").AsTask());
        await FailsAsync(Errno.EISDIR, "dir", () => client.OpenFileAsync("dir").AsTask());
        await FailsAsync(Errno.EEXIST, "file", () => client.OpenFileAsync(
            "file", new OpenFileOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write }).AsTask());
        await FailsAsync(Errno.ENOTEMPTY, "dir", () => client.DeleteDirectoryAsync("dir").AsTask());
        await FailsAsync(Errno.EEXIST, "dir", () => client.CreateDirectoryAsync("dir").AsTask());
        await FailsAsync(
            Errno.EEXIST, "file", () => client.RenameAsync("file", "dir", RenameFlags.NoReplace).AsTask());
        await FailsAsync(
            Errno.ENAMETOOLONG, new string('x', 5000), () => client.GetStatusAsync(new string('x', 5000)).AsTask());
        await FailsAsync(Errno.EINVAL, "a\0b", () => client.GetStatusAsync("a\0b").AsTask());
        await FailsAsync(Errno.EBUSY, "/", () => client.DeleteDirectoryAsync("/").AsTask());
        await using VirtioFsFile reading = await client.OpenFileAsync("file");
        await FailsAsync(Errno.EBADF, "file", () => reading.WriteAsync(new byte[1], 0).AsTask());
    }

    [Fact]
    public async Task Links_are_followed_inside_the_share()
    {
        await using var rig = new ClientRig();
        Directory.CreateDirectory(rig.Host("a/b"));
        File.WriteAllText(rig.Host("a/b/file"), "content");
        File.CreateSymbolicLink(rig.Host("absolute"), "/a/b");
        File.CreateSymbolicLink(rig.Host("a/up"), "../../../a/./b/file");
        VirtioFsClient client = await rig.ConnectAsync();
        Assert.Equal(7, (await client.GetStatusAsync("absolute/file")).Length);
        Assert.Equal(7, (await client.GetStatusAsync("a/up")).Length);
        Assert.Equal(7, (await client.GetStatusAsync("a/b/../../absolute/../b/file")).Length);
        Assert.Equal(FileKind.SymbolicLink, (await client.GetStatusAsync("a/up", LinkHandling.NoFollow)).Kind);
        Assert.Equal("/a/b", await client.ReadLinkAsync("absolute"));
        Assert.Equal(0, client.Transport.RentedCalls);
    }

    [Fact]
    public async Task A_large_directory_is_listed_in_whole_and_once()
    {
        await using var rig = new ClientRig();
        string[] names = [.. Enumerable.Range(0, 3000).Select(i => $"a file with a rather long name, number {i}")];
        foreach (string name in names)
        {
            File.WriteAllText(rig.Host(name), "");
        }

        VirtioFsClient client = await rig.ConnectAsync();
        var seen = new List<string>();
        await foreach (DirectoryItem item in client.EnumerateAsync("/"))
        {
            seen.Add(item.Name);
        }

        Assert.Equal(names.Order(StringComparer.Ordinal), seen.Order(StringComparer.Ordinal));

        // One that stops in the middle gives its handle back.
        await foreach (DirectoryItem item in client.EnumerateAsync("/"))
        {
            break;
        }

        Assert.Equal(rig.Requests(FuseOpcode.OpenDir), rig.Requests(FuseOpcode.ReleaseDir));
    }

    [Fact]
    public async Task A_node_stays_the_same_when_its_name_changes()
    {
        await using var rig = new ClientRig();
        File.WriteAllText(rig.Host("file"), "content");
        VirtioFsClient client = await rig.ConnectAsync(new VirtioFsClientOptions { Cache = CacheMode.None });
        using VirtioFsNode root = await client.GetNodeAsync();
        using VirtioFsNode node = await root.LookupAsync("file");
        File.Move(rig.Host("file"), rig.Host("other"));
        Assert.Equal(7, (await node.GetStatusAsync()).Length);
        await using VirtioFsFile file = await node.OpenFileAsync();
        byte[] bytes = new byte[10];
        Assert.Equal(7, await file.ReadAsync(bytes, 0));
    }

    [Fact]
    public async Task Many_readers_and_writers_of_one_file_see_whole_blocks()
    {
        await using var rig = new ClientRig();
        VirtioFsClient client = await rig.ConnectAsync(new VirtioFsClientOptions
        {
            Cache = CacheMode.Always, Writes = WriteMode.Back, MaxCachedBytes = 1 << 20,
        });
        const int Blocks = 400;
        const int Block = 8192;
        await using (VirtioFsFile file = await client.OpenFileAsync(
            "file", new OpenFileOptions { Mode = FileMode.Create, Access = FileAccess.ReadWrite }))
        {
            await Parallel.ForEachAsync(Enumerable.Range(0, Blocks), async (block, cancellation) =>
            {
                byte[] bytes = new byte[Block];
                bytes.AsSpan().Fill((byte)(block % 251));
                await file.WriteAsync(bytes, (long)block * Block, cancellation);
                byte[] back = new byte[Block];
                Assert.Equal(Block, await file.ReadAsync(back, (long)block * Block, cancellation));
                Assert.True(bytes.AsSpan().SequenceEqual(back));
            });
        }

        byte[] stored = File.ReadAllBytes(rig.Host("file"));
        Assert.Equal(Blocks * Block, stored.Length);
        for (int block = 0; block < Blocks; block++)
        {
            Assert.False(stored.AsSpan(block * Block, Block).ContainsAnyExcept((byte)(block % 251)));
        }
    }

    [Fact]
    public async Task A_daemon_that_is_killed_is_an_error_and_a_new_one_can_be_connected_to()
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("file"), "content");
        using ForeignDaemon first = ForeignDaemon.Start("causeway", share.Path);
        await using VirtioFsClient client = await first.ConnectAsync(new VirtioFsClientOptions { Cache = CacheMode.None });
        Assert.Equal(7, (await client.GetStatusAsync("file")).Length);
        first.Kill();
        VirtioFsDeviceException lost = await Assert.ThrowsAsync<VirtioFsDeviceException>(
            async () => await client.GetStatusAsync("file").AsTask().WaitAsync(s_deadline));
        Assert.Equal((DeviceFailure.Disconnected, Errno.ENOTCONN), (lost.Failure, lost.Error));
        Assert.Contains("closed the connection", lost.Message, StringComparison.Ordinal);

        using ForeignDaemon second = ForeignDaemon.Start("causeway", share.Path, first.SocketPath);
        while (true)
        {
            try
            {
                await client.ReconnectAsync();
                break;
            }
            catch (ErrnoException exception) when (exception.Error is Errno.ECONNREFUSED or Errno.ENOENT)
            {
                // The new daemon does not listen yet.
                Assert.False(second.HasEnded);
            }
        }

        Assert.Equal(7, (await client.GetStatusAsync("file")).Length);
    }

    private static async Task FailsAsync(Errno error, string path, Func<Task> action)
    {
        VirtioFsException exception = await Assert.ThrowsAsync<VirtioFsException>(action);
        Assert.Equal((error, path), (exception.Error, exception.Path));
        Assert.Contains(error.ToString(), exception.Message, StringComparison.Ordinal);
    }

    private static async Task WorkAsync(VirtioFsClient client, TemporaryDirectory share)
    {
        await client.CreateDirectoryAsync("dir");
        await client.SetPermissionsAsync("dir", 0x1C0);
        Assert.Equal(0x1C0u, (await client.GetStatusAsync("dir")).Permissions);

        // A file larger than a request, by a stream, and back.
        byte[] content = new byte[(3 << 20) + 123];
        new Random(7).NextBytes(content);
        await using (VirtioFsFile file = await client.OpenFileAsync("dir/file", OpenFileOptions.ForWriting))
        {
            await using Stream stream = file.AsStream();
            await new MemoryStream(content).CopyToAsync(stream);
        }

        Assert.True(content.AsSpan().SequenceEqual(File.ReadAllBytes(share.File("dir/file"))));
        using var copy = new MemoryStream();
        await using (VirtioFsFile file = await client.OpenFileAsync("dir/file"))
        {
            await using Stream stream = file.AsStream();
            Assert.Equal(content.Length, stream.Length);
            await stream.CopyToAsync(copy);
        }

        Assert.True(content.AsSpan().SequenceEqual(copy.ToArray()));

        // Appending, shortening, holes.
        await using (VirtioFsFile file = await client.OpenFileAsync(
            "dir/log", new OpenFileOptions { Mode = FileMode.OpenOrCreate, Access = FileAccess.Write, IsAppending = true }))
        {
            await file.WriteAsync("one "u8.ToArray(), 0);
            await file.WriteAsync("two"u8.ToArray(), 0);
            await file.FlushAsync();
        }

        Assert.Equal("one two", File.ReadAllText(share.File("dir/log")));
        await using (VirtioFsFile file = await client.OpenFileAsync(
            "dir/log", new OpenFileOptions { Access = FileAccess.ReadWrite }))
        {
            await file.SetLengthAsync(3);
            await file.WriteAsync("x"u8.ToArray(), 200_000);
            Assert.Equal(200_001, (await file.GetStatusAsync()).Length);
            byte[] hole = new byte[300_000];
            int count = 0;
            for (int more = -1; more != 0; count += more)
            {
                more = await file.ReadAsync(hole.AsMemory(count), count);
            }

            Assert.Equal(200_001, count);
            Assert.Equal("one\0"u8, hole.AsSpan(0, 4));
            Assert.Equal((byte)'x', hole[200_000]);
        }

        // Names.
        await client.CreateSymbolicLinkAsync("dir/link", "file");
        Assert.Equal(content.Length, (await client.GetStatusAsync("dir/link")).Length);
        await client.CreateHardLinkAsync("dir/hard", "dir/file");
        Assert.Equal(2u, (await client.GetStatusAsync("dir/file")).LinkCount);
        await client.RenameAsync("dir/hard", "dir/harder");
        var names = new List<string>();
        await foreach (DirectoryItem item in client.EnumerateAsync("dir"))
        {
            names.Add($"{item.Name} {item.Kind}");
        }

        Assert.Equal(["file File", "harder File", "link SymbolicLink", "log File"], names.Order(StringComparer.Ordinal));

        // Attributes.
        DateTimeOffset time = new(2001, 2, 3, 4, 5, 6, 789, TimeSpan.Zero);
        await client.SetTimesAsync("dir/file", time, time.AddSeconds(1));
        FileStatus status = await client.GetStatusAsync("dir/file");
        Assert.Equal((time, time.AddSeconds(1)), (status.AccessTime, status.ModificationTime));
        Assert.Equal(time.AddSeconds(1), new DateTimeOffset(File.GetLastWriteTimeUtc(share.File("dir/file"))));
        Assert.InRange((await client.GetFileSystemStatusAsync()).TotalBytes, 1ul, ulong.MaxValue);

        foreach (string name in (string[])["file", "harder", "link", "log"])
        {
            await client.DeleteFileAsync($"dir/{name}");
        }

        Assert.Equal(0, client.Transport.MalformedReplies);
    }
}

/// <summary>A daemon by somebody else, or ours, in a process of its own.</summary>
internal sealed class ForeignDaemon : IDisposable
{
    private const string DebianProgram = "/usr/lib/qemu/virtiofsd";

    private readonly Process _process;

    private ForeignDaemon(Process process, string socketPath, bool isPersistent)
    {
        _process = process;
        SocketPath = socketPath;
        IsPersistent = isPersistent;

        // Nobody reads what they say, and a full pipe would stop them.
        process.ErrorDataReceived += (_, _) => { };
        process.BeginErrorReadLine();
    }

    public string SocketPath { get; }

    /// <summary>Whether it serves one client after the other.</summary>
    public bool IsPersistent { get; }

    public static ForeignDaemon Start(string name, string directory, string? socketPath = null)
    {
        string socket = socketPath ?? Path.Combine(Path.GetTempPath(), $"causeway-{Guid.NewGuid():N}.sock");
        (string program, string[] arguments) = name switch
        {
            "causeway" => (DaemonProcess.Program, (string[])
                ["serve", "--shared-dir", directory, "--socket-path", socket, "--sandbox", "none", "--persistent"]),
            "Debian's virtiofsd" => (DebianProgram,
                ["-f", $"--socket-path={socket}", "-o", $"source={directory},sandbox=chroot,flock,posix_lock,xattr"]),
            _ => (RustProgram(), ["--shared-dir", directory, "--socket-path", socket, "--sandbox", "none"]),
        };
        Assert.SkipUnless(
            File.Exists(program),
            name == "Debian's virtiofsd"
                ? $"there is no {program}; install qemu-system-common, as ./test does"
                : $"there is no {program}; make it with 'eng/guest-platform newer'");
        Assert.SkipUnless(
            name == "causeway" || Environment.IsPrivilegedProcess, $"{name} needs root for a share without a sandbox");
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardError = true };
        return new ForeignDaemon(Process.Start(start)!, socket, isPersistent: name == "causeway");
    }

    /// <summary>Connects as soon as the daemon listens.</summary>
    public async Task<VirtioFsClient> ConnectAsync(VirtioFsClientOptions options)
    {
        HostileDeviceTests.Until(() => File.Exists(SocketPath) || _process.HasExited);
        while (true)
        {
            try
            {
                return await VirtioFsClient.ConnectAsync(SocketPath, options);
            }
            catch (ErrnoException exception) when (exception.Error == Errno.ECONNREFUSED && !_process.HasExited)
            {
                // The socket is there before somebody listens.
                await Task.Yield();
            }
        }
    }

    public bool HasEnded => _process.HasExited;

    public void Kill()
    {
        _process.Kill();
        _process.WaitForExit();
    }

    public void Dispose()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
        }

        _process.WaitForExit();
        _process.Dispose();
        File.Delete(SocketPath);
        File.Delete(SocketPath + ".pid");
    }

    /// <summary>The Rust virtiofsd that 'eng/guest-platform newer' fetches, whether it is there or not.</summary>
    internal static string RustProgram()
    {
        string? cache = Environment.GetEnvironmentVariable("CAUSEWAY_CACHE");
        string root = Path.GetDirectoryName(Path.GetDirectoryName(DaemonProcess.NativeBinary))!;
        string folder = string.IsNullOrEmpty(cache) ? Path.Combine(root, ".cache") : cache;
        string platform = Environment.GetEnvironmentVariable("CAUSEWAY_NEWER") is { Length: > 0 } given
            ? given
            : Path.Combine(folder, "newer");
        return Path.Combine(platform, "virtiofsd");
    }
}
