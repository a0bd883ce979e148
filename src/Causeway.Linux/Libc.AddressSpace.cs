using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial void* mmap(void* address, nuint length, int protection, int flags, int fd, long offset);

    [LibraryImport(Name)]
    internal static partial int munmap(void* address, nuint length);

    [LibraryImport(Name)]
    internal static partial int mprotect(void* address, nuint length, int protection);
}
