using Causeway.Linux;
using Causeway.Virtio;
using CsCheck;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Virtio;

public sealed class DirtyLogTests
{
    [Fact]
    public void Exactly_the_pages_of_a_range_are_marked_wherever_the_log_starts()
    {
        Gen.Select(Gen.Int[1, 70], Gen.Int[0, 4100], Gen.ULong[0, 600 * 4096], Gen.ULong[0, 70 * 4096]).Sample(
            (size, offset, address, length) =>
            {
                using SafeFileHandle file = Memory.CreateMemoryFile("log\0"u8, offset + size + 9, FileSeals.None);
                using var log = new DirtyLog(file, (ulong)size, (ulong)offset);
                log.Mark(new GuestAddress(address), length);

                var expected = new List<ulong>();
                for (ulong page = 0; page < (ulong)size * 8; page++)
                {
                    if (length > 0 && page * 4096 < address + length && (page + 1) * 4096 > address)
                    {
                        expected.Add(page);
                    }
                }

                Assert.Equal(expected, DirtyPages(file, offset, size));

                // And nothing before or behind the log.
                Assert.Empty(DirtyPages(file, 0, offset));
                Assert.Empty(DirtyPages(file, offset + size, 9));
            },
            iter: 2000,
            threads: 1);
    }

    [Fact]
    public void Marks_of_several_threads_in_one_word_all_remain()
    {
        using SafeFileHandle file = Memory.CreateMemoryFile("log\0"u8, 4096, FileSeals.None);
        using var log = new DirtyLog(file, 4096, 0);
        Thread[] threads = [.. Enumerable.Range(0, 4).Select(number => new Thread(() =>
        {
            for (ulong page = (ulong)number; page < 4096 * 8; page += 4)
            {
                log.Mark(new GuestAddress(page * 4096), 1);
            }
        }))];
        foreach (Thread thread in threads)
        {
            thread.Start();
        }

        foreach (Thread thread in threads)
        {
            thread.Join();
        }

        Assert.Equal(4096 * 8, DirtyPages(file, 0, 4096).Count);
    }

    [Theory]
    [InlineData(ulong.MaxValue, 1UL)]
    [InlineData(ulong.MaxValue, ulong.MaxValue)]
    [InlineData(8UL * 4096 * 64, 4096UL)]
    [InlineData(1UL << 63, 1UL << 63)]
    public void Pages_beyond_the_log_are_ignored(ulong address, ulong length)
    {
        using SafeFileHandle file = Memory.CreateMemoryFile("log\0"u8, 4096, FileSeals.None);
        using var log = new DirtyLog(file, 64, 0);
        log.Mark(new GuestAddress(address), length);
        Assert.Empty(DirtyPages(file, 0, 4096));
    }

    [Fact]
    public void A_range_over_the_whole_address_space_ends()
    {
        using SafeFileHandle file = Memory.CreateMemoryFile("log\0"u8, 4096, FileSeals.None);
        using var log = new DirtyLog(file, 64, 0);
        log.Mark(new GuestAddress(1), ulong.MaxValue);
        Assert.Equal(512, DirtyPages(file, 0, 4096).Count);
    }

    [Theory]
    [InlineData(0UL, 0UL)]
    [InlineData(4097UL, 0UL)]
    [InlineData(4096UL, 1UL)]
    [InlineData(1UL, ulong.MaxValue)]
    [InlineData(ulong.MaxValue, 1UL)]
    public void A_log_that_cannot_be_is_refused(ulong size, ulong offset)
    {
        using SafeFileHandle file = Memory.CreateMemoryFile("log\0"u8, 4096, FileSeals.None);
        Assert.Throws<GuestMemoryException>(() => new DirtyLog(file, size, offset));
    }

    /// <summary>The pages whose bits are set, read from the file.</summary>
    internal static List<ulong> DirtyPages(SafeFileHandle file, int offset, int size)
    {
        byte[] bytes = new byte[size];
        Assert.Equal(size, RandomAccess.Read(file, bytes, offset));
        var pages = new List<ulong>();
        for (int page = 0; page < size * 8; page++)
        {
            if ((bytes[page / 8] & (1 << (page % 8))) != 0)
            {
                pages.Add((ulong)page);
            }
        }

        return pages;
    }
}
