// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Tests.Bridge;
using Causeway.Tests.Daemon;
using Causeway.Tests.Server;

namespace Causeway.Tests.Driver;

/// <summary>The client with a DAX window: files as memory, as far as they are, and by requests otherwise.</summary>
public sealed class DaxClientTests
{
    private const int Slot = DaxClientRig.Slot;

    private static readonly OpenFileOptions s_readWrite = new() { Access = FileAccess.ReadWrite };
    private static readonly TimeSpan s_deadline = TimeSpan.FromSeconds(60);

    [Fact]
    public async Task Reading_costs_one_request_for_each_range_and_then_none()
    {
        const int size = (5 << 20) + 1234;
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), size);
        VirtioFsClient client = await rig.ConnectAsync();
        await using VirtioFsFile file = await client.OpenFileAsync("f");

        byte[] bytes = new byte[size + 5000];
        Assert.Equal(size, await file.ReadAsync(bytes, 0));
        AssertBytes(bytes.AsSpan(0, size), 0);
        Assert.Equal(3, rig.Requests(FuseOpcode.SetupMapping));

        long before = rig.Requests();
        bytes.AsSpan().Clear();
        Assert.Equal(size - Slot + 7, await file.ReadAsync(bytes.AsMemory(0, size - Slot + 7), Slot - 7));
        AssertBytes(bytes.AsSpan(0, size - Slot + 7), Slot - 7);
        Assert.Equal(before, rig.Requests());
        Assert.Equal(0, rig.Requests(FuseOpcode.Read));
        Assert.Equal(new DaxUsage(8L * Slot, CachedRanges: 3, MappedRanges: 0, Faults: 0), client.DaxUsage);

        // What the host stores is read, without anything being asked.
        rig.WriteHost("f", 4 << 20, [200, 201]);
        Assert.Equal(2, await file.ReadAsync(bytes.AsMemory(0, 2), 4 << 20));
        Assert.Equal([200, 201], bytes[..2]);
        Assert.Equal(before, rig.Requests());
    }

    [Theory]
    [InlineData(CacheMode.None)]
    [InlineData(CacheMode.Auto)]
    public async Task The_end_of_a_file_is_where_it_is_now(CacheMode cache)
    {
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), 200_001);
        VirtioFsClient client = await rig.ConnectAsync(cache: cache);
        await using VirtioFsFile file = await client.OpenFileAsync("f", s_readWrite);
        byte[] bytes = new byte[300_000];
        Assert.Equal(1, await file.ReadAsync(bytes.AsMemory(0, 10), 200_000));
        Assert.Equal(0, await file.ReadAsync(bytes, 200_001));
        Assert.Equal(0, await file.ReadAsync(bytes, 1L << 50));

        // Longer by our own hand: the new bytes are in the range that is mapped already.
        await file.WriteAsync(new byte[] { 7, 8 }, 200_001);
        Assert.Equal(1, rig.Requests(FuseOpcode.Write));
        Assert.Equal(3, await file.ReadAsync(bytes.AsMemory(0, 10), 200_000));
        Assert.Equal([7, 8], bytes[1..3]);
        await file.SetLengthAsync(250_000);
        Assert.Equal(250_000, await file.ReadAsync(bytes, 0));
        Assert.Equal(0, bytes[249_999]);

        // Shorter: what comes back later is zero.
        await file.SetLengthAsync(100_000);
        Assert.Equal(100_000, await file.ReadAsync(bytes, 0));
        await file.SetLengthAsync(150_000);
        Assert.Equal(150_000, await file.ReadAsync(bytes, 0));
        AssertBytes(bytes.AsSpan(0, 100_000), 0);
        Assert.Equal(-1, bytes.AsSpan(100_000, 50_000).IndexOfAnyExcept((byte)0));
        Assert.Equal(0, rig.Requests(FuseOpcode.Read));
    }

    [Fact]
    public async Task A_file_that_the_host_makes_longer_is_read_to_its_new_end_once_attributes_are_old()
    {
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), 200_000);
        VirtioFsClient client = await rig.ConnectAsync(cache: CacheMode.None);
        await using VirtioFsFile file = await client.OpenFileAsync("f");
        byte[] bytes = new byte[400_000];
        Assert.Equal(200_000, await file.ReadAsync(bytes, 0));
        DaxGuest.WriteFile(rig.Host("f"), 300_000);
        Assert.Equal(300_000, await file.ReadAsync(bytes, 0));
        AssertBytes(bytes.AsSpan(0, 300_000), 0);
    }

    [Fact]
    public async Task Writing_inside_a_file_is_storing()
    {
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), 5 << 20);
        VirtioFsClient client = await rig.ConnectAsync();
        await using (VirtioFsFile reader = await client.OpenFileAsync("f"))
        {
            // Mapped for reading first: the first write maps it again.
            Assert.Equal(1, await reader.ReadAsync(new byte[1], Slot));
            await using VirtioFsFile file = await client.OpenFileAsync("f", s_readWrite);
            byte[] written = new byte[3 << 20];
            Array.Fill(written, (byte)9);
            await file.WriteAsync(written, 1 << 20);
            Assert.Equal(3, rig.Requests(FuseOpcode.SetupMapping));
            long before = rig.Requests();
            await file.WriteAsync(written, 1 << 20);
            Assert.Equal(before, rig.Requests());
            byte[] read = new byte[1];
            Assert.Equal(1, await reader.ReadAsync(read, (4 << 20) - 1));
            Assert.Equal(9, read[0]);
            await Assert.ThrowsAsync<VirtioFsException>(async () => await reader.WriteAsync(written, 0));
        }

        Assert.Equal(0, rig.Requests(FuseOpcode.Write, FuseOpcode.Read));
        Assert.Equal(-1, rig.ReadHost("f", 1 << 20, 3 << 20).AsSpan().IndexOfAnyExcept((byte)9));
        AssertBytes(rig.ReadHost("f", 4 << 20, 1 << 20), 4 << 20);
    }

    [Fact]
    public async Task Writes_that_change_more_than_bytes_are_requests()
    {
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), 200_000);
        File.SetUnixFileMode(rig.Host("f"), UnixFileMode.SetUser | UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        VirtioFsClient client = await rig.ConnectAsync();
        await using (VirtioFsFile file = await client.OpenFileAsync("f", s_readWrite))
        {
            await file.WriteAsync(new byte[] { 1 }, 0);
        }

        Assert.Equal(1, rig.Requests(FuseOpcode.Write));
        await using VirtioFsFile appended = await client.OpenFileAsync(
            "f", new OpenFileOptions { Access = FileAccess.ReadWrite, IsAppending = true });
        await appended.WriteAsync(new byte[] { 1, 2 }, 0);
        Assert.Equal(2, rig.Requests(FuseOpcode.Write));
        Assert.Equal([1, 2], rig.ReadHost("f", 200_000, 2));
    }

    [Fact]
    public async Task Modes_choose_as_the_ones_of_Linux_do()
    {
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("small"), 5000);
        DaxGuest.WriteFile(rig.Host("large"), 200_000);
        foreach ((DaxMode mode, int slots, string name, bool isMapped) in
            ((DaxMode, int, string, bool)[])[
                (DaxMode.Inode, 8, "large", true),
                (DaxMode.Inode, 8, "small", false),
                (DaxMode.Always, 8, "large", true),
                (DaxMode.Always, 8, "small", true),
                (DaxMode.Never, 8, "large", false),
                (DaxMode.Always, 0, "large", false)])
        {
            VirtioFsClient client = await rig.ConnectAsync(mode, slots);
            long reads = rig.Requests(FuseOpcode.Read);
            long mappings = rig.Requests(FuseOpcode.SetupMapping);
            await using VirtioFsFile file = await client.OpenFileAsync(name);
            byte[] bytes = new byte[5000];
            Assert.Equal(5000, await file.ReadAsync(bytes, 0));
            AssertBytes(bytes, 0);
            Assert.Equal((mode, name, isMapped ? 0 : 1), (mode, name, rig.Requests(FuseOpcode.Read) - reads));
            Assert.Equal((mode, name, isMapped ? 1 : 0), (mode, name, rig.Requests(FuseOpcode.SetupMapping) - mappings));
            if (mode == DaxMode.Never || slots == 0)
            {
                VirtioFsException refused = await Assert.ThrowsAsync<VirtioFsException>(async () => await file.MapAsync());
                Assert.Equal(Errno.EOPNOTSUPP, refused.Error);
                Assert.Equal(default, client.DaxUsage);
            }
        }
    }

    [Fact]
    public async Task A_set_of_files_larger_than_the_window_is_read_and_written_by_many_at_the_same_time()
    {
        const int size = 12 * Slot;
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("a"), size);
        DaxGuest.WriteFile(rig.Host("b"), size);
        VirtioFsClient client = await rig.ConnectAsync(DaxMode.Always, slots: 4);
        await using VirtioFsFile a = await client.OpenFileAsync("a");
        await using VirtioFsFile b = await client.OpenFileAsync("b", s_readWrite);
        await Task.WhenAll(Enumerable.Range(0, 4).Select(worker => Task.Run(async () =>
        {
            var random = new Random(worker);
            byte[] bytes = new byte[10_000];
            for (int i = 0; i < 300; i++)
            {
                long offset = random.Next(size - bytes.Length);
                VirtioFsFile file = i % 3 == 0 ? b : a;
                Assert.Equal(bytes.Length, await file.ReadAsync(bytes, offset));
                AssertBytes(bytes, offset);
                if (i % 3 == 0)
                {
                    // The same bytes again, so that every reader knows what to expect.
                    await b.WriteAsync(bytes, offset);
                }
            }
        }))).WaitAsync(s_deadline);
        Assert.Equal(4, client.DaxUsage.CachedRanges);
        Assert.Equal(0, client.DaxUsage.Faults);
    }

    [Fact]
    public async Task The_range_used_longest_ago_goes_first()
    {
        await using DaxClientRig rig = new();
        (VirtioFsClient client, VirtioFsFile opened) = await rig.OpenAsync(size: 5 * Slot, DaxMode.Always, slots: 4);
        await using VirtioFsFile file = opened;
        byte[] one = new byte[1];
        foreach (int range in (int[])[0, 1, 2, 3, 0, 4, 0, 2, 3, 4])
        {
            Assert.Equal(1, await file.ReadAsync(one, range * (long)Slot));
        }

        // 4 took the place of 1.
        Assert.Equal(5, rig.Requests(FuseOpcode.SetupMapping));
        Assert.Equal(1, await file.ReadAsync(one, Slot));
        Assert.Equal(6, rig.Requests(FuseOpcode.SetupMapping));
    }

    [Fact]
    public async Task What_the_host_cuts_off_a_mapped_file_is_an_end_and_no_signal()
    {
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), 2 * Slot);
        VirtioFsClient client = await rig.ConnectAsync(cache: CacheMode.None);
        await using VirtioFsFile file = await client.OpenFileAsync("f", s_readWrite);
        byte[] bytes = new byte[8192];
        Assert.Equal(8192, await file.ReadAsync(bytes, 3 << 20));

        rig.ResizeHost("f", 1 << 20);
        Assert.Equal(0, await file.ReadAsync(bytes, 3 << 20));
        Assert.InRange(client.DaxUsage.Faults, 1, 4);
        Assert.Equal(0, await file.ReadAsync(bytes, 1 << 20));
        Assert.Equal(4096, await file.ReadAsync(bytes, (1 << 20) - 4096));
        AssertBytes(bytes.AsSpan(0, 4096), (1 << 20) - 4096);

        // A write there makes it longer, as any write does.
        rig.ResizeHost("f", 2 * Slot);
        Assert.Equal(1, await file.ReadAsync(bytes.AsMemory(0, 1), 3 << 20));
        rig.ResizeHost("f", 1 << 20);
        long faults = client.DaxUsage.Faults;
        await file.WriteAsync(new byte[] { 5, 6 }, 3 << 20);
        Assert.True(client.DaxUsage.Faults > faults);
        Assert.Equal([5, 6], rig.ReadHost("f", 3 << 20, 2));
        Assert.Equal((3 << 20) + 2, new FileInfo(rig.Host("f")).Length);

        // And it is memory again.
        Assert.Equal(2, await file.ReadAsync(bytes.AsMemory(0, 2), 3 << 20));
        Assert.Equal([5, 6], bytes[..2]);
        long before = rig.Requests();
        faults = client.DaxUsage.Faults;
        Assert.Equal(2, await file.ReadAsync(bytes.AsMemory(0, 2), 3 << 20));
        Assert.Equal((before, faults), (rig.Requests(), client.DaxUsage.Faults));
    }

    [Fact]
    public async Task A_guest_that_resizes_a_file_all_the_time_disturbs_nobody_who_reads_the_rest()
    {
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), 2 * Slot);
        VirtioFsClient reading = await rig.ConnectAsync();
        VirtioFsClient resizing = await rig.ConnectAsync();
        await using VirtioFsFile file = await reading.OpenFileAsync("f");
        await using VirtioFsFile resized = await resizing.OpenFileAsync("f", s_readWrite);
        using var end = new CancellationTokenSource();
        Task reader = Task.Run(async () =>
        {
            byte[] bytes = new byte[100_000];
            for (long round = 0; !end.IsCancellationRequested; round++)
            {
                long offset = round * 77_777 % (2 * Slot);
                int count = await file.ReadAsync(bytes, offset);
                for (int i = 0; i < count; i++)
                {
                    // Cut off and grown again, it is zero.
                    Assert.True(bytes[i] == DaxGuest.ByteAt(offset + i) || (bytes[i] == 0 && offset + i >= (1 << 20) + 5));
                }

                Assert.True(count == bytes.Length || offset + count >= (1 << 20) + 5);
            }
        });
        for (int i = 0; i < 100; i++)
        {
            await resized.SetLengthAsync((1 << 20) + 5);
            await resized.SetLengthAsync(2 * Slot);
        }

        await end.CancelAsync();
        await reader.WaitAsync(s_deadline);
    }

    [Fact]
    public async Task A_mapping_is_the_memory_of_all_who_map_the_file()
    {
        const int offset = Slot - 100;
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), 3 * Slot);
        VirtioFsClient one = await rig.ConnectAsync();
        VirtioFsClient other = await rig.ConnectAsync();
        using VirtioFsMapping mine = await one.MapAsync("f", MappingAccess.ReadWrite, offset, Slot);
        using VirtioFsMapping yours = await other.MapAsync("f");
        Assert.Equal((Slot, 3 * Slot), (mine.Length, yours.Length));
        AssertBytes(mine.Memory.Span, offset);
        AssertBytes(yours.ReadOnlyMemory.Span, 0);
        Assert.Throws<InvalidOperationException>(() => yours.Memory);
        Assert.Equal(2, rig.Requests(FuseOpcode.SetupMapping));

        long before = rig.Requests();
        mine.Memory.Span[150] = 77;
        Assert.Equal(77, yours.ReadOnlyMemory.Span[offset + 150]);
        Assert.Equal(77, rig.ReadHost("f", offset + 150, 1)[0]);
        Assert.Equal(before, rig.Requests());
        mine.ThrowIfNotIntact();
        Assert.Equal(2, one.DaxUsage.MappedRanges);

        await Assert.ThrowsAsync<ArgumentOutOfRangeException>(async () => await one.MapAsync("f", offset: 3 * Slot));
        await Assert.ThrowsAsync<ArgumentOutOfRangeException>(async () => await one.MapAsync("f", offset: 1, length: 3 * Slot));
    }

    [Fact]
    public async Task Touching_what_was_cut_off_a_mapping_is_an_error_of_that_mapping_alone()
    {
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), 2 * Slot);
        VirtioFsClient client = await rig.ConnectAsync();
        VirtioFsClient other = await rig.ConnectAsync();
        using VirtioFsMapping mapping = await client.MapAsync("f", MappingAccess.ReadWrite);
        using VirtioFsMapping first = await client.MapAsync("f", length: 1000);

        // By a guest of the same daemon, and by the host.
        await using (VirtioFsFile file = await other.OpenFileAsync("f", s_readWrite))
        {
            await file.SetLengthAsync(Slot + (1 << 20));
        }

        Assert.True(mapping.IsIntact);
        Assert.Equal(0, mapping.Memory.Span[Slot + (1 << 20) + 5000]);
        mapping.Memory.Span[Slot + (1 << 20) + 9000] = 1;
        rig.ResizeHost("f", Slot);
        Assert.Equal(0, mapping.Memory.Span[Slot + 5000]);
        Assert.Equal(3, client.DaxUsage.Faults);
        Assert.Equal(Errno.EIO, Assert.Throws<VirtioFsException>(mapping.ThrowIfNotIntact).Error);
        Assert.True(first.IsIntact);
        AssertBytes(mapping.Memory.Span[..Slot], 0);
        mapping.Dispose();

        // Its ranges are as good as new.
        using VirtioFsMapping again = await client.MapAsync("f");
        AssertBytes(again.ReadOnlyMemory.Span, 0);
        again.ThrowIfNotIntact();
        Assert.Throws<ObjectDisposedException>(() => mapping.GetSpan());
    }

    [Fact]
    public async Task A_thousand_mappings_come_and_go_and_make_room_for_each_other()
    {
        await using DaxClientRig rig = new();
        (VirtioFsClient client, VirtioFsFile opened) = await rig.OpenAsync(size: 4 * Slot, DaxMode.Always, slots: 4);
        await using VirtioFsFile file = opened;
        byte[] one = new byte[1];
        for (int i = 0; i < 1000; i++)
        {
            using VirtioFsMapping mapping = await file.MapAsync(i % 2 * Slot, Slot + 1);
            Assert.Equal(DaxGuest.ByteAt(i % 2 * Slot), mapping.ReadOnlyMemory.Span[0]);
            Assert.Equal(1, await file.ReadAsync(one, i % 4 * (long)Slot));
        }

        using (await file.MapAsync(0, (3 * Slot) + 1))
        {
            // No room: an error for a mapping, a request for a read.
            VirtioFsException full = await Assert.ThrowsAsync<VirtioFsException>(async () => await file.MapAsync(0, 1));
            Assert.Equal(Errno.ENOMEM, full.Error);
            Assert.Equal(0, rig.Requests(FuseOpcode.Read));
            Assert.Equal(1, await file.ReadAsync(one, 1));
            Assert.Equal(DaxGuest.ByteAt(1), one[0]);
            Assert.Equal(1, rig.Requests(FuseOpcode.Read));
        }

        using VirtioFsMapping last = await file.MapAsync(0, 4 * Slot);
        AssertBytes(last.ReadOnlyMemory.Span, 0);
    }

    [Fact]
    public async Task Who_maps_a_file_waits_for_copies_from_what_has_to_go()
    {
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), 2 * Slot);
        VirtioFsClient client = await rig.ConnectAsync(DaxMode.Always, slots: 2);
        await using VirtioFsFile file = await client.OpenFileAsync("f");
        byte[] one = new byte[1];
        Assert.Equal(1, await file.ReadAsync(one, 0));
        Assert.Equal(1, await file.ReadAsync(one, Slot));
        MappedNode mapped = file.Session.Nodes.Find(file.NodeId)!.Mapped!;
        Task<VirtioFsMapping> mapping;
        using (new CopyUnderWay(file.Session.Window!, mapped, 1))
        {
            mapping = file.MapAsync(0, 2 * Slot).AsTask();
            await file.GetStatusAsync();
        }

        using VirtioFsMapping whole = await mapping.WaitAsync(s_deadline);
        AssertBytes(whole.ReadOnlyMemory.Span, 0);

        // And as long as the copy goes on, it is not given up: it has run up to there when the call returns.
        whole.Dispose();
        Assert.Equal(1, await file.ReadAsync(one, 0));
        ValueTask<Result<WindowRange>> waiting;
        bool isWaiting;
        using (new CopyUnderWay(file.Session.Window!, mapped, 0))
        {
            waiting = file.Session.Window!.MapAsync(file.NodeId, new HandleId(ulong.MaxValue), 0, 2, isWritable: false);
            isWaiting = !waiting.IsCompleted;
        }

        Assert.True(isWaiting);
        Result<WindowRange> result = await waiting.AsTask().WaitAsync(s_deadline);
        Assert.Equal(Errno.Success, result.Error);
        file.Session.Window.Unmap(result.Value, 2);
    }

    [Fact]
    public async Task A_mapping_survives_a_daemon_that_is_killed()
    {
        Assert.SkipUnless(File.Exists(DaemonProcess.NativeBinary), "NOT TESTED: no artifacts/causeway; run ./build");
        using var share = new TemporaryDirectory();
        DaxGuest.WriteFile(share.File("f"), Slot);
        using DaemonProcess daemon = DaemonProcess.Start(share.Path, "--sandbox none --exclusive --dax=16M");
        await using VirtioFsClient client = await VirtioFsClient.ConnectAsync(
            daemon.SocketPath, new VirtioFsClientOptions { Dax = DaxMode.Always });
        using VirtioFsMapping mapping = await client.MapAsync("f", MappingAccess.ReadWrite);
        AssertBytes(mapping.Memory.Span[..4096], 0);

        daemon.Process.Kill();
        await daemon.Process.WaitForExitAsync().WaitAsync(s_deadline);
        AssertBytes(mapping.Memory.Span[4096..], 4096);
        mapping.Memory.Span[5000] = 0x5a;
        Assert.True(mapping.IsIntact);
        Assert.Equal(0x5a, File.ReadAllBytes(share.File("f"))[5000]);
        await Assert.ThrowsAsync<VirtioFsDeviceException>(async () => await client.GetStatusAsync("not asked for yet"));
    }

    [Fact]
    public async Task An_orderly_end_of_the_device_takes_a_mapping_along_and_nobody_dies()
    {
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), Slot);
        VirtioFsClient client = await rig.ConnectAsync();
        using VirtioFsMapping mapping = await client.MapAsync("f", MappingAccess.ReadWrite);
        VirtioFsFile file = await client.OpenFileAsync("f");
        byte[] bytes = new byte[4096];
        Assert.Equal(4096, await file.ReadAsync(bytes, 0));

        // An orderly end takes the mappings along; who touches one then learns of it.
        rig.EndFirstDevice();
        _ = mapping.Memory.Span[0];
        _ = mapping.IsIntact;
        await client.DisposeAsync();
        _ = mapping.Memory.Span[4096];
        await Assert.ThrowsAnyAsync<Exception>(async () => await file.ReadAsync(bytes, 0));
    }

    [Fact]
    public async Task Disposing_of_the_client_waits_for_copies()
    {
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), 2 * Slot);
        for (int round = 0; round < 5; round++)
        {
            VirtioFsClient client = await rig.ConnectAsync();
            VirtioFsFile file = await client.OpenFileAsync("f");
            var started = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            Task[] readers = [.. Enumerable.Range(0, 2).Select(_ => Task.Run(async () =>
            {
                byte[] bytes = new byte[1 << 20];
                try
                {
                    while (true)
                    {
                        int count = await file.ReadAsync(bytes, 1 << 20);
                        started.TrySetResult();
                        Assert.Equal(bytes.Length, count);
                        AssertBytes(bytes.AsSpan(0, 5000), 1 << 20);
                    }
                }
                catch (Exception exception) when (exception is VirtioFsDeviceException or ObjectDisposedException)
                {
                    // The end.
                }
            }))];
            await started.Task.WaitAsync(s_deadline);
            await client.DisposeAsync();
            await Task.WhenAll(readers).WaitAsync(s_deadline);
        }
    }

    [Fact]
    public async Task Files_that_are_forgotten_give_their_ranges_back()
    {
        await using DaxClientRig rig = new();
        VirtioFsClient client = await rig.ConnectAsync(cache: CacheMode.None);
        for (int i = 0; i < 3; i++)
        {
            DaxGuest.WriteFile(rig.Host($"f{i}"), 200_000);
            await using (VirtioFsFile file = await client.OpenFileAsync($"f{i}"))
            {
                Assert.Equal(1, await file.ReadAsync(new byte[1], 0));
                Assert.Equal(1, client.DaxUsage.CachedRanges);
            }

            Assert.Equal(0, client.DaxUsage.CachedRanges);
        }

        Assert.Equal(3, rig.Requests(FuseOpcode.SetupMapping));
        Assert.True(SpinWait.SpinUntil(() => rig.Requests(FuseOpcode.RemoveMapping) == 3, s_deadline));
    }

    [Fact]
    public async Task Nothing_is_allocated_once_everything_is_mapped()
    {
        await using DaxClientRig rig = new();
        DaxGuest.WriteFile(rig.Host("f"), 4 * Slot);
        VirtioFsClient client = await rig.ConnectAsync();
        await using VirtioFsFile file = await client.OpenFileAsync("f", s_readWrite);
        byte[] bytes = new byte[4096];
        Work();
        long before = rig.Requests();
        Assert.Equal(0, Allocations.Least(Work));
        Assert.Equal(before, rig.Requests());

        void Work()
        {
            for (int i = 0; i < 4000; i++)
            {
                long offset = i * 61_441L % ((4 * Slot) - bytes.Length);
                ValueTask<int> read = file.ReadAsync(bytes, offset);
                _ = read.IsCompletedSuccessfully ? read.Result : read.AsTask().GetAwaiter().GetResult();
                ValueTask write = file.WriteAsync(bytes, offset);
                if (!write.IsCompletedSuccessfully)
                {
                    write.AsTask().GetAwaiter().GetResult();
                }
            }
        }
    }

    /// <summary>A thread that has begun to copy from a part of a file, and ends when told to.</summary>
    private sealed unsafe class CopyUnderWay : IDisposable
    {
        private readonly ManualResetEventSlim _begun = new();
        private readonly ManualResetEventSlim _end = new();
        private readonly Thread _thread;

        public CopyUnderWay(ClientWindow window, MappedNode file, int fileIndex)
        {
            MappedPlace place = file.Find(fileIndex);
            Assert.False(place.IsNowhere);
            byte* address = window.AddressOf(place);
            _thread = new Thread(() =>
            {
                nint* mark = CopyMark.OfThread;
                Volatile.Write(ref *mark, (nint)address);
                _begun.Set();
                _end.Wait();
                Volatile.Write(ref *mark, 0);
            });
            _thread.Start();
            _begun.Wait();
        }

        public void Dispose()
        {
            _end.Set();
            _thread.Join();
            _begun.Dispose();
            _end.Dispose();
        }
    }

    private static void AssertBytes(ReadOnlySpan<byte> bytes, long offset)
    {
        for (int i = 0; i < bytes.Length; i++)
        {
            if (bytes[i] != DaxGuest.ByteAt(offset + i))
            {
                Assert.Fail($"at {offset + i} is {bytes[i]} instead of {DaxGuest.ByteAt(offset + i)}");
            }
        }
    }
}
