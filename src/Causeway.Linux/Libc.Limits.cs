using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int prlimit(int pid, int resource, ResourceLimit* newLimit, ResourceLimit* oldLimit);
}
