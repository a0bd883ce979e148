using Microsoft.Win32.SafeHandles;

namespace Causeway.Linux;

/// <summary>
/// A part of a file, mapped shared. It has one owner, who disposes of it when no pointer into it is used any more; there
/// is no finalizer, because pointers into a mapping keep no object alive.
/// </summary>
public sealed unsafe class MemoryMapping : IDisposable
{
    private byte* _mapped;
    private readonly nuint _mappedLength;

    private MemoryMapping(byte* mapped, nuint mappedLength, ulong leading, ulong length)
    {
        _mapped = mapped;
        _mappedLength = mappedLength;
        Address = mapped + leading;
        Length = length;
    }

    /// <summary>Where the part that was asked for starts; null once disposed of.</summary>
    public byte* Address { get; private set; }

    /// <summary>Its length in bytes, as asked for.</summary>
    public ulong Length { get; }

    /// <summary>Maps a part of a file with MAP_SHARED and MAP_NORESERVE, and keeps it out of core files.</summary>
    /// <param name="file">The file. It is not needed any more afterwards.</param>
    /// <param name="offset">
    /// The position in the file in bytes. It need not be aligned: the mapping starts at the page before, a huge page on
    /// hugetlbfs, and ends with the page that holds the last byte.
    /// </param>
    /// <param name="length">The length in bytes; not zero.</param>
    /// <param name="protection">PROT_*.</param>
    /// <exception cref="ErrnoException">A call failed.</exception>
    /// <exception cref="ArgumentException">
    /// The file is not a regular one or ends before <paramref name="offset"/> + <paramref name="length"/>: touching what
    /// lies behind its end would raise SIGBUS.
    /// </exception>
    public static MemoryMapping MapShared(SafeFileHandle file, ulong offset, ulong length, MemoryProtection protection)
    {
        ArgumentOutOfRangeException.ThrowIfZero(length);
        bool added = false;
        try
        {
            file.DangerousAddRef(ref added);
            int descriptor = (int)file.DangerousGetHandle();
            Memory.GetFileStatus(descriptor, out MappableFileStatus status).ThrowIfError("stat a file to map");
            if (!status.IsRegular)
            {
                throw new ArgumentException("the file to map is not a regular file", nameof(file));
            }

            if (length > status.Size || offset > status.Size - length)
            {
                throw new ArgumentException(
                    $"the file to map has {status.Size} bytes, too few for {length} at {offset}", nameof(file));
            }

            // Both are below the file's size, which is below 2^63, and a page has at most 2^32 bytes: nothing wraps.
            ulong page = (ulong)Environment.SystemPageSize;
            if (status.BlockSize > page && ulong.IsPow2(status.BlockSize))
            {
                page = status.BlockSize;
            }

            ulong leading = offset % page;
            ulong mappedLength = (leading + length + page - 1) / page * page;
            nint mapped = Memory.Mmap(
                null, (nuint)mappedLength, protection, MapFlags.Shared | MapFlags.NoReserve, descriptor,
                (long)(offset - leading)).ThrowIfError($"map {length} bytes at {offset}").RawValue;

            // Not every kind of mapping knows the advice, and nothing depends on it.
            _ = Memory.Madvise((void*)mapped, (nuint)mappedLength, MemoryAdvice.DontDump);
            return new MemoryMapping((byte*)mapped, (nuint)mappedLength, leading, length);
        }
        finally
        {
            if (added)
            {
                file.DangerousRelease();
            }
        }
    }

    /// <summary>Ends the mapping.</summary>
    public void Dispose()
    {
        if (_mapped != null)
        {
            _ = Memory.Munmap(_mapped, _mappedLength);
            _mapped = null;
            Address = null;
        }
    }
}
