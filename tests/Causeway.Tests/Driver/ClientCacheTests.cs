// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using Causeway.Driver;
using Causeway.Fuse;

namespace Causeway.Tests.Driver;

/// <summary>
/// What each cache mode sends, message by message, counted at the device: (mode, event, expected messages).
/// </summary>
public sealed class ClientCacheTests
{
    private static readonly TimeSpan s_long = TimeSpan.FromHours(1);

    private static readonly OpenFileOptions s_writing = new() { Access = FileAccess.ReadWrite };

    private readonly SteppedClock _clock = new();

    // Event, and what it sends with None, Auto, Auto writing back, Always, Always writing back, Coherent; "=": what the mode before
    // does.
    private static readonly string[][] s_table =
    [
        // Attributes and names.
        ["stat", "Lookup GetAttr", "Lookup", "=", "Lookup", "=", "="],
        ["stat again", "Lookup GetAttr", "", "=", "", "=", "="],
        ["stat when expired", "Lookup GetAttr", "Lookup", "=", "", "=", "="],
        ["stat of an open file", "GetAttr", "", "=", "", "=", "="],
        ["stat of a path", "Lookup*3 GetAttr", "Lookup*3", "=", "Lookup*3", "=", "="],
        ["stat of a path again", "Lookup*3 GetAttr", "", "=", "", "=", "="],
        ["stat through a symbolic link", "Lookup*2 GetAttr ReadLink", "Lookup*2 ReadLink", "=", "Lookup*2 ReadLink", "=", "="],
        ["read a symbolic link again", "Lookup ReadLink", "ReadLink", "=", "ReadLink", "=", ""],

        // A listing is read anew each time; it brings names and attributes along.
        ["list again", "OpenDir ReleaseDir ReadDirPlus*2", "=", "=", "=", "=", ""],
        ["stat after a listing", "Lookup GetAttr", "", "=", "", "=", "="],

        // A name that does not exist is not remembered.
        ["stat of nothing again", "Lookup", "Lookup", "=", "Lookup", "=", ""],
        ["stat of nothing that the host has made", "Lookup", "Lookup", "=", "Lookup", "=", "unseen:"],

        // Data.
        ["read twice", "Lookup Open Read*2 Release", "Lookup Open Read Release", "=", "Lookup Open Read Release", "=", "="],
        ["read, open again, read", "Lookup Open Read Release", "Open Read Release", "=", "Open Release", "=", "="],
        [
            "read, two openings", "Lookup*2 Open*2 Read*2 Release*2", "Lookup Open*2 Read*2 Release*2",
            "=", "Lookup Open*2 Read Release*2", "=", "=",
        ],
        ["read, close, host change, open, read", "new: Lookup Open Read Release", "new: Open Read Release", "=", "old: Open Release", "=", "="],
        ["read, host change, read", "new: Read", "old:", "=", "old:", "=", "="],

        // Writing.
        [
            "write twice", "Lookup Open Write*2 Release Flush", "=", "Lookup Open Read Write Release Flush",
            "Lookup Open Write*2 Release Flush", "Lookup Open Read Write Release Flush", "Lookup Open Write*2 Release Flush",
        ],
        ["write, before fsync", "Write", "Write", "", "Write", "", "Write"],
        ["write, after fsync", "Write Fsync", "Write Fsync", "Write Fsync", "Write Fsync", "Write Fsync", "="],
        ["fsync again", "Fsync", "Fsync", "=", "Fsync", "=", "="],
        ["write, before close", "Write", "Write", "", "Write", "", "Write"],
        ["write, close", "Write Release Flush", "Write Release Flush", "=", "Write Release Flush", "=", "="],
        ["write, read it back", "Read Write", "Read Write", "", "Read Write", "", "Read Write"],
        ["append", "Write", "Write", "=", "Write", "=", "="],
        ["stat after a write", "Lookup GetAttr", "GetAttr", "=", "GetAttr", "=", "="],
        ["shorten", "SetAttr", "SetAttr", "=", "SetAttr", "=", "="],
        ["punch a hole, read", "Read Fallocate", "Read Fallocate", "=", "Read Fallocate", "=", "="],
        ["lock, read, unlock", "Read SetLk*2", "Read SetLk*2", "=", "Read SetLk*2", "=", "="],

        // Own changes of names are known at once.
        ["create, stat", "Lookup*2 GetAttr Release Flush Create", "Lookup Release Flush Create", "=", "Lookup Release Flush Create", "=", "="],
        ["mkdir, stat", "Lookup GetAttr Mkdir", "Mkdir", "=", "Mkdir", "=", "="],
        ["symlink, read it", "Lookup ReadLink Symlink", "ReadLink Symlink", "=", "ReadLink Symlink", "=", "="],
        ["link, stat", "Lookup*2 GetAttr Link", "GetAttr Link", "=", "GetAttr Link", "=", "Link"],
        ["unlink, stat", "Lookup*2 Unlink", "Lookup Unlink", "=", "Lookup Unlink", "=", "="],
        ["rmdir, stat", "Lookup*2 Rmdir", "Lookup*2 Rmdir", "=", "Lookup*2 Rmdir", "=", "="],
        ["rename, stat", "Lookup*2 Rename", "Lookup Rename", "=", "Lookup Rename", "=", "="],
        ["rename, stat the new name", "Lookup*2 GetAttr Rename", "Lookup Rename", "=", "Lookup Rename", "=", "="],

        // Attributes that were changed, and extended ones, which are never remembered.
        ["chmod, stat", "Lookup*2 GetAttr SetAttr", "GetAttr SetAttr", "=", "GetAttr SetAttr", "=", "SetAttr"],
        ["getxattr again", "Lookup GetXattr", "GetXattr", "=", "GetXattr", "=", ""],
        ["listxattr again", "Lookup ListXattr", "ListXattr", "=", "ListXattr", "=", ""],
        ["setxattr, getxattr", "Lookup*2 SetXattr GetXattr", "SetXattr GetXattr", "=", "SetXattr GetXattr", "=", "="],
        ["removexattr, stat", "Lookup*2 GetAttr RemoveXattr", "GetAttr RemoveXattr", "=", "GetAttr RemoveXattr", "=", "="],
        ["statfs again", "Statfs", "Statfs", "=", "Statfs", "=", "="],
    ];

    private static readonly (CacheMode Cache, WriteMode Writes)[] s_modes =
    [
        (CacheMode.None, WriteMode.Through),
        (CacheMode.Auto, WriteMode.Through),
        (CacheMode.Auto, WriteMode.Back),
        (CacheMode.Always, WriteMode.Through),
        (CacheMode.Always, WriteMode.Back),
        (CacheMode.Coherent, WriteMode.Through),
    ];

    public static TheoryData<CacheMode, WriteMode, string, string> Table
    {
        get
        {
            var data = new TheoryData<CacheMode, WriteMode, string, string>();
            foreach (string[] row in s_table)
            {
                string expected = "";
                for (int i = 0; i < s_modes.Length; i++)
                {
                    expected = row[i + 1] == "=" ? expected : row[i + 1];
                    data.Add(s_modes[i].Cache, s_modes[i].Writes, row[0], expected);
                }
            }

            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Table))]
    public async Task A_mode_sends_these_messages(CacheMode mode, WriteMode writes, string what, string expected)
    {
        await using var rig = new ClientRig(mode == CacheMode.Coherent ? VersionTableLayout.Default : null);
        Directory.CreateDirectory(rig.Host("d/e"));
        File.WriteAllText(rig.Host("file"), new string('x', 5000));
        File.WriteAllText(rig.Host("d/e/f"), "content");
        Directory.CreateDirectory(rig.Host("empty"));
        File.CreateSymbolicLink(rig.Host("link"), "file");
        VirtioFsClient client = await rig.ConnectAsync(new VirtioFsClientOptions
        {
            Cache = mode,
            Writes = writes,
            Lifetime = s_long,
            Clock = _clock,
        });
        Assert.Equal(expected, await RunAsync(rig, client, what));
    }

    [Theory]
    [InlineData(CacheMode.None)]
    [InlineData(CacheMode.Auto)]
    public async Task Opening_again_shows_what_the_host_has_changed(CacheMode mode)
    {
        await using var rig = new ClientRig();
        File.WriteAllText(rig.Host("file"), "old and long");
        VirtioFsClient client = await rig.ConnectAsync(new VirtioFsClientOptions { Cache = mode, Lifetime = s_long });
        Assert.Equal("old and long", await ReadAsync(client, "file"));
        File.WriteAllText(rig.Host("file"), "new");
        Assert.Equal("new", await ReadAsync(client, "file"));
    }

    [Fact]
    public async Task Always_shows_what_it_has_until_the_device_says_otherwise()
    {
        await using var rig = new ClientRig();
        File.WriteAllText(rig.Host("file"), "old");
        VirtioFsClient client = await rig.ConnectAsync(new VirtioFsClientOptions { Cache = CacheMode.Always });
        Assert.Equal("old", await ReadAsync(client, "file"));
        File.WriteAllText(rig.Host("file"), "new");
        Assert.Equal("old", await ReadAsync(client, "file"));
    }

    [Fact]
    public async Task Data_takes_no_more_memory_than_allowed()
    {
        await using var rig = new ClientRig();
        byte[] content = new byte[5 << 20];
        new Random(3).NextBytes(content);
        File.WriteAllBytes(rig.Host("big"), content);
        VirtioFsClient client = await rig.ConnectAsync(
            new VirtioFsClientOptions { Cache = CacheMode.Always, MaxCachedBytes = 1 << 20 });
        await using VirtioFsFile file = await client.OpenFileAsync("big");
        byte[] read = new byte[content.Length];
        for (int round = 0; round < 2; round++)
        {
            int done = 0;
            while (done < read.Length)
            {
                done += await file.ReadAsync(read.AsMemory(done, Math.Min(100_000, read.Length - done)), done);
                Assert.InRange(client.CacheUsage.DataBytes, 0, 1 << 20);
            }

            Assert.True(content.AsSpan().SequenceEqual(read));
        }

        Assert.Equal(1 << 20, client.CacheUsage.MaxDataBytes);
        Assert.InRange(client.CacheUsage.DataBytes, 1 << 19, 1 << 20);
    }

    [Fact]
    public async Task More_written_than_fits_the_cache_reaches_the_file_in_whole()
    {
        await using var rig = new ClientRig();
        byte[] content = new byte[5 << 20];
        new Random(4).NextBytes(content);
        VirtioFsClient client = await rig.ConnectAsync(new VirtioFsClientOptions
        {
            Cache = CacheMode.Auto, Writes = WriteMode.Back, MaxCachedBytes = 1 << 20,
        });
        await using (VirtioFsFile file = await client.OpenFileAsync(
            "big", new OpenFileOptions { Mode = FileMode.Create, Access = FileAccess.ReadWrite }))
        {
            // Out of order, unaligned, with holes that are filled later.
            int[] starts = [.. Enumerable.Range(0, (content.Length + 69_999) / 70_000).Select(i => i * 70_000)];
            new Random(5).Shuffle(starts);
            foreach (int start in starts)
            {
                int count = Math.Min(70_000, content.Length - start);
                await file.WriteAsync(content.AsMemory(start, count), start);
                Assert.InRange(client.CacheUsage.DataBytes, 0, 1 << 20);
            }

            Assert.Equal(content.Length, (await file.GetStatusAsync()).Length);
        }

        Assert.True(content.AsSpan().SequenceEqual(File.ReadAllBytes(rig.Host("big"))));
        Assert.Equal(0, client.CacheUsage.DirtyBytes);
    }

    [Fact]
    public async Task Names_take_no_more_memory_than_allowed_and_go_back_to_the_device()
    {
        await using var rig = new ClientRig();
        for (int i = 0; i < 200; i++)
        {
            File.WriteAllText(rig.Host($"file{i}"), "");
        }

        VirtioFsClient client = await rig.ConnectAsync(
            new VirtioFsClientOptions { Cache = CacheMode.Always, MaxCachedNames = 16 });
        int count = 0;
        await foreach (DirectoryItem item in client.EnumerateAsync("/"))
        {
            count++;
        }

        Assert.Equal(200, count);
        Assert.InRange(client.CacheUsage.Names, 1, 16);
        Assert.InRange(client.CacheUsage.Nodes, 1, 17);
        HostileDeviceTests.Until(
            () => rig.Requests(FuseOpcode.Forget) + rig.Requests(FuseOpcode.BatchForget) > 0);
    }

    [Fact]
    public async Task Writing_back_without_a_cache_is_refused()
    {
        await using var rig = new ClientRig();
        ArgumentException exception = await Assert.ThrowsAsync<ArgumentException>(
            () => rig.ConnectAsync(new VirtioFsClientOptions { Cache = CacheMode.None, Writes = WriteMode.Back }));
        Assert.Contains("nowhere to keep", exception.Message, StringComparison.Ordinal);
    }

    private static async Task<string> ReadAsync(VirtioFsClient client, string path)
    {
        await using VirtioFsFile file = await client.OpenFileAsync(path);
        using var reader = new StreamReader(file.AsStream());
        return await reader.ReadToEndAsync();
    }

    private Task<string> RunAsync(ClientRig rig, VirtioFsClient client, string what) => what.Split(' ', ',')[0] switch
    {
        "stat" or "list" => RunStatAsync(rig, client, what),
        "read" when what.Contains("link", StringComparison.Ordinal) => RunNamesAsync(rig, client, what),
        "read" => RunReadAsync(rig, client, what),
        "write" or "fsync" or "append" or "shorten" or "punch" or "lock" => RunWriteAsync(rig, client, what),
        _ => RunNamesAsync(rig, client, what),
    };

    private async Task<string> RunStatAsync(ClientRig rig, VirtioFsClient client, string what)
    {
        switch (what)
        {
            case "stat":
                await client.GetStatusAsync("file");
                break;
            case "stat again" or "stat when expired":
                await client.GetStatusAsync("file");
                rig.Messages();
                _clock.Skip(what == "stat again" ? s_long - TimeSpan.FromSeconds(1) : s_long);
                await client.GetStatusAsync("file");
                break;
            case "stat of an open file":
                await using (VirtioFsFile file = await client.OpenFileAsync("file"))
                {
                    rig.Messages();
                    Assert.Equal(5000, (await file.GetStatusAsync()).Length);
                    return rig.Messages();
                }

            case "stat of a path":
                await client.GetStatusAsync("d/e/f");
                break;
            case "stat of a path again":
                await client.GetStatusAsync("d/e/f");
                rig.Messages();
                await client.GetStatusAsync("/d//./e/f");
                break;
            case "stat through a symbolic link":
                Assert.Equal(5000, (await client.GetStatusAsync("link")).Length);
                break;
            case "stat after a listing" or "list again":
                await ListAsync(client);
                rig.Messages();
                await (what == "list again" ? ListAsync(client) : client.GetStatusAsync("file").AsTask());
                break;
            case "stat of nothing again":
                await IsMissingAsync(client, "nothing");
                rig.Messages();
                await IsMissingAsync(client, "nothing");
                break;
            case "stat of nothing that the host has made":
                await IsMissingAsync(client, "nothing");
                rig.Messages();
                File.WriteAllText(rig.Host("nothing"), "");
                return (await client.ExistsAsync("nothing") ? "" : "unseen:") + rig.Messages();
            case "stat after a write":
                await using (VirtioFsFile file = await client.OpenFileAsync("file", s_writing))
                {
                    await file.WriteAsync(new byte[4096], 3000);
                    rig.Messages();
                    Assert.Equal(7096, (await client.GetStatusAsync("file")).Length);
                    return rig.Messages();
                }

            default:
                throw new ArgumentException(what);
        }

        return rig.Messages();
    }

    private static async Task<string> RunReadAsync(ClientRig rig, VirtioFsClient client, string what)
    {
        byte[] bytes = new byte[4096];
        switch (what)
        {
            case "read twice":
                await using (VirtioFsFile file = await client.OpenFileAsync("file"))
                {
                    Assert.Equal(4096, await file.ReadAsync(bytes, 0));
                    Assert.Equal(4096, await file.ReadAsync(bytes, 0));
                }

                break;
            case "read, two openings":
                await using (VirtioFsFile file = await client.OpenFileAsync("file"))
                {
                    Assert.Equal(4096, await file.ReadAsync(bytes, 0));
                    await using VirtioFsFile other = await client.OpenFileAsync("file");
                    Assert.Equal(4096, await other.ReadAsync(bytes, 0));
                }

                break;
            case "read, open again, read":
                for (int i = 0; i < 2; i++)
                {
                    rig.Messages();
                    await using VirtioFsFile file = await client.OpenFileAsync("file");
                    Assert.Equal(4096, await file.ReadAsync(bytes, 0));
                }

                break;
            case "read, close, host change, open, read":
                string seen = "";
                for (int i = 0; i < 2; i++)
                {
                    rig.Messages();
                    await using VirtioFsFile file = await client.OpenFileAsync("file");
                    Assert.Equal(4096, await file.ReadAsync(bytes, 0));
                    seen = bytes[0] == (byte)'x' ? "old: " : "new: ";
                    File.WriteAllText(rig.Host("file"), new string('y', 5000));
                }

                return seen + rig.Messages();
            case "read, host change, read":
                await using (VirtioFsFile file = await client.OpenFileAsync("file"))
                {
                    Assert.Equal(4096, await file.ReadAsync(bytes, 0));
                    rig.Messages();
                    File.WriteAllText(rig.Host("file"), new string('y', 5000));
                    Assert.Equal(4096, await file.ReadAsync(bytes, 0));
                    return $"{(bytes[0] == (byte)'x' ? "old:" : "new:")} {rig.Messages()}".Trim();
                }

            default:
                throw new ArgumentException(what);
        }

        return rig.Messages();
    }

    private static async Task<string> RunWriteAsync(ClientRig rig, VirtioFsClient client, string what)
    {
        byte[] bytes = new byte[4096];
        VirtioFsFile file = await client.OpenFileAsync(
            "file", what == "append" ? s_writing with { IsAppending = true } : s_writing);
        await using (file)
        {
            if (what != "write twice")
            {
                rig.Messages();
            }

            switch (what)
            {
                case "write twice":
                    await file.WriteAsync(bytes, 0);
                    await file.WriteAsync(bytes.AsMemory(0, 1000), 4096);
                    await file.DisposeAsync();
                    break;
                case "write, before fsync" or "write, before close":
                    await file.WriteAsync(new byte[5000], 0);
                    break;
                case "write, after fsync":
                    await file.WriteAsync(new byte[5000], 0);
                    await file.FlushAsync();
                    break;
                case "fsync again":
                    await file.WriteAsync(new byte[5000], 0);
                    await file.FlushAsync();
                    rig.Messages();
                    await file.FlushAsync();
                    break;
                case "write, close":
                    await file.WriteAsync(new byte[5000], 0);
                    await file.DisposeAsync();
                    break;
                case "write, read it back":
                    await file.WriteAsync("xyz"u8.ToArray().Concat(new byte[6000]).ToArray(), 0);
                    Assert.Equal(4096, await file.ReadAsync(bytes, 0));
                    Assert.Equal((byte)'z', bytes[2]);
                    break;
                case "append":
                    await file.WriteAsync(new byte[10], 0);
                    break;
                case "shorten":
                    await file.SetLengthAsync(10);
                    break;
                case "punch a hole, read":
                    await file.ReadAsync(bytes, 0);
                    rig.Messages();
                    await file.ChangeSpaceAsync(0, 4096, SpaceChange.PunchHole);
                    Assert.Equal(4096, await file.ReadAsync(bytes, 0));
                    Assert.Equal(0, bytes[0]);
                    break;
                case "lock, read, unlock":
                    await file.ReadAsync(bytes, 0);
                    rig.Messages();
                    Assert.True(await file.TryLockAsync(LockMode.Shared));
                    await file.ReadAsync(bytes, 0);
                    await file.UnlockAsync();
                    break;
                default:
                    throw new ArgumentException(what);
            }

            return rig.Messages();
        }
    }

    private static async Task<string> RunNamesAsync(ClientRig rig, VirtioFsClient client, string what)
    {
        string name = what.StartsWith("rmdir", StringComparison.Ordinal) ? "empty" : "file";
        if (what.Split(' ', ',')[0] is not ("create" or "mkdir" or "symlink" or "rmdir" or "read" or "statfs"))
        {
            await client.SetExtendedAttributeAsync("file", "user.known", new byte[1]);
            await client.GetStatusAsync("file");
            rig.Messages();
        }

        switch (what)
        {
            case "create, stat":
                await (await client.OpenFileAsync("new", OpenFileOptions.ForWriting)).DisposeAsync();
                await client.GetStatusAsync("new");
                break;
            case "mkdir, stat":
                await client.CreateDirectoryAsync("new");
                await client.GetStatusAsync("new");
                break;
            case "symlink, read it":
                await client.CreateSymbolicLinkAsync("new", "file");
                Assert.Equal("file", await client.ReadLinkAsync("new"));
                break;
            case "read a symbolic link again":
                Assert.Equal("file", await client.ReadLinkAsync("link"));
                rig.Messages();
                Assert.Equal("file", await client.ReadLinkAsync("link"));
                break;
            case "link, stat":
                await client.CreateHardLinkAsync("new", "file");
                Assert.Equal(2u, (await client.GetStatusAsync("file")).LinkCount);
                break;
            case "unlink, stat":
                await client.DeleteFileAsync(name);
                await IsMissingAsync(client, name);
                break;
            case "rmdir, stat":
                await client.DeleteDirectoryAsync(name);
                await IsMissingAsync(client, name);
                break;
            case "rename, stat":
                await client.RenameAsync(name, "other");
                await IsMissingAsync(client, name);
                break;
            case "rename, stat the new name":
                await client.RenameAsync(name, "other");
                Assert.Equal(5000, (await client.GetStatusAsync("other")).Length);
                break;
            case "chmod, stat":
                await client.SetPermissionsAsync("file", 0x1C0);
                Assert.Equal(0x1C0u, (await client.GetStatusAsync("file")).Permissions);
                break;
            case "getxattr again":
                await client.GetExtendedAttributeAsync("file", "user.known");
                rig.Messages();
                Assert.Equal([0], await client.GetExtendedAttributeAsync("file", "user.known"));
                break;
            case "listxattr again":
                await client.ListExtendedAttributesAsync("file");
                rig.Messages();
                Assert.Contains("user.known", await client.ListExtendedAttributesAsync("file"));
                break;
            case "setxattr, getxattr":
                await client.SetExtendedAttributeAsync("file", "user.known", new byte[] { 7 });
                Assert.Equal([7], await client.GetExtendedAttributeAsync("file", "user.known"));
                break;
            case "removexattr, stat":
                await client.RemoveExtendedAttributeAsync("file", "user.known");
                await client.GetStatusAsync("file");
                break;
            case "statfs again":
                await client.GetFileSystemStatusAsync();
                rig.Messages();
                await client.GetFileSystemStatusAsync();
                break;
            default:
                throw new ArgumentException(what);
        }

        return rig.Messages();
    }

    private static Task<VirtioFsException> IsMissingAsync(VirtioFsClient client, string path) =>
        Assert.ThrowsAsync<VirtioFsException>(async () => await client.GetStatusAsync(path));

    private static async Task ListAsync(VirtioFsClient client)
    {
        await foreach (DirectoryItem item in client.EnumerateAsync("/"))
        {
            Assert.NotNull(item.Status);
        }
    }

    /// <summary>A clock that goes on when it is told to.</summary>
    private sealed class SteppedClock : TimeProvider
    {
        private long _now = 1;

        public override long TimestampFrequency => TimeSpan.TicksPerSecond;

        public override long GetTimestamp() => Volatile.Read(ref _now);

        public void Skip(TimeSpan time) => Interlocked.Add(ref _now, time.Ticks);
    }
}
