using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>
/// The C library's functions, under their C names with C parameter order and blittable types only. The declarations are
/// spread over one file per topic; each has a wrapper of the same topic beside it that adds spans and
/// <see cref="SyscallResult"/>, and nothing else calls them.
/// </summary>
internal static unsafe partial class Libc
{
    /// <summary>The library that DirectPInvoke binds at link time.</summary>
    internal const string Name = "libc";

    /// <summary>The generic system call, for calls without a wrapper in the C library and for per-thread credentials.</summary>
    [LibraryImport(Name)]
    internal static partial nint syscall(nint number, nint arg1, nint arg2, nint arg3, nint arg4, nint arg5, nint arg6);
}
