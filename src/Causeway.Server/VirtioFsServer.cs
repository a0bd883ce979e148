using System.Runtime.ExceptionServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser.Backend;
using Causeway.Virtio;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Causeway.Server;

/// <summary>
/// Offers a file system to virtual machines: vhost-user-fs devices on one or more Unix sockets, to which QEMU or other front
/// ends connect. Each guest has a device, a session and threads of its own, so that none waits for what another does.
/// </summary>
public sealed class VirtioFsServer : IDisposable
{
    // How long a seat rests when the process has no descriptor left for a front end (arbitrary).
    private static readonly TimeSpan s_rest = TimeSpan.FromSeconds(1);

    private readonly VirtioFsServerOptions _options;
    private readonly ILogger _logger;
    private readonly IReadOnlyList<VhostUserListener> _listeners;
    private readonly List<FuseFileSystem> _ownFileSystems = [];
    private readonly List<GuestSeat> _seats = [];
    private readonly ManualResetEventSlim _stopped = new();
    private ExceptionDispatchInfo? _failure;

    /// <summary>
    /// Makes a server for one guest at a time and listens: from now on a front end can connect, and waits until
    /// <see cref="Run"/>.
    /// </summary>
    /// <param name="fileSystem">What the guest sees. It stays the caller's, and outlives the server.</param>
    /// <param name="options">How it is offered.</param>
    /// <param name="loggers">Where messages go; nowhere when null.</param>
    /// <exception cref="ArgumentException">
    /// The options contradict each other, are out of range, or ask for several guests.
    /// </exception>
    /// <exception cref="IOException">Listening failed; the message says why and what to do.</exception>
    public VirtioFsServer(FuseFileSystem fileSystem, VirtioFsServerOptions options, ILoggerFactory? loggers = null)
        : this(fileSystem, create: null, options, loggers)
    {
    }

    /// <summary>
    /// Makes a server for as many guests at a time as the options say, each with a file system of its own, and listens.
    /// </summary>
    /// <param name="create">
    /// Makes what one guest sees; called once for each that there can be, before this returns. The server disposes of them.
    /// </param>
    /// <param name="options">How they are offered.</param>
    /// <param name="loggers">Where messages go; nowhere when null.</param>
    /// <exception cref="ArgumentException">The options contradict each other or are out of range.</exception>
    /// <exception cref="IOException">Listening failed; the message says why and what to do.</exception>
    public VirtioFsServer(Func<FuseFileSystem> create, VirtioFsServerOptions options, ILoggerFactory? loggers = null)
        : this(fileSystem: null, create, options, loggers)
    {
    }

    private VirtioFsServer(
        FuseFileSystem? fileSystem, Func<FuseFileSystem>? create, VirtioFsServerOptions options, ILoggerFactory? loggers)
    {
        options.Validate();
        if (create is null && options.GuestCount > 1)
        {
            throw new ArgumentException("Several guests need a file system each: give a function that makes them.");
        }

        loggers ??= NullLoggerFactory.Instance;
        _options = options;
        _logger = loggers.CreateLogger("causeway::server");
        _listeners = options.Listeners ?? [options.SocketPath is { } path
            ? VhostUserListener.Bind(path, options.SocketGroup)
            : VhostUserListener.Adopt(options.ListeningDescriptor!.Value)];
        try
        {
            var polling = new PollingSeats(options.Polls);
            for (int i = 0; i < options.GuestCount; i++)
            {
                int number = options.GuestCount == 1 ? 0 : i + 1;
                FuseFileSystem seen = fileSystem ?? Create(create!);
                _seats.Add(new GuestSeat(number, _listeners[i / options.MaxGuests], seen, options, polling, loggers));
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>
    /// Serves until the front end disconnects; or, with <see cref="VirtioFsServerOptions.IsPersistent"/> or for several
    /// guests, one front end after the other until <see cref="Stop"/> is called. Runs on the caller's thread, and for several
    /// guests on more.
    /// </summary>
    /// <exception cref="IOException">
    /// Serving a front end failed for lack of something. Of several guests it is only logged.
    /// </exception>
    public void Run()
    {
        if (_seats.Count > 1)
        {
            RunAll();
            return;
        }

        do
        {
            Log.Waiting(_logger);
        }
        while (_seats[0].ServeNext() && _options.IsPersistent);
    }

    /// <summary>Makes <see cref="Run"/> return soon. Any thread may call it.</summary>
    public void Stop()
    {
        _stopped.Set();
        foreach (VhostUserListener listener in _listeners)
        {
            listener.Stop();
        }

        foreach (GuestSeat seat in _seats)
        {
            seat.Stop();
        }
    }

    /// <summary>Logs how many requests of each kind there were since the start. Any thread may call it.</summary>
    public void LogCounters()
    {
        foreach (GuestSeat seat in _seats)
        {
            if (seat.Number == 0)
            {
                Log.Counters(_logger, seat.DescribeCounters());
            }
            else
            {
                Log.GuestCounters(_logger, seat.Number, seat.DescribeCounters());
            }
        }

        Log.Memory(_logger, GC.GetTotalMemory(forceFullCollection: false) >> 10, GC.CollectionCount(0));
    }

    /// <summary>
    /// Removes the sockets from the file system, if they are still ours, without waiting for anything: for programs that end
    /// at once. Any thread may call it.
    /// </summary>
    public void RemoveSocket()
    {
        foreach (VhostUserListener listener in _listeners)
        {
            listener.RemoveSocket();
        }
    }

    /// <summary>How many requests of a kind all guests have sent, all queues together. Possibly a little late.</summary>
    /// <param name="opcode">The kind.</param>
    public long CountRequests(FuseOpcode opcode) => _seats.Sum(seat => seat.CountRequests(opcode));

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (VhostUserListener listener in _listeners)
        {
            listener.Dispose();
        }

        foreach (GuestSeat seat in _seats)
        {
            seat.Dispose();
        }

        foreach (FuseFileSystem fileSystem in _ownFileSystems)
        {
            fileSystem.Dispose();
        }

        _stopped.Dispose();
    }

    private FuseFileSystem Create(Func<FuseFileSystem> create)
    {
        FuseFileSystem made = create();
        _ownFileSystems.Add(made);
        return made;
    }

    // Every seat has a thread that waits for a front end and is its control thread then; the first seat has the caller's.
    private void RunAll()
    {
        Log.Waiting(_logger);
        Thread[] threads =
        [
            .. _seats.Skip(1).Select(seat => new Thread(() => RunSeat(seat))
            {
                IsBackground = true,
                Name = $"guest:{seat.Number}",
            }),
        ];
        foreach (Thread thread in threads)
        {
            thread.Start();
        }

        RunSeat(_seats[0]);
        foreach (Thread thread in threads)
        {
            thread.Join();
        }

        _failure?.Throw();
    }

    private void RunSeat(GuestSeat seat)
    {
        try
        {
            while (ServeNext(seat))
            {
            }
        }
        catch (Exception exception)
        {
            // A defect of ours. What state this seat's device is in nobody knows, but the others' is theirs; only when no
            // seat is left there is nothing more to do.
            Log.SeatLost(_logger, exception, seat.Number);
            _failure = ExceptionDispatchInfo.Capture(exception);
        }
    }

    private bool ServeNext(GuestSeat seat)
    {
        try
        {
            return seat.ServeNext();
        }
        catch (ErrnoException exception)
        {
            // Not enough descriptors or memory for one more: the others go on, and there may be enough later.
            Log.GuestFailed(_logger, seat.Number, exception.Message);
            return !_stopped.Wait(s_rest);
        }
    }
}
