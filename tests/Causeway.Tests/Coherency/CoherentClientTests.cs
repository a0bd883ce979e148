// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Daemon;
using Causeway.Tests.Driver;
using Causeway.Tests.Server;
using CacheMode = Causeway.Driver.CacheMode;

namespace Causeway.Tests.Coherency;

/// <summary>Clients with <see cref="CacheMode.Coherent"/> on real servers: what is sent, and that nothing old is seen.</summary>
public sealed class CoherentClientTests
{
    private static readonly OpenFileOptions s_writing = new() { Access = FileAccess.ReadWrite };

    // Few words of each kind: most objects share theirs, most names too.
    private static readonly VersionTableLayout s_exhausted = new(2, 2, 2, 16);

    [Fact]
    public async Task A_million_stats_send_nothing_and_one_change_costs_one_request()
    {
        await using var rig = new CoherentRig();
        string[] paths = [.. Enumerable.Range(0, 10_000).Select(i => $"d{i / 1000}/f{i}")];
        foreach (string path in paths)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(rig.Host(path))!);
            File.WriteAllBytes(rig.Host(path), []);
        }

        CoherentRig.Guest a = await rig.AddAsync();
        CoherentRig.Guest b = await rig.AddAsync();
        await StatAllAsync(b.Client, paths, 1);
        b.Messages();
        await StatAllAsync(b.Client, paths, 100);
        Assert.Equal("", b.Messages());

        await a.Client.SetPermissionsAsync("d4/f4711", 0x180);
        await StatAllAsync(b.Client, paths, 1);
        Assert.Equal("GetAttr", b.Messages());
        Assert.Equal(0x180u, (await b.Client.GetStatusAsync("d4/f4711")).Permissions);
        Assert.Equal("", b.Messages());

        // A name: it is looked for again, and what shares its word is not, as long as its directory has not changed.
        await a.Client.DeleteFileAsync("d5/f5000");
        VirtioFsException gone = await Assert.ThrowsAsync<VirtioFsException>(
            async () => await b.Client.GetStatusAsync("d5/f5000"));
        Assert.Equal(Errno.ENOENT, gone.Error);
        await StatAllAsync(b.Client, paths[..5000], 1);
        Assert.Equal("Lookup", b.Messages());
        Assert.False(await b.Client.ExistsAsync("d5/f5000"));
        Assert.Equal("", b.Messages());
        Assert.InRange(b.Client.CacheUsage.Names, 10_000, 10_020);
    }

    [Fact]
    public async Task What_one_client_changes_the_other_sees_in_whatever_way_it_looks()
    {
        await using var rig = new CoherentRig();
        Directory.CreateDirectory(rig.Host("d"));
        File.WriteAllText(rig.Host("d/f"), "old");
        File.CreateSymbolicLink(rig.Host("d/link"), "f");
        CoherentRig.Guest a = await rig.AddAsync();
        CoherentRig.Guest b = await rig.AddAsync();
        VirtioFsClient ours = a.Client;
        await using VirtioFsFile file = await b.Client.OpenFileAsync("d/f");

        // Twice each, the second time from memory.
        await SeeAsync("3 old f f,link -");
        b.Messages();
        await SeeAsync("3 old f f,link -");
        Assert.Equal("", b.Messages());

        await using (VirtioFsFile written = await ours.OpenFileAsync("d/f", s_writing))
        {
            await written.WriteAsync("newer"u8.ToArray(), 0);
            await SeeAsync("5 newer f f,link -");
            await written.SetLengthAsync(3);
            await SeeAsync("3 new f f,link -");
        }

        await ours.SetExtendedAttributeAsync("d/f", "user.x", "1"u8.ToArray());
        await SeeAsync("3 new f f,link 1");
        await ours.CreateSymbolicLinkAsync("d/other", "elsewhere");
        await SeeAsync("3 new f f,link,other 1");
        await ours.RenameAsync("d/other", "d/link");
        await SeeAsync("3 new elsewhere f,link 1");
        b.Messages();
        await SeeAsync("3 new elsewhere f,link 1");
        Assert.Equal("", b.Messages());

        async Task SeeAsync(string expected)
        {
            byte[] data = new byte[10];
            int count = await file.ReadAsync(data, 0);
            var names = new List<string>();
            await foreach (DirectoryItem item in b.Client.EnumerateAsync("d"))
            {
                names.Add(item.Name);
                if (item.Name == "f")
                {
                    Assert.Equal((await b.Client.GetStatusAsync("d/f")).Length, item.Status!.Value.Length);
                }
            }

            // Names that do not exist are not kept of extended attributes, so only one that does is asked for.
            bool hasXattr = expected[^1] != '-';
            byte[]? value = hasXattr ? await b.Client.GetExtendedAttributeAsync("d/f", "user.x") : null;
            string seen = $"{(await b.Client.GetStatusAsync("d/f")).Length} {System.Text.Encoding.ASCII.GetString(data, 0, count)} "
                + $"{await b.Client.ReadLinkAsync("d/link")} {string.Join(',', names.Order(StringComparer.Ordinal))} "
                + (value is null ? "-" : System.Text.Encoding.ASCII.GetString(value));
            Assert.Equal(expected, seen);
        }
    }

    [Fact]
    public async Task A_listing_that_is_kept_shows_the_attributes_of_now_and_asks_for_those_that_have_changed()
    {
        await using var rig = new CoherentRig();
        for (int i = 0; i < 100; i++)
        {
            File.WriteAllText(rig.Host($"f{i}"), "");
        }

        CoherentRig.Guest a = await rig.AddAsync();
        CoherentRig.Guest b = await rig.AddAsync();
        Assert.Equal(100, (await ListAsync()).Count);
        Assert.Equal("OpenDir ReleaseDir ReadDirPlus*2", b.Messages());
        Assert.Equal(100, b.Client.CacheUsage.ListedNames);
        await a.Client.SetPermissionsAsync("f7", 0x124);
        Assert.Equal(0x124u, (await ListAsync())["f7"]);
        Assert.Equal("GetAttr", b.Messages());

        // Many are asked for together.
        for (int i = 0; i < 50; i++)
        {
            await a.Client.SetPermissionsAsync($"f{i}", 0x1A0);
        }

        Assert.Equal(50, (await ListAsync()).Values.Count(permissions => permissions == 0x1A0));
        Assert.Equal("OpenDir ReleaseDir ReadDirPlus*2", b.Messages());
        await a.Client.DeleteFileAsync("f0");
        Assert.Equal(99, (await ListAsync()).Count);
        Assert.Equal("OpenDir ReleaseDir ReadDirPlus*2", b.Messages());

        async Task<Dictionary<string, uint>> ListAsync()
        {
            var seen = new Dictionary<string, uint>();
            await foreach (DirectoryItem item in b.Client.EnumerateAsync("/"))
            {
                seen.Add(item.Name, item.Status!.Value.Permissions);
            }

            return seen;
        }
    }

    [Fact]
    public async Task What_we_write_ourselves_is_kept_and_what_others_write_is_not_mixed_with_it()
    {
        await using var rig = new CoherentRig();
        File.WriteAllText(rig.Host("f"), "0123456789");
        CoherentRig.Guest a = await rig.AddAsync();
        CoherentRig.Guest b = await rig.AddAsync();
        await using VirtioFsFile ours = await a.Client.OpenFileAsync("f", s_writing);
        await using VirtioFsFile theirs = await b.Client.OpenFileAsync("f", s_writing);
        Assert.Equal("0123456789", await ReadAsync(ours));
        a.Messages();
        await ours.WriteAsync("ab"u8.ToArray(), 0);
        Assert.Equal("ab23456789", await ReadAsync(ours));
        Assert.Equal("Write", a.Messages());
        await theirs.WriteAsync("yz"u8.ToArray(), 8);
        await ours.WriteAsync("cd"u8.ToArray(), 2);
        Assert.Equal("abcd4567yz", await ReadAsync(ours));
        Assert.Equal("Read Write", a.Messages());
        Assert.Equal("abcd4567yz", await ReadAsync(theirs));
    }

    [Fact]
    public async Task The_length_of_a_file_that_is_used_as_memory_is_what_it_is_now()
    {
        await using var rig = new CoherentRig();
        File.WriteAllText(rig.Host("f"), "abc");
        CoherentRig.Guest a = await rig.AddAsync();
        CoherentRig.Guest b = await rig.AddAsync(
            options: new VirtioFsClientOptions { Dax = DaxMode.Always }, daxWindow: 8UL << 21);
        await using VirtioFsFile read = await b.Client.OpenFileAsync("f");
        await using VirtioFsFile written = await a.Client.OpenFileAsync("f", s_writing);
        Assert.Equal("abc", await ReadAsync(read));
        await written.WriteAsync("0123456789"u8.ToArray(), 0);
        Assert.Equal("0123456789", await ReadAsync(read));
        await written.SetLengthAsync(2);
        Assert.Equal("01", await ReadAsync(read));
        Assert.NotEqual(0, b.Client.DaxUsage.WindowBytes);

        // Writing through the window: what others cannot see a change of is not kept by anybody.
        await using VirtioFsFile mapped = await b.Client.OpenFileAsync("f", s_writing);
        await mapped.WriteAsync("x"u8.ToArray(), 0);
        Assert.Equal("x1", await ReadAsync(written));
        await mapped.WriteAsync("y"u8.ToArray(), 0);
        Assert.Equal("y1", await ReadAsync(written));
    }

    [Theory]
    [InlineData(CacheMode.Coherent)]
    [InlineData(CacheMode.Auto)]
    public async Task Nothing_old_is_seen_after_the_reply_to_a_change(CacheMode mode)
    {
        await using var rig = new CoherentRig();
        File.WriteAllText(rig.Host("f"), "");
        CoherentRig.Guest a = await rig.AddAsync();
        CoherentRig.Guest b = await rig.AddAsync(mode);
        int trials = mode == CacheMode.Coherent ? 100_000 : 100;
        int stale = 0;
        for (int i = 0; i < trials; i++)
        {
            uint permissions = (uint)(i & 0x1FF);
            await a.Client.SetPermissionsAsync("f", permissions);
            stale += (await b.Client.GetStatusAsync("f")).Permissions == permissions ? 0 : 1;
        }

        // With timeouts it is seen: so this test would find it.
        Assert.Equal(mode == CacheMode.Auto, stale > 0);
    }

    [Fact]
    public async Task A_table_without_room_costs_requests_and_shows_nothing_old()
    {
        await using var rig = new CoherentRig(s_exhausted);
        for (int i = 0; i < 20; i++)
        {
            File.WriteAllText(rig.Host($"f{i}"), "");
        }

        CoherentRig.Guest a = await rig.AddAsync();
        CoherentRig.Guest b = await rig.AddAsync();
        for (int i = 0; i < 2000; i++)
        {
            uint permissions = (uint)(i & 0x1FF);
            await a.Client.SetPermissionsAsync($"f{i % 20}", permissions);
            Assert.Equal(permissions, (await b.Client.GetStatusAsync($"f{i % 20}")).Permissions);
            await a.Client.RenameAsync($"f{i % 20}", "moved");
            Assert.False(await b.Client.ExistsAsync($"f{i % 20}"));
            Assert.True(await b.Client.ExistsAsync("moved"));
            await a.Client.RenameAsync("moved", $"f{i % 20}");
        }

        Assert.InRange(b.Client.CacheUsage.Names, 1, 30);
    }

    [Fact]
    public async Task A_heart_that_stops_costs_requests_and_shows_nothing_old()
    {
        await using var rig = new CoherentRig();
        File.WriteAllText(rig.Host("f"), "");
        CoherentRig.Guest a = await rig.AddAsync();
        await a.Client.GetStatusAsync("f");
        a.Messages();

        // The guest's own watch, too.
        rig.Table.RemoveWatcher();
        HostileDeviceTests.Until(() =>
        {
            a.Client.GetStatusAsync("f").AsTask().GetAwaiter().GetResult();
            return a.Messages().Length > 0;
        });
        await a.Client.SetPermissionsAsync("f", 0x124);
        Assert.Equal(0x124u, (await a.Client.GetStatusAsync("f")).Permissions);

        // And by itself again.
        rig.Table.AddWatcher();
        HostileDeviceTests.Until(() =>
        {
            a.Client.GetStatusAsync("f").AsTask().GetAwaiter().GetResult();
            return a.Messages().Length == 0;
        });
    }

    [Fact]
    public async Task A_client_whose_device_is_gone_answers_nothing_from_memory()
    {
        await using var rig = new CoherentRig();
        File.WriteAllText(rig.Host("f"), "");
        CoherentRig.Guest a = await rig.AddAsync();
        CoherentRig.Guest b = await rig.AddAsync();
        await a.Client.GetStatusAsync("f");
        await b.Client.GetStatusAsync("f");
        a.EndServer();
        HostileDeviceTests.Until(() => a.Client.Transport.Loss is not null);

        // Told of by another thread.
        HostileDeviceTests.Until(() => !a.Client.GetStatusAsync("f").IsCompletedSuccessfully);
        await Assert.ThrowsAsync<VirtioFsDeviceException>(async () => await a.Client.GetStatusAsync("f"));

        // The others go on.
        b.Messages();
        await b.Client.GetStatusAsync("f");
        Assert.Equal("", b.Messages());
    }

    [Fact]
    public async Task A_daemon_that_is_killed_in_the_middle_of_changes_leaves_no_answer_behind_and_the_next_one_is_used()
    {
        using var share = new TemporaryDirectory();
        File.WriteAllText(share.File("f"), "");
        DaemonProcess first = DaemonProcess.Start(share.Path, "--version-table");
        await using VirtioFsClient client = await VirtioFsClient.ConnectAsync(
            first.SocketPath, new VirtioFsClientOptions { Cache = CacheMode.Coherent });
        try
        {
            await client.GetStatusAsync("f");
            Task changes = Task.Run(async () =>
            {
                for (uint i = 0; ; i++)
                {
                    await client.SetPermissionsAsync("f", i & 0x1FF);
                }
            });
            first.Process.Kill();
            await Assert.ThrowsAsync<VirtioFsDeviceException>(() => changes.WaitAsync(TimeSpan.FromSeconds(60)));

            // Told of by another thread.
            HostileDeviceTests.Until(() => !client.GetStatusAsync("f").IsCompletedSuccessfully);
            await Assert.ThrowsAsync<VirtioFsDeviceException>(async () => await client.GetStatusAsync("f"));
        }
        finally
        {
            first.Dispose();
        }

        File.WriteAllText(share.File("f"), "other");
        using DaemonProcess next = DaemonProcess.Start(share.Path, "--version-table", socket: first.SocketPath);
        await client.ReconnectAsync();
        Assert.Equal(5, (await client.GetStatusAsync("f")).Length);
        await client.SetPermissionsAsync("f", 0x124);
        Assert.Equal(0x124u, (await client.GetStatusAsync("f")).Permissions);
        Assert.True(client.GetStatusAsync("f").IsCompletedSuccessfully);
    }

    [Fact]
    public async Task A_daemon_without_a_table_is_refused_with_what_to_do()
    {
        await using var rig = new ClientRig();
        VirtioFsDeviceException exception = await Assert.ThrowsAsync<VirtioFsDeviceException>(
            () => rig.ConnectAsync(new VirtioFsClientOptions { Cache = CacheMode.Coherent }));
        Assert.Equal(DeviceFailure.NotSupported, exception.Failure);
        Assert.Contains("--version-table", exception.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(CacheMode.None)]
    [InlineData(CacheMode.Auto)]
    [InlineData(CacheMode.Always)]
    public async Task A_daemon_with_a_table_serves_clients_that_do_not_know_it(CacheMode mode)
    {
        await using var rig = new CoherentRig();
        File.WriteAllText(rig.Host("f"), "content");
        CoherentRig.Guest guest = await rig.AddAsync(mode);
        Assert.Equal(7, (await guest.Client.GetStatusAsync("f")).Length);
        await foreach (DirectoryItem item in guest.Client.EnumerateAsync("/"))
        {
            Assert.Equal(7, item.Status!.Value.Length);
        }
    }

    [Fact]
    public async Task Keeping_back_what_is_written_is_refused()
    {
        await using var rig = new CoherentRig();
        ArgumentException exception = await Assert.ThrowsAsync<ArgumentException>(
            () => rig.AddAsync(options: new VirtioFsClientOptions { Writes = WriteMode.Back }));
        Assert.Contains("the others would miss", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_stat_of_what_is_kept_allocates_nothing_and_completes_at_once()
    {
        await using var rig = new CoherentRig();
        Directory.CreateDirectory(rig.Host("a/b/c/d"));
        File.WriteAllText(rig.Host("a/b/c/d/e"), "");
        VirtioFsClient client = (await rig.AddAsync()).Client;
        await client.GetStatusAsync("a/b/c/d/e");
        for (int round = 0; round < 2; round++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            bool areAllDone = true;
            for (int i = 0; i < 100; i++)
            {
                areAllDone &= client.GetStatusAsync("a/b/c/d/e").IsCompletedSuccessfully;
                areAllDone &= client.ExistsAsync("a/b/c/d/e").IsCompletedSuccessfully;
            }

            long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            Assert.True(areAllDone);
            Assert.True(round == 0 || allocated == 0, $"{allocated} bytes were allocated");
        }
    }

    private static async Task StatAllAsync(VirtioFsClient client, string[] paths, int rounds)
    {
        for (int round = 0; round < rounds; round++)
        {
            foreach (string path in paths)
            {
                await client.GetStatusAsync(path);
            }
        }
    }

    private static async Task<string> ReadAsync(VirtioFsFile file)
    {
        byte[] data = new byte[100];
        int count = await file.ReadAsync(data, 0);
        return System.Text.Encoding.ASCII.GetString(data, 0, count);
    }
}
