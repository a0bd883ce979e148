using Causeway.Fuse;
using Microsoft.Extensions.Logging;

namespace Causeway.Server.Queues;

/// <summary>
/// Looks at the queues of a device from time to time and relieves a thread that has been executing one request for long
/// while others wait. It sleeps while the device does, so that an idle daemon never wakes up once the file system has settled.
/// </summary>
internal sealed class StallMonitor : IDisposable
{
    // Two looks in a row must see the same request, so a stall is relieved after 5 to 10 ms (arbitrary: far above any
    // request that hits the page cache, far below what a person notices).
    private static readonly TimeSpan Period = TimeSpan.FromMilliseconds(5);

    // After this many looks without anything going on the monitor sleeps (arbitrary, half a second).
    private const int QuietLooks = 100;

    private readonly FuseSession _session;
    private readonly ILogger _logger;
    private readonly ManualResetEventSlim _wake = new();
    private readonly Thread _thread;
    private readonly RequestWorker?[][] _workers;
    private volatile bool _isAsleep;
    private volatile bool _isWanted;
    private volatile bool _isExiting;

    /// <summary>Begins to look at queues.</summary>
    /// <param name="workers">Who serves queues, and connections with kernels; null where there is none yet.</param>
    /// <param name="session">Whose file system is to settle while nothing is going on.</param>
    /// <param name="logger">Hears of our own defects.</param>
    public StallMonitor(RequestWorker?[][] workers, FuseSession session, ILogger logger)
    {
        _workers = workers;
        _session = session;
        _logger = logger;
        _thread = new Thread(Run) { IsBackground = true, Name = "stall-monitor" };
        _thread.Start();
    }

    /// <summary>To be called when a queue wakes up: its next request may be slow. Costs a store and a load as a rule.</summary>
    public void EnsureAwake()
    {
        _isWanted = true;
        if (_isAsleep)
        {
            _isAsleep = false;
            _wake.Set();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _isExiting = true;
        _isWanted = true;
        _wake.Set();
        _thread.Join();
        _wake.Dispose();
    }

    // Whether anything is going on.
    private bool Look()
    {
        bool isBusy = false;
        foreach (RequestWorker?[] kind in _workers)
        {
            foreach (RequestWorker? worker in kind)
            {
                if (worker is not null)
                {
                    isBusy |= worker.RelieveIfStalled() | worker.TakeActivity();
                }
            }
        }

        return isBusy;
    }

    private void Run()
    {
        try
        {
            int quiet = 0;
            while (!_isExiting)
            {
                bool wasWanted = _isWanted;
                _isWanted = false;
                quiet = Look() || wasWanted ? 0 : quiet + 1;
                if (quiet < QuietLooks)
                {
                    Thread.Sleep(Period);
                    continue;
                }

                quiet = 0;
                _wake.Reset();
                _isAsleep = true;
                // The other half of EnsureAwake, which has no barrier: either it sees that we sleep, or we see that it was there.
                Interlocked.MemoryBarrierProcessWide();
                while (!_isWanted && !_wake.Wait(_session.Settle()))
                {
                    // The file system has put something off, and it is time for that.
                }

                _isAsleep = false;
            }
        }
        catch (Exception exception)
        {
            Log.MonitorFailed(_logger, exception);
            Environment.FailFast("the stall monitor failed", exception);
        }
    }
}
