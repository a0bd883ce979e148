using Causeway.Cli.Options;
using Causeway.VhostUser.Backend;

namespace Causeway.Cli;

/// <summary>What the daemon puts into the file system: its sockets, and the file with its process id beside each.</summary>
internal sealed class DaemonSockets : IDisposable
{
    private readonly List<PidFile> _pidFiles = [];
    private readonly List<VhostUserListener> _listeners = [];

    /// <summary>Makes sure that no other daemon is at one of the sockets, and none comes.</summary>
    /// <param name="paths">Where the sockets will be.</param>
    /// <exception cref="StartupException">It cannot be done; most likely another daemon is there.</exception>
    public void Reserve(IReadOnlyList<string> paths)
    {
        foreach (string path in paths)
        {
            _pidFiles.Add(PidFile.Create(path));
        }
    }

    /// <summary>Listens.</summary>
    /// <param name="options">Where.</param>
    /// <param name="group">Whose members may connect, too.</param>
    /// <returns>The listeners; they stay this object's.</returns>
    /// <exception cref="IOException">It cannot be done; the message says why and what to do.</exception>
    public IReadOnlyList<VhostUserListener> Listen(SocketOptions options, uint? group)
    {
        foreach (string path in options.Paths)
        {
            _listeners.Add(VhostUserListener.Bind(path, group));
        }

        if (options.Descriptor is { } descriptor)
        {
            _listeners.Add(VhostUserListener.Adopt(descriptor));
        }

        return _listeners;
    }

    /// <summary>Removes everything from the file system that is still ours. Any thread may call it, at any time.</summary>
    public void Remove()
    {
        _listeners.ForEach(listener => listener.RemoveSocket());
        _pidFiles.ForEach(file => file.Remove());
    }

    /// <summary>Removes everything, and stops listening.</summary>
    public void Dispose()
    {
        _listeners.ForEach(listener => listener.Dispose());
        _pidFiles.ForEach(file => file.Dispose());
    }
}
