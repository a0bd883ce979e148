namespace Causeway.Cli.Bench;

/// <summary>What one daemon did of one operation.</summary>
/// <param name="Daemon">Its name.</param>
/// <param name="Queues">How many queues it has given.</param>
/// <param name="Slices">Its slices; none when it cannot do the operation.</param>
/// <param name="Missing">Why it cannot; null when it can.</param>
internal sealed record DaemonResult(string Daemon, int Queues, IReadOnlyList<Slice> Slices, string? Missing);

/// <summary>One operation under one load.</summary>
/// <param name="Load">The load.</param>
/// <param name="Operation">The operation.</param>
/// <param name="Daemons">What each daemon did, in the order of the command line.</param>
internal sealed record OperationResult(Load Load, Operation Operation, IReadOnlyList<DaemonResult> Daemons);

/// <summary>
/// Measures: for every load it starts all daemons, and for every operation it lets them take turns in short slices, so that
/// whatever else the machine does hits all of them alike. Whose turn it is not is stopped.
/// </summary>
/// <param name="options">What to measure.</param>
/// <param name="progress">Is told what is going on.</param>
internal sealed class BenchRunner(BenchOptions options, BenchProgress progress) : IDisposable
{
    // The first part of a slice is not counted: caches are the last daemon's, and the processor's clock is that of a pause.
    private const int WarmUpParts = 5;

    private readonly List<DaemonProcess> _processes = [];
    private readonly List<DaemonSession> _sessions = [];
    private readonly Lock _gate = new();
    private readonly string _work = Directory.CreateDirectory(
        Path.Combine(options.Directory, $"causeway-bench-{Environment.ProcessId}")).FullName;

    private bool _isEnded;

    /// <summary>Measures everything, and hands each result on as it is there.</summary>
    public void Run(Action<OperationResult> onResult)
    {
        int total = options.Loads.Count * options.Operations.Count * options.Slices * options.Daemons.Count;
        progress.Begin(total);
        foreach (Load load in options.Loads)
        {
            Start(load);
            foreach (Operation operation in options.Operations)
            {
                onResult(Measure(load, operation));
            }

            Stop();
        }
    }

    /// <summary>
    /// Ends all daemons and removes the directories while <see cref="Run"/> goes on: the process is about to end. Any thread may
    /// call it.
    /// </summary>
    public void Abandon()
    {
        lock (_gate)
        {
            _isEnded = true;
            foreach (DaemonProcess process in _processes)
            {
                process.End();
            }

            RemoveFolder(_work);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Stop();
        RemoveFolder(_work);
    }

    private void Start(Load load)
    {
        lock (_gate)
        {
            for (int i = 0; i < options.Daemons.Count && !_isEnded; i++)
            {
                string folder = Directory.CreateDirectory(Path.Combine(_work, $"daemon-{i}")).FullName;
                string share = Directory.CreateDirectory(Path.Combine(folder, "share")).FullName;
                _processes.Add(DaemonProcess.Start(options.Daemons[i], folder, share));
            }
        }

        foreach (DaemonProcess process in _processes)
        {
            DaemonSession session = DaemonSession.Connect(process, load);
            _sessions.Add(session);
            session.Pause();
        }
    }

    private void Stop()
    {
        foreach (DaemonSession session in _sessions)
        {
            session.Dispose();
        }

        _sessions.Clear();
        lock (_gate)
        {
            foreach (DaemonProcess process in _processes)
            {
                process.Dispose();
            }

            _processes.Clear();
        }

        foreach (string folder in Directory.Exists(_work) ? Directory.GetDirectories(_work) : [])
        {
            RemoveFolder(folder);
        }
    }

    private static void RemoveFolder(string folder)
    {
        if (Directory.Exists(folder))
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private OperationResult Measure(Load load, Operation operation)
    {
        var workloads = new Workload[_sessions.Count];
        var slices = new List<Slice>[_sessions.Count];
        string?[] missing = new string?[_sessions.Count];
        for (int i = 0; i < _sessions.Count; i++)
        {
            progress.Show($"{load}: {operation.Name}, files for {_sessions[i].Name}");
            workloads[i] = operation.Create();
            slices[i] = [];
            _sessions[i].Make(workloads[i]);
        }

        bool isMore = true;
        while (isMore)
        {
            isMore = false;
            foreach (Workload workload in workloads)
            {
                isMore |= workload.MakeMore();
            }
        }

        for (int i = 0; i < _sessions.Count; i++)
        {
            progress.Show($"{load}: {operation.Name}, {_sessions[i].Name} is made ready");
            try
            {
                _sessions[i].Begin(workloads[i]);
            }
            catch (NotSupportedByDaemonException exception)
            {
                missing[i] = exception.Message;
            }

            _sessions[i].Pause();
        }

        for (int round = 0; round < options.Slices; round++)
        {
            for (int i = 0; i < _sessions.Count; i++)
            {
                progress.Advance($"{load}: {operation.Name}, {_sessions[i].Name}");
                if (missing[i] is null)
                {
                    workloads[i].BeforeSlice();
                    slices[i].Add(_sessions[i].Run(options.Slice / WarmUpParts, options.Slice));
                }
            }
        }

        for (int i = 0; i < _sessions.Count; i++)
        {
            _sessions[i].End(workloads[i]);
        }

        progress.Hide();
        return new OperationResult(
            load,
            operation,
            [.. _sessions.Select((session, i) => new DaemonResult(session.Name, session.Queues, slices[i], missing[i]))]);
    }
}
