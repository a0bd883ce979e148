using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>One mounted file system of the share, or one subvolume of it that has a device number of its own.</summary>
internal sealed class Mount
{
    /// <summary>The kernel's number of the mount.</summary>
    public required ulong Id { get; init; }

    /// <summary>The device number.</summary>
    public required ulong Device { get; init; }

    /// <summary>Its place in the table, by which nodes name it.</summary>
    public required ushort Index { get; init; }

    /// <summary>The number of the file system, as statfs(2) tells it.</summary>
    public required ulong FileSystem { get; init; }

    /// <summary>A readable descriptor on it, or -1. Open as long as the table.</summary>
    public required int Descriptor { get; init; }

    /// <summary>Whether a server elsewhere stores the files and judges by user ids, as with NFS, SMB and FUSE.</summary>
    public required bool IsNetwork { get; init; }

    /// <summary>
    /// Whether an object keeps its inode number as long as it exists, and changes only here. An overlay gives it another when
    /// it is first written.
    /// </summary>
    public required bool HasLastingNumbers { get; init; }

    /// <summary>Whether nodes live by file handle. A single object may still turn out to have none.</summary>
    public required bool UsesHandles { get; init; }

    /// <summary>Whether reads can be asked to fail instead of waiting (RWF_NOWAIT), as far as is known. Set to false once it is.</summary>
    public bool CanAsk
    {
        get => Volatile.Read(ref field);
        set => Volatile.Write(ref field, value);
    } = true;

    /// <summary>
    /// Whether nodes that live by handle may have a descriptor as well. Not on network file systems, where an open
    /// descriptor turns an unlinked file into a hidden one.
    /// </summary>
    public bool MayPin => !IsNetwork;
}

/// <summary>
/// The mounts one session has seen, found by number and device. Grows only; the descriptors stay open until it is disposed.
/// </summary>
internal sealed class MountTable : IDisposable
{
    // f_type of statfs(2): NFS, SMB, CIFS, SMB2, FUSE, Ceph, AFS twice, 9P, Coda, Lustre, OrangeFS, NCP, VirtualBox.
    private static ReadOnlySpan<uint> NetworkTypes =>
    [
        0x6969, 0x517b, 0xff534d42, 0xfe534d42, 0x65735546, 0x00c36400, 0x5346414f, 0x6b414653, 0x01021997, 0x73757245,
        0x0bd00bd0, 0x20030528, 0x564c, 0x786f4256,
    ];

    private const uint OverlayType = 0x794c7630;

    private readonly InodeFileHandles _fileHandles;
    private readonly Action<Mount>? _onAdded;
    private readonly Lock _lock = new();
    private Mount[] _mounts = [];

    /// <summary>Makes an empty table.</summary>
    /// <param name="fileHandles">Whether nodes are to live by handle.</param>
    /// <param name="onAdded">Told of each mount before it can be found; null for nobody.</param>
    public MountTable(InodeFileHandles fileHandles, Action<Mount>? onAdded = null)
    {
        _fileHandles = fileHandles;
        _onAdded = onAdded;
    }

    /// <summary>How many mounts there are.</summary>
    public int Count => Volatile.Read(ref _mounts).Length;

    /// <summary>A mount by place.</summary>
    /// <param name="index">The place.</param>
    public Mount this[ushort index] => Volatile.Read(ref _mounts)[index];

    /// <summary>Finds the mount an object is on.</summary>
    /// <param name="status">The object.</param>
    /// <param name="guess">Where to look first.</param>
    /// <returns>The mount, or null when it was not seen before.</returns>
    public Mount? Find(in StatxBuffer status, Mount guess)
    {
        ulong device = DeviceOf(status);
        if (guess.Id == status.MountId && guess.Device == device)
        {
            return guess;
        }

        foreach (Mount mount in Volatile.Read(ref _mounts))
        {
            if (mount.Id == status.MountId && mount.Device == device)
            {
                return mount;
            }
        }

        return null;
    }

    /// <summary>Finds the mount an object is on, or adds it.</summary>
    /// <param name="status">The object.</param>
    /// <param name="descriptor">An O_PATH descriptor of it.</param>
    /// <param name="processDescriptors">A descriptor of /proc/self/fd.</param>
    /// <returns>The mount; null when there are too many.</returns>
    public Mount? FindOrAdd(in StatxBuffer status, int descriptor, int processDescriptors)
    {
        // No descriptor is open twice, but system calls run under this lock: once per mount, and only for new ones.
        lock (_lock)
        {
            ulong device = DeviceOf(status);
            foreach (Mount known in _mounts)
            {
                if (known.Id == status.MountId && known.Device == device)
                {
                    return known;
                }
            }

            if (_mounts.Length > ushort.MaxValue)
            {
                return null;
            }

            bool isNetwork = Files.Fstatfs(descriptor, out StatfsBuffer fileSystem).IsError ||
                NetworkTypes.Contains((uint)fileSystem.Type);
            int readable = OpenReadable(status.Mode, descriptor, processDescriptors);
            var mount = new Mount
            {
                Id = status.MountId,
                Device = device,
                Index = (ushort)_mounts.Length,
                FileSystem = fileSystem.FileSystemId,
                Descriptor = readable,
                IsNetwork = isNetwork,
                HasLastingNumbers = !isNetwork && (uint)fileSystem.Type != OverlayType,
                UsesHandles = _fileHandles != InodeFileHandles.Never && readable >= 0 &&
                    CanOpenByHandle(descriptor, readable),
            };
            _onAdded?.Invoke(mount);
            Volatile.Write(ref _mounts, [.. _mounts, mount]);
            return mount;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Mount mount in _mounts)
        {
            if (mount.Descriptor >= 0)
            {
                _ = FileIO.Close(mount.Descriptor);
            }
        }

        _mounts = [];
    }

    /// <summary>The device number of an object's file system.</summary>
    /// <param name="status">The object.</param>
    internal static ulong DeviceOf(in StatxBuffer status) => ((ulong)status.DeviceMajor << 32) | status.DeviceMinor;

    // From the object at hand and not from /proc/self/mountinfo: no text to parse, and no other mount by mistake.
    private static int OpenReadable(ushort mode, int descriptor, int processDescriptors)
    {
        SyscallResult result = (mode & FileMode.TypeMask) switch
        {
            FileMode.Directory => Files.Openat(
                descriptor, ".\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.CloseOnExec),
            FileMode.Regular => DescriptorName.Open(
                processDescriptors, descriptor, OpenFlags.ReadOnly | OpenFlags.NonBlocking | OpenFlags.CloseOnExec),
            _ => SyscallResult.Failed(Errno.EINVAL),
        };
        return result.IsError ? -1 : result.Descriptor;
    }

    private static bool CanOpenByHandle(int descriptor, int readable)
    {
        if (Files.NameToHandleAt(descriptor, "\0"u8, out KernelFileHandle handle, AtFlags.EmptyPath).IsError)
        {
            return false;
        }

        SyscallResult opened = Files.OpenByHandleAt(readable, handle, OpenFlags.Path | OpenFlags.CloseOnExec);
        if (!opened.IsError)
        {
            _ = FileIO.Close(opened.Descriptor);
        }

        return !opened.IsError;
    }
}
