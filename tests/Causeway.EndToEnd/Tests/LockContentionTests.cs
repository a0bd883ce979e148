using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;

namespace Causeway.EndToEnd;

/// <summary>
/// Two guests with different kernels and processes of the host take the same locks again and again, while guests are killed: the
/// locks exclude, and none is held by the dead.
/// </summary>
public sealed class LockContentionTests
{
    private const int Kills = 3;
    private static readonly string[] _kinds = ["fcntl", "flock"];

    // Generous: the machine may be slow, and a guest that is killed takes long to come back.
    private static readonly TimeSpan _time = TimeSpan.FromMinutes(20);

    private const string HostId = "host";
    private const int StateBytes = 512;

    private readonly List<string> _slots = ["nobody"];
    private readonly string _folder = Path.Combine(Repository.Root, "artifacts", "end-to-end", "locks");
    private readonly string _link = Path.Combine("/tmp", $"causeway-{Environment.ProcessId}-locks");

    /// <summary>How many times the locks are taken, by all together: CAUSEWAY_LOCK_ACQUISITIONS.</summary>
    private static long Acquisitions { get; } = long.Parse(
        Environment.GetEnvironmentVariable("CAUSEWAY_LOCK_ACQUISITIONS") is { Length: > 0 } given ? given : "10000",
        CultureInfo.InvariantCulture);

    private string Share => Path.Combine(_folder, "share");

    [Fact]
    public async Task Guests_and_host_processes_exclude_each_other_while_guests_are_killed()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "needs root: the daemon creates files of any owner");
        Assert.SkipUnless(File.Exists(Repository.Binary), $"no daemon at {Repository.Binary}: run ./build, or set CAUSEWAY_BINARY");
        Assert.SkipWhen(DaemonProcess.IsVirtiofsd, "virtiofsd keeps locks within a guest");
        await HostCommand.ScriptAsync("install-guest-tools", "test");
        string disk = await HostCommand.ScriptAsync("guest-tools-disk");
        await PrepareAsync();

        Side[] guests =
        [
            new("a", new GuestConfiguration("debian12", CacheMode.Auto, Queues: 1), this),
            new("b", new GuestConfiguration("newer", CacheMode.Auto, Queues: 4), this),
        ];
        var host = new List<Process>();
        var random = new Random(20261125);
        long started;
        try
        {
            foreach (Side side in guests)
            {
                Directory.CreateDirectory(Path.Combine(_folder, side.Name));
                await side.StartDaemonAsync(Share);
                await side.BootAsync(disk);
            }

            started = Stopwatch.GetTimestamp();
            foreach (Side side in guests)
            {
                await side.ContendAsync();
            }

            host.AddRange(_kinds.Select(kind => StartOnHost(kind)));
            for (int kill = 1; kill <= Kills; kill++)
            {
                await WaitForAsync(Acquisitions * kill / (Kills + 1), guests, host);
                Side victim = guests[random.Next(guests.Length)];
                // Where in its work it is hit is left to chance.
                await Task.Delay(random.Next(30));
                victim.MarkAsDoomed();
                await victim.KillAsync();
                Report($"killed {victim.Id} after {Total()} acquisitions");
                await victim.BootAsync(disk);
                await victim.ContendAsync();
            }

            await WaitForAsync(Acquisitions, guests, host);
            await File.WriteAllTextAsync(Path.Combine(Share, "stop"), "");
            await Deadline.UntilAsync("all processes have come to their end", _time, () => HasViolation()
                || guests.SelectMany(side => side.Processes).Concat([HostId])
                    .All(id => _kinds.All(kind => File.Exists(Path.Combine(Share, "done", $"{kind}-{SlotOf(id)}")))));
            TimeSpan taken = Stopwatch.GetElapsedTime(started);
            Assert.False(HasViolation(), HasViolation() ? await File.ReadAllTextAsync(ViolationsPath) : "");
            CheckCounts(taken);
            foreach (Side side in guests)
            {
                Assert.Empty(side.Warnings);
            }
        }
        finally
        {
            foreach (Process process in host)
            {
                process.Kill();
                process.Dispose();
            }

            foreach (Side side in guests)
            {
                await side.DisposeAsync();
            }

            File.Delete(_link);
            Directory.Delete(Share, recursive: true);
        }
    }

    private string ViolationsPath => Path.Combine(Share, "violations");

    private static void Report(string what) => Console.Error.WriteLine($"locks: {what}");

    private async Task PrepareAsync()
    {
        await HostCommand.BashAsync("/", $"rm -rf '{_folder}'; mkdir -p '{Share}'/{{doomed,done}}; ln -s '{_folder}' '{_link}'");
        string source = Path.Combine(Repository.Root, "tests", "Causeway.EndToEnd", "Programs", "contend.c");
        await HostCommand.BashAsync(Share, $"""
            gcc -static -O2 -o contend '{source}'
            for kind in {string.Join(' ', _kinds)}; do
                touch lock-$kind
                head -c {StateBytes} /dev/zero >state-$kind
            done
            """);
    }

    private Process StartOnHost(string kind) => Process.Start(new ProcessStartInfo(Path.Combine(Share, "contend"), [kind, $"{SlotOf(HostId)}", "500"])
    {
        WorkingDirectory = Share,
        RedirectStandardInput = true,
    }) ?? throw new InvalidOperationException("contend does not start");

    // Until so many acquisitions are done, and every process that lives has had a share of them: that none starves is part of it.
    private Task WaitForAsync(long total, Side[] guests, List<Process> host) => Deadline.UntilAsync(
        $"{total} acquisitions", _time, () => HasViolation() || host.Any(process => process.HasExited)
            ? throw new InvalidOperationException(HasViolation() ? File.ReadAllText(ViolationsPath) : "a host process has ended")
            : Total() >= total && guests.SelectMany(side => side.Processes).All(id => _kinds.All(kind => Tally(kind, id) > 0)));

    private bool HasViolation() => File.Exists(ViolationsPath);

    private long Total() => _kinds.Sum(kind => ReadState(kind)[0]);

    private long Tally(string kind, string id) => ReadState(kind)[2 + SlotOf(id)];

    // A number for each process that ever was; zero is nobody's.
    private int SlotOf(string id)
    {
        if (!_slots.Contains(id))
        {
            _slots.Add(id);
        }

        return _slots.IndexOf(id);
    }

    // Struct state of contend.c: the count, the holder, and how many times by each. Nobody locks these files, so it does no harm
    // that .NET does.
    private ReadOnlySpan<long> ReadState(string kind)
    {
        byte[] bytes = new byte[StateBytes];
        using var handle = File.OpenHandle(Path.Combine(Share, $"state-{kind}"), FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        Assert.Equal(StateBytes, RandomAccess.Read(handle, bytes, 0));
        return MemoryMarshal.Cast<byte, long>(bytes);
    }

    private void CheckCounts(TimeSpan taken)
    {
        foreach (string kind in _kinds)
        {
            ReadOnlySpan<long> state = ReadState(kind);
            IEnumerable<string> tallies = _slots.Skip(1).Order(StringComparer.Ordinal).Select(id => $"{id} {Tally(kind, id)}");
            Report($"{kind}: {state[0]} acquisitions in {taken.TotalSeconds:0} s: {string.Join(", ", tallies)}");
            long sum = 0;
            foreach (long tally in state[2..])
            {
                sum += tally;
            }

            Assert.Equal((state[0], 0), (sum, state[1]));
        }
    }

    /// <summary>One guest and its daemon, which stays when the guest is killed.</summary>
    private sealed class Side(string name, GuestConfiguration configuration, LockContentionTests test) : IAsyncDisposable
    {
        private const int ProcessesPerKind = 2;

        private DaemonProcess? _daemon;
        private Guest? _guest;
        private int _incarnation;

        public string Name => name;

        /// <summary>This life of the guest.</summary>
        public string Id => $"{name}{_incarnation}";

        public IEnumerable<string> Processes => Enumerable.Range(1, ProcessesPerKind).Select(number => $"{Id}-{number}");

        public IReadOnlyList<string> Warnings => _daemon!.WarningsSince(0);

        private string Folder => Path.Combine(test._link, name);

        public async Task StartDaemonAsync(string share) => _daemon = await DaemonProcess.StartAsync(
            configuration, share, $"{Folder}/share.sock", $"{Folder}/daemon.log", "--persistent");

        public async Task BootAsync(string disk)
        {
            _incarnation++;
            _guest = await Guest.BootAsync(configuration, Folder, $"{Folder}/share.sock", disk);
        }

        public async Task ContendAsync()
        {
            IEnumerable<string> commands =
                from kind in _kinds
                from id in Processes
                select $"setsid ./contend {kind} {test.SlotOf(id)} 0 </dev/null >/dev/null 2>&1 &";
            GuestResult result = await _guest!.RunAsync($"cd /mnt\n{string.Join('\n', commands)}\n");
            Assert.Equal(0, result.Status);
        }

        public void MarkAsDoomed()
        {
            foreach (string id in Processes)
            {
                File.WriteAllText(Path.Combine(test.Share, "doomed", $"{test.SlotOf(id)}"), "");
            }
        }

        public async Task KillAsync()
        {
            await _guest!.KillAsync();
            _guest = null;
        }

        public async ValueTask DisposeAsync()
        {
            if (_guest is not null)
            {
                await _guest.KillAsync();
            }

            if (_daemon is not null)
            {
                await _daemon.DisposeAsync();
            }
        }
    }
}
