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
    private const CacheMode None = CacheMode.None;
    private const CacheMode Auto = CacheMode.Auto;
    private const CacheMode Always = CacheMode.Always;

    private static readonly TimeSpan s_long = TimeSpan.FromHours(1);

    private readonly SteppedClock _clock = new();

    public static TheoryData<CacheMode, WriteMode, string, string> Table => new()
    {
        // Attributes and names.
        { None, WriteMode.Through, "stat", "Lookup GetAttr" },
        { None, WriteMode.Through, "stat again", "Lookup GetAttr" },
        { None, WriteMode.Through, "stat of a path", "Lookup*3 GetAttr" },
        { Auto, WriteMode.Through, "stat", "Lookup" },
        { Auto, WriteMode.Through, "stat again", "" },
        { Auto, WriteMode.Through, "stat when expired", "Lookup" },
        { Auto, WriteMode.Through, "stat of a path", "Lookup*3" },
        { Auto, WriteMode.Through, "stat of a path again", "" },
        { Always, WriteMode.Through, "stat", "Lookup" },
        { Always, WriteMode.Through, "stat again", "" },
        { Always, WriteMode.Through, "stat of a path again", "" },

        // A listing brings names and attributes along.
        { None, WriteMode.Through, "stat after a listing", "Lookup GetAttr" },
        { Auto, WriteMode.Through, "stat after a listing", "" },
        { Always, WriteMode.Through, "stat after a listing", "" },

        // A name that does not exist is not remembered.
        { None, WriteMode.Through, "stat of nothing again", "Lookup" },
        { Auto, WriteMode.Through, "stat of nothing again", "Lookup" },
        { Always, WriteMode.Through, "stat of nothing again", "Lookup" },

        // Data.
        { None, WriteMode.Through, "read twice", "Lookup Open Read*2 Release" },
        { Auto, WriteMode.Through, "read twice", "Lookup Open Read Release" },
        { Always, WriteMode.Through, "read twice", "Lookup Open Read Release" },
        { None, WriteMode.Through, "read, open again, read", "Lookup Open Read Release" },
        { Auto, WriteMode.Through, "read, open again, read", "Open Read Release" },
        { Always, WriteMode.Through, "read, open again, read", "Open Release" },

        // Writing.
        { None, WriteMode.Through, "write twice", "Lookup Open Write*2 Release Flush" },
        { Auto, WriteMode.Through, "write twice", "Lookup Open Write*2 Release Flush" },
        { Always, WriteMode.Through, "write twice", "Lookup Open Write*2 Release Flush" },
        { Auto, WriteMode.Back, "write twice", "Lookup Open Read Write Release Flush" },
        { Always, WriteMode.Back, "write twice", "Lookup Open Read Write Release Flush" },
        { Auto, WriteMode.Through, "write, fsync", "Lookup Open Write Release Fsync Flush" },
        { Auto, WriteMode.Back, "write, before fsync", "" },
        { Auto, WriteMode.Back, "write, after fsync", "Write Fsync" },
        { Always, WriteMode.Back, "write, read it back", "" },
        { Auto, WriteMode.Through, "write, read it back", "Read Write" },
        { Auto, WriteMode.Through, "stat after a write", "GetAttr" },
        { Always, WriteMode.Through, "stat after a write", "GetAttr" },

        // Own changes of names are known at once.
        { None, WriteMode.Through, "create, stat", "Lookup*2 GetAttr Release Flush Create" },
        { Auto, WriteMode.Through, "create, stat", "Lookup Release Flush Create" },
        { Always, WriteMode.Through, "create, stat", "Lookup Release Flush Create" },
        { Always, WriteMode.Through, "unlink, stat", "Lookup Unlink" },
        { Always, WriteMode.Through, "rename, stat", "Lookup Rename" },
    };

    [Theory]
    [MemberData(nameof(Table))]
    public async Task A_mode_sends_these_messages(CacheMode mode, WriteMode writes, string what, string expected)
    {
        await using var rig = new ClientRig();
        Directory.CreateDirectory(rig.Host("d/e"));
        File.WriteAllText(rig.Host("file"), new string('x', 5000));
        File.WriteAllText(rig.Host("d/e/f"), "content");
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

    private async Task<string> RunAsync(ClientRig rig, VirtioFsClient client, string what)
    {
        byte[] bytes = new byte[4096];
        var writing = new OpenFileOptions { Access = FileAccess.ReadWrite };
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
            case "stat of a path":
                await client.GetStatusAsync("d/e/f");
                break;
            case "stat of a path again":
                await client.GetStatusAsync("d/e/f");
                rig.Messages();
                await client.GetStatusAsync("/d//./e/f");
                break;
            case "stat after a listing":
                await foreach (DirectoryItem item in client.EnumerateAsync("/"))
                {
                    Assert.NotNull(item.Status);
                }

                rig.Messages();
                await client.GetStatusAsync("file");
                break;
            case "stat of nothing again":
                await Assert.ThrowsAsync<VirtioFsException>(async () => await client.GetStatusAsync("nothing"));
                rig.Messages();
                await Assert.ThrowsAsync<VirtioFsException>(async () => await client.GetStatusAsync("nothing"));
                break;
            case "read twice":
                await using (VirtioFsFile file = await client.OpenFileAsync("file"))
                {
                    Assert.Equal(4096, await file.ReadAsync(bytes, 0));
                    Assert.Equal(4096, await file.ReadAsync(bytes, 0));
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
            case "write twice":
                await using (VirtioFsFile file = await client.OpenFileAsync("file", writing))
                {
                    await file.WriteAsync(bytes, 0);
                    await file.WriteAsync(bytes.AsMemory(0, 1000), 4096);
                }

                break;
            case "write, fsync":
                await using (VirtioFsFile file = await client.OpenFileAsync("file", writing))
                {
                    await file.WriteAsync(bytes, 0);
                    await file.FlushAsync();
                }

                break;
            case "write, before fsync" or "write, after fsync":
                await using (VirtioFsFile file = await client.OpenFileAsync("file", writing))
                {
                    rig.Messages();
                    await file.WriteAsync(new byte[5000], 0);
                    if (what == "write, before fsync")
                    {
                        return rig.Messages();
                    }

                    await file.FlushAsync();
                    return rig.Messages();
                }

            case "write, read it back":
                await using (VirtioFsFile file = await client.OpenFileAsync("file", writing))
                {
                    rig.Messages();
                    await file.WriteAsync("xyz"u8.ToArray().Concat(new byte[6000]).ToArray(), 0);
                    Assert.Equal(4096, await file.ReadAsync(bytes, 0));
                    Assert.Equal((byte)'z', bytes[2]);
                    return rig.Messages();
                }

            case "stat after a write":
                await using (VirtioFsFile file = await client.OpenFileAsync("file", writing))
                {
                    await file.WriteAsync(bytes, 3000);
                    rig.Messages();
                    Assert.Equal(7096, (await client.GetStatusAsync("file")).Length);
                    return rig.Messages();
                }

            case "create, stat":
                await (await client.OpenFileAsync("new", OpenFileOptions.ForWriting)).DisposeAsync();
                await client.GetStatusAsync("new");
                break;
            case "unlink, stat" or "rename, stat":
                await client.GetStatusAsync("file");
                rig.Messages();
                await (what[0] == 'u' ? client.DeleteFileAsync("file") : client.RenameAsync("file", "other"));
                await Assert.ThrowsAsync<VirtioFsException>(async () => await client.GetStatusAsync("file"));
                break;
            default:
                throw new ArgumentException(what);
        }

        return rig.Messages();
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
