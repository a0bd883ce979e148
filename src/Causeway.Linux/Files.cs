using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>
/// Files by directory and name. Each method is the system call of that name; its contract is the man page. Names end with
/// a NUL. Where a call can be interrupted, it is made again after EINTR.
/// </summary>
public static unsafe class Files
{
    /// <summary>AT_FDCWD: in place of a directory, the thread's working directory.</summary>
    public const int WorkingDirectory = -100;

    /// <summary>The flags of <see cref="OpenTree"/>: AT_EMPTY_PATH and OPEN_TREE_CLOEXEC.</summary>
    public const int OpenTreeFlags = (int)AtFlags.EmptyPath | OpenFlags.CloseOnExec;

    // Without a wrapper in the C library of Debian 12; the same number on every architecture.
    private const int SystemCallOpenat2 = 437;

    /// <summary>openat(2).</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="path">The path, with NUL.</param>
    /// <param name="flags">Flags of <see cref="OpenFlags"/>.</param>
    /// <param name="mode">Permissions of a new file.</param>
    /// <returns>A descriptor.</returns>
    public static SyscallResult Openat(int directory, ReadOnlySpan<byte> path, int flags, uint mode = 0)
    {
        AssertTerminated(path);
        fixed (byte* pointer = path)
        {
            while (true)
            {
                SyscallResult result = SyscallResult.From(Libc.openat(directory, pointer, flags, mode));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }

    /// <summary>openat2(2): like openat(2), with a say in how the path is resolved.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="path">The path, with NUL.</param>
    /// <param name="flags">Flags of <see cref="OpenFlags"/>; unknown ones are an error.</param>
    /// <param name="mode">Permissions of a new file; zero unless one can be made.</param>
    /// <param name="resolve">What the resolution may not do.</param>
    /// <returns>A descriptor.</returns>
    public static SyscallResult Openat2(
        int directory, ReadOnlySpan<byte> path, int flags, uint mode, ResolveFlags resolve)
    {
        AssertTerminated(path);
        var how = new OpenHow { Flags = (uint)flags, Mode = mode, Resolve = resolve };
        fixed (byte* pointer = path)
        {
            while (true)
            {
                SyscallResult result = SyscallResult.From(Libc.syscall(
                    SystemCallOpenat2, directory, (nint)pointer, (nint)(&how), sizeof(OpenHow), 0, 0));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }

    /// <summary>statx(2) of a name.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="path">The path, with NUL.</param>
    /// <param name="flags">AT_* flags.</param>
    /// <param name="mask">What is asked for.</param>
    /// <param name="buffer">The answer.</param>
    public static SyscallResult Statx(
        int directory, ReadOnlySpan<byte> path, AtFlags flags, StatxMask mask, out StatxBuffer buffer)
    {
        AssertTerminated(path);
        fixed (byte* pointer = path)
        fixed (StatxBuffer* answer = &buffer)
        {
            return SyscallResult.From(Libc.statx(directory, pointer, (int)flags, (uint)mask, answer));
        }
    }

    /// <summary>statx(2) of an open descriptor, which may be one of O_PATH.</summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="mask">What is asked for.</param>
    /// <param name="buffer">The answer.</param>
    public static SyscallResult Statx(int descriptor, StatxMask mask, out StatxBuffer buffer) =>
        Statx(descriptor, "\0"u8, AtFlags.EmptyPath | AtFlags.NoFollow, mask, out buffer);

    /// <summary>name_to_handle_at(2).</summary>
    /// <param name="directory">The directory, or the object itself with the empty name.</param>
    /// <param name="path">The path, with NUL.</param>
    /// <param name="handle">The handle.</param>
    /// <param name="flags">AT_EMPTY_PATH or AT_SYMLINK_FOLLOW.</param>
    public static SyscallResult NameToHandleAt(
        int directory, ReadOnlySpan<byte> path, out KernelFileHandle handle, AtFlags flags)
    {
        AssertTerminated(path);
        int mountId;
        fixed (byte* pointer = path)
        fixed (KernelFileHandle* answer = &handle)
        {
            answer->Length = KernelFileHandle.MaxLength;
            answer->Type = 0;
            return SyscallResult.From(Libc.name_to_handle_at(directory, pointer, answer, &mountId, (int)flags));
        }
    }

    /// <summary>open_by_handle_at(2). Needs CAP_DAC_READ_SEARCH.</summary>
    /// <param name="mount">Any descriptor on the file system's mount, not one of O_PATH.</param>
    /// <param name="handle">The handle.</param>
    /// <param name="flags">Flags of <see cref="OpenFlags"/>.</param>
    /// <returns>A descriptor; ESTALE when the inode is gone.</returns>
    public static SyscallResult OpenByHandleAt(int mount, in KernelFileHandle handle, int flags)
    {
        fixed (KernelFileHandle* pointer = &handle)
        {
            while (true)
            {
                SyscallResult result = SyscallResult.From(Libc.open_by_handle_at(mount, pointer, flags));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }

    /// <summary>mkdirat(2).</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="name">The name, with NUL.</param>
    /// <param name="mode">Permissions.</param>
    public static SyscallResult Mkdirat(int directory, ReadOnlySpan<byte> name, uint mode)
    {
        AssertTerminated(name);
        fixed (byte* pointer = name)
        {
            return SyscallResult.From(Libc.mkdirat(directory, pointer, mode));
        }
    }

    /// <summary>mknodat(2).</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="name">The name, with NUL.</param>
    /// <param name="mode">Type and permissions.</param>
    /// <param name="device">Device number: (minor &amp; 0xff) | (major &lt;&lt; 8) | ((minor &amp; ~0xff) &lt;&lt; 12).</param>
    public static SyscallResult Mknodat(int directory, ReadOnlySpan<byte> name, uint mode, uint device)
    {
        AssertTerminated(name);
        fixed (byte* pointer = name)
        {
            return SyscallResult.From(Libc.mknodat(directory, pointer, mode, device));
        }
    }

    /// <summary>symlinkat(2).</summary>
    /// <param name="target">The target, with NUL.</param>
    /// <param name="directory">The directory.</param>
    /// <param name="name">The name, with NUL.</param>
    public static SyscallResult Symlinkat(ReadOnlySpan<byte> target, int directory, ReadOnlySpan<byte> name)
    {
        AssertTerminated(target);
        AssertTerminated(name);
        fixed (byte* targetPointer = target)
        fixed (byte* pointer = name)
        {
            return SyscallResult.From(Libc.symlinkat(targetPointer, directory, pointer));
        }
    }

    /// <summary>linkat(2).</summary>
    /// <param name="oldDirectory">The directory of the existing name.</param>
    /// <param name="oldPath">The existing name, with NUL.</param>
    /// <param name="newDirectory">The directory of the new name.</param>
    /// <param name="newName">The new name, with NUL.</param>
    /// <param name="flags">AT_SYMLINK_FOLLOW or AT_EMPTY_PATH.</param>
    public static SyscallResult Linkat(
        int oldDirectory, ReadOnlySpan<byte> oldPath, int newDirectory, ReadOnlySpan<byte> newName, AtFlags flags)
    {
        AssertTerminated(oldPath);
        AssertTerminated(newName);
        fixed (byte* oldPointer = oldPath)
        fixed (byte* newPointer = newName)
        {
            return SyscallResult.From(Libc.linkat(oldDirectory, oldPointer, newDirectory, newPointer, (int)flags));
        }
    }

    /// <summary>renameat2(2).</summary>
    /// <param name="oldDirectory">The directory of the old name.</param>
    /// <param name="oldName">The old name, with NUL.</param>
    /// <param name="newDirectory">The directory of the new name.</param>
    /// <param name="newName">The new name, with NUL.</param>
    /// <param name="flags">RENAME_*.</param>
    public static SyscallResult Renameat2(
        int oldDirectory, ReadOnlySpan<byte> oldName, int newDirectory, ReadOnlySpan<byte> newName, uint flags)
    {
        AssertTerminated(oldName);
        AssertTerminated(newName);
        fixed (byte* oldPointer = oldName)
        fixed (byte* newPointer = newName)
        {
            return SyscallResult.From(Libc.renameat2(oldDirectory, oldPointer, newDirectory, newPointer, flags));
        }
    }

    /// <summary>unlinkat(2).</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="name">The name, with NUL.</param>
    /// <param name="flags">AT_REMOVEDIR for a directory.</param>
    public static SyscallResult Unlinkat(int directory, ReadOnlySpan<byte> name, AtFlags flags)
    {
        AssertTerminated(name);
        fixed (byte* pointer = name)
        {
            return SyscallResult.From(Libc.unlinkat(directory, pointer, (int)flags));
        }
    }

    /// <summary>readlinkat(2).</summary>
    /// <param name="directory">The directory, or an O_PATH descriptor of the link with the empty name.</param>
    /// <param name="path">The path, with NUL.</param>
    /// <param name="destination">Where the target goes, without NUL; cut off when it does not fit.</param>
    /// <returns>The length of what was written.</returns>
    public static SyscallResult Readlinkat(int directory, ReadOnlySpan<byte> path, Span<byte> destination)
    {
        AssertTerminated(path);
        fixed (byte* pointer = path)
        fixed (byte* buffer = destination)
        {
            return SyscallResult.From(Libc.readlinkat(directory, pointer, buffer, (nuint)destination.Length));
        }
    }

    /// <summary>fchmod(2).</summary>
    /// <param name="descriptor">The open file.</param>
    /// <param name="mode">Permissions.</param>
    public static SyscallResult Fchmod(int descriptor, uint mode) => SyscallResult.From(Libc.fchmod(descriptor, mode));

    /// <summary>fchmodat2(2) of a descriptor, which may be one of O_PATH.</summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="mode">Permissions.</param>
    /// <returns>ENOSYS where the kernel is older than Linux 6.6.</returns>
    public static SyscallResult Fchmodat2(int descriptor, uint mode)
    {
        // The same number on all architectures; glibc has no wrapper before 2.39.
        const int Number = 452;
        fixed (byte* pointer = "\0"u8)
        {
            return SyscallResult.From(Libc.syscall(
                Number, descriptor, (nint)pointer, (nint)mode, (nint)AtFlags.EmptyPath, 0, 0));
        }
    }

    /// <summary>
    /// open_tree(2) without OPEN_TREE_CLONE: an O_PATH descriptor of what a descriptor means. The same as opening its name in
    /// /proc/self/fd, at half the cost.
    /// </summary>
    /// <param name="descriptor">The descriptor, whatever it is open for.</param>
    /// <returns>
    /// ENOSYS where the kernel is older than Linux 5.2, EPERM where a container's filter takes all of open_tree(2) for mounting.
    /// </returns>
    public static SyscallResult OpenTree(int descriptor)
    {
        // The same number on all architectures; glibc has no wrapper before 2.36.
        const int Number = 428;
        fixed (byte* pointer = "\0"u8)
        {
            return SyscallResult.From(Libc.syscall(Number, descriptor, (nint)pointer, OpenTreeFlags, 0, 0, 0));
        }
    }

    /// <summary>fchmodat(2), which follows symbolic links.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="path">The path, with NUL.</param>
    /// <param name="mode">Permissions.</param>
    public static SyscallResult Fchmodat(int directory, ReadOnlySpan<byte> path, uint mode)
    {
        AssertTerminated(path);
        fixed (byte* pointer = path)
        {
            return SyscallResult.From(Libc.fchmodat(directory, pointer, mode, 0));
        }
    }

    /// <summary>fchownat(2) of a descriptor, which may be one of O_PATH.</summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="owner">The owner; all ones leaves it.</param>
    /// <param name="group">The group; all ones leaves it.</param>
    public static SyscallResult Fchown(int descriptor, uint owner, uint group)
    {
        fixed (byte* pointer = "\0"u8)
        {
            return SyscallResult.From(Libc.fchownat(
                descriptor, pointer, owner, group, (int)(AtFlags.EmptyPath | AtFlags.NoFollow)));
        }
    }

    /// <summary>futimens(3).</summary>
    /// <param name="descriptor">The open file.</param>
    /// <param name="access">Time of access.</param>
    /// <param name="modification">Time of modification.</param>
    public static SyscallResult Futimens(
        int descriptor, in TimeSpecification access, in TimeSpecification modification)
    {
        TimeSpecification* times = stackalloc TimeSpecification[] { access, modification };
        return SyscallResult.From(Libc.futimens(descriptor, times));
    }

    /// <summary>utimensat(2) of a descriptor, which may be one of O_PATH (Linux 5.8).</summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="access">Time of access.</param>
    /// <param name="modification">Time of modification.</param>
    public static SyscallResult Utimensat(
        int descriptor, in TimeSpecification access, in TimeSpecification modification)
    {
        TimeSpecification* times = stackalloc TimeSpecification[] { access, modification };
        fixed (byte* pointer = "\0"u8)
        {
            return SyscallResult.From(Libc.utimensat(descriptor, pointer, times, (int)AtFlags.EmptyPath));
        }
    }

    /// <summary>truncate(2), which follows symbolic links.</summary>
    /// <param name="path">The path, relative to the thread's working directory, with NUL.</param>
    /// <param name="length">The new size in bytes.</param>
    public static SyscallResult Truncate(ReadOnlySpan<byte> path, long length)
    {
        AssertTerminated(path);
        fixed (byte* pointer = path)
        {
            while (true)
            {
                SyscallResult result = SyscallResult.From(Libc.truncate(pointer, length));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }

    /// <summary>ftruncate(2).</summary>
    /// <param name="descriptor">The open file.</param>
    /// <param name="length">The new size in bytes.</param>
    public static SyscallResult Ftruncate(int descriptor, long length)
    {
        while (true)
        {
            SyscallResult result = SyscallResult.From(Libc.ftruncate(descriptor, length));
            if (result.Error != Errno.EINTR)
            {
                return result;
            }
        }
    }

    /// <summary>fstatfs(2).</summary>
    /// <param name="descriptor">The descriptor, which may be one of O_PATH.</param>
    /// <param name="buffer">The answer.</param>
    public static SyscallResult Fstatfs(int descriptor, out StatfsBuffer buffer)
    {
        fixed (StatfsBuffer* answer = &buffer)
        {
            return SyscallResult.From(Libc.fstatfs(descriptor, answer));
        }
    }

    /// <summary>posix_fadvise(2).</summary>
    /// <param name="descriptor">A file.</param>
    /// <param name="offset">From where on.</param>
    /// <param name="length">How much of it; zero for all.</param>
    /// <param name="advice">What is going to be done with it.</param>
    public static SyscallResult PosixFadvise(int descriptor, long offset, long length, FileAdvice advice) =>
        // Returns the error, which is not in errno.
        new(-(nint)Libc.posix_fadvise(descriptor, offset, length, (int)advice));

    /// <summary>fallocate(2).</summary>
    /// <param name="descriptor">The open file.</param>
    /// <param name="mode">FALLOC_FL_*.</param>
    /// <param name="offset">Start in bytes.</param>
    /// <param name="length">Length in bytes.</param>
    public static SyscallResult Fallocate(int descriptor, int mode, long offset, long length)
    {
        while (true)
        {
            SyscallResult result = SyscallResult.From(Libc.fallocate(descriptor, mode, offset, length));
            if (result.Error != Errno.EINTR)
            {
                return result;
            }
        }
    }

    /// <summary>lseek(2).</summary>
    /// <param name="descriptor">The open file.</param>
    /// <param name="offset">The position in bytes, or a directory's cookie.</param>
    /// <param name="whence">SEEK_*.</param>
    public static SyscallResult Lseek(int descriptor, long offset, int whence)
    {
        long position = Libc.lseek(descriptor, offset, whence);
        // A directory's cookie can look negative; the C library answers -1 and sets errno on failure only.
        return position == -1 ? SyscallResult.From(-1) : SyscallResult.From((nint)(position & long.MaxValue));
    }

    /// <summary>copy_file_range(2).</summary>
    /// <param name="source">The open source.</param>
    /// <param name="sourceOffset">Position in the source in bytes.</param>
    /// <param name="destination">The open destination.</param>
    /// <param name="destinationOffset">Position in the destination in bytes.</param>
    /// <param name="length">How many bytes at most.</param>
    /// <returns>How many bytes were copied.</returns>
    public static SyscallResult CopyFileRange(
        int source, long sourceOffset, int destination, long destinationOffset, long length)
    {
        while (true)
        {
            SyscallResult result = SyscallResult.From(Libc.copy_file_range(
                source, &sourceOffset, destination, &destinationOffset, (nuint)length, 0));
            if (result.Error != Errno.EINTR)
            {
                return result;
            }
        }
    }

    /// <summary>fsync(2).</summary>
    /// <param name="descriptor">The open file or directory.</param>
    public static SyscallResult Fsync(int descriptor) => SyscallResult.From(Libc.fsync(descriptor));

    /// <summary>fdatasync(2).</summary>
    /// <param name="descriptor">The open file or directory.</param>
    public static SyscallResult Fdatasync(int descriptor) => SyscallResult.From(Libc.fdatasync(descriptor));

    /// <summary>syncfs(2).</summary>
    /// <param name="descriptor">Any open object of the file system, not one of O_PATH.</param>
    public static SyscallResult Syncfs(int descriptor) => SyscallResult.From(Libc.syncfs(descriptor));

    /// <summary>fchdir(2): changes the working directory of all threads that share it.</summary>
    /// <param name="descriptor">The directory.</param>
    public static SyscallResult Fchdir(int descriptor) => SyscallResult.From(Libc.fchdir(descriptor));

    /// <summary>dup(2) with close-on-exec.</summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <returns>Another descriptor of the same open file.</returns>
    public static SyscallResult Duplicate(int descriptor)
    {
        const int duplicateCloseOnExec = 1030;
        return SyscallResult.From(Libc.fcntl(descriptor, duplicateCloseOnExec, 0));
    }

    [Conditional("DEBUG")]
    private static void AssertTerminated(ReadOnlySpan<byte> path) =>
        Debug.Assert(path.Length > 0 && path[^1] == 0, "a path for the kernel ends with NUL");

    [StructLayout(LayoutKind.Sequential)]
    private struct OpenHow
    {
        public ulong Flags;
        public ulong Mode;
        public ResolveFlags Resolve;
    }
}
