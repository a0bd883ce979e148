using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Virtio;

/// <summary>
/// The bitmap in which a device notes the pages of guest memory it wrote, so that a live migration sends them again
/// (vhost-user SET_LOG_BASE). Bit <c>page % 8</c> of byte <c>page / 8</c> stands for 4096 bytes.
/// </summary>
/// <remarks>
/// Any thread may mark pages; the front end collects and clears them at the same time. The owner disposes of the log when
/// no queue uses it any more.
/// </remarks>
public sealed unsafe class DirtyLog : IDisposable
{
    /// <summary>Size of a page of the log in bytes, whatever the size of the host's pages (VHOST_LOG_PAGE).</summary>
    public const int PageSize = 4096;

    private readonly MemoryMapping _mapping;
    private readonly ulong _pages;

    /// <summary>Maps a log.</summary>
    /// <param name="file">The file that holds it. It is not needed any more afterwards.</param>
    /// <param name="size">Its size in bytes; hostile.</param>
    /// <param name="offset">Where it starts in the file, in bytes; hostile.</param>
    /// <exception cref="GuestMemoryException">The log is empty, too large, or cannot be mapped.</exception>
    public DirtyLog(SafeFileHandle file, ulong size, ulong offset)
    {
        if (size == 0 || offset > long.MaxValue || size > (1UL << 52) / 8)
        {
            throw new GuestMemoryException($"dirty log of {size} bytes at file offset {offset}");
        }

        try
        {
            _mapping = MemoryMapping.MapShared(file, offset, size, MemoryProtection.Read | MemoryProtection.Write);
        }
        catch (Exception exception) when (exception is ErrnoException or ArgumentException)
        {
            throw new GuestMemoryException($"dirty log of {size} bytes: {exception.Message}", exception);
        }

        // At most 2^52 by the check above, the number of pages of a 64-bit address space.
        _pages = size * 8;
    }

    /// <summary>
    /// Marks the pages of a range as written. Pages beyond the end of the log are ignored. To be called after the data was
    /// written: who finds the bit finds the data.
    /// </summary>
    /// <param name="address">The first byte written.</param>
    /// <param name="length">How many bytes were written.</param>
    public void Mark(GuestAddress address, ulong length)
    {
        if (length == 0)
        {
            return;
        }

        ulong end = address.Value > ulong.MaxValue - (length - 1) ? ulong.MaxValue : address.Value + (length - 1);
        ulong page = address.Value / PageSize;
        ulong last = Math.Min(end / PageSize, _pages - 1);
        while (page <= last)
        {
            page = MarkWord(page, last);
        }
    }

    /// <summary>Ends the mapping.</summary>
    public void Dispose() => _mapping.Dispose();

    /// <summary>Sets the bits of one aligned word of the log with one atomic operation.</summary>
    /// <returns>The first page that is not in the word.</returns>
    private ulong MarkWord(ulong page, ulong last)
    {
        // The log may start at any byte of its file. The aligned word around a byte of the log lies in the same page of
        // memory, which is mapped, and its bits outside of the log are left as they are.
        byte* target = _mapping.Address + (page / 8);
        int firstBit = (int)(((nuint)target & 3) * 8) + (int)(page % 8);
        int lastBit = (int)Math.Min(31, (ulong)firstBit + (last - page));
        uint mask = (uint.MaxValue >> (31 - lastBit)) & (uint.MaxValue << firstBit);

        // Little-endian, as all hosts this runs on. A full barrier: the stores of the data come before the bit. Pairs with the front end's atomic exchange.
        uint* word = (uint*)((nuint)target & ~(nuint)3);
        _ = Interlocked.Or(ref *word, mask);
        return page + (ulong)(lastBit - firstBit) + 1;
    }
}
