using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int setxattr(byte* path, byte* name, byte* value, nuint size, int flags);

    [LibraryImport(Name)]
    internal static partial nint getxattr(byte* path, byte* name, byte* value, nuint size);

    [LibraryImport(Name)]
    internal static partial nint listxattr(byte* path, byte* list, nuint size);

    [LibraryImport(Name)]
    internal static partial int removexattr(byte* path, byte* name);
}
