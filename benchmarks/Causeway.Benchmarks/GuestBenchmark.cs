using System.Globalization;
using System.Text.Json;
using Causeway.Cli.Bench;
using Causeway.EndToEnd;
using Causeway.Linux;

namespace Causeway.Benchmarks;

/// <summary>
/// What programs in a guest take on a share of Causeway, on one of virtiofsd, on one that QEMU serves by 9p, and on a tmpfs of the guest's
/// own, which is what is left when no share has a part in it. The guest has all of them, and they take turns row by row, so that a
/// busy machine is busy for all.
/// </summary>
internal sealed class GuestBenchmark : IAsyncDisposable
{
    private const int Sigusr1 = 10;

    // 9p's largest messages: its transport does not take more.
    private const int MessageBytes = 512 << 10;

    private const string Counted = "Requests so far: ";

    // Stays when what is mounted from it is unmounted.
    private const string Own = "/tmp/own";

    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(5);

    private readonly string _folder;
    private readonly List<DaemonProcess> _daemons = [];
    private readonly List<Contender> _contenders = [];
    private readonly List<Dictionary<string, List<Turn>>> _turns = [];
    private Guest? _guest;

    private GuestBenchmark(string folder) => _folder = folder;

    /// <summary>Starts the daemons, boots the guest, and makes what the rows need.</summary>
    /// <param name="directory">Where the shares are made.</param>
    /// <param name="lines">The daemons; the first is Causeway.</param>
    public static async Task<GuestBenchmark> StartAsync(string directory, IReadOnlyList<DaemonLine> lines)
    {
        var benchmark = new GuestBenchmark(
            Directory.CreateDirectory(Path.Combine(directory, $"causeway-bench-{Environment.ProcessId}")).FullName);
        try
        {
            await benchmark.BootAsync(lines);
            return benchmark;
        }
        catch
        {
            await benchmark.DisposeAsync();
            throw;
        }
    }

    /// <summary>Measures; the first round only warms up.</summary>
    public async Task RunAsync(int rounds, IReadOnlyCollection<string> only)
    {
        GuestRow[] rows = [.. GuestRow.All.Where(row => only.Count == 0 || only.Contains(row.Name))];
        for (int round = 0; round <= rounds; round++)
        {
            Console.Error.WriteLine($"round {round} of {rounds}");
            foreach (GuestRow row in rows)
            {
                for (int i = 0; i < _contenders.Count; i++)
                {
                    // Nobody is always the first.
                    int turn = (i + round) % _contenders.Count;
                    Turn measured = await MeasureAsync(row, _contenders[turn]);
                    if (round > 0)
                    {
                        _turns[turn].TryAdd(row.Name, []);
                        _turns[turn][row.Name].Add(measured);
                    }
                }
            }
        }
    }

    /// <summary>Writes a table: times, and how many times as much the others take, of time and of the host's processors.</summary>
    public void Print()
    {
        Console.WriteLine($"{"row",-12}{"",10}" + string.Concat(_contenders.Skip(1).Select(other => $"{other.Name,26}")) + $"{"requests",12}");
        foreach (GuestRow row in Rows)
        {
            List<Turn> own = _turns[0][row.Name];
            PrintLine(row.Name, "time", turn => turn.Microseconds, row, $"{own[^1].Requests.Values.Sum(),12}");
            if (row.Kind != "data")
            {
                // With the start of a shell, and there of a program that takes longer than what it measures.
                PrintLine("", "processor", turn => turn.ProcessorMicroseconds, row, "");
            }
        }
    }

    /// <summary>Writes everything that was measured.</summary>
    public void WriteJson(string path)
    {
        using var writer = new Utf8JsonWriter(File.Create(path), new JsonWriterOptions { Indented = true });
        writer.WriteStartObject();
        writer.WriteString("kernel", Environment.OSVersion.Version.ToString());
        writer.WriteNumber("processors", Environment.ProcessorCount);
        writer.WriteStartArray("rows");
        foreach (GuestRow row in Rows)
        {
            writer.WriteStartObject();
            writer.WriteString("name", row.Name);
            writer.WriteString("kind", row.Kind);
            for (int i = 0; i < _contenders.Count; i++)
            {
                writer.WriteStartArray(_contenders[i].Name);
                foreach (Turn turn in _turns[i][row.Name])
                {
                    writer.WriteStartObject();
                    writer.WriteNumber("microseconds", turn.Microseconds);
                    writer.WriteNumber("processorMicroseconds", turn.ProcessorMicroseconds);
                    foreach ((string request, long count) in turn.Requests)
                    {
                        writer.WriteNumber(request, count);
                    }

                    writer.WriteEndObject();
                }

                writer.WriteEndArray();
            }

            writer.WriteEndObject();
        }

        writer.WriteEndArray();
        writer.WriteEndObject();
    }

    public async ValueTask DisposeAsync()
    {
        if (_guest is not null)
        {
            await _guest.KillAsync();
        }

        _daemons.ForEach(daemon => daemon.Dispose());
        Directory.Delete(_folder, recursive: true);
    }

    private IEnumerable<GuestRow> Rows => GuestRow.All.Where(row => _turns[0].ContainsKey(row.Name));

    private async Task BootAsync(IReadOnlyList<DaemonLine> lines)
    {
        string disk = await HostCommand.ScriptAsync("guest-tools-disk");
        string run = Directory.CreateDirectory(Path.Combine(_folder, "guest")).FullName;
        string local = Directory.CreateDirectory(Path.Combine(_folder, "9p")).FullName;
        var sockets = new List<string>();
        foreach (DaemonLine line in lines)
        {
            string folder = Directory.CreateDirectory(Path.Combine(_folder, line.Name)).FullName;
            _daemons.Add(DaemonProcess.Start(line, folder, Directory.CreateDirectory(Path.Combine(folder, "share")).FullName));
            sockets.Add(Path.Combine(folder, "socket"));
            await Deadline.UntilAsync($"{line.Name} listens", s_patience, () => File.Exists(sockets[^1]));
            _contenders.Add(new Contender(line.Name, _daemons[^1], $"mount -t virtiofs {line.Name} /tmp/{line.Name}"));
        }

        _contenders.Add(new Contender("9p", null, $"mount -t 9p -o trans=virtio,msize={MessageBytes} 9p /tmp/9p"));
        _contenders.Add(new Contender("tmpfs", null, $"mount --bind {Own} /tmp/tmpfs"));
        var configuration = new GuestConfiguration("newer-9p", CacheMode.Auto, Queues: 1)
        {
            BootOptions =
            [
                .. sockets.Skip(1).Zip(lines.Skip(1)).SelectMany(pair => (string[])["--share", $"{pair.First}={pair.Second.Name}"]),
                "--9p", $"{local}=9p",
            ],
        };
        _guest = await Guest.BootAsync(configuration, run, sockets[0], disk);
        _daemons.ForEach(daemon => daemon.Tree.Refresh());
        await InGuestAsync(". /functions; load 9pnet_virtio; load 9p", GuestPlace.Initramfs);
        // The rig mounts the first share under its own tag; it is mounted as all the others here.
        _contenders[0] = _contenders[0] with { Mount = $"mount -t virtiofs {Guest.Tag} /tmp/{_contenders[0].Name}" };
        await InGuestAsync($"umount /mnt; mkdir {Own}; mount -t tmpfs own {Own}\n{GuestRow.Prepare}");
        foreach (Contender contender in _contenders)
        {
            _turns.Add([]);
            await InGuestAsync($"mkdir /tmp/{contender.Name}; {contender.Mount}; cd /tmp/{contender.Name}\n{GuestRow.PrepareShare}");
        }
    }

    private async Task<Turn> MeasureAsync(GuestRow row, Contender contender)
    {
        string folder = $"/tmp/{contender.Name}";
        await InGuestAsync(row.ScriptBefore(folder, contender.Mount));
        IReadOnlyDictionary<string, long> before = await CountAsync(contender);
        long processor = ProcessorTime(contender);
        string printed = await InGuestAsync(row.Script(folder));
        processor = ProcessorTime(contender) - processor;
        IReadOnlyDictionary<string, long> after = await CountAsync(contender);
        return new Turn(
            long.Parse(printed, CultureInfo.InvariantCulture),
            processor / 1000,
            after.ToDictionary(pair => pair.Key, pair => pair.Value - before.GetValueOrDefault(pair.Key)));
    }

    // Of the guest and of who serves it. For 9p and tmpfs that is QEMU itself.
    private long ProcessorTime(Contender contender)
    {
        _ = Processes.ProcessorTime(_guest!.Qemu, out long time).ThrowIfError("read QEMU's processor time");
        return time + (contender.Daemon?.Tree.ProcessorTime() ?? 0);
    }

    // How many requests of each kind there were, as Causeway says on SIGUSR1; nobody else does.
    private async Task<IReadOnlyDictionary<string, long>> CountAsync(Contender contender)
    {
        if (contender != _contenders[0])
        {
            return new Dictionary<string, long>();
        }

        string log = Path.Combine(_folder, contender.Name, "log");
        string[] Lines() => [.. File.ReadLines(log).Where(line => line.Contains(Counted, StringComparison.Ordinal))];
        int length = Lines().Length;
        _ = Children.Signal(contender.Daemon!.Tree.Ids[0], Sigusr1);
        await Deadline.UntilAsync("Causeway logs its counters", s_patience, () => Lines().Length > length);
        string last = Lines()[^1];
        return last[(last.IndexOf(Counted, StringComparison.Ordinal) + Counted.Length)..]
            .Split(", ")
            .Select(count => count.Split(' '))
            .Where(count => count.Length == 2)
            .ToDictionary(count => count[0], count => long.Parse(count[1], CultureInfo.InvariantCulture));
    }

    private async Task<string> InGuestAsync(string script, GuestPlace place = GuestPlace.Tools)
    {
        GuestResult result = await _guest!.RunAsync((place == GuestPlace.Tools ? "set -euo pipefail\n" : "") + script, place, s_patience);
        return result.Status == 0
            ? result.OutputText.Trim()
            : throw new InvalidOperationException(
                $"in the guest, status {result.Status}: {result.ErrorText}{result.OutputText}\n{script}");
    }

    private void PrintLine(string name, string what, Func<Turn, long> of, GuestRow row, string end)
    {
        double[][] figures = [.. _turns.Select(turns => turns[row.Name].Select(turn => (double)of(turn)).ToArray())];
        string others = string.Concat(
            figures.Skip(1).Select(other => $"{Spread.OfRatios(other, figures[0])?.ToRatio(),26}"));
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{name,-12}{what,-10}{Spread.Of(figures[0]).Median / 1000,9:0.0} ms{others[3..]}{end}"));
    }

    /// <summary>Who serves a share.</summary>
    /// <param name="Name">What the results call it.</param>
    /// <param name="Daemon">Its daemon; null for QEMU and the guest itself.</param>
    /// <param name="Mount">How the guest mounts it.</param>
    private sealed record Contender(string Name, DaemonProcess? Daemon, string Mount);

    /// <summary>What one turn took: time as the guest sees it, and processor time of guest and server.</summary>
    private readonly record struct Turn(
        long Microseconds, long ProcessorMicroseconds, IReadOnlyDictionary<string, long> Requests);
}
