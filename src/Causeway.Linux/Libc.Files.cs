using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int openat(int dirfd, byte* path, int flags, uint mode);

    [LibraryImport(Name)]
    internal static partial int statx(int dirfd, byte* path, int flags, uint mask, StatxBuffer* buffer);

    [LibraryImport(Name)]
    internal static partial int name_to_handle_at(
        int dirfd, byte* path, KernelFileHandle* handle, int* mountId, int flags);

    [LibraryImport(Name)]
    internal static partial int open_by_handle_at(int mountFd, KernelFileHandle* handle, int flags);

    [LibraryImport(Name)]
    internal static partial int mkdirat(int dirfd, byte* path, uint mode);

    [LibraryImport(Name)]
    internal static partial int mknodat(int dirfd, byte* path, uint mode, ulong device);

    [LibraryImport(Name)]
    internal static partial int symlinkat(byte* target, int dirfd, byte* path);

    [LibraryImport(Name)]
    internal static partial int linkat(int oldDirfd, byte* oldPath, int newDirfd, byte* newPath, int flags);

    [LibraryImport(Name)]
    internal static partial int renameat2(int oldDirfd, byte* oldPath, int newDirfd, byte* newPath, uint flags);

    [LibraryImport(Name)]
    internal static partial int unlinkat(int dirfd, byte* path, int flags);

    [LibraryImport(Name)]
    internal static partial nint readlinkat(int dirfd, byte* path, byte* buffer, nuint size);

    [LibraryImport(Name)]
    internal static partial int fchmod(int fd, uint mode);

    [LibraryImport(Name)]
    internal static partial int fchmodat(int dirfd, byte* path, uint mode, int flags);

    [LibraryImport(Name)]
    internal static partial int fchownat(int dirfd, byte* path, uint owner, uint group, int flags);

    [LibraryImport(Name)]
    internal static partial int futimens(int fd, TimeSpecification* times);

    [LibraryImport(Name)]
    internal static partial int utimensat(int dirfd, byte* path, TimeSpecification* times, int flags);

    [LibraryImport(Name)]
    internal static partial int truncate(byte* path, long length);

    [LibraryImport(Name)]
    internal static partial int ftruncate(int fd, long length);

    [LibraryImport(Name)]
    internal static partial int fstatfs(int fd, StatfsBuffer* buffer);

    [LibraryImport(Name)]
    internal static partial int fallocate(int fd, int mode, long offset, long length);

    [LibraryImport(Name)]
    internal static partial int posix_fadvise(int fd, long offset, long len, int advice);

    [LibraryImport(Name)]
    internal static partial long lseek(int fd, long offset, int whence);

    [LibraryImport(Name)]
    internal static partial nint copy_file_range(
        int fdIn, long* offsetIn, int fdOut, long* offsetOut, nuint length, uint flags);

    [LibraryImport(Name)]
    internal static partial int fsync(int fd);

    [LibraryImport(Name)]
    internal static partial int fdatasync(int fd);

    [LibraryImport(Name)]
    internal static partial int syncfs(int fd);

    [LibraryImport(Name)]
    internal static partial int fchdir(int fd);

    [LibraryImport(Name)]
    internal static partial nint getdents64(int fd, byte* buffer, nuint size);

    [LibraryImport(Name)]
    internal static partial int fcntl(int fd, int command, nint argument);
}
