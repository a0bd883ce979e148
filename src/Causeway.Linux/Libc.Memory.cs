using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial nint mmap(void* addr, nuint length, int prot, int flags, int fd, long offset);

    [LibraryImport(Name)]
    internal static partial int munmap(void* addr, nuint length);

    [LibraryImport(Name)]
    internal static partial int mprotect(void* addr, nuint length, int prot);

    [LibraryImport(Name)]
    internal static partial int madvise(void* addr, nuint length, int advice);

    [LibraryImport(Name)]
    internal static partial int memfd_create(byte* name, uint flags);
}
