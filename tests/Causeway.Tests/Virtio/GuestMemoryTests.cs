using Causeway.Linux;
using Causeway.Virtio;
using CsCheck;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Virtio;

public sealed unsafe class GuestMemoryTests : IDisposable
{
    private const ulong Page = 4096;
    private readonly SafeFileHandle _file = Memory.CreateMemoryFile("guest\0"u8, 64 * (long)Page, FileSeals.None);

    public void Dispose() => _file.Dispose();

    [Fact]
    public void Each_address_of_a_region_is_found_under_both_names()
    {
        GuestMemory memory = With(new GuestMemoryRange(new(0x10000), new(0x7f0000), 2 * Page, 3 * Page));

        Assert.True(memory.TryTranslate(new GuestAddress(0x10000 + 10), 2 * Page - 10, out byte* byGuest));
        Assert.True(memory.TryTranslate(new FrontendAddress(0x7f0000 + 10), 2 * Page - 10, out byte* byFrontend));
        Assert.True(byGuest == byFrontend);
        Assert.True(byGuest == memory.Regions[0].Address + 10);
        *byGuest = 0x5A;
        Assert.Equal(0x5A, ReadFile(3 * Page + 10));

        Assert.True(memory.TryTranslate(new FrontendAddress(0x7f0000 + 10), out GuestAddress address));
        Assert.Equal(new GuestAddress(0x10000 + 10), address);
        memory.Release();
    }

    [Theory]
    [InlineData(0x0FFFF, 1)]
    [InlineData(0x0FFFF, 2)]
    [InlineData(0x12000, 0)]
    [InlineData(0x12000, 1)]
    [InlineData(0x11FFF, 2)]
    [InlineData(0x10000, 0x2001)]
    [InlineData(0x10001, ulong.MaxValue)]
    [InlineData(ulong.MaxValue, 1)]
    [InlineData(0, ulong.MaxValue)]
    public void A_range_that_is_not_inside_is_not_translated(ulong start, ulong length)
    {
        GuestMemory memory = With(new GuestMemoryRange(new(0x10000), new(0x10000), 2 * Page, 0));

        Assert.False(memory.TryTranslate(new GuestAddress(start), length, out byte* pointer));
        Assert.True(pointer == null);
        Assert.False(memory.TryTranslate(new FrontendAddress(start), length, out pointer));
        Assert.True(pointer == null);
        memory.Release();
    }

    [Theory]
    [InlineData(0UL, 0UL, 0UL, 0UL, "size 0")]
    [InlineData(ulong.MaxValue - 4095, 0UL, 4096UL, 0UL, "wraps")]
    [InlineData(0UL, ulong.MaxValue - 4095, 4096UL, 0UL, "wraps")]
    [InlineData(0UL, 0UL, 4096UL, ulong.MaxValue - 4095, "wraps")]
    [InlineData(0UL, 0UL, 4096UL, 64 * 4096UL, "too few")]
    [InlineData(0UL, 0UL, 65 * 4096UL, 0UL, "too few")]
    [InlineData(0UL, 0UL, 4097UL, 63 * 4096UL, "too few")]
    [InlineData(0UL, 0UL, (ulong)long.MaxValue, 0UL, "too few")]
    public void A_region_that_cannot_be_is_refused(ulong guest, ulong frontend, ulong size, ulong offset, string reason)
    {
        GuestMemory memory = GuestMemory.CreateEmpty();
        GuestMemoryException exception = Assert.Throws<GuestMemoryException>(
            () => memory.Add(new(new(guest), new(frontend), size, offset), _file));
        Assert.Contains(reason, exception.Message, StringComparison.Ordinal);
        Assert.Empty(memory.Regions);
    }

    [Theory]
    [InlineData(0x2000UL, 0x90000UL)]
    [InlineData(0x1FFFUL, 0x90000UL)]
    [InlineData(0x3FFFUL, 0x90000UL)]
    [InlineData(0x90000UL, 0x52000UL)]
    [InlineData(0x90000UL, 0x51001UL)]
    public void Regions_that_overlap_are_refused(ulong guest, ulong frontend)
    {
        GuestMemory memory = With(new GuestMemoryRange(new(0x2000), new(0x52000), 2 * Page, 0));
        Assert.Throws<GuestMemoryException>(
            () => memory.Add(new(new(guest), new(frontend), Page, 0), _file));
        memory.Release();
    }

    [Fact]
    public void A_file_that_is_no_regular_file_is_refused()
    {
        using SafeFileHandle device = File.OpenHandle("/dev/zero", FileMode.Open, FileAccess.ReadWrite);
        Assert.Throws<GuestMemoryException>(
            () => GuestMemory.CreateEmpty().Add(new(new(0), new(0), Page, 0), device));
    }

    [Fact]
    public void The_five_hundred_and_thirteenth_region_is_refused()
    {
        GuestMemory memory = GuestMemory.CreateEmpty();
        for (ulong i = 0; i < GuestMemory.MaxRegions; i++)
        {
            memory = Replace(memory, memory.Add(new(new(i * 2 * Page), new(i * 2 * Page), Page, 0), _file));
        }

        GuestMemoryException exception = Assert.Throws<GuestMemoryException>(
            () => memory.Add(new(new(1UL << 40), new(1UL << 40), Page, 0), _file));
        Assert.Contains("512", exception.Message, StringComparison.Ordinal);
        memory.Release();
    }

    [Fact]
    public void A_region_ends_with_the_last_table_that_holds_it()
    {
        // Files of their own, so that their mappings can be told from those of tests that run at the same time.
        using SafeFileHandle keptFile = Memory.CreateMemoryFile("region-kept\0"u8, (long)Page, FileSeals.None);
        using SafeFileHandle removedFile = Memory.CreateMemoryFile("region-removed\0"u8, (long)Page, FileSeals.None);
        var kept = new GuestMemoryRange(new(0), new(0), Page, 0);
        var removed = new GuestMemoryRange(new(0x10000), new(0x10000), Page, 0);
        GuestMemory only = GuestMemory.CreateEmpty().Add(kept, keptFile);
        GuestMemory first = Replace(only, only.Add(removed, removedFile));

        Assert.True(first.TryRemove(removed, out GuestMemory? second));
        Assert.False(second.TryRemove(removed, out _));
        Assert.True(IsMapped("region-kept"));
        Assert.True(IsMapped("region-removed"));

        first.Release();
        Assert.True(IsMapped("region-kept"));
        Assert.False(IsMapped("region-removed"));
        Assert.False(second.TryTranslate(new GuestAddress(0x10000), 1, out _));
        Assert.True(second.TryTranslate(new GuestAddress(0), 1, out _));

        second.Release();
        Assert.False(IsMapped("region-kept"));
    }

    [Fact]
    public void An_offset_inside_a_page_is_mapped_from_the_page_before()
    {
        GuestMemory memory = With(new GuestMemoryRange(new(0x1234), new(0x1234), 100, Page + 0x234));
        Assert.True(memory.TryTranslate(new GuestAddress(0x1234), 100, out byte* pointer));
        *pointer = 0x77;
        Assert.Equal(0x77, ReadFile(Page + 0x234));
        Assert.False(memory.TryTranslate(new GuestAddress(0x1234), 101, out _));
        memory.Release();
    }

    [Fact]
    public void Translation_agrees_with_a_search_through_all_regions()
    {
        Gen<(ulong, ulong)[]> genRegions = Gen.Select(Gen.ULong[0, 60], Gen.ULong[1, 6]).Array[1, 12];
        Gen<(ulong, ulong)[]> genQueries = Gen.Select(Gen.ULong[0, 70 * Page], Gen.ULong[0, 3 * Page]).Array[1, 30];
        Gen.Select(genRegions, genQueries, Gen.Int).Sample(
            (regions, queries, hint) =>
            {
                GuestMemory memory = GuestMemory.CreateEmpty();
                var accepted = new List<GuestMemoryRange>();
                foreach ((ulong start, ulong pages) in regions)
                {
                    var range = new GuestMemoryRange(
                        new(start * Page), new((start + 1000) * Page), pages * Page, 0);
                    bool overlaps = accepted.Any(other =>
                        range.GuestBase.Value < other.GuestBase.Value + other.Size &&
                        other.GuestBase.Value < range.GuestBase.Value + range.Size);
                    try
                    {
                        memory = Replace(memory, memory.Add(range, _file));
                        Assert.False(overlaps);
                        accepted.Add(range);
                    }
                    catch (GuestMemoryException)
                    {
                        Assert.True(overlaps);
                    }
                }

                Assert.Equal(
                    accepted.OrderBy(range => range.GuestBase.Value), memory.Regions.Select(region => region.Range));
                foreach ((ulong start, ulong length) in queries)
                {
                    GuestMemoryRegion? expected = memory.Regions.FirstOrDefault(region =>
                        start >= region.Range.GuestBase.Value &&
                        start < region.Range.GuestBase.Value + region.Range.Size &&
                        start + length <= region.Range.GuestBase.Value + region.Range.Size);
                    bool found = memory.TryTranslate(new GuestAddress(start), length, ref hint, out byte* pointer);
                    Assert.Equal(expected is not null, found);
                    if (expected is not null)
                    {
                        Assert.True(pointer == expected.Address + (start - expected.Range.GuestBase.Value));
                    }
                }

                memory.Release();
            },
            iter: 300,
            threads: 1);
    }

    private static GuestMemory Replace(GuestMemory old, GuestMemory next)
    {
        old.Release();
        return next;
    }

    /// <summary>Whether a memory file of this name is mapped anywhere in the process.</summary>
    private static bool IsMapped(string name) => File.ReadLines("/proc/self/maps").Any(
        line => line.Contains($"/memfd:{name} ", StringComparison.Ordinal));

    private GuestMemory With(params GuestMemoryRange[] ranges)
    {
        GuestMemory memory = GuestMemory.CreateEmpty();
        foreach (GuestMemoryRange range in ranges)
        {
            memory = Replace(memory, memory.Add(range, _file));
        }

        return memory;
    }

    private byte ReadFile(ulong offset)
    {
        Span<byte> buffer = stackalloc byte[1];
        Assert.Equal(1, RandomAccess.Read(_file, buffer, (long)offset));
        return buffer[0];
    }
}
