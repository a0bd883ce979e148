using System.Collections.Concurrent;
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

    private readonly SafeFileHandle _root;
    private readonly ConcurrentBag<HostWatch> _watches;

    private Share(
        PassthroughOptions options,
        SafeFileHandle root,
        IEnumerable<HostWatch> watches,
        int maxDescriptors,
        ObjectVersions? versions)
    {
        _watches = [.. watches];
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

    /// <summary>An O_PATH descriptor of the shared directory, owned by the share.</summary>
    internal int RootDescriptor => (int)_root.DangerousGetHandle();

    /// <summary>Opens a directory to share it.</summary>
    /// <param name="options">How.</param>
    /// <param name="location">Where it is now, in a process that has locked itself in; null where it always was.</param>
    /// <exception cref="ArgumentException">An option cannot work.</exception>
    /// <exception cref="ErrnoException">The directory cannot be opened.</exception>
    public static Share Open(PassthroughOptions options, ShareLocation? location = null)
    {
        options.Validate();
        WorkerThread.Prepare(location);
        byte[] path = Encoding.UTF8.GetBytes((location?.Directory ?? options.SharedDirectory) + '\0');
        int descriptor = Files.Openat(
            Files.WorkingDirectory, path, OpenFlags.Path | OpenFlags.Directory | OpenFlags.CloseOnExec)
            .ThrowIfError($"open the shared directory '{options.SharedDirectory}'").Descriptor;
        var root = new SafeFileHandle(descriptor, ownsHandle: true);
        try
        {
            if (options.FileHandles == InodeFileHandles.Mandatory)
            {
                RequireFileHandles(descriptor, options.SharedDirectory);
            }

            int maxDescriptors = options.MaxDescriptors ??
                Math.Min(DefaultMaxDescriptors(options.MaxSessions), options.DescriptorCeiling ?? int.MaxValue);
            List<HostWatch> watches = OpenWatches(options, descriptor);
            ObjectVersions? versions = options.VersionTable is { } layout
                ? new ObjectVersions(
                    VersionTable.Create(layout, WorkerThread.ProcessDescriptors), options.HostWatching == HostWatching.Off)
                : null;
            return new Share(options, root, watches, maxDescriptors, versions);
        }
        catch
        {
            root.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (HostWatch watch in _watches)
        {
            watch.Dispose();
        }

        Versions?.Table.Dispose();
        _root.Dispose();
    }

    /// <summary>
    /// Gives a session a source of events about the host's files. Each needs one of its own: what one has read another would
    /// miss.
    /// </summary>
    /// <returns>The session's from now on; null when events are not wanted.</returns>
    /// <exception cref="ErrnoException">There are more sessions than the share was opened for, and no more can be had.</exception>
    internal HostWatch? TakeWatch() => Options.HostWatching == HostWatching.Off ? null
        : _watches.TryTake(out HostWatch? watch) ? watch
        : OpenWatch(Options, RootDescriptor);

    // All of them now, while the process still has the privileges that it takes.
    private static List<HostWatch> OpenWatches(PassthroughOptions options, int root)
    {
        var watches = new List<HostWatch>();
        try
        {
            while (options.HostWatching != HostWatching.Off && watches.Count < options.MaxSessions)
            {
                watches.Add(OpenWatch(options, root)!);
            }

            return watches;
        }
        catch
        {
            watches.ForEach(watch => watch.Dispose());
            throw;
        }
    }

    private static HostWatch? OpenWatch(PassthroughOptions options, int root)
    {
        using var readable = new SafeFileHandle(
            Files.Openat(root, ".\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.CloseOnExec)
                .ThrowIfError($"read the shared directory '{options.SharedDirectory}'").Descriptor,
            ownsHandle: true);
        return HostWatch.Open(options.HostWatching, (int)readable.DangerousGetHandle());
    }

    private static int DefaultMaxDescriptors(int sessions)
    {
        Limits.GetOpenFiles(out ResourceLimit limit).ThrowIfError("read the limit of open files");
        // The kernel's own upper bound, fs.nr_open, is below 2^31.
        int current = (int)Math.Min(limit.Current, 1 << 30) / sessions;
        int reserve = Math.Min(Reserve, current / 2);
        return current - reserve >= PassthroughOptions.SmallestBudget
            ? current - reserve
            : throw new ArgumentException(
                $"The limit of open files is {limit.Current}: raise it to at least "
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
