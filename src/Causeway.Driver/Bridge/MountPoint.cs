using System.Globalization;
using System.Text;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver.Bridge;

/// <summary>
/// A directory on which a FUSE connection is mounted, or is to be. Privileged users mount by mount(2), others by
/// fusermount3(1).
/// </summary>
public static class MountPoint
{
    /// <summary>The type of our mounts in /proc/mounts.</summary>
    public const string Type = "fuse.causeway";

    /// <summary>Mounts a new connection.</summary>
    /// <param name="options">Where and how.</param>
    /// <returns>The device of the connection, owned by the caller. It does not block.</returns>
    /// <exception cref="IOException">Mounting failed; the message says why and what to do.</exception>
    internal static SafeFileHandle Mount(BridgeOptions options)
    {
        if (Credentials.Geteuid() != 0)
        {
            return UserMount.Mount(options.MountPoint, string.Join(',', UserOptions(options)));
        }

        SyscallResult opened = FuseDevice.Open();
        if (opened.IsError)
        {
            throw new IOException(
                $"cannot open /dev/fuse: {ErrnoException.Describe(opened.Error)}; load the module 'fuse', or give the "
                + "container the device");
        }

        var device = new SafeFileHandle(opened.Descriptor, ownsHandle: true);
        string data = string.Join(',', KernelOptions(options, opened.Descriptor));
        SyscallResult mounted = Mounts.Mount(
            Terminated(SourceOf(options)), Terminated(options.MountPoint), Terminated(Type), options.Flags, Terminated(data));
        if (mounted.IsError)
        {
            device.Dispose();
            throw new IOException(
                $"cannot mount on '{options.MountPoint}': {ErrnoException.Describe(mounted.Error)}; mounting needs an "
                + "existing directory and CAP_SYS_ADMIN");
        }

        return device;
    }

    /// <summary>Unmounts.</summary>
    /// <param name="path">The directory.</param>
    /// <param name="isLazy">Whether to take the mount away even while it is used.</param>
    /// <returns>Success, or why not.</returns>
    public static Errno Unmount(string path, bool isLazy)
    {
        if (Credentials.Geteuid() != 0)
        {
            return UserMount.Unmount(path, isLazy);
        }

        UnmountFlags flags = UnmountFlags.NoFollow | (isLazy ? UnmountFlags.Detach : UnmountFlags.None);
        return Mounts.Umount2(Terminated(path), flags).Error;
    }

    /// <summary>Whether one of our mounts is the topmost on a directory.</summary>
    /// <param name="path">The directory, an absolute path without symbolic links.</param>
    public static bool IsOurs(string path)
    {
        // Fields of proc(5): the fifth is the mount point, and the type is the first after the hyphen.
        string? type = null;
        foreach (string line in File.ReadLines("/proc/self/mountinfo"))
        {
            string[] fields = line.Split(' ');
            int hyphen = Array.IndexOf(fields, "-");
            if (hyphen > 4 && hyphen + 1 < fields.Length && Unescape(fields[4]) == path)
            {
                type = fields[hyphen + 1];
            }
        }

        return type == Type;
    }

    /// <summary>Whether one of our mounts is on a directory and nobody serves it any more.</summary>
    /// <param name="path">The directory, an absolute path without symbolic links.</param>
    public static bool IsDead(string path)
    {
        if (!IsOurs(path))
        {
            return false;
        }

        // Not statx(2), which the kernel may answer from its cache; statfs(2) always asks.
        SyscallResult opened = Files.Openat(Files.WorkingDirectory, Terminated(path), OpenFlags.Path | OpenFlags.CloseOnExec);
        if (opened.IsError)
        {
            return IsDisconnected(opened.Error);
        }

        using var directory = new SafeFileHandle(opened.Descriptor, ownsHandle: true);
        return IsDisconnected(Files.Fstatfs(opened.Descriptor, out _).Error);
    }

    /// <summary>
    /// The absolute path of a directory without symbolic links. Its last component may be a dead mount, so that it is not
    /// looked at.
    /// </summary>
    /// <param name="path">The path as it was given.</param>
    public static string Resolve(string path)
    {
        string full = Path.GetFullPath(path);
        if (full.Length > 1)
        {
            full = Path.TrimEndingDirectorySeparator(full);
        }

        string? parent = Path.GetDirectoryName(full);
        if (parent is null)
        {
            return full;
        }

        string name = Path.GetFileName(full);
        string resolved = ResolveLinks(parent);
        FileSystemInfo? target = File.ResolveLinkTarget(Path.Combine(resolved, name), returnFinalTarget: true);
        return target is null ? Path.Combine(resolved, name) : ResolveLinks(target.FullName);
    }

    internal static byte[] Terminated(string text) => Encoding.UTF8.GetBytes(text + '\0');

    // ECANCELED: the thread that the request was given to, over io_uring, has ended.
    private static bool IsDisconnected(Errno error) => error is Errno.ENOTCONN or Errno.ECONNABORTED or Errno.ECANCELED;

    private static string ResolveLinks(string path)
    {
        string resolved = "/";
        foreach (string name in path.Split('/', StringSplitOptions.RemoveEmptyEntries))
        {
            string next = Path.Combine(resolved, name);
            resolved = Directory.ResolveLinkTarget(next, returnFinalTarget: true)?.FullName ?? next;
        }

        return resolved;
    }

    private static string SourceOf(BridgeOptions options) => options.Source ?? options.SocketPath;

    private static IEnumerable<string> KernelOptions(BridgeOptions options, int descriptor)
    {
        yield return string.Create(CultureInfo.InvariantCulture, $"fd={descriptor}");
        // An octal number: a directory.
        yield return "rootmode=40000";
        yield return string.Create(CultureInfo.InvariantCulture, $"user_id={Credentials.Geteuid()}");
        yield return string.Create(CultureInfo.InvariantCulture, $"group_id={Credentials.Getegid()}");
        foreach (string option in CommonOptions(options))
        {
            yield return option;
        }
    }

    private static IEnumerable<string> UserOptions(BridgeOptions options)
    {
        yield return $"fsname={SourceOf(options).Replace("\\", "\\\\", StringComparison.Ordinal).Replace(",", "\\,", StringComparison.Ordinal)}";
        yield return "subtype=causeway";
        foreach ((Linux.MountFlags flag, string name) in s_flagNames)
        {
            if ((options.Flags & flag) != 0)
            {
                yield return name;
            }
        }

        foreach (string option in CommonOptions(options))
        {
            yield return option;
        }
    }

    private static IEnumerable<string> CommonOptions(BridgeOptions options)
    {
        if (options.DefaultPermissions)
        {
            yield return "default_permissions";
        }

        if (options.AllowOther)
        {
            yield return "allow_other";
        }

        if (options.MaxRead is { } size)
        {
            yield return string.Create(CultureInfo.InvariantCulture, $"max_read={size}");
        }
    }

    private static readonly (Linux.MountFlags Flag, string Name)[] s_flagNames =
    [
        (Linux.MountFlags.ReadOnly, "ro"),
        (Linux.MountFlags.NoSetUserId, "nosuid"),
        (Linux.MountFlags.NoDevices, "nodev"),
        (Linux.MountFlags.NoExecute, "noexec"),
        (Linux.MountFlags.NoAccessTime, "noatime"),
        (Linux.MountFlags.Synchronous, "sync"),
        (Linux.MountFlags.DirectorySynchronous, "dirsync"),
    ];

    // Space, tab, line break and backslash are written as three octal digits.
    private static string Unescape(string text)
    {
        if (!text.Contains('\\', StringComparison.Ordinal))
        {
            return text;
        }

        var bytes = new List<byte>();
        byte[] escaped = Encoding.UTF8.GetBytes(text);
        for (int i = 0; i < escaped.Length; i++)
        {
            if (escaped[i] == '\\' && i + 3 < escaped.Length)
            {
                bytes.Add((byte)(((escaped[i + 1] - '0') << 6) | ((escaped[i + 2] - '0') << 3) | (escaped[i + 3] - '0')));
                i += 3;
            }
            else
            {
                bytes.Add(escaped[i]);
            }
        }

        return Encoding.UTF8.GetString([.. bytes]);
    }
}
