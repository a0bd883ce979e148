using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name, SetLastError = true)]
    internal static partial nint getrandom(byte* buf, nuint buflen, uint flags);

    [LibraryImport(Name)]
    internal static partial void _exit(int status);

    [LibraryImport(Name)]
    internal static partial nint signal(int signum, nint handler);

    [LibraryImport(Name)]
    internal static partial int clock_gettime(int clockid, TimeSpecification* tp);

    [LibraryImport(Name)]
    internal static partial int sched_setaffinity(int pid, nuint size, ulong* mask);

    [LibraryImport(Name)]
    internal static partial int sched_getaffinity(int pid, nuint size, ulong* mask);
}
