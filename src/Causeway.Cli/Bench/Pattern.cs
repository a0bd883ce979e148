namespace Causeway.Cli.Bench;

/// <summary>What files of a benchmark contain: every page differs, and each can be had at once.</summary>
internal static class Pattern
{
    /// <summary>Bytes of a page.</summary>
    public const int PageBytes = 4096;

    // Pages of a file that differ, which is 64 MiB; then they come again.
    private const int Pages = 1 << 14;
    private const int Step = 8;

    // Page n is the part of it that begins n steps from its start.
    private static readonly byte[] s_bytes = Make();

    /// <summary>The content of a page of a file.</summary>
    /// <param name="number">The page's number in its file.</param>
    public static ReadOnlySpan<byte> Page(long number) => s_bytes.AsSpan((int)(number % Pages) * Step, PageBytes);

    /// <summary>Fills a buffer as a file has it from a page on.</summary>
    public static void Fill(Span<byte> destination, long firstPage)
    {
        for (long page = firstPage; !destination.IsEmpty; page++)
        {
            int length = Math.Min(PageBytes, destination.Length);
            Page(page)[..length].CopyTo(destination);
            destination = destination[length..];
        }
    }

    /// <summary>Whether bytes are those that a file has from a page on.</summary>
    public static bool IsAt(ReadOnlySpan<byte> bytes, long firstPage)
    {
        for (long page = firstPage; !bytes.IsEmpty; page++)
        {
            int length = Math.Min(PageBytes, bytes.Length);
            if (!bytes[..length].SequenceEqual(Page(page)[..length]))
            {
                return false;
            }

            bytes = bytes[length..];
        }

        return true;
    }

    /// <summary>Makes a file.</summary>
    public static void WriteFile(string path, long length)
    {
        byte[] buffer = new byte[1 << 20];
        using FileStream file = File.Create(path, bufferSize: 0);
        for (long offset = 0; offset < length; offset += buffer.Length)
        {
            Span<byte> part = buffer.AsSpan(0, (int)Math.Min(buffer.Length, length - offset));
            Fill(part, offset / PageBytes);
            file.Write(part);
        }
    }

    // Any numbers that do not repeat soon (xorshift, Marsaglia 2003).
    private static byte[] Make()
    {
        byte[] bytes = new byte[(Pages * Step) + PageBytes];
        ulong state = 0x9E3779B97F4A7C15;
        for (int i = 0; i < bytes.Length; i++)
        {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes[i] = (byte)(state >> 32);
        }

        return bytes;
    }
}
