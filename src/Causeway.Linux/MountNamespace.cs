using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>What is mounted where, for the calling process's mount namespace. Each method is the call of that name.</summary>
public static unsafe class MountNamespace
{
    /// <summary>MS_REC.</summary>
    private const ulong Recursive = 0x4000;

    /// <summary>MS_SLAVE.</summary>
    private const ulong Slave = 0x80000;

    /// <summary>MNT_DETACH.</summary>
    private const int DetachFlag = 2;

    /// <summary>AT_RECURSIVE.</summary>
    private const int AtRecursive = 0x8000;

    // The numbers below are the same on every architecture.
    private const int SystemCallOpenTree = 428;
    private const int SystemCallMoveMount = 429;
    private const int SystemCallFsopen = 430;
    private const int SystemCallFsconfig = 431;
    private const int SystemCallFsmount = 432;
    private const int SystemCallMountSetattr = 442;

    /// <summary>FSCONFIG_SET_STRING.</summary>
    private const int SetString = 1;

    /// <summary>FSCONFIG_CMD_CREATE.</summary>
    private const int CommandCreate = 6;

    /// <summary>OPEN_TREE_CLONE.</summary>
    private const int OpenTreeClone = 1;

    /// <summary>MOVE_MOUNT_F_EMPTY_PATH.</summary>
    private const int MoveFromDescriptor = 0x4;

    /// <summary>MOVE_MOUNT_T_EMPTY_PATH.</summary>
    private const int MoveToDescriptor = 0x40;

    /// <summary>AT_EMPTY_PATH.</summary>
    private const int AtEmptyPath = 0x1000;

    private static readonly bool s_isX64 = RuntimeInformation.ProcessArchitecture == Architecture.X64;

    private static int SystemCallPivotRoot => s_isX64 ? 155 : 41;

    private static int SystemCallMount => s_isX64 ? 165 : 40;

    private static int SystemCallUmount2 => s_isX64 ? 166 : 39;

    private static int SystemCallChroot => s_isX64 ? 161 : 51;

    /// <summary>
    /// mount(2) with MS_SLAVE and MS_REC on "/": what is mounted from now on does not show outside, while what is mounted
    /// outside still shows here.
    /// </summary>
    public static SyscallResult MakeAllSlaves()
    {
        fixed (byte* root = "/\0"u8)
        {
            return SyscallResult.From(Libc.syscall(SystemCallMount, 0, (nint)root, 0, (nint)(Recursive | Slave), 0, 0));
        }
    }

    /// <summary>open_tree(2) with OPEN_TREE_CLONE: a copy of a mounted tree that is mounted nowhere yet.</summary>
    /// <param name="directory">An O_PATH descriptor of the tree's top.</param>
    /// <param name="recursive">Whether what is mounted below comes along.</param>
    /// <returns>A descriptor of the copy's top.</returns>
    public static SyscallResult CloneTree(int directory, bool recursive)
    {
        fixed (byte* empty = "\0"u8)
        {
            int flags = OpenTreeClone | OpenFlags.CloseOnExec | AtEmptyPath | (recursive ? AtRecursive : 0);
            return SyscallResult.From(Libc.syscall(SystemCallOpenTree, directory, (nint)empty, flags, 0, 0, 0));
        }
    }

    /// <summary>move_mount(2): mounts a tree.</summary>
    /// <param name="tree">What <see cref="CloneTree"/> or <see cref="Tmpfs"/> returned.</param>
    /// <param name="directory">A descriptor of the directory that is covered.</param>
    public static SyscallResult MoveTo(int tree, int directory)
    {
        fixed (byte* empty = "\0"u8)
        {
            return SyscallResult.From(Libc.syscall(
                SystemCallMoveMount, tree, (nint)empty, directory, (nint)empty, MoveFromDescriptor | MoveToDescriptor, 0));
        }
    }

    /// <summary>fsopen(2), fsconfig(2) and fsmount(2): an empty tmpfs that is mounted nowhere yet.</summary>
    /// <param name="size">Its size, as mount(8) takes it.</param>
    /// <returns>A descriptor of its top.</returns>
    public static SyscallResult Tmpfs(ReadOnlySpan<byte> size)
    {
        fixed (byte* type = "tmpfs\0"u8)
        fixed (byte* sizeKey = "size\0"u8)
        fixed (byte* sizeValue = size)
        {
            SyscallResult context = SyscallResult.From(
                Libc.syscall(SystemCallFsopen, (nint)type, 1, 0, 0, 0, 0));
            if (context.IsError)
            {
                return context;
            }

            SyscallResult result = SyscallResult.From(Libc.syscall(
                SystemCallFsconfig, context.Descriptor, SetString, (nint)sizeKey, (nint)sizeValue, 0, 0));
            if (!result.IsError)
            {
                result = SyscallResult.From(
                    Libc.syscall(SystemCallFsconfig, context.Descriptor, CommandCreate, 0, 0, 0, 0));
            }

            if (!result.IsError)
            {
                // FSMOUNT_CLOEXEC is 1, as FSOPEN_CLOEXEC above.
                result = SyscallResult.From(Libc.syscall(
                    SystemCallFsmount, context.Descriptor, 1,
                    (nint)(MountAttributes.NoSuid | MountAttributes.NoDevices | MountAttributes.NoExecution), 0, 0, 0));
            }

            _ = Libc.close(context.Descriptor);
            return result;
        }
    }

    /// <summary>mount_setattr(2): sets attributes of a mounted tree.</summary>
    /// <param name="tree">A descriptor of its top.</param>
    /// <param name="attributes">The attributes.</param>
    /// <param name="recursive">Whether also of what is mounted below.</param>
    public static SyscallResult SetAttributes(int tree, MountAttributes attributes, bool recursive)
    {
        var change = new MountAttributeChange { Set = (ulong)attributes };
        fixed (byte* empty = "\0"u8)
        {
            return SyscallResult.From(Libc.syscall(
                SystemCallMountSetattr, tree, (nint)empty, AtEmptyPath | (recursive ? AtRecursive : 0), (nint)(&change),
                sizeof(MountAttributeChange), 0));
        }
    }

    /// <summary>
    /// pivot_root(".", "."): the working directory, which is the top of a mount, becomes the root of all processes of the
    /// namespace, and the old root comes to lie over it.
    /// </summary>
    public static SyscallResult PivotRoot()
    {
        fixed (byte* here = ".\0"u8)
        {
            return SyscallResult.From(Libc.syscall(SystemCallPivotRoot, (nint)here, (nint)here, 0, 0, 0, 0));
        }
    }

    /// <summary>umount2(2) with MNT_DETACH of the working directory.</summary>
    public static SyscallResult DetachHere()
    {
        fixed (byte* here = ".\0"u8)
        {
            return SyscallResult.From(Libc.syscall(SystemCallUmount2, (nint)here, DetachFlag, 0, 0, 0, 0));
        }
    }

    /// <summary>chroot(2) to the working directory.</summary>
    public static SyscallResult ChrootHere()
    {
        fixed (byte* here = ".\0"u8)
        {
            return SyscallResult.From(Libc.syscall(SystemCallChroot, (nint)here, 0, 0, 0, 0, 0));
        }
    }

    /// <summary><c>struct mount_attr</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct MountAttributeChange
    {
        /// <summary><c>attr_set</c></summary>
        public ulong Set;

        /// <summary><c>attr_clr</c></summary>
        public ulong Clear;

        /// <summary><c>propagation</c></summary>
        public ulong Propagation;

        /// <summary><c>userns_fd</c></summary>
        public ulong UserNamespace;
    }
}

/// <summary>What a mount forbids; mount_setattr(2).</summary>
[Flags]
public enum MountAttributes
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>MOUNT_ATTR_RDONLY.</summary>
    ReadOnly = 0x1,

    /// <summary>MOUNT_ATTR_NOSUID.</summary>
    NoSuid = 0x2,

    /// <summary>MOUNT_ATTR_NODEV.</summary>
    NoDevices = 0x4,

    /// <summary>MOUNT_ATTR_NOEXEC.</summary>
    NoExecution = 0x8,
}
