using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int prctl(int option, nuint arg2, nuint arg3, nuint arg4, nuint arg5);

    [LibraryImport(Name)]
    internal static partial int unshare(int flags);

    [LibraryImport(Name)]
    internal static partial uint umask(uint mask);
}
