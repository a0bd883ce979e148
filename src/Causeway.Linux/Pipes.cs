namespace Causeway.Linux;

/// <summary>Pipes, and reading and writing at the current position.</summary>
public static unsafe class Pipes
{
    /// <summary>pipe2(2) with O_CLOEXEC.</summary>
    /// <param name="readEnd">The end to read from; the caller owns it.</param>
    /// <param name="writeEnd">The end to write to; the caller owns it.</param>
    public static SyscallResult Pipe2(out int readEnd, out int writeEnd)
    {
        int* ends = stackalloc int[2] { -1, -1 };
        SyscallResult result = SyscallResult.From(Libc.pipe2(ends, OpenFlags.CloseOnExec));
        (readEnd, writeEnd) = (ends[0], ends[1]);
        return result;
    }

    /// <summary>read(2).</summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="destination">Where the bytes go.</param>
    /// <returns>How many bytes; 0 at the end.</returns>
    public static SyscallResult Read(int descriptor, Span<byte> destination)
    {
        fixed (byte* pointer = destination)
        {
            while (true)
            {
                SyscallResult result = SyscallResult.From(Libc.read(descriptor, pointer, (nuint)destination.Length));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }

    /// <summary>write(2).</summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="source">The bytes.</param>
    /// <returns>How many bytes were written, perhaps fewer than asked for.</returns>
    public static SyscallResult Write(int descriptor, ReadOnlySpan<byte> source)
    {
        fixed (byte* pointer = source)
        {
            while (true)
            {
                SyscallResult result = SyscallResult.From(Libc.write(descriptor, pointer, (nuint)source.Length));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }
}
