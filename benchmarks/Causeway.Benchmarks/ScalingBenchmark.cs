using System.Globalization;
using System.Text;
using Causeway.Cli.Bench;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Benchmarks;

/// <summary>
/// What a request costs the daemon when it knows many inodes, and when it has many guests: processor time per operation, in slices
/// that take turns. For each number of inodes there is a daemon of its own.
/// </summary>
internal sealed class ScalingBenchmark : IDisposable
{
    private const int MaxGuests = 16;

    private static readonly int[] s_guestCounts = [1, 4, MaxGuests];
    private static readonly TimeSpan s_slice = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan s_warmUp = TimeSpan.FromMilliseconds(50);

    private readonly string _folder;
    private readonly string _program;
    private readonly string _options;
    private readonly int _rounds;
    private readonly List<DaemonProcess> _processes = [];

    public ScalingBenchmark(string directory, string program, string options, int rounds)
    {
        _folder = Directory.CreateDirectory(
            Path.Combine(directory, $"causeway-bench-{Environment.ProcessId}")).FullName;
        _program = program;
        _options = options;
        _rounds = rounds;
    }

    /// <summary>GETATTR and LOOKUP over so many inodes that the daemon knows.</summary>
    public void MeasureInodes(IReadOnlyList<int> counts)
    {
        var workloads = new List<ManyFiles>();
        var sessions = new List<DaemonSession>();
        foreach (int count in counts)
        {
            DaemonProcess process = Start();
            DaemonSession session = DaemonSession.Connect(process, new Load(16, 1, ClientKind.Polling));
            var workload = new ManyFiles(count);
            long before = PrivateBytes(process);
            session.Make(workload);
            session.Begin(workload);
            double perInode = (double)(PrivateBytes(process) - before) / count;
            Console.WriteLine(Invariant($"{count} inodes: {perInode:0} bytes of the daemon's memory for each"));
            workloads.Add(workload);
            sessions.Add(session);
        }

        foreach (Order order in Enum.GetValues<Order>())
        {
            foreach (bool isLookup in (ReadOnlySpan<bool>)[false, true])
            {
                workloads.ForEach(workload => (workload.Order, workload.IsLookup) = (order, isLookup));
                Report(
                    $"{(isLookup ? "LOOKUP" : "GETATTR")}, {order}",
                    [.. counts.Select(count => $"{count} inodes")],
                    [.. sessions.Select(session => (Func<double>)(() => Cost(session.Run(s_warmUp, s_slice))))]);
            }

            Report(
                $"statx of this process, {order}",
                [.. counts.Select(count => $"{count} inodes")],
                [.. workloads.Select(workload => (Func<double>)(() => workload.StatDirectly(s_warmUp, s_slice)))]);
        }

        sessions.ForEach(session => session.Dispose());
        End();
    }

    /// <summary>GETATTR and LOOKUP by several guests of one daemon at once, over the same thousand files.</summary>
    public void MeasureGuests()
    {
        const int Files = 1000;
        DaemonProcess process = Start($"--max-guests {MaxGuests}");
        DaemonSession[] sessions =
        [
            .. Enumerable.Range(0, MaxGuests).Select(_ => DaemonSession.Connect(process, new Load(16, 1, ClientKind.Blocking))),
        ];
        ManyFiles[] workloads = [.. sessions.Select(_ => new ManyFiles(Files))];
        for (int i = 0; i < MaxGuests; i++)
        {
            sessions[i].Make(workloads[i]);
            sessions[i].Begin(workloads[i]);
        }

        foreach (bool isLookup in (ReadOnlySpan<bool>)[false, true])
        {
            foreach (ManyFiles workload in workloads)
            {
                workload.IsLookup = isLookup;
            }

            Report(
                $"{(isLookup ? "LOOKUP" : "GETATTR")}, depth 16 each",
                [.. s_guestCounts.Select(count => $"{count} guests")],
                [.. s_guestCounts.Select(count => (Func<double>)(() => Cost(DaemonSession.RunTogether(sessions[..count], s_warmUp, s_slice))))]);
        }

        Array.ForEach(sessions, session => session.Dispose());
        End();
    }

    public void Dispose()
    {
        End();
        Directory.Delete(_folder, recursive: true);
    }

    private static double Cost(Slice slice) => slice.ProcessorNanosecondsPerOperation;

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);

    // What the daemon has for itself, in bytes.
    private static long PrivateBytes(DaemonProcess process) => process.Tree.Ids.Sum(id =>
        File.ReadLines($"/proc/{id}/smaps_rollup")
            .Where(line => line.StartsWith("Private_", StringComparison.Ordinal))
            .Sum(line => long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) << 10));

    private DaemonProcess Start(string more = "")
    {
        string folder = Directory.CreateDirectory(
            Path.Combine(_folder, _processes.Count.ToString(CultureInfo.InvariantCulture))).FullName;
        string share = Directory.CreateDirectory(Path.Combine(folder, "share")).FullName;
        var process = DaemonProcess.Start(
            DaemonLine.Parse($"causeway='{_program}' serve --socket-path {{socket}} --shared-dir {{dir}} {_options} {more}"), folder, share);
        _processes.Add(process);
        return process;
    }

    private void End()
    {
        _processes.ForEach(process => process.Dispose());
        _processes.Clear();
    }

    private void Report(string what, string[] names, Func<double>[] measure)
    {
        var costs = new List<double>[names.Length];
        for (int i = 0; i < names.Length; i++)
        {
            costs[i] = [];
        }

        for (int round = 0; round < _rounds; round++)
        {
            for (int i = 0; i < names.Length; i++)
            {
                costs[i].Add(measure[i]());
            }
        }

        Console.WriteLine($"{what}: processor time per operation");
        for (int i = 0; i < names.Length; i++)
        {
            Console.WriteLine(Invariant(
                $"  {names[i],-16} {Spread.Of(costs[i]).Median,7:0} ns   {Spread.OfRatios(costs[i], costs[0])!.Value.ToRatio()}"));
        }
    }
}

/// <summary>In which order files are asked for.</summary>
internal enum Order
{
    /// <summary>One directory after the other, as programs do that walk a tree.</summary>
    InTurn,

    /// <summary>All of them, none near the one before.</summary>
    Scattered,

    /// <summary>A thousand of them again and again, and after a while the next thousand.</summary>
    InParts,

    /// <summary>The same hundred from all over the tree, again and again: what the others cost that are only known.</summary>
    SameHundred,
}

/// <summary>Many files, a thousand in a directory, all of which the daemon knows.</summary>
internal sealed class ManyFiles(int count) : Workload
{
    private const int PerDirectory = 1000;

    private const int Hundred = 100;

    // How often a part is gone through before it is the next one's turn (arbitrary).
    private const int TimesPerPart = 30;

    private const uint Seed = 0x9E3779B1;

    private readonly byte[][] _names = [.. Enumerable.Range(0, Math.Min(count, PerDirectory)).Select(number => Name("f", number))];
    private readonly NodeId[] _directories = new NodeId[(count + PerDirectory - 1) / PerDirectory];
    private readonly NodeId[] _nodes = new NodeId[count];
    private readonly ulong[] _inodes = new ulong[count];
    private long _next;

    /// <summary>In which order they are asked for.</summary>
    public Order Order { get; set; }

    /// <summary>By LOOKUP; else by GETATTR.</summary>
    public bool IsLookup { get; set; }

    public override IEnumerator<Request> Run(Lane lane)
    {
        while (true)
        {
            int i = Next();
            if (IsLookup)
            {
                yield return lane.Ask(FuseOpcode.Lookup, _directories[i / PerDirectory], 128, _names[i % PerDirectory]);
                NodeEntry entry = lane.Reply<NodeEntry>();
                lane.Expect(entry.NodeId == _nodes[i] && entry.Attributes.Inode == _inodes[i], "is about another file");
            }
            else
            {
                yield return lane.Ask(FuseOpcode.GetAttr, _nodes[i], default(FuseGetAttrIn), 104);
                lane.Expect(lane.Reply<FuseAttrOut>().Attributes.Inode == _inodes[i], "is about another file");
            }

            lane.Done();
        }
    }

    /// <summary>What the kernel takes for the same by itself: nanoseconds of processor time for each.</summary>
    public double StatDirectly(TimeSpan warmUp, TimeSpan duration)
    {
        int[] directories = [.. Enumerable.Range(0, _directories.Length).Select(Open)];
        try
        {
            _ = StatFor(directories, warmUp);
            return StatFor(directories, duration);
        }
        finally
        {
            Array.ForEach(directories, directory => FileIO.Close(directory));
        }
    }

    protected override void Make(int lanes)
    {
        for (int d = 0; d < _directories.Length; d++)
        {
            string folder = HostPath(Text("d", d));
            if (Directory.Exists(folder))
            {
                continue;
            }

            Directory.CreateDirectory(folder);
            for (int i = d * PerDirectory; i < Math.Min(count, (d + 1) * PerDirectory); i++)
            {
                File.WriteAllBytes(Path.Combine(folder, Text("f", i % PerDirectory)), []);
            }
        }
    }

    protected override void LookUp(DaemonSession session, int lanes)
    {
        for (int i = 0; i < count; i++)
        {
            if (i % PerDirectory == 0)
            {
                _directories[i / PerDirectory] =
                    Known(session.Client.Lookup(Folder, Text("d", i / PerDirectory)), Text("d", i / PerDirectory)).NodeId;
            }

            // Twice: who is seen again is known better.
            string name = Text("f", i % PerDirectory);
            _ = Known(session.Client.Lookup(_directories[i / PerDirectory], name), name);
            NodeEntry entry = Known(session.Client.Lookup(_directories[i / PerDirectory], name), name);
            (_nodes[i], _inodes[i]) = (entry.NodeId, entry.Attributes.Inode);
        }
    }

    private int Next()
    {
        long number = _next++;
        return Order switch
        {
            Order.InTurn => (int)(number % count),
            // Multiplying by an odd number and taking the upper part is near enough to any order.
            Order.Scattered => (int)((ulong)(uint)(number * Seed) * (ulong)count >> 32),
            Order.SameHundred => (int)(number % Math.Min(Hundred, count) * (count / Math.Min(Hundred, count))),
            _ => (int)(((number / (PerDirectory * TimesPerPart) * PerDirectory) + (number % PerDirectory)) % count),
        };
    }

    private int Open(int directory) => Linux.Files.Openat(
        Linux.Files.WorkingDirectory,
        Encoding.UTF8.GetBytes(HostPath(Text("d", directory)) + '\0'),
        OpenFlags.Path | OpenFlags.CloseOnExec).ThrowIfError("open a directory").Descriptor;

    private double StatFor(int[] directories, TimeSpan duration)
    {
        const int Batch = 1000;
        long began = System.Diagnostics.Stopwatch.GetTimestamp();
        long done = 0;
        long processor = ProcessorTime();
        while (System.Diagnostics.Stopwatch.GetElapsedTime(began) < duration)
        {
            for (int i = 0; i < Batch; i++)
            {
                int file = Next();
                _ = Linux.Files.Statx(
                    directories[file / PerDirectory], _names[file % PerDirectory], AtFlags.NoFollow, StatxMask.Basic, out _)
                    .ThrowIfError("look at a file");
            }

            done += Batch;
        }

        return (double)(ProcessorTime() - processor) / done;
    }

    private static long ProcessorTime()
    {
        _ = Processes.ProcessorTime(Environment.ProcessId, out long time).ThrowIfError("read the processor time");
        return time;
    }
}
