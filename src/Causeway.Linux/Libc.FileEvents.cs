using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int inotify_init1(int flags);

    [LibraryImport(Name)]
    internal static partial int inotify_add_watch(int fd, byte* pathname, uint mask);

    [LibraryImport(Name)]
    internal static partial int inotify_rm_watch(int fd, int wd);

    [LibraryImport(Name)]
    internal static partial int fanotify_init(uint flags, uint event_f_flags);

    [LibraryImport(Name)]
    internal static partial int fanotify_mark(int fanotify_fd, uint flags, ulong mask, int dirfd, byte* pathname);
}
