using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser;
using Causeway.VhostUser.Backend;
using Causeway.Virtio;
using Microsoft.Extensions.Logging;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Server;

/// <summary>
/// A place for one guest: a device with a session and a file system, which one front end after the other uses. Several seats
/// may be at one socket; whoever connects gets any that is free. What goes wrong in one stays there.
/// </summary>
internal sealed class GuestSeat : IDisposable
{
    private readonly VhostUserListener _listener;
    private readonly VirtioFsDevice _device;
    private readonly ILogger _logger;

    // Only so that Stop finds it: Serve owns it.
#pragma warning disable CA2213
    private volatile VhostUserBackend? _backend;
#pragma warning restore CA2213
    private volatile bool _isStopping;

    /// <summary>Makes a seat.</summary>
    /// <param name="number">Its number for the log, from 1; zero when there is only one.</param>
    /// <param name="listener">Where its front ends connect; it stays the caller's.</param>
    /// <param name="fileSystem">What they see; it stays the caller's.</param>
    /// <param name="options">How it is offered.</param>
    /// <param name="polling">The seats of threads that look at rings, of the whole server.</param>
    /// <param name="loggers">Where messages go.</param>
    public GuestSeat(
        int number,
        VhostUserListener listener,
        FuseFileSystem fileSystem,
        VirtioFsServerOptions options,
        PollingSeats polling,
        ILoggerFactory loggers)
    {
        Number = number;
        _listener = listener;
        _logger = loggers.CreateLogger("causeway::server");
        DaxWindow? window = options.DaxWindowSize == 0 ? null : new DaxWindow(options.DaxWindowSize, _logger);
        VersionRegion? versions = fileSystem.Versions is { } table ? new VersionRegion(table) : null;
        var session = new FuseSession(
            fileSystem,
            new FuseSessionOptions { Window = window, Versions = versions },
            loggers.CreateLogger("causeway::fuse"));
        string name = number == 0 ? string.Empty : $"{number}:";
        _device = new VirtioFsDevice(name, session, fileSystem, window, versions, options, polling, _logger);
    }

    /// <summary>The seat's number for the log, from 1; zero when there is only one.</summary>
    public int Number { get; }

    /// <summary>Waits for a front end and serves it until it disconnects.</summary>
    /// <returns>False after <see cref="Stop"/>.</returns>
    /// <exception cref="ErrnoException">A system call failed, for example for lack of descriptors.</exception>
    public bool ServeNext()
    {
        if (_listener.Accept() is not { } socket)
        {
            return false;
        }

        Serve(socket);
        return !_isStopping;
    }

    /// <summary>Makes <see cref="ServeNext"/> return soon, once its listener is stopped as well. Any thread may call it.</summary>
    public void Stop()
    {
        _isStopping = true;
        _backend?.Stop();
    }

    /// <summary>How many requests of a kind the seat's guests have sent. Any thread may call it.</summary>
    /// <param name="opcode">The kind.</param>
    public long CountRequests(FuseOpcode opcode) => _device.CountRequests(opcode);

    /// <summary>What the requests were, for an operator. Any thread may call it.</summary>
    public string DescribeCounters() => _device.DescribeCounters();

    /// <inheritdoc/>
    public void Dispose() => _device.Dispose();

    private void Serve(SafeFileHandle socket)
    {
        LogConnected();
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
            LogDisconnected();
        }
        catch (VhostUserException exception)
        {
            LogViolation(exception.Message);
        }
        finally
        {
            _backend = null;
        }
    }

    private void LogConnected()
    {
        if (Number == 0)
        {
            Log.Connected(_logger);
        }
        else
        {
            Log.GuestConnected(_logger, Number, _listener.Path ?? $"descriptor {_listener.Descriptor}");
        }
    }

    private void LogDisconnected()
    {
        if (Number == 0)
        {
            Log.Disconnected(_logger);
        }
        else
        {
            Log.GuestDisconnected(_logger, Number);
        }
    }

    private void LogViolation(string reason)
    {
        if (Number == 0)
        {
            Log.ProtocolViolation(_logger, reason);
        }
        else
        {
            Log.GuestViolation(_logger, Number, reason);
        }
    }
}
