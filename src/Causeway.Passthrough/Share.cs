using System.Text;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Passthrough;

/// <summary>
/// One host directory that is shared, opened and checked: what all sessions on it have in common. Each guest gets a
/// <see cref="PassthroughFileSystem"/> of its own.
/// </summary>
public sealed class Share : IDisposable
{
    // For everything that is not a node or an open file: guest memory regions (up to 509), events of 65 queues, sockets, the
    // runtime, mounts, and descriptors that are open only while a request runs.
    private const int Reserve = 800;

    private readonly SafeFileHandle _root;

    private Share(PassthroughOptions options, SafeFileHandle root, HostWatch? watch, int maxDescriptors)
    {
        Watch = watch;
        Options = options;
        _root = root;
        MaxDescriptors = maxDescriptors;
    }

    /// <summary>How the directory is shared.</summary>
    public PassthroughOptions Options { get; }

    /// <summary>Most descriptors that nodes and open files of one session may hold.</summary>
    public int MaxDescriptors { get; }

    /// <summary>The files that are mapped into guests' windows.</summary>
    internal MappedFiles MappedFiles { get; } = new();

    /// <summary>An O_PATH descriptor of the shared directory, owned by the share.</summary>
    internal int RootDescriptor => (int)_root.DangerousGetHandle();

    /// <summary>Events about the host's files; null when they are not wanted.</summary>
    internal HostWatch? Watch { get; }

    /// <summary>Opens a directory to share it.</summary>
    /// <param name="options">How.</param>
    /// <param name="location">Where it is now, in a process that has locked itself in; null where it always was.</param>
    /// <exception cref="ArgumentException">An option cannot work.</exception>
    /// <exception cref="ErrnoException">The directory cannot be opened.</exception>
    public static Share Open(PassthroughOptions options, ShareLocation? location = null)
    {
        options.Validate();
        WorkerThread.Prepare(location?.ProcessDescriptors);
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

            return new Share(options, root, OpenWatch(options, descriptor), options.MaxDescriptors ?? DefaultMaxDescriptors());
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
        Watch?.Dispose();
        _root.Dispose();
    }

    private static HostWatch? OpenWatch(PassthroughOptions options, int root)
    {
        if (options.HostWatching == HostWatching.Off)
        {
            return null;
        }

        using var readable = new SafeFileHandle(
            Files.Openat(root, ".\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.CloseOnExec)
                .ThrowIfError($"read the shared directory '{options.SharedDirectory}'").Descriptor,
            ownsHandle: true);
        return HostWatch.Open(options.HostWatching, (int)readable.DangerousGetHandle());
    }

    private static int DefaultMaxDescriptors()
    {
        Limits.GetOpenFiles(out ResourceLimit limit).ThrowIfError("read the limit of open files");
        // The kernel's own upper bound, fs.nr_open, is below 2^31.
        int current = (int)Math.Min(limit.Current, 1 << 30);
        int reserve = Math.Min(Reserve, current / 2);
        return current - reserve >= PassthroughOptions.SmallestBudget
            ? current - reserve
            : throw new ArgumentException(
                $"The limit of open files is {current}: raise it to at least {2 * PassthroughOptions.SmallestBudget}.");
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
