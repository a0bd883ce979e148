using Microsoft.Win32.SafeHandles;

namespace Causeway.Linux;

/// <summary>Mappings and memory files. Each method is the system call of that name; its contract is the man page.</summary>
public static unsafe class Memory
{
    private const int AtEmptyPath = 0x1000;
    private const int AddSealsCommand = 1033;
    private const int GetSealsCommand = 1034;

    /// <summary>mmap(2).</summary>
    /// <param name="address">Where the mapping should be, or null.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <param name="protection">PROT_*.</param>
    /// <param name="flags">MAP_*.</param>
    /// <param name="descriptor">The file, or -1 for anonymous memory.</param>
    /// <param name="offset">The position in the file, a multiple of its page size.</param>
    /// <returns>The address, as <see cref="SyscallResult.RawValue"/>.</returns>
    public static SyscallResult Mmap(
        void* address, nuint length, MemoryProtection protection, MapFlags flags, int descriptor, long offset) =>
        SyscallResult.From(Libc.mmap(address, length, (int)protection, (int)flags, descriptor, offset));

    /// <summary>munmap(2).</summary>
    /// <param name="address">The start, a multiple of the page size.</param>
    /// <param name="length">The length in bytes.</param>
    public static SyscallResult Munmap(void* address, nuint length) => SyscallResult.From(Libc.munmap(address, length));

    /// <summary>mprotect(2).</summary>
    /// <param name="address">The start, a multiple of the page size.</param>
    /// <param name="length">The length in bytes.</param>
    /// <param name="protection">PROT_*.</param>
    public static SyscallResult Mprotect(void* address, nuint length, MemoryProtection protection) =>
        SyscallResult.From(Libc.mprotect(address, length, (int)protection));

    /// <summary>madvise(2).</summary>
    /// <param name="address">The start, a multiple of the page size.</param>
    /// <param name="length">The length in bytes.</param>
    /// <param name="advice">MADV_*.</param>
    public static SyscallResult Madvise(void* address, nuint length, MemoryAdvice advice) =>
        SyscallResult.From(Libc.madvise(address, length, (int)advice));

    /// <summary>memfd_create(2).</summary>
    /// <param name="name">A name for /proc, ending in a zero byte.</param>
    /// <param name="flags">MFD_*.</param>
    /// <returns>The new descriptor, which the caller owns.</returns>
    public static SyscallResult MemfdCreate(ReadOnlySpan<byte> name, MemoryFileFlags flags)
    {
        fixed (byte* pointer = name)
        {
            return SyscallResult.From(Libc.memfd_create(pointer, (uint)flags));
        }
    }

    /// <summary>fcntl(2) with F_ADD_SEALS.</summary>
    /// <param name="descriptor">The memory file.</param>
    /// <param name="seals">What is to be forbidden from now on.</param>
    public static SyscallResult AddSeals(int descriptor, FileSeals seals) =>
        SyscallResult.From(Libc.fcntl(descriptor, AddSealsCommand, (int)seals));

    /// <summary>fcntl(2) with F_GET_SEALS; EINVAL when the file is of a kind that has no seals.</summary>
    /// <param name="descriptor">The file.</param>
    /// <returns>The <see cref="FileSeals"/>, as <see cref="SyscallResult.Count"/>.</returns>
    public static SyscallResult GetSeals(int descriptor) =>
        SyscallResult.From(Libc.fcntl(descriptor, GetSealsCommand, 0));

    /// <summary>What fstat(2) tells about a file that is to be mapped.</summary>
    /// <param name="descriptor">The file.</param>
    /// <param name="status">The answer.</param>
    public static SyscallResult GetFileStatus(int descriptor, out MappableFileStatus status)
    {
        StatxBuffer statx;
        byte empty = 0;
        var result = SyscallResult.From(
            Libc.statx(descriptor, &empty, AtEmptyPath, (uint)StatxMask.Basic, &statx));
        status = result.IsError
            ? default
            : new MappableFileStatus((statx.Mode & 0xF000) == 0x8000, statx.Size, statx.BlockSize);
        return result;
    }

    /// <summary>Makes a memory file of a given size, close-on-exec.</summary>
    /// <param name="name">A name for /proc, ending in a zero byte.</param>
    /// <param name="size">Its size in bytes.</param>
    /// <param name="seals">What is to be forbidden once it has its size.</param>
    /// <exception cref="ErrnoException">A call failed.</exception>
    public static SafeFileHandle CreateMemoryFile(ReadOnlySpan<byte> name, long size, FileSeals seals)
    {
        int descriptor = MemfdCreate(name, MemoryFileFlags.CloseOnExec | MemoryFileFlags.AllowSealing)
            .ThrowIfError("create a memory file").Descriptor;
        var file = new SafeFileHandle(descriptor, ownsHandle: true);
        try
        {
            Files.Ftruncate(descriptor, size).ThrowIfError($"set the size of a memory file to {size}");
            if (seals != FileSeals.None)
            {
                AddSeals(descriptor, seals).ThrowIfError("seal a memory file");
            }
        }
        catch
        {
            file.Dispose();
            throw;
        }

        return file;
    }
}

/// <summary>What must be known of a file before mapping it.</summary>
/// <param name="IsRegular">Whether it is a regular file; memory files are.</param>
/// <param name="Size">Its size in bytes.</param>
/// <param name="BlockSize"><c>st_blksize</c>: on hugetlbfs the size of its pages.</param>
public readonly record struct MappableFileStatus(bool IsRegular, ulong Size, uint BlockSize);

/// <summary>PROT_* of mmap(2).</summary>
[Flags]
public enum MemoryProtection
{
    /// <summary>PROT_NONE.</summary>
    None = 0,

    /// <summary>PROT_READ.</summary>
    Read = 0x1,

    /// <summary>PROT_WRITE.</summary>
    Write = 0x2,

    /// <summary>PROT_EXEC.</summary>
    Execute = 0x4,
}

/// <summary>MAP_* of mmap(2), as x86-64, arm64 and riscv64 have them.</summary>
[Flags]
public enum MapFlags
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>MAP_SHARED.</summary>
    Shared = 0x1,

    /// <summary>MAP_PRIVATE.</summary>
    Private = 0x2,

    /// <summary>MAP_FIXED: replaces what is there.</summary>
    Fixed = 0x10,

    /// <summary>MAP_ANONYMOUS: no file.</summary>
    Anonymous = 0x20,

    /// <summary>MAP_NORESERVE: reserves no swap space.</summary>
    NoReserve = 0x4000,

    /// <summary>MAP_POPULATE: faults all pages in at once.</summary>
    Populate = 0x8000,
}

/// <summary>MADV_* of madvise(2).</summary>
public enum MemoryAdvice
{
    /// <summary>MADV_NORMAL.</summary>
    Normal = 0,

    /// <summary>MADV_DONTNEED: drops the pages.</summary>
    DontNeed = 4,

    /// <summary>MADV_REMOVE: frees the pages of the file behind.</summary>
    Remove = 9,

    /// <summary>MADV_HUGEPAGE: huge pages where possible.</summary>
    HugePage = 14,

    /// <summary>MADV_DONTDUMP: stays out of core files.</summary>
    DontDump = 16,
}

/// <summary>MFD_* of memfd_create(2).</summary>
[Flags]
public enum MemoryFileFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>MFD_CLOEXEC.</summary>
    CloseOnExec = 0x1,

    /// <summary>MFD_ALLOW_SEALING.</summary>
    AllowSealing = 0x2,

    /// <summary>MFD_HUGETLB.</summary>
    HugeTlb = 0x4,
}

/// <summary>F_SEAL_* of fcntl(2).</summary>
[Flags]
public enum FileSeals
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>F_SEAL_SEAL: no further seals.</summary>
    Seal = 0x1,

    /// <summary>F_SEAL_SHRINK: never smaller, so that a mapping cannot raise SIGBUS.</summary>
    Shrink = 0x2,

    /// <summary>F_SEAL_GROW: never larger.</summary>
    Grow = 0x4,

    /// <summary>F_SEAL_WRITE: never written again.</summary>
    Write = 0x8,

    /// <summary>F_SEAL_FUTURE_WRITE: written only through the mappings that exist.</summary>
    FutureWrite = 0x10,
}
