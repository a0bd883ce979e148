using Causeway.Fuse;

namespace Causeway.Driver.Bridge;

/// <summary>What a bridge lets the kernel cache, whatever the device says.</summary>
public enum BridgeCache
{
    /// <summary>What the device says.</summary>
    Device,

    /// <summary>Nothing: every use of a name or of attributes asks the device, and data are never kept.</summary>
    None,

    /// <summary>Names and attributes for a second; data while the file is open.</summary>
    Auto,

    /// <summary>Everything until it is replaced or the device reports a change.</summary>
    Always,

    /// <summary>
    /// Everything until the device's version table says that it has changed, which is looked at every millisecond or, when nothing has
    /// happened for a while, every five. Files that are opened for reading are opened at the device only if something is to be read.
    /// </summary>
    Coherent,

    /// <summary>
    /// The same for data; names and attributes are asked for at each use and answered from what is known, if the version table
    /// says at that moment that it is true.
    /// </summary>
    Strict,
}

/// <summary>What becomes of a mount whose daemon has gone.</summary>
public enum BridgeLoss
{
    /// <summary>What is in flight fails with EIO, and the bridge ends.</summary>
    End,

    /// <summary>Requests wait until a daemon listens on the socket again.</summary>
    Wait,
}

/// <summary>How a share is mounted.</summary>
public sealed record BridgeOptions
{
    /// <summary>The daemon's socket.</summary>
    public required string SocketPath { get; init; }

    /// <summary>The directory to mount on; an absolute path without symbolic links.</summary>
    public required string MountPoint { get; init; }

    /// <summary>What /proc/mounts shows as the source. Default: the path of the socket.</summary>
    public string? Source { get; init; }

    /// <summary>MS_* of mount(2). Default: none.</summary>
    public Linux.MountFlags Flags { get; init; }

    /// <summary>Whether other users than the one who mounts may use the mount. Default: no.</summary>
    public bool AllowOther { get; init; }

    /// <summary>
    /// Whether the kernel judges by owner and mode, as a guest does. Default: yes. Without it everyone may do what the
    /// daemon may do.
    /// </summary>
    public bool DefaultPermissions { get; init; } = true;

    /// <summary>The longest READ in bytes, at least 4096. Default: as long as the device allows.</summary>
    public int? MaxRead { get; init; }

    /// <summary>What the kernel may cache. Default: what the device says.</summary>
    public BridgeCache Cache { get; init; }

    /// <summary>Whether the device's version table is needed.</summary>
    internal bool UsesVersions => Cache is BridgeCache.Coherent or BridgeCache.Strict;

    /// <summary>How replies are changed for the cache mode; with the version table they are not.</summary>
    internal ReplyCaching ReplyCaching => Cache switch
    {
        BridgeCache.None => ReplyCaching.None,
        BridgeCache.Auto => ReplyCaching.Auto,
        BridgeCache.Always => ReplyCaching.Always,
        _ => ReplyCaching.AsGiven,
    };

    /// <summary>What happens when the daemon goes away. Default: the bridge ends.</summary>
    public BridgeLoss Loss { get; init; }

    /// <summary>Whether to ask for notifications of changes on the host, where the device has them. Default: yes.</summary>
    public bool Notifications { get; init; } = true;

    /// <summary>
    /// Whether a thread waits for a reply and for the next request awake, for up to 50 microseconds each, where that has paid.
    /// It stops by itself when it does not, and when others need the processor. Default: yes.
    /// </summary>
    public bool Polls { get; init; } = true;

    /// <summary>
    /// Whether requests come over io_uring, which takes fewer system calls. It needs Linux 6.14 with <c>fuse.enable_uring</c>, and is
    /// not used together with <see cref="BridgeLoss.Wait"/>: what the kernel has put into a ring cannot be taken back, so that
    /// programs that wait for the next daemon could not be killed. Default null: where that is so and the mount is not handed over
    /// (<see cref="HandsOver"/>); true: and say so where it is not.
    /// </summary>
    public bool? UsesIoUring { get; init; }

    /// <summary>
    /// Whether the daemon takes requests from the kernel by itself, and answers them: the bridge hands it the device of the mount, and
    /// from then on only sees to the mount's beginning and end. It needs a daemon of ours, and is not used together with
    /// <see cref="BridgeLoss.Wait"/>, the version table, notifications, or where <see cref="UsesIoUring"/> is true. Default null: where
    /// that is so; true: and say so where it is not.
    /// </summary>
    public bool? HandsOver { get; init; }

    /// <summary>
    /// How many threads, each with a request queue of its own. Default null: over io_uring one per processor, over /dev/fuse one
    /// per two processors, because there they take each other's requests one by one; at least 1, at most 4. Of a mount that is handed
    /// over, the daemon's threads: the same, but at least 2 where there are two processors, and at most 4 in any case.
    /// </summary>
    public int? Threads { get; init; }

    /// <summary>Takes a line for the operator when something worth knowing happens. Default: nobody is told.</summary>
    public Action<string>? Report { get; init; }
}
