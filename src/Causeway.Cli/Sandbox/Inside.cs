using System.Text;
using Causeway.Linux;
using Causeway.Passthrough;

namespace Causeway.Cli.Sandbox;

/// <summary>
/// Stage two on its way in: makes everything of the host unreachable but the share. What the daemon needs from /proc is opened
/// before, and stays usable.
/// </summary>
internal static class Inside
{
    private const string NeedsNewerKernel = "the kernel is older than Linux 5.12; use a newer one or '--sandbox chroot'";

    /// <summary>
    /// Enters the namespaces' own root: an empty, read-only tmpfs with the share mounted on its only directory. The runtime
    /// opens a few absolute paths by itself; in an empty root nobody but us decides what is there.
    /// </summary>
    /// <param name="options">What is shared.</param>
    /// <returns>Where the share is now.</returns>
    /// <exception cref="StartupException">A step cannot be done.</exception>
    public static ShareLocation EnterNamespaceRoot(PassthroughOptions options)
    {
        if (Environment.ProcessId != 1)
        {
            // Never on the host's own mounts.
            throw new StartupException("stage two of the sandbox was started by somebody else than stage one; start 'serve'");
        }

        Do(MountNamespace.MakeAllSlaves(), "keep the sandbox's mounts from showing on the host");
        bool isInInitialUserNamespace = Credentials.IsInInitialUserNamespace();
        int processes = CloneProcess();
        int shared = OpenShared(options.SharedDirectory);
        int tree = Do(
            MountNamespace.CloneTree(shared, recursive: true), $"mount '{options.SharedDirectory}' in the sandbox").Descriptor;
        MountAttributes attributes = MountAttributes.NoSuid | MountAttributes.NoDevices;
        attributes |= options.ReadOnly ? MountAttributes.ReadOnly : MountAttributes.None;
        Do(MountNamespace.SetAttributes(tree, attributes, recursive: true), "forbid setuid programs and devices in the share");
        int root = Do(MountNamespace.Tmpfs("64k\0"u8), "make an empty root directory (tmpfs)").Descriptor;
        Do(Files.Mkdirat(root, "share\0"u8, 0b111_000_000), "make the directory for the share");
        Do(MountNamespace.MoveTo(root, shared), "mount the empty root directory");
        Do(Files.Fchdir(root), "enter the empty root directory");
        Do(MountNamespace.PivotRoot(), "leave the host's root directory (pivot_root)");
        Do(MountNamespace.DetachHere(), "detach the host's root directory");
        Do(Files.Fchdir(root), "return to the empty root directory");
        int place = Do(
            Files.Openat(root, "share\0"u8, OpenFlags.Path | OpenFlags.Directory | OpenFlags.CloseOnExec),
            "open the directory for the share").Descriptor;
        Do(MountNamespace.MoveTo(tree, place), "mount the share in the empty root directory");
        Do(
            MountNamespace.SetAttributes(root, MountAttributes.ReadOnly, recursive: false),
            "make the empty root directory read-only");
        foreach (int descriptor in (int[])[shared, tree, root, place])
        {
            _ = FileIO.Close(descriptor);
        }

        return new ShareLocation("/share", processes, isInInitialUserNamespace, HasOwnMounts: true);
    }

    /// <summary>Makes the share the root directory.</summary>
    /// <param name="options">What is shared.</param>
    /// <returns>Where the share is now.</returns>
    /// <exception cref="StartupException">A step cannot be done.</exception>
    public static ShareLocation EnterChroot(PassthroughOptions options)
    {
        bool isInInitialUserNamespace = Credentials.IsInInitialUserNamespace();
        int processes = Do(
            Files.Openat(
                Files.WorkingDirectory, "/proc/self/fd\0"u8, OpenFlags.Path | OpenFlags.Directory | OpenFlags.CloseOnExec),
            "open '/proc/self/fd' (is /proc mounted?)").Descriptor;
        int shared = OpenShared(options.SharedDirectory);
        Do(Files.Fchdir(shared), $"enter '{options.SharedDirectory}'");
        Do(MountNamespace.ChrootHere(), $"make '{options.SharedDirectory}' the root directory (chroot, which needs CAP_SYS_CHROOT)");
        _ = FileIO.Close(shared);
        return new ShareLocation("/", processes, isInInitialUserNamespace);
    }

    // Only the descriptors' directory, as a mount of its own: from it no way leads to the rest of /proc.
    private static int CloneProcess()
    {
        int directory = Do(
            Files.Openat(
                Files.WorkingDirectory, "/proc/self/fd\0"u8, OpenFlags.Path | OpenFlags.Directory | OpenFlags.CloseOnExec),
            "open '/proc/self/fd' (is /proc mounted?)").Descriptor;
        int clone = Do(
            MountNamespace.CloneTree(directory, recursive: false), "keep '/proc/self/fd' for the sandbox (open_tree)").Descriptor;
        _ = FileIO.Close(directory);
        return clone;
    }

    private static int OpenShared(string path) => Do(
        Files.Openat(
            Files.WorkingDirectory, Encoding.UTF8.GetBytes(path + '\0'),
            OpenFlags.Path | OpenFlags.Directory | OpenFlags.CloseOnExec),
        $"open the shared directory '{path}'").Descriptor;

    private static SyscallResult Do(SyscallResult result, string what) => !result.IsError
        ? result
        : throw new StartupException(
            $"the sandbox cannot {what}: {ErrnoException.Describe(result.Error)}; " + (result.Error switch
            {
                Errno.ENOSYS => NeedsNewerKernel,
                Errno.EPERM => "something around this process forbids it (a container?); give it CAP_SYS_ADMIN, or choose "
                    + "'--sandbox chroot' or '--sandbox none'",
                _ => "'--sandbox none' serves without a sandbox",
            }));
}
