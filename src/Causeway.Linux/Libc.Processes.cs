using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial void _exit(int status);

    [LibraryImport(Name)]
    internal static partial nint signal(int signum, nint handler);

    [LibraryImport(Name)]
    internal static partial int clock_gettime(int clockid, TimeSpecification* tp);
}
