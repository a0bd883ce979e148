using System.Globalization;
using Causeway.Driver.Bridge;
using Causeway.Linux;

namespace Causeway.Cli.Options;

/// <summary>The <c>-o LIST</c> of <c>causeway mount</c>, in the manner of mount(8): the last of contrary words counts.</summary>
internal static class MountOptionsReader
{
    /// <summary>What the words mean, for <c>--help</c>.</summary>
    public const string Help =
        "options in the manner of mount(8), separated by commas: ro, rw, nosuid, suid, nodev, dev, noexec, exec, noatime, "
        + "atime, sync, dirsync, [no]default_permissions, [no]allow_other, max_read=BYTES, fsname=NAME, "
        + "cache=none|auto|always|coherent|strict (what the kernel may cache; by default what the daemon says; the last two "
        + "need a daemon with --version-table), threads=N (by default one per processor over io_uring, "
        + "else one per two, at least two if the daemon takes requests by itself, and at most 4), [no]poll (whether to wait for a reply and for the next request awake for some "
        + "microseconds, where that has paid), "
        + "[no]handover (whether the daemon takes the kernel's requests by itself, where it can), "
        + "[no]io_uring (whether the kernel's requests come over io_uring, where it has that), "
        + "[no]notify (whether the daemon may report changes of the host), lost=end|wait (when the daemon goes away: fail "
        + "and unmount, or wait for the next one)";

    /// <summary>Reads the options.</summary>
    /// <param name="socket">The daemon's socket.</param>
    /// <param name="directory">The directory to mount on.</param>
    /// <param name="lists">The lists, in order.</param>
    /// <exception cref="UsageException">A word is unknown or a value is wrong.</exception>
    public static BridgeOptions Read(string socket, string directory, IEnumerable<string> lists)
    {
        bool isRoot = Credentials.Geteuid() == 0;
        var options = new BridgeOptions
        {
            SocketPath = Path.GetFullPath(socket),
            MountPoint = MountPoint.Resolve(directory),
            // As virtio-fs does; others than root need the permission of /etc/fuse.conf for it.
            AllowOther = isRoot,
            Flags = isRoot ? MountFlags.None : MountFlags.NoSetUserId | MountFlags.NoDevices,
        };
        foreach (string item in lists.SelectMany(list => list.Split(',', StringSplitOptions.RemoveEmptyEntries)))
        {
            options = Apply(options, item);
        }

        return options;
    }

    private static BridgeOptions Apply(BridgeOptions options, string item)
    {
        int equals = item.IndexOf('=', StringComparison.Ordinal);
        (string name, string? value) = equals < 0 ? (item, null) : (item[..equals], item[(equals + 1)..]);
        return (name, value) switch
        {
            ("rw", null) => options with { Flags = options.Flags & ~MountFlags.ReadOnly },
            ("ro", null) => options with { Flags = options.Flags | MountFlags.ReadOnly },
            ("suid", null) => options with { Flags = options.Flags & ~MountFlags.NoSetUserId },
            ("nosuid", null) => options with { Flags = options.Flags | MountFlags.NoSetUserId },
            ("dev", null) => options with { Flags = options.Flags & ~MountFlags.NoDevices },
            ("nodev", null) => options with { Flags = options.Flags | MountFlags.NoDevices },
            ("exec", null) => options with { Flags = options.Flags & ~MountFlags.NoExecute },
            ("noexec", null) => options with { Flags = options.Flags | MountFlags.NoExecute },
            ("atime", null) => options with { Flags = options.Flags & ~MountFlags.NoAccessTime },
            ("noatime", null) => options with { Flags = options.Flags | MountFlags.NoAccessTime },
            ("sync", null) => options with { Flags = options.Flags | MountFlags.Synchronous },
            ("async", null) => options with { Flags = options.Flags & ~MountFlags.Synchronous },
            ("dirsync", null) => options with { Flags = options.Flags | MountFlags.DirectorySynchronous },
            ("default_permissions", null) => options with { DefaultPermissions = true },
            ("nodefault_permissions", null) => options with { DefaultPermissions = false },
            ("allow_other", null) => options with { AllowOther = true },
            ("noallow_other", null) => options with { AllowOther = false },
            ("notify", null) => options with { Notifications = true },
            ("nonotify", null) => options with { Notifications = false },
            ("poll", null) => options with { Polls = true },
            ("nopoll", null) => options with { Polls = false },
            ("handover", null) => options with { HandsOver = true },
            ("nohandover", null) => options with { HandsOver = false },
            ("io_uring", null) => options with { UsesIoUring = true },
            ("noio_uring", null) => options with { UsesIoUring = false },
            ("max_read", not null) => options with { MaxRead = Number(item, value, 4096, 1 << 20) },
            ("threads", not null) => options with { Threads = Number(item, value, 1, 64) },
            ("fsname", { Length: > 0 }) => options with { Source = value },
            ("cache", "none") => options with { Cache = BridgeCache.None },
            ("cache", "auto") => options with { Cache = BridgeCache.Auto },
            ("cache", "always") => options with { Cache = BridgeCache.Always },
            ("cache", "coherent") => options with { Cache = BridgeCache.Coherent },
            ("cache", "strict") => options with { Cache = BridgeCache.Strict },
            ("lost", "end") => options with { Loss = BridgeLoss.End },
            ("lost", "wait") => options with { Loss = BridgeLoss.Wait },

            // For mount(8) and its tables, which pass them on.
            ("defaults" or "auto" or "noauto" or "user" or "nouser" or "users" or "_netdev" or "nofail", null) => options,
            _ => throw new UsageException($"'-o {item}' is not a mount option; see 'causeway mount --help'"),
        };
    }

    private static int Number(string item, string text, int least, int most) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number >= least && number <= most
            ? number
            : throw new UsageException($"'-o {item}': the number has to be from {least} to {most}");
}
