using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int eventfd(uint initval, int flags);

    [LibraryImport(Name)]
    internal static partial int epoll_create1(int flags);

    [LibraryImport(Name)]
    internal static partial int epoll_ctl(int epfd, int op, int fd, void* @event);

    [LibraryImport(Name)]
    internal static partial int epoll_wait(int epfd, void* events, int maxevents, int timeout);

    [LibraryImport(Name, EntryPoint = "read")]
    internal static partial nint eventfd_read(int fd, ulong* value, nuint count);

    [LibraryImport(Name, EntryPoint = "write")]
    internal static partial nint eventfd_write(int fd, ulong* value, nuint count);
}
