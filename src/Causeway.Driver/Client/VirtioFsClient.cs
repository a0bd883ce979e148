using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver;

/// <summary>
/// A share, used from a program: no mount, no virtual machine. Works with every vhost-user-fs daemon.
/// </summary>
/// <remarks>
/// <para>Paths are those of the share: names separated by slashes, from its root, with or without a slash in front. Symbolic
/// links are followed within the share; an absolute target starts at the share's root.</para>
/// <para>What the file system refuses is a <see cref="VirtioFsException"/> with its errno. A daemon that went away or breaks the
/// protocol is a <see cref="VirtioFsDeviceException"/>; after the former only <see cref="ReconnectAsync"/> helps. Cancelling
/// stops waiting at once; whether the device has carried the request out is then unknown.</para>
/// <para>All members may be used by many threads at the same time.</para>
/// </remarks>
public sealed partial class VirtioFsClient : IAsyncDisposable
{
    private readonly string? _socketPath;
    private readonly VirtioFsClientOptions _options;
    private ClientSession _session;

    private VirtioFsClient(ClientSession session, string? socketPath, VirtioFsClientOptions options)
    {
        _session = session;
        _socketPath = socketPath;
        _options = options;
    }

    /// <summary>The way to the device, for requests of one's own.</summary>
    public VirtioFsTransport Transport => _session.Transport;

    /// <summary>What is remembered right now.</summary>
    public CacheUsage CacheUsage => _session.Usage;

    /// <summary>What of the device's DAX window is used right now.</summary>
    public DaxUsage DaxUsage => _session.Window?.Usage ?? default;

    /// <summary>Connects to a daemon and starts a session.</summary>
    /// <param name="socketPath">The daemon's socket.</param>
    /// <param name="options">How to use the share; the default options when null.</param>
    /// <param name="cancellationToken">Stops waiting for the session.</param>
    /// <exception cref="VirtioFsDeviceException">What answers is no virtio-fs device.</exception>
    /// <exception cref="IOException">Nobody listens there; the message says why.</exception>
    public static async ValueTask<VirtioFsClient> ConnectAsync(
        string socketPath, VirtioFsClientOptions? options = null, CancellationToken cancellationToken = default)
    {
        options ??= new VirtioFsClientOptions();
        ClientSession session = await ClientSession.StartAsync(
            options, transport => VirtioFsTransport.Connect(socketPath, transport), cancellationToken).ConfigureAwait(false);
        return new VirtioFsClient(session, socketPath, options);
    }

    /// <summary>Starts a session over a connection that exists, whoever connected to whom.</summary>
    /// <param name="socket">The connected stream socket; owned from here on.</param>
    /// <param name="options">How to use the share; the default options when null.</param>
    /// <param name="cancellationToken">Stops waiting for the session.</param>
    public static async ValueTask<VirtioFsClient> OpenAsync(
        SafeFileHandle socket, VirtioFsClientOptions? options = null, CancellationToken cancellationToken = default)
    {
        options ??= new VirtioFsClientOptions();
        ClientSession session = await ClientSession.StartAsync(
            options, transport => VirtioFsTransport.Open(socket, transport), cancellationToken).ConfigureAwait(false);
        return new VirtioFsClient(session, socketPath: null, options);
    }

    /// <summary>
    /// Connects again, after the daemon was lost. Nothing of the old session goes on: files are to be opened again, and what
    /// was written and not flushed is lost.
    /// </summary>
    /// <param name="cancellationToken">Stops waiting for the session.</param>
    /// <exception cref="InvalidOperationException">The client was made from a connected socket.</exception>
    public async ValueTask ReconnectAsync(CancellationToken cancellationToken = default)
    {
        string path = _socketPath
            ?? throw new InvalidOperationException("a client that was made from a connected socket cannot connect again");
        ClientSession old = _session;
        old.Dispose();
        _session = await ClientSession.StartAsync(
            _options, transport => VirtioFsTransport.Connect(path, transport), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>
    /// Ends the session. Files that are still open lose what they have not flushed.
    /// </summary>
    public async ValueTask DisposeAsync()
    {
        await _session.EndAsync().ConfigureAwait(false);
        _session.Dispose();
    }

    /// <summary>Finds an object, to be used by node instead of by path.</summary>
    /// <param name="path">The path.</param>
    /// <param name="links">What to do when it is a symbolic link. Default: follow it.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>The node; to be disposed of.</returns>
    public ValueTask<VirtioFsNode> GetNodeAsync(
        string path = "/", LinkHandling links = LinkHandling.Follow, CancellationToken cancellationToken = default)
    {
        ClientSession session = _session;
        return session.Nodes.Find(path, links, out CachedNode node) == PathAnswer.Found && node.TryHold()
            ? new ValueTask<VirtioFsNode>(new VirtioFsNode(session, node, path))
            : FetchNodeAsync(session, path, links, cancellationToken);
    }

    private static async ValueTask<VirtioFsNode> FetchNodeAsync(
        ClientSession session, string path, LinkHandling links, CancellationToken cancellationToken)
    {
        CachedNode node = await session.ByPathAsync(() => session.WalkAsync("lookup", path, links, cancellationToken))
            .ConfigureAwait(false);
        return new VirtioFsNode(session, node, path);
    }

    /// <summary>Reads the attributes of an object.</summary>
    /// <param name="path">The path.</param>
    /// <param name="links">What to do when it is a symbolic link. Default: follow it.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask<FileStatus> GetStatusAsync(
        string path, LinkHandling links = LinkHandling.Follow, CancellationToken cancellationToken = default) =>
        _session.Nodes.Resolve(path, links, out KnownAttributes known) == PathAnswer.Found
            ? new ValueTask<FileStatus>(new FileStatus(known.Attributes))
            : FetchStatusAsync(path, links, cancellationToken);

    /// <summary>Whether there is an object of a name.</summary>
    /// <param name="path">The path.</param>
    /// <param name="links">What to do when it is a symbolic link; one that leads nowhere does not exist. Default: follow it.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <exception cref="VirtioFsException">Something else than ENOENT and ENOTDIR: it cannot be said.</exception>
    public ValueTask<bool> ExistsAsync(
        string path, LinkHandling links = LinkHandling.Follow, CancellationToken cancellationToken = default) =>
        _session.Nodes.Find(path, links, out _) switch
        {
            PathAnswer.Found => new ValueTask<bool>(true),
            PathAnswer.Missing => new ValueTask<bool>(false),
            _ => FindOutAsync(path, links, cancellationToken),
        };

    private async ValueTask<bool> FindOutAsync(string path, LinkHandling links, CancellationToken cancellationToken)
    {
        try
        {
            return await UseNodeAsync(
                "access", path, links, static (_, _) => new ValueTask<bool>(true), cancellationToken).ConfigureAwait(false);
        }
        catch (VirtioFsException exception) when (exception.Error is Errno.ENOENT or Errno.ENOTDIR)
        {
            return false;
        }
    }

    // Apart, because a method whose arguments are captured allocates before its first statement.
    private ValueTask<FileStatus> FetchStatusAsync(string path, LinkHandling links, CancellationToken cancellationToken) =>
        UseNodeAsync(
            "stat",
            path,
            links,
            (session, node) => session.GetStatusAsync(node, path, cancellationToken),
            cancellationToken);

    /// <summary>Reads where a symbolic link leads.</summary>
    /// <param name="path">The link.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>The target as it is stored.</returns>
    public ValueTask<string> ReadLinkAsync(string path, CancellationToken cancellationToken = default)
    {
        NodeCache nodes = _session.Nodes;
        return nodes.Find(path, LinkHandling.NoFollow, out CachedNode node) == PathAnswer.Found && nodes.TargetOf(node) is { } target
            ? new ValueTask<string>(target)
            : FetchLinkAsync(path, cancellationToken);
    }

    private ValueTask<string> FetchLinkAsync(string path, CancellationToken cancellationToken) =>
        UseNodeAsync(
            "readlink",
            path,
            LinkHandling.NoFollow,
            (session, node) => session.ReadLinkAsync(node, path, cancellationToken),
            cancellationToken);

    /// <summary>Lists a directory, in the order of the device, without "." and "..".</summary>
    /// <param name="path">The directory.</param>
    /// <param name="cancellationToken">Stops waiting, at the next entry at the latest.</param>
    public IAsyncEnumerable<DirectoryItem> EnumerateAsync(string path, CancellationToken cancellationToken = default) =>
        _session.EnumerateAsync(path, cancellationToken);

    /// <summary>Opens a file.</summary>
    /// <param name="path">The file; a symbolic link at its end is followed.</param>
    /// <param name="options">For what, and what to do when it does or does not exist.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask<VirtioFsFile> OpenFileAsync(
        string path, OpenFileOptions? options = null, CancellationToken cancellationToken = default)
    {
        ClientSession session = _session;
        return session.ByPathAsync(() => session.OpenFileAsync(path, options ?? new OpenFileOptions(), cancellationToken));
    }

    /// <summary>Maps a file, or a part of it: its contents as memory, shared with everybody who maps it.</summary>
    /// <param name="path">The file; a symbolic link at its end is followed.</param>
    /// <param name="access">Whether it is to be written as well.</param>
    /// <param name="offset">Where to start.</param>
    /// <param name="length">How many bytes; null for all up to the end.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>The mapping, to be disposed of.</returns>
    /// <exception cref="VirtioFsException">
    /// EOPNOTSUPP without a window; ENOMEM when the window has no room; and what the device says.
    /// </exception>
    public async ValueTask<VirtioFsMapping> MapAsync(
        string path,
        MappingAccess access = MappingAccess.ReadOnly,
        long offset = 0,
        long? length = null,
        CancellationToken cancellationToken = default)
    {
        var options = new OpenFileOptions
        {
            Access = access == MappingAccess.ReadWrite ? FileAccess.ReadWrite : FileAccess.Read,
        };
        VirtioFsFile file = await OpenFileAsync(path, options, cancellationToken).ConfigureAwait(false);
        await using (file.ConfigureAwait(false))
        {
            return await file.MapAsync(offset, length, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Reads the state of the file system.</summary>
    /// <param name="path">An object on it; file systems can be mounted inside a share.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public async ValueTask<FileSystemStatus> GetFileSystemStatusAsync(
        string path = "/", CancellationToken cancellationToken = default)
    {
        FuseStatfsOut reply = await UseNodeAsync(
            "statfs",
            path,
            LinkHandling.Follow,
            async (session, node) => ClientSession.Check(
                await session.Messages.CallAsync<FuseMessages.NoArguments, FuseStatfsOut>(
                    new(FuseOpcode.Statfs, node.Id), default, default, null, cancellationToken).ConfigureAwait(false),
                "statfs",
                path),
            cancellationToken).ConfigureAwait(false);
        return new FileSystemStatus(
            reply.FragmentSize == 0 ? reply.BlockSize : reply.FragmentSize,
            reply.Blocks,
            reply.BlocksFree,
            reply.BlocksAvailable,
            reply.Files,
            reply.FilesFree,
            (int)Math.Min(reply.NameLength, int.MaxValue));
    }

    /// <summary>Finds an object and does something with it.</summary>
    private ValueTask<T> UseNodeAsync<T>(
        string operation,
        string path,
        LinkHandling links,
        Func<ClientSession, CachedNode, ValueTask<T>> use,
        CancellationToken cancellationToken)
    {
        ClientSession session = _session;
        return session.ByPathAsync(async () =>
        {
            CachedNode node = await session.WalkAsync(operation, path, links, cancellationToken).ConfigureAwait(false);
            try
            {
                return await use(session, node).ConfigureAwait(false);
            }
            finally
            {
                session.Nodes.Release(node);
            }
        });
    }

    /// <summary>Finds the directory of a path and does something with it and the last name.</summary>
    private ValueTask<T> UseParentAsync<T>(
        string operation,
        string path,
        Func<ClientSession, CachedNode, string, ValueTask<T>> use,
        CancellationToken cancellationToken)
    {
        ClientSession session = _session;
        return session.ByPathAsync(async () =>
        {
            (CachedNode parent, string name) = await session.WalkToParentAsync(operation, path, cancellationToken)
                .ConfigureAwait(false);
            try
            {
                return await use(session, parent, name).ConfigureAwait(false);
            }
            finally
            {
                session.Nodes.Release(parent);
            }
        });
    }
}

/// <summary>What to do with a symbolic link at the end of a path.</summary>
public enum LinkHandling
{
    /// <summary>Go where it leads.</summary>
    Follow,

    /// <summary>Take the link itself.</summary>
    NoFollow,
}
