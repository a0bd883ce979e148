namespace Causeway.Linux;

/// <summary>Anonymous memory that is reserved in one piece and put to use from its start, as far as needed.</summary>
public static unsafe class AddressSpace
{
    /// <summary>Reserves addresses; mmap(2) with PROT_NONE and MAP_NORESERVE.</summary>
    /// <param name="length">How many bytes; a multiple of the page size.</param>
    /// <returns>The start; not accessible until <see cref="Commit"/>.</returns>
    /// <exception cref="ErrnoException">There is no room.</exception>
    public static byte* Reserve(nuint length) =>
        (byte*)Memory.Mmap(
            null, length, MemoryProtection.None, MapFlags.Private | MapFlags.Anonymous | MapFlags.NoReserve,
            descriptor: -1, offset: 0).ThrowIfError($"reserve {length} bytes of address space").RawValue;

    /// <summary>Makes reserved addresses usable, filled with zeros; mprotect(2).</summary>
    /// <param name="start">The start; page-aligned.</param>
    /// <param name="length">How many bytes.</param>
    public static SyscallResult Commit(byte* start, nuint length) =>
        Memory.Mprotect(start, length, MemoryProtection.Read | MemoryProtection.Write);

    /// <summary>Gives everything back; munmap(2).</summary>
    /// <param name="start">What <see cref="Reserve"/> returned.</param>
    /// <param name="length">The length given to it.</param>
    public static SyscallResult Release(byte* start, nuint length) => Memory.Munmap(start, length);
}
