using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int pipe2(int* descriptors, int flags);

    [LibraryImport(Name)]
    internal static partial nint read(int fd, byte* buffer, nuint count);

    [LibraryImport(Name)]
    internal static partial nint write(int fd, byte* buffer, nuint count);
}
