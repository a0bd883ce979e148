using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser;
using Causeway.VhostUser.Backend;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Server;

/// <summary>
/// Offers a file system to virtual machines: a vhost-user-fs device on a Unix socket, to which QEMU or another front end
/// connects.
/// </summary>
public sealed class VirtioFsServer : IDisposable
{
    private readonly VirtioFsServerOptions _options;
    private readonly ILogger _logger;
    private readonly VhostUserListener _listener;
    private readonly VirtioFsDevice _device;

    // Only so that Stop finds it: Serve owns it.
#pragma warning disable CA2213
    private volatile VhostUserBackend? _backend;
#pragma warning restore CA2213
    private volatile bool _isStopping;

    /// <summary>Makes a server and listens: from now on a front end can connect, and waits until <see cref="Run"/>.</summary>
    /// <param name="fileSystem">What guests see. It stays the caller's, and outlives the server.</param>
    /// <param name="options">How it is offered.</param>
    /// <param name="loggers">Where messages go; nowhere when null.</param>
    /// <exception cref="ArgumentException">The options contradict each other or are out of range.</exception>
    /// <exception cref="IOException">Listening failed; the message says why and what to do.</exception>
    public VirtioFsServer(FuseFileSystem fileSystem, VirtioFsServerOptions options, ILoggerFactory? loggers = null)
    {
        options.Validate();
        loggers ??= NullLoggerFactory.Instance;
        _options = options;
        _logger = loggers.CreateLogger("causeway::server");
        _listener = options.Listener ?? (options.SocketPath is { } path
            ? VhostUserListener.Bind(path, options.SocketGroup)
            : VhostUserListener.Adopt(options.ListeningDescriptor!.Value));
        DaxWindow? window = options.DaxWindowSize == 0 ? null : new DaxWindow(options.DaxWindowSize, _logger);
        var session = new FuseSession(
            fileSystem, new FuseSessionOptions { Window = window }, loggers.CreateLogger("causeway::fuse"));
        _device = new VirtioFsDevice(session, fileSystem, window, options, _logger);
    }

    /// <summary>
    /// Serves until the front end disconnects, or, with <see cref="VirtioFsServerOptions.IsPersistent"/>, one front end
    /// after the other until <see cref="Stop"/> is called. Runs on the caller's thread.
    /// </summary>
    /// <exception cref="IOException">Accepting a connection failed.</exception>
    public void Run()
    {
        do
        {
            Log.Waiting(_logger);
            if (_listener.Accept() is not { } socket)
            {
                return;
            }

            Serve(socket);
        }
        while (_options.IsPersistent && !_isStopping);
    }

    /// <summary>Makes <see cref="Run"/> return soon. Any thread may call it.</summary>
    public void Stop()
    {
        _isStopping = true;
        _listener.Stop();
        _backend?.Stop();
    }

    /// <summary>Logs how many requests of each kind there were since the start. Any thread may call it.</summary>
    public void LogCounters() => Log.Counters(_logger, _device.DescribeCounters());

    /// <summary>
    /// Removes the socket from the file system, if it is still ours, without waiting for anything: for programs that end at
    /// once. Any thread may call it.
    /// </summary>
    public void RemoveSocket() => _listener.RemoveSocket();

    /// <summary>How many requests of a kind the guests have sent, all queues together. Possibly a little late.</summary>
    /// <param name="opcode">The kind.</param>
    public long CountRequests(FuseOpcode opcode) => _device.CountRequests(opcode);

    /// <inheritdoc/>
    public void Dispose()
    {
        _listener.Dispose();
        _device.Dispose();
    }

    private void Serve(SafeFileHandle socket)
    {
        Log.Connected(_logger);
        using var backend = new VhostUserBackend(socket, _device, _logger);
        _backend = backend;
        if (_isStopping)
        {
            // Stop came between Accept and the assignment and has not seen this connection.
            backend.Stop();
        }

        try
        {
            backend.Run();
            Log.Disconnected(_logger);
        }
        catch (VhostUserException exception)
        {
            Log.ProtocolViolation(_logger, exception.Message);
        }
        finally
        {
            _backend = null;
        }
    }
}
