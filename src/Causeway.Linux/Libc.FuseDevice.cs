using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int ioctl(int fd, nuint request, void* argument);

    [LibraryImport(Name)]
    internal static partial nint read(int fd, void* buf, nuint count);

    [LibraryImport(Name)]
    internal static partial nint writev(int fd, IoVector* iov, int iovcnt);
}
