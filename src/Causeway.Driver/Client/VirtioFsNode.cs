using Causeway.Fuse;

namespace Causeway.Driver;

/// <summary>
/// An object of a share by its node: it stays the same object when its name changes or goes. Held until disposed of.
/// </summary>
public sealed class VirtioFsNode : IDisposable
{
    private readonly ClientSession _session;
    private readonly CachedNode _node;
    private int _isDisposed;

    internal VirtioFsNode(ClientSession session, CachedNode node, string path)
    {
        _session = session;
        _node = node;
        Path = path;
    }

    /// <summary>The path that it was found by; for messages.</summary>
    public string Path { get; }

    /// <summary>Its number in this session.</summary>
    public NodeId Id => _node.Id;

    /// <summary>What it is.</summary>
    public FileKind Kind => _node.Kind;

    /// <summary>Finds a name in this directory. A symbolic link is taken itself.</summary>
    /// <param name="name">The name.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    /// <returns>The node; to be disposed of.</returns>
    public async ValueTask<VirtioFsNode> LookupAsync(string name, CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_isDisposed != 0, this);
        string path = $"{Path.TrimEnd('/')}/{name}";
        CachedNode found = await _session.LookupAsync("lookup", _node, name, path, cancellationToken).ConfigureAwait(false);
        return new VirtioFsNode(_session, found, path);
    }

    /// <summary>Reads the attributes.</summary>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask<FileStatus> GetStatusAsync(CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_isDisposed != 0, this);
        return _session.GetStatusAsync(_node, Path, cancellationToken);
    }

    /// <summary>Opens the file.</summary>
    /// <param name="access">For reading, writing, or both.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    public async ValueTask<VirtioFsFile> OpenFileAsync(
        FileAccess access = FileAccess.Read, CancellationToken cancellationToken = default)
    {
        ObjectDisposedException.ThrowIf(_isDisposed != 0, this);
        uint flags = access switch
        {
            FileAccess.Read => 0u,
            FileAccess.Write => 1u,
            _ => 2u,
        };

        // The file holds the node for itself.
        NodeCache.Use(_node);
        try
        {
            return await _session.OpenNodeAsync(_node, Path, flags, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            _session.Nodes.Release(_node);
            throw;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _isDisposed, 1) == 0)
        {
            _session.Nodes.Release(_node);
        }
    }
}
