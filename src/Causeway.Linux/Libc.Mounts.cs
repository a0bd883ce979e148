using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int mount(byte* source, byte* target, byte* filesystemtype, nuint mountflags, byte* data);

    [LibraryImport(Name)]
    internal static partial int umount2(byte* target, int flags);
}
