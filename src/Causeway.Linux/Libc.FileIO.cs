using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial nint preadv2(int fd, IoVector* iov, int iovcnt, long offset, int flags);

    [LibraryImport(Name)]
    internal static partial nint pwritev2(int fd, IoVector* iov, int iovcnt, long offset, int flags);

    [LibraryImport(Name)]
    internal static partial nint pread(int fd, void* buf, nuint count, long offset);

    [LibraryImport(Name)]
    internal static partial nint pwrite(int fd, void* buf, nuint count, long offset);

    [LibraryImport(Name)]
    internal static partial int close(int fd);
}
