// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Globalization;
using Causeway.Driver;
using Causeway.Linux;
using Causeway.Tests.Bridge;
using Causeway.Tests.Daemon;

namespace Causeway.Tests.Driver;

/// <summary>Space, holes, copies, files without a name and syncing, against the daemons that people run.</summary>
public sealed class ClientRangeTests
{
    private const int Block = 4096;

    private static readonly OpenFileOptions s_new = new() { Mode = FileMode.CreateNew, Access = FileAccess.ReadWrite };

    [Theory]
    [InlineData("causeway", CacheMode.None, WriteMode.Through, "TMPFILE STATX")]
    [InlineData("causeway", CacheMode.Auto, WriteMode.Back, "TMPFILE STATX")]
    [InlineData("causeway", CacheMode.Always, WriteMode.Through, "TMPFILE STATX")]
    [InlineData("Debian's virtiofsd", CacheMode.Auto, WriteMode.Back, "")]
    [InlineData("Rust virtiofsd", CacheMode.Auto, WriteMode.Back, "")]
    public async Task A_program_changes_ranges_of_files_of_a_share(string daemon, CacheMode mode, WriteMode writes, string beyond)
    {
        using var share = new TemporaryDirectory();
        using ForeignDaemon server = ForeignDaemon.Start(daemon, share.Path);
        await using VirtioFsClient client = await server.ConnectAsync(
            new VirtioFsClientOptions { Cache = mode, Writes = writes });

        await ChangeSpaceAsync(client, share);
        await CopyAsync(client, share);
        await SyncAsync(client, share);
        string[] known = [];
        if (await WithoutNameAsync(client, share))
        {
            known = ["TMPFILE"];
        }

        if (await client.GetBirthTimeAsync("ranges") is { } birth)
        {
            known = [.. known, "STATX"];
            decimal seconds = decimal.Parse(Shell.Run(share.Path, "stat -c %.7W ranges"), CultureInfo.InvariantCulture);
            Assert.Equal((long)(seconds * TimeSpan.TicksPerSecond), (birth - DateTimeOffset.UnixEpoch).Ticks);
            Assert.NotNull(await client.GetBirthTimeAsync("/"));
        }

        Assert.Equal(beyond, string.Join(' ', known));
        Assert.Equal((0, 0L), (client.Transport.RentedCalls, client.Transport.MalformedReplies));
    }

    [Fact]
    public async Task What_cannot_be_done_with_a_range_is_an_error_with_its_errno()
    {
        await using var rig = new ClientRig();
        File.WriteAllText(rig.Host("file"), "content");
        VirtioFsClient client = await rig.ConnectAsync();
        await using VirtioFsFile reading = await client.OpenFileAsync("file");
        await using VirtioFsFile writing = await client.OpenFileAsync("file", new OpenFileOptions { Access = FileAccess.Write });
        await using VirtioFsFile both = await client.OpenFileAsync("file", new OpenFileOptions { Access = FileAccess.ReadWrite });

        Assert.Equal(Errno.EBADF, await ErrorAsync(reading.ChangeSpaceAsync(0, 1)));
        Assert.Equal(Errno.EBADF, await ErrorAsync(writing.CopyRangeAsync(0, both, 0, 1)));
        Assert.Equal(Errno.EBADF, await ErrorAsync(both.CopyRangeAsync(0, reading, 0, 1)));
        Assert.Equal(Errno.EINVAL, await ErrorAsync(both.CopyRangeAsync(0, both, 1, 5)));
        Assert.Equal(Errno.EFBIG, await ErrorAsync(writing.ChangeSpaceAsync(long.MaxValue - 10, 100)));
        Assert.Equal(Errno.ENOENT, await ErrorAsync(client.CreateTemporaryFileAsync("nothing")));
        Assert.Equal(Errno.ENOTDIR, await ErrorAsync(client.CreateTemporaryFileAsync("file")));
        Assert.Equal(Errno.EEXIST, await ErrorAsync(client.CreateHardLinkAsync("file", reading)));
        Assert.Null(await both.FindDataAsync(7));
        Assert.Null(await both.FindHoleAsync(1 << 20));
        Assert.Equal(0, await both.CopyRangeAsync(7, both, 100, 5));
        Assert.Equal("content", File.ReadAllText(rig.Host("file")));
    }

    private static async Task ChangeSpaceAsync(VirtioFsClient client, TemporaryDirectory share)
    {
        byte[] content = new byte[64 * Block];
        new Random(9).NextBytes(content);
        await using VirtioFsFile file = await client.OpenFileAsync("ranges", s_new);
        await file.WriteAsync(content, 0);
        Assert.Equal(content, await ReadAsync(file));

        // What was cached before must not come back.
        await file.ChangeSpaceAsync(8 * Block, 16 * Block, SpaceChange.PunchHole);
        content.AsSpan(8 * Block, 16 * Block).Clear();
        Assert.Equal(content, await ReadAsync(file));
        Assert.Equal(content, File.ReadAllBytes(share.File("ranges")));
        Assert.Equal(8 * Block, await file.FindHoleAsync(Block));
        Assert.Equal(24 * Block, await file.FindDataAsync(9 * Block));
        Assert.Equal(9 * Block, await file.FindHoleAsync(9 * Block));
        Assert.Equal(64 * Block, await file.FindHoleAsync(24 * Block));
        Assert.Null(await file.FindDataAsync(64 * Block));
        string space = Shell.Run(share.Path, "stat -c %b ranges");
        Assert.Equal(
            long.Parse(space, CultureInfo.InvariantCulture) * 512, (await file.GetStatusAsync()).AllocatedBytes);

        await file.ChangeSpaceAsync(32 * Block, Block, SpaceChange.ZeroOnly);
        content.AsSpan(32 * Block, Block).Clear();
        Assert.Equal(content, await ReadAsync(file));

        await file.ChangeSpaceAsync(64 * Block, Block, SpaceChange.ReserveOnly);
        Assert.Equal(64 * Block, (await file.GetStatusAsync()).Length);
        await file.ChangeSpaceAsync(64 * Block, 2 * Block);
        Assert.Equal(66 * Block, (await file.GetStatusAsync()).Length);
        await file.ChangeSpaceAsync(66 * Block, Block, SpaceChange.Zero);
        Assert.Equal(67 * Block, (await client.GetStatusAsync("ranges")).Length);

        // Written and not sent yet, in a hole.
        await file.WriteAsync(new byte[] { 1 }, 12 * Block);
        Assert.Equal(12 * Block, await file.FindDataAsync(9 * Block));
    }

    private static async Task CopyAsync(VirtioFsClient client, TemporaryDirectory share)
    {
        byte[] content = new byte[300_000];
        new Random(10).NextBytes(content);
        await using VirtioFsFile source = await client.OpenFileAsync("source", s_new);
        await using VirtioFsFile destination = await client.OpenFileAsync("destination", s_new);
        await source.WriteAsync(content, 0);
        await destination.WriteAsync(new byte[100_000], 0);
        Assert.Equal(100_000, (await ReadAsync(destination)).Length);
        long done = 0;
        while (done < 299_000)
        {
            long count = await source.CopyRangeAsync(1000 + done, destination, 50_000 + done, 299_000 - done);
            Assert.InRange(count, 1, 299_000 - done);
            done += count;
        }

        Assert.Equal(0, await source.CopyRangeAsync(300_000, destination, 0, 1));
        Assert.Equal(349_000, (await destination.GetStatusAsync()).Length);
        byte[] expected = [.. new byte[50_000], .. content[1000..]];
        Assert.Equal(expected, await ReadAsync(destination));
        Assert.Equal(expected, File.ReadAllBytes(share.File("destination")));
    }

    private static async Task SyncAsync(VirtioFsClient client, TemporaryDirectory share)
    {
        await using VirtioFsFile one = await client.OpenFileAsync("one", s_new);
        await using VirtioFsFile two = await client.OpenFileAsync("two", s_new);
        await one.WriteAsync("one"u8.ToArray(), 0);
        await two.WriteAsync("two"u8.ToArray(), 0);
        await client.SyncFileSystemAsync();
        Assert.Equal("one two", $"{File.ReadAllText(share.File("one"))} {File.ReadAllText(share.File("two"))}");
        Assert.Equal(0, client.CacheUsage.DirtyBytes);
    }

    /// <returns>Whether the device knows TMPFILE.</returns>
    private static async Task<bool> WithoutNameAsync(VirtioFsClient client, TemporaryDirectory share)
    {
        VirtioFsFile made;
        try
        {
            made = await client.CreateTemporaryFileAsync("/", permissions: 0x1A0);
        }
        catch (VirtioFsException exception) when (exception.Error == Errno.ENOSYS)
        {
            return false;
        }

        string[] before = Directory.GetFileSystemEntries(share.Path);
        await using (VirtioFsFile file = made)
        {
            await file.WriteAsync("content"u8.ToArray(), 0);
            Assert.Equal("content"u8.ToArray(), await ReadAsync(file));
            Assert.Equal((0u, 0x1A0u), ((await file.GetStatusAsync()).LinkCount, (await file.GetStatusAsync()).Permissions));
            Assert.Equal(before, Directory.GetFileSystemEntries(share.Path));
            await client.CreateHardLinkAsync("named", file);
            Assert.Equal(1u, (await file.GetStatusAsync()).LinkCount);
        }

        Assert.Equal("content", File.ReadAllText(share.File("named")));
        await (await client.CreateTemporaryFileAsync("/", FileAccess.Write)).DisposeAsync();
        Assert.Equal(before.Length + 1, Directory.GetFileSystemEntries(share.Path).Length);
        return true;
    }

    private static async Task<byte[]> ReadAsync(VirtioFsFile file)
    {
        byte[] content = new byte[2 << 20];
        int length = 0;
        for (int more = -1; more != 0; length += more)
        {
            more = await file.ReadAsync(content.AsMemory(length), length);
        }

        return content[..length];
    }

    private static async Task<Errno> ErrorAsync(ValueTask action) =>
        (await Assert.ThrowsAsync<VirtioFsException>(async () => await action)).Error;

    private static async Task<Errno> ErrorAsync<T>(ValueTask<T> action) =>
        (await Assert.ThrowsAsync<VirtioFsException>(async () => await action)).Error;
}
