using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Cli.Bench;

/// <summary>What one slice of one daemon was.</summary>
/// <param name="Operations">How many operations were completed.</param>
/// <param name="Seconds">How long it was.</param>
/// <param name="ProcessorNanoseconds">The processor time of the daemon.</param>
/// <param name="MedianNanoseconds">Half of the operations took no longer.</param>
/// <param name="Percentile99Nanoseconds">99 of 100 operations took no longer.</param>
internal readonly record struct Slice(
    long Operations, double Seconds, long ProcessorNanoseconds, double MedianNanoseconds, double Percentile99Nanoseconds)
{
    /// <summary>The figure to trust on a machine that others use as well.</summary>
    public double ProcessorNanosecondsPerOperation => Operations == 0 ? 0 : (double)ProcessorNanoseconds / Operations;

    /// <summary>Operations per second.</summary>
    public double Rate => Operations / Seconds;
}

/// <summary>A daemon that is connected: its queues, and the lanes of the operation that is measured.</summary>
internal sealed class DaemonSession : IDisposable
{
    /// <summary>Requests that a queue has buffers for; FORGETs go a thousand at a time.</summary>
    public const int SlotsPerQueue = 128;

    // A daemon that hangs is to be an error, not a command that hangs.
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(20);

    private readonly DaemonProcess _process;
    private readonly VirtioFsDriver _driver;
    private readonly ForgetQueue _forgets;
    private readonly Load _load;
    private LaneQueue[] _queues = [];
    private Lane[] _lanes = [];

    private DaemonSession(DaemonProcess process, VirtioFsDriver driver, Load load)
    {
        _process = process;
        _driver = driver;
        _load = load;
        _forgets = new ForgetQueue(driver.HighPriorityQueue);
        Client = new FuseClient(driver);
    }

    /// <summary>What the results call it.</summary>
    public string Name => _process.Line.Name;

    /// <summary>How many request queues are used: as many as asked for, or as the daemon has.</summary>
    public int Queues => _driver.RequestQueues.Length;

    /// <summary>The directory that the daemon shares, as this process sees it.</summary>
    public string Share => _process.Share;

    /// <summary>For what is not measured.</summary>
    public FuseClient Client { get; }

    /// <summary>What INIT has answered.</summary>
    public FuseInitOut Negotiated { get; private set; }

    /// <summary>Connects and begins a session as Linux guests do. The process stays the caller's.</summary>
    public static DaemonSession Connect(DaemonProcess process, Load load)
    {
        VirtioFsDriver driver = process.Connect(new VirtioFsDriverOptions
        {
            RequestQueues = load.Queues,
            UsesPackedRings = load.UsesPackedRings,
            RequestsPerQueue = SlotsPerQueue,
            ReplyTimeout = s_patience,
        });
        var session = new DaemonSession(process, driver, load);
        session.Guard(() =>
        {
            Result<FuseInitOut> result = session.Client.Initialize();
            session.Negotiated = result.IsError
                ? throw new BadReplyException($"the reply to INIT is the error {result.Error}")
                : result.Value;
        });
        return session;
    }

    /// <summary>
    /// Makes the lanes of an operation and begins to make its files. The daemon is not asked. With several daemons their workloads
    /// then take turns with <see cref="Workload.MakeMore"/>.
    /// </summary>
    public void Make(Workload workload)
    {
        int perQueue = Math.Min(_load.Depth, workload.MaxLanesPerQueue);
        _lanes = [.. Enumerable.Range(0, perQueue * Queues).Select(number => new Lane(number, _forgets))];
        workload.BeginMaking(this, _lanes.Length);
    }

    /// <summary>Begins an operation that has been made. The daemon waits afterwards.</summary>
    /// <exception cref="NotSupportedByDaemonException">The daemon cannot do it.</exception>
    public void Begin(Workload workload)
    {
        int perQueue = _lanes.Length / Queues;
        while (workload.MakeMore())
        {
        }

        _process.Tree.Resume();
        Guard(() => workload.Prepare(this, _lanes.Length));
        _process.Tree.Pause();
        foreach (Lane lane in _lanes)
        {
            lane.Start(workload.Run(lane));
        }

        _queues =
        [
            .. Enumerable.Range(0, Queues).Select(number => new LaneQueue(
                _driver.RequestQueues[number],
                _forgets,
                _load.Client,
                s_patience,
                _lanes[(number * perQueue)..((number + 1) * perQueue)])),
        ];
    }

    /// <summary>Runs the lanes for a time, and has the daemon wait before and after.</summary>
    public Slice Run(TimeSpan warmUp, TimeSpan duration) => RunTogether([this], warmUp, duration);

    /// <summary>Runs the lanes of several sessions at the same time, which are guests of one daemon.</summary>
    /// <param name="sessions">The sessions, at least one.</param>
    /// <param name="warmUp">For how long before anything is counted.</param>
    /// <param name="duration">For how long.</param>
    /// <returns>What all of them did, and what it cost the daemon.</returns>
    public static Slice RunTogether(IReadOnlyList<DaemonSession> sessions, TimeSpan warmUp, TimeSpan duration)
    {
        ProcessTree tree = sessions[0]._process.Tree;
        LaneQueue[] queues = [.. sessions.SelectMany(session => session._queues)];
        Lane[] lanes = [.. sessions.SelectMany(session => session._lanes)];
        tree.Resume();
        Slice slice = default;
        sessions[0].Guard(() =>
        {
            RunAll(queues, warmUp);
            foreach (Lane lane in lanes)
            {
                lane.BeginCounting();
            }

            long processor = tree.ProcessorTime();
            double seconds = RunAll(queues, duration);
            processor = tree.ProcessorTime() - processor;
            var latencies = new LatencyHistogram();
            foreach (Lane lane in lanes)
            {
                latencies.Add(lane.Latencies);
            }

            slice = new Slice(
                lanes.Sum(lane => lane.Operations),
                seconds,
                processor,
                latencies.Percentile(0.5),
                latencies.Percentile(0.99));
        });
        tree.Pause();
        return slice;
    }

    /// <summary>Ends an operation: looks at what it has left, and removes it.</summary>
    public void End(Workload workload)
    {
        _process.Tree.Resume();
        Guard(() =>
        {
            foreach (LaneQueue queue in _queues)
            {
                queue.GiveUp();
            }

            _forgets.Drain();
            workload.End(this);
        });
    }

    /// <summary>Has the daemon wait until it is its turn.</summary>
    public void Pause() => _process.Tree.Pause();

    /// <inheritdoc/>
    public void Dispose() => _driver.Dispose();

    // Each queue on a thread of its own; the first on this one.
    private static double RunAll(LaneQueue[] queues, TimeSpan duration)
    {
        double[] seconds = new double[queues.Length];
        Exception? failure = null;
        Thread[] threads =
        [
            .. Enumerable.Range(1, queues.Length - 1).Select(number => new Thread(() => RunOne(number))
            {
                IsBackground = true,
                Name = $"bench-{number}",
            }),
        ];
        foreach (Thread thread in threads)
        {
            thread.Start();
        }

        RunOne(0);
        foreach (Thread thread in threads)
        {
            thread.Join();
        }

        return failure is null ? seconds.Max() : throw failure;

        void RunOne(int number)
        {
            try
            {
                seconds[number] = queues[number].Run(duration).TotalSeconds;
            }
            catch (Exception exception)
            {
                // Of several the first; the others are what follows from it.
                _ = Interlocked.CompareExchange(ref failure, exception, null);
            }
        }
    }

    // Whose answer it was is known here; what the daemon says about it is in its log.
    private void Guard(Action action)
    {
        try
        {
            action();
        }
        catch (BadReplyException exception)
        {
            throw new StartupException($"the daemon '{Name}' answers wrongly: {exception.Message}{_process.LastWords()}", exception);
        }
        catch (Exception exception) when (exception is IOException or TimeoutException)
        {
            throw new StartupException($"the daemon '{Name}' fails: {exception.Message}{_process.LastWords()}", exception);
        }
    }
}
