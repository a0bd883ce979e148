namespace Causeway.Linux;

/// <summary>Anonymous memory that is reserved in one piece and put to use from its start, as far as needed.</summary>
public static unsafe class AddressSpace
{
    private const int ProtectionNone = 0;
    private const int ProtectionReadWrite = 0x3;
    private const int MapPrivateAnonymousNoReserve = 0x2 | 0x20 | 0x4000;

    /// <summary>Reserves addresses; mmap(2) with PROT_NONE and MAP_NORESERVE.</summary>
    /// <param name="length">How many bytes; a multiple of the page size.</param>
    /// <returns>The start; not accessible until <see cref="Commit"/>.</returns>
    /// <exception cref="ErrnoException">There is no room.</exception>
    public static byte* Reserve(nuint length)
    {
        void* start = Libc.mmap(null, length, ProtectionNone, MapPrivateAnonymousNoReserve, -1, 0);
        SyscallResult result = SyscallResult.From((nint)start == -1 ? -1 : 0);
        result.ThrowIfError($"reserve {length} bytes of address space");
        return (byte*)start;
    }

    /// <summary>Makes reserved addresses usable, filled with zeros; mprotect(2).</summary>
    /// <param name="start">The start; page-aligned.</param>
    /// <param name="length">How many bytes.</param>
    public static SyscallResult Commit(byte* start, nuint length) =>
        SyscallResult.From(Libc.mprotect(start, length, ProtectionReadWrite));

    /// <summary>Gives everything back; munmap(2).</summary>
    /// <param name="start">What <see cref="Reserve"/> returned.</param>
    /// <param name="length">The length given to it.</param>
    public static SyscallResult Release(byte* start, nuint length) => SyscallResult.From(Libc.munmap(start, length));
}
