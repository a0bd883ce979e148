using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int dup3(int oldfd, int newfd, int flags);
}
