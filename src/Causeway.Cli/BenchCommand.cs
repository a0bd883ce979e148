using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using Causeway.Cli.Bench;
using Causeway.Cli.Bench.Workloads;
using Causeway.Linux;

namespace Causeway.Cli;

/// <summary><c>causeway bench</c>: measures daemons against each other.</summary>
internal static class BenchCommand
{
    private const int MaxDepth = 128;
    private const int MaxQueues = 16;

    /// <summary>The command <c>bench</c>.</summary>
    public static Command Create()
    {
        var daemon = new Option<string[]>("--daemon")
        {
            HelpName = "NAME=COMMAND",
            Arity = ArgumentArity.OneOrMore,
            Description = "a daemon to measure, started by the shell with {socket} and {dir} filled in; repeat it for more, ratios are to "
                + "the first [default: this program]",
        };
        Option<string[]> only = List("--only", "LIST", "operations, or kinds of them: metadata, data, mix, disk [default: all but disk; --list names them]");
        var list = new Option<bool>("--list") { Description = "name all operations and measure nothing" };
        Option<string[]> depth = List("--depth", "LIST", "requests in flight per queue, for example 1,8,32 [default: 16]");
        Option<string[]> queues = List("--queues", "LIST", "request queues, each with a thread of the client [default: 1]");
        Option<string[]> client = List(
            "--client", "LIST", "how the client waits: blocking, as a virtual machine does, or polling the rings [default: polling]");
        var packed = new Option<bool>("--packed")
        {
            Description = "use packed rings with daemons that have them, instead of split ones as front ends do by default",
        };
        var directory = new Option<string>("--dir")
        {
            HelpName = "DIR",
            DefaultValueFactory = _ => "/dev/shm",
            Description = "where the shared directories are made; its file system is part of what is measured",
        };
        var slice = new Option<int>("--slice")
        {
            HelpName = "MS",
            DefaultValueFactory = _ => 300,
            Description = "how long one daemon is measured until it is the next one's turn; a fifth more before is not counted",
        };
        var slices = new Option<int>("--slices")
        {
            HelpName = "N",
            DefaultValueFactory = _ => 9,
            Description = "how many turns each daemon has per operation",
        };
        var json = new Option<string?>("--json")
        {
            HelpName = "FILE",
            Description = "write all figures as JSON; '-' is standard output, in place of the tables",
        };
        var chart = new Option<string?>("--chart") { HelpName = "FILE", Description = "draw the processor times as SVG" };
        var command = new Command("bench", "measure vhost-user-fs daemons against each other")
        {
            daemon, only, list, depth, queues, client, packed, directory, slice, slices, json, chart,
        };
        command.Description += """


            Each daemon shares a directory of its own. They take turns in short slices, whose turn it is not is stopped, and every
            reply is checked: a wrong one ends the benchmark. The figure to trust on a machine that is not idle is CPU, the processor
            time that the daemon's processes take per operation. A ratio is the figure of a daemon in relation to the first one's in
            the same round of slices: the median, and the middle half in parentheses. At CPU and latency (p50, p99) more than 1 means
            that the first is better, at ops/s less than 1 does. To pin everything to processors, say 'taskset -c 0,1 causeway bench'.

            Example: causeway bench --only metadata --daemon 'ours=causeway serve --socket-path {socket} --shared-dir {dir}'
                       --daemon 'virtiofsd=/usr/libexec/virtiofsd --socket-path {socket} --shared-dir {dir}'
            """;
        command.SetAction(parsed =>
        {
            if (parsed.GetValue(list))
            {
                PrintOperations();
                return ExitStatus.Success;
            }

            return Run(
                new BenchOptions
                {
                    Daemons = Daemons(parsed.GetValue(daemon) ?? []),
                    Directory = Path.GetFullPath(parsed.GetRequiredValue(directory)),
                    Operations = Catalog.Find(Split(parsed.GetValue(only))),
                    Loads = Loads(
                        Numbers("--depth", Split(parsed.GetValue(depth)), byDefault: 16, MaxDepth),
                        Numbers("--queues", Split(parsed.GetValue(queues)), byDefault: 1, MaxQueues),
                        Clients(Split(parsed.GetValue(client))),
                        parsed.GetValue(packed)),
                    Slice = TimeSpan.FromMilliseconds(Positive("--slice", parsed.GetValue(slice))),
                    Slices = Positive("--slices", parsed.GetValue(slices)),
                },
                parsed.GetValue(json),
                parsed.GetValue(chart));
        });
        return command;
    }

    /// <summary>The loads of all combinations.</summary>
    internal static IReadOnlyList<Load> Loads(int[] depths, int[] queues, ClientKind[] clients, bool usesPackedRings = false) =>
    [
        .. from queue in queues
           from client in clients
           from depth in depths
           select new Load(depth, queue, client) { UsesPackedRings = usesPackedRings },
    ];

    /// <summary>Numbers from 1 to a limit.</summary>
    internal static int[] Numbers(string option, IReadOnlyList<string> texts, int byDefault, int most) => texts.Count == 0
        ? [byDefault]
        :
        [
            .. texts.Select(text => int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number)
                && number >= 1 && number <= most
                ? number
                : throw new UsageException($"'{option}' takes numbers from 1 to {most} with commas between, not '{text}'")),
        ];

    private static int Run(BenchOptions options, string? json, string? chart)
    {
        if (!Directory.Exists(options.Directory))
        {
            throw new StartupException($"'{options.Directory}' is not a directory; create it, or name another one by '--dir'");
        }

        bool hasTables = json != "-";
        string fileSystem = new DriveInfo(options.Directory).DriveFormat;
        var results = new List<OperationResult>();
        var text = new TextReport(Console.Out);
        if (hasTables)
        {
            Console.WriteLine($"in '{options.Directory}' ({fileSystem}), {options.Slices} slices of {options.Slice.TotalMilliseconds} ms");
        }

        using (var runner = new BenchRunner(options, new BenchProgress()))
        {
            using PosixSignalRegistration onInterrupt = EndOn(PosixSignal.SIGINT, runner);
            using PosixSignalRegistration onTerminate = EndOn(PosixSignal.SIGTERM, runner);
            using PosixSignalRegistration onHangUp = EndOn(PosixSignal.SIGHUP, runner);
            runner.Run(result =>
            {
                results.Add(result);
                if (hasTables)
                {
                    text.Add(result);
                }
            });
        }

        text.End();
        if (json is not null)
        {
            using Stream output = hasTables ? File.Create(json) : Console.OpenStandardOutput();
            JsonReport.Write(output, options, fileSystem, results);
            output.WriteByte((byte)'\n');
        }

        if (chart is not null)
        {
            File.WriteAllText(chart, Chart.Draw(results));
        }

        return ExitStatus.Success;
    }

    // Daemons and directories go before this process does.
    private static PosixSignalRegistration EndOn(PosixSignal signal, BenchRunner runner) =>
        PosixSignalRegistration.Create(signal, _ =>
        {
            runner.Abandon();
            Processes.ExitNow(ExitStatus.Failure);
        });

    private static void PrintOperations()
    {
        foreach (Operation operation in Catalog.Operations)
        {
            Console.WriteLine($"{operation.Name,-18}{operation.Kind switch
            {
                OperationKind.Metadata => "metadata",
                OperationKind.Data => "data",
                OperationKind.Mix => "mix",
                _ => "disk",
            },-10}{operation.Summary}");
        }
    }

    private static DaemonLine[] Daemons(string[] lines)
    {
        if (lines.Length == 0)
        {
            lines = [$"causeway='{Environment.ProcessPath}' serve --socket-path {{socket}} --shared-dir {{dir}} --xattr"];
        }

        DaemonLine[] daemons = [.. lines.Select(DaemonLine.Parse)];
        return daemons.GroupBy(daemon => daemon.Name).FirstOrDefault(same => same.Count() > 1) is { } twice
            ? throw new UsageException($"two daemons have the name '{twice.Key}'")
            : daemons;
    }

    private static ClientKind[] Clients(string[] words) => words.Length == 0
        ? [ClientKind.Polling]
        :
        [
            .. words.Select(word => word switch
            {
                "blocking" => ClientKind.Blocking,
                "polling" => ClientKind.Polling,
                _ => throw new UsageException($"'--client' takes blocking, polling or both with a comma between, not '{word}'"),
            }),
        ];

    private static int Positive(string option, int value) =>
        value > 0 ? value : throw new UsageException($"'{option}' takes a number above 0, not {value}");

    private static string[] Split(string[]? values) =>
        [.. (values ?? []).SelectMany(value => value.Split(',', StringSplitOptions.RemoveEmptyEntries))];

    private static Option<string[]> List(string name, string placeholder, string description) => new(name)
    {
        HelpName = placeholder,
        Arity = ArgumentArity.OneOrMore,
        Description = description,
    };
}
