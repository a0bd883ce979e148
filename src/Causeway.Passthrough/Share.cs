using System.Text;
using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Passthrough;

/// <summary>
/// One host directory that is shared, opened and checked: what all sessions on it have in common. Each guest gets a
/// <see cref="PassthroughFileSystem"/> of its own.
/// </summary>
public sealed class Share : IDisposable
{
    // For everything of one session that is not a node or an open file: guest memory regions (up to 509), events of 65 queues, sockets, the
    // runtime, mounts, and descriptors that are open only while a request runs.
    private const int Reserve = 800;

    // One of so many descriptors is for delegations (arbitrary).
    private const int DelegationsPart = 2;

    private readonly SafeFileHandle _root;

    private Share(
        PassthroughOptions options,
        SafeFileHandle root,
        HostWatch? watch,
        int maxDescriptors,
        ObjectVersions? versions,
        QueuedReads? reads)
    {
        Reads = reads;
        Watch = watch;
        Options = options;
        Versions = versions;
        MappedFiles = new MappedFiles(versions);
        _root = root;
        MaxDescriptors = maxDescriptors;
    }

    /// <summary>How the directory is shared.</summary>
    public PassthroughOptions Options { get; }

    /// <summary>Most descriptors that nodes and open files of one session may hold.</summary>
    public int MaxDescriptors { get; }

    /// <summary>The files that are mapped into guests' windows.</summary>
    internal MappedFiles MappedFiles { get; }

    /// <summary>The words of the version table; null when there is none.</summary>
    internal ObjectVersions? Versions { get; }

    /// <summary>Sees what others do on the host; null when that is not wanted.</summary>
    internal HostWatch? Watch { get; }

    /// <summary>Has reads wait for the disk; null where they do so one at a time.</summary>
    internal QueuedReads? Reads { get; }

    /// <summary>An O_PATH descriptor of the shared directory, owned by the share.</summary>
    internal int RootDescriptor => (int)_root.DangerousGetHandle();

    /// <summary>Opens a directory to share it.</summary>
    /// <param name="options">How.</param>
    /// <param name="location">Where it is now, in a process that has locked itself in; null where it always was.</param>
    /// <param name="ring">
    /// A ring of <see cref="TryCreateRing"/>, which the share owns from now on; null for reads that wait one at a time.
    /// </param>
    /// <exception cref="ArgumentException">An option cannot work.</exception>
    /// <exception cref="ErrnoException">The directory cannot be opened.</exception>
    public static Share Open(PassthroughOptions options, ShareLocation? location = null, IoUring? ring = null)
    {
        options.Validate();
        WorkerThread.Prepare(location);
        byte[] path = Encoding.UTF8.GetBytes((location?.Directory ?? options.SharedDirectory) + '\0');
        int descriptor = Files.Openat(
            Files.WorkingDirectory, path, OpenFlags.Path | OpenFlags.Directory | OpenFlags.CloseOnExec)
            .ThrowIfError($"open the shared directory '{options.SharedDirectory}'").Descriptor;
        var root = new SafeFileHandle(descriptor, ownsHandle: true);
        ObjectVersions? versions = null;
        try
        {
            if (options.FileHandles == InodeFileHandles.Mandatory)
            {
                RequireFileHandles(descriptor, options.SharedDirectory);
            }

            int maxDescriptors = options.MaxDescriptors ??
                Math.Min(DefaultMaxDescriptors(options), options.DescriptorCeiling ?? int.MaxValue);
            versions = options.VersionTable is { } layout
                ? new ObjectVersions(
                    VersionTable.Create(layout, WorkerThread.ProcessDescriptors),
                    isExclusive: options.HostWatching == HostWatching.Off && !options.TakesDelegations)
                : null;
            if (options.TakesDelegations)
            {
                int limit = DescriptorLimit();
                versions!.Delegate(descriptor, limit / DelegationsPart, limit);
            }

            HostWatch? watch = OpenWatch(options, descriptor, options.TakesDelegations ? null : versions, location);
            QueuedReads? reads = ring is null ? null : QueuedReads.TryCreate(ring, options.QueuedReads);
            return new Share(options, root, watch, maxDescriptors, versions, reads);
        }
        catch
        {
            versions?.Delegations?.Dispose();
            versions?.Table.Dispose();
            root.Dispose();
            ring?.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Makes the ring of io_uring(7) by which reads wait for the disk together. Before the process gives up the right to: the ring can
    /// do nothing but read files that are open.
    /// </summary>
    /// <param name="options">How the directory is to be shared.</param>
    /// <param name="ring">The ring; null where none is wanted, and after an error.</param>
    /// <returns>ENOSYS or EPERM where io_uring is not to be had; EINVAL when the kernel is too old.</returns>
    public static SyscallResult TryCreateRing(PassthroughOptions options, out IoUring? ring)
    {
        ArgumentNullException.ThrowIfNull(options);
        ring = null;
        return options.QueuedReads == 0 ? default : QueuedReads.TryCreateRing(options.QueuedReads, out ring);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Reads?.Dispose();
        Watch?.Dispose();
        Versions?.Delegations?.Dispose();
        Versions?.Table.Dispose();
        _root.Dispose();
    }

    // Now, while the process still has the privileges that it takes.
    private static HostWatch? OpenWatch(PassthroughOptions options, int root, ObjectVersions? versions, ShareLocation? location)
    {
        if (options.HostWatching == HostWatching.Off)
        {
            return null;
        }

        using var readable = new SafeFileHandle(
            Files.Openat(root, ".\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.CloseOnExec)
                .ThrowIfError($"read the shared directory '{options.SharedDirectory}'").Descriptor,
            ownsHandle: true);
        return HostWatch.Open(options, (int)readable.DangerousGetHandle(), versions, location is { HasOwnMounts: true });
    }

    private static int DescriptorLimit()
    {
        Limits.GetOpenFiles(out ResourceLimit limit).ThrowIfError("read the limit of open files");
        // The kernel's own upper bound, fs.nr_open, is below 2^31.
        return (int)Math.Min(limit.Current, 1 << 30);
    }

    private static int DefaultMaxDescriptors(PassthroughOptions options)
    {
        int limit = DescriptorLimit();
        int sessions = options.MaxSessions;
        int current = (limit - (options.TakesDelegations ? limit / DelegationsPart : 0)) / sessions;
        int reserve = Math.Min(Reserve, current / 2);
        return current - reserve >= PassthroughOptions.SmallestBudget
            ? current - reserve
            : throw new ArgumentException(
                $"The limit of open files is {limit}: raise it to at least "
                + $"{2 * PassthroughOptions.SmallestBudget * sessions}.");
    }

    private static void RequireFileHandles(int root, string path)
    {
        using var probe = new MountTable(InodeFileHandles.Mandatory);
        Files.Statx(root, PassthroughFileSystem.LookupMask, out StatxBuffer status)
            .ThrowIfError($"look at the shared directory '{path}'");
        if (probe.FindOrAdd(status, root, WorkerThread.ProcessDescriptors) is not { UsesHandles: true })
        {
            throw new ErrnoException(
                Errno.EOPNOTSUPP,
                $"open '{path}' by file handle, which needs CAP_DAC_READ_SEARCH and a file system with handles; " +
                "allow descriptors instead");
        }
    }
}
