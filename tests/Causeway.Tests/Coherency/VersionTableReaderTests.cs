using System.Buffers.Binary;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Coherency;

/// <summary>The driver's view of the version table, over the server's own and over forged ones.</summary>
public sealed class VersionTableReaderTests : IDisposable
{
    private static readonly VersionTableLayout s_layout = new(64, 64, 16, 16);

    private readonly VersionTable _table = VersionTable.Create(s_layout);
    private long _now = 1000;

    [Fact]
    public void What_was_read_after_a_version_is_current_until_a_change_begins()
    {
        using VersionTableReader reader = Open();
        uint word = VersionTable.WordOfSlot(3);
        ulong version = _table.ReadVersion(word);
        Assert.True(reader.IsPair(word));
        Assert.True(reader.IsCurrent(word, version));
        _table.Begin(word);
        Assert.False(reader.IsCurrent(word, version));
        _table.Cancel(word);
        Assert.True(reader.IsCurrent(word, version));
        _table.Begin(word);
        ulong after = _table.End(word);
        Assert.False(reader.IsCurrent(word, version));
        Assert.True(reader.IsCurrent(word, after));

        ulong epoch = reader.Epoch;
        Assert.Equal(_table.Epoch, epoch);
        _table.AdvanceEpoch();
        Assert.NotEqual(epoch, reader.Epoch);
    }

    [Fact]
    public void Only_words_of_the_table_can_be_looked_at()
    {
        using VersionTableReader reader = Open();
        uint end = (uint)(s_layout.RegionSize / 8);
        Assert.False(reader.IsPair(0) || reader.IsName(0));
        Assert.False(reader.IsPair(VersionTableLayout.EpochWord) || reader.IsName(VersionTableLayout.EpochWord));
        Assert.False(reader.IsPair(end) || reader.IsName(end));
        Assert.False(reader.IsPair(uint.MaxValue) || reader.IsName(uint.MaxValue));
        Assert.False(reader.IsPair(VersionTable.WordOfSlot(0) + 1), "CONTENT is not the first of a pair");
        Assert.True(reader.IsPair(_table.SharedWordOf(5)));
        Assert.True(reader.IsName(_table.WordOfName(1, "name"u8)));
    }

    [Fact]
    public void Words_are_believed_for_a_second_from_the_sample_before_the_one_that_saw_the_beat()
    {
        using VersionTableReader reader = Open();
        _table.AddWatcher();
        Assert.False(reader.IsAlive, "never seen to move");
        reader.Sample();
        Assert.False(reader.IsAlive, "one sample says nothing");
        AwaitBeat(reader);
        _now = 1100;
        reader.Sample();
        _now = 2000;
        Assert.True(reader.IsAlive);
        Assert.True(reader.IsCurrent(_table.Epoch));
        _now = 2001;
        Assert.False(reader.IsAlive, "the beat may have moved right after the sample at 1000");
        Assert.False(reader.IsCurrent(_table.Epoch));

        // It goes on by itself.
        AwaitBeat(reader);
        reader.Sample();
        _now = 2050;
        Assert.True(reader.IsAlive);
    }

    [Fact]
    public void A_heart_that_stops_ends_belief()
    {
        using VersionTableReader reader = Open();
        reader.Sample();
        _table.AddWatcher();
        AwaitBeat(reader);
        _table.RemoveWatcher();

        // The last beats may still be under way.
        ulong beat;
        do
        {
            beat = reader.Load(VersionTableLayout.HeartbeatWord);
            Thread.Sleep(4 * VersionTableLayout.HeartbeatInterval);
        }
        while (reader.Load(VersionTableLayout.HeartbeatWord) != beat);
        reader.Sample();
        Assert.True(reader.IsAlive);
        for (int i = 0; i < 11; i++)
        {
            _now += 100;
            reader.Sample();
        }

        Assert.False(reader.IsAlive);
    }

    [Fact]
    public void A_process_that_was_stopped_does_not_believe_what_it_finds()
    {
        using VersionTableReader reader = Open();
        _table.AddWatcher();
        reader.Sample();
        AwaitBeat(reader);
        reader.Sample();
        Assert.True(reader.IsAlive);

        // A minute later, before any sample; and after the first, for which the beat may have moved a minute ago.
        _now += 60_000;
        Assert.False(reader.IsAlive);
        AwaitBeat(reader);
        reader.Sample();
        Assert.False(reader.IsAlive);
        AwaitBeat(reader);
        reader.Sample();
        Assert.True(reader.IsAlive);
    }

    [Fact]
    public void A_reply_proves_that_the_daemon_was_there_when_it_was_asked()
    {
        using VersionTableReader reader = Open();
        reader.Believe(since: 500);
        Assert.True(reader.IsAlive);
        _now = 1501;
        Assert.False(reader.IsAlive);
    }

    [Fact]
    public void A_table_that_is_given_up_and_a_device_that_is_lost_are_not_believed_again()
    {
        VersionTable table = VersionTable.Create(s_layout);
        using VersionTableReader reader = VersionTableReader.TryOpen(Map(table.Descriptor), () => _now)!;
        reader.Believe(_now);
        ulong epoch = reader.Epoch;
        Assert.True(reader.IsCurrent(epoch));
        table.Dispose();
        Assert.False(reader.IsCurrent(epoch), "the epoch goes with the table");
        reader.Sample();
        reader.Believe(_now);
        Assert.False(reader.IsAlive);

        using VersionTableReader second = Open();
        second.Believe(_now);
        second.Kill();
        Assert.False(second.IsAlive);
        second.Believe(_now);
        Assert.False(second.IsAlive);
    }

    [Fact]
    public void After_disposing_every_word_reads_as_zero()
    {
        VersionTableReader reader = Open();
        uint word = VersionTable.WordOfSlot(0);
        ulong version = _table.ReadVersion(word);
        Assert.True(reader.IsCurrent(word, version));
        reader.Dispose();
        Assert.Equal(0UL, reader.Load(word));
        Assert.False(reader.IsAlive);
    }

    [Theory]
    [InlineData("magic", 0x00, 8)]
    [InlineData("version", 0x08, 2)]
    [InlineData("header size", 0x0c, 4)]
    [InlineData("region size", 0x10, 8)]
    [InlineData("where inodes are", 0x18, 8)]
    [InlineData("how many inodes", 0x20, 4)]
    [InlineData("stride", 0x24, 4)]
    [InlineData("where names are", 0x28, 8)]
    [InlineData("how many names", 0x30, 4)]
    [InlineData("where shared words are", 0x38, 8)]
    [InlineData("how many shared words", 0x40, 4)]
    [InlineData("where the log is", 0x48, 8)]
    [InlineData("how long the log is", 0x50, 4)]
    [InlineData("state", 0x100, 4)]
    public void A_header_with_anything_wrong_is_no_table(string what, int offset, int length)
    {
        foreach (byte value in (ReadOnlySpan<byte>)[0x00, 0x7f, 0x80, 0xff])
        {
            using SafeFileHandle file = Forge(header => header.AsSpan(offset, length).Fill(value));
            using SharedMemoryRegion region = Map((int)file.DangerousGetHandle());
            Assert.True(VersionTableReader.TryOpen(region) is null, $"{what} of 0x{value:x}");
        }
    }

    [Fact]
    public void A_table_larger_than_its_region_is_none()
    {
        using SafeFileHandle file = Forge(_ => { });
        using var region = new SharedMemoryRegion(4096, SharedMemoryUse.ReadOnly);
        Assert.True(region.Map(At(4096), (int)file.DangerousGetHandle()));
        Assert.Null(VersionTableReader.TryOpen(region));
        using var nothing = new SharedMemoryRegion(s_layout.RegionSize, SharedMemoryUse.ReadOnly);
        Assert.Null(VersionTableReader.TryOpen(nothing));
    }

    [Theory]
    [InlineData(FileSeals.None, true)]
    [InlineData(FileSeals.Grow, true)]
    [InlineData(FileSeals.Shrink, false)]
    public void A_region_for_reading_takes_no_file_that_can_be_cut_off(FileSeals seals, bool isRefused)
    {
        using SafeFileHandle file = Memory.CreateMemoryFile("causeway-test\0"u8, 8192, seals);
        using var region = new SharedMemoryRegion(16384, SharedMemoryUse.ReadOnly);
        Assert.Equal(!isRefused, region.Map(At(8192), (int)file.DangerousGetHandle()));
        Assert.False(region.Map(At(16384), (int)file.DangerousGetHandle()), "longer than the file");
    }

    [Fact]
    public unsafe void A_region_for_reading_is_not_writable_even_if_the_device_says_so()
    {
        using SafeFileHandle file = Memory.CreateMemoryFile("causeway-test\0"u8, 4096, FileSeals.Shrink);
        using var region = new SharedMemoryRegion(4096, SharedMemoryUse.ReadOnly);
        Assert.True(region.Map(At(4096) with { Flags = SharedMemoryFlags.Writable }, (int)file.DangerousGetHandle()));
        string address = ((nuint)region.Address).ToString("x");
        string line = File.ReadLines("/proc/self/maps").Single(line => line.StartsWith(address, StringComparison.Ordinal));
        Assert.Contains(" r--s ", line, StringComparison.Ordinal);
        Assert.True(region.Unmap(At(4096)));
        Assert.Equal(0, *region.Address);
    }

    public void Dispose() => _table.Dispose();

    private static SharedMemoryMapping At(ulong length) =>
        new(VersionTableLayout.RegionId, 0, 0, length, SharedMemoryFlags.None);

    private static SharedMemoryRegion Map(int descriptor)
    {
        var region = new SharedMemoryRegion(s_layout.RegionSize, SharedMemoryUse.ReadOnly);
        Assert.True(region.Map(At(s_layout.RegionSize), descriptor));
        return region;
    }

    private static SafeFileHandle Forge(Action<byte[]> change)
    {
        byte[] header = new byte[VersionTableLayout.HeaderSize];
        s_layout.Write(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(0x100), (uint)VersionTableState.Live);
        change(header);
        SafeFileHandle file = Memory.CreateMemoryFile("causeway-test\0"u8, (long)s_layout.RegionSize, FileSeals.Shrink);
        RandomAccess.Write(file, header, 0);
        return file;
    }

    private static void AwaitBeat(VersionTableReader reader)
    {
        ulong beat = reader.Load(VersionTableLayout.HeartbeatWord);
        Assert.True(SpinWait.SpinUntil(
            () => reader.Load(VersionTableLayout.HeartbeatWord) != beat, TimeSpan.FromSeconds(60)));
    }

    private VersionTableReader Open()
    {
        SharedMemoryRegion region = Map(_table.Descriptor);
        return VersionTableReader.TryOpen(region, () => _now) ?? throw new InvalidOperationException("no table");
    }
}
