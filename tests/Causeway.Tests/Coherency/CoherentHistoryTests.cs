// Every wait here has a deadline of its own, and tasks that use a device end before it does.
#pragma warning disable xUnit1051, xUnit1031, CA2012, CA2025

using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Globalization;
using Causeway.Driver;
using Causeway.Fuse;
using CacheMode = Causeway.Driver.CacheMode;

namespace Causeway.Tests.Coherency;

/// <summary>
/// Random histories of several clients with several threads, checked for being linearizable. Each register is written by one
/// client, with numbers that grow; so a read is right if and only if its number is at least the greatest of all writes and reads
/// that had ended when it began, and at most that of the last write that had begun when it ended.
/// </summary>
public sealed class CoherentHistoryTests
{
    private const int Guests = 3;
    private const int ThreadsPerGuest = 2;

    // Reads for each write: enough for most to be from memory.
    private const int ReadsPerWrite = 100;

    public enum Kind
    {
        Length,
        Data,
        Name,
        Target,
        Xattr,
        Listing,
    }

    [Theory]
    [InlineData("room for all", 1_000_000)]
    [InlineData("hardly any words", 100_000)]
    [InlineData("hardly any names", 200_000)]
    public async Task No_history_of_coherent_clients_shows_anything_old(string room, int reads)
    {
        VersionTableLayout layout = room == "hardly any words" ? new VersionTableLayout(4, 2, 2, 16) : VersionTableLayout.Default;
        await using var rig = new CoherentRig(layout);
        History history = await History.StartAsync(rig, CacheMode.Coherent, room == "hardly any names" ? 16 : 65_536);
        history.Run(reads);
        Assert.Equal([], history.Violations);
        Assert.InRange(history.Reads, reads, long.MaxValue);
    }

    [Fact]
    public async Task The_check_finds_what_timeouts_let_through()
    {
        await using var rig = new CoherentRig();
        History history = await History.StartAsync(rig, CacheMode.Auto, maxNames: 65_536);
        history.Run(20_000);
        Assert.NotEmpty(history.Violations);
    }

    private sealed class Register(Kind kind, int owner, int number)
    {
        private long _begun;
        private long _floor;

        public Kind Kind => kind;

        public int Owner => owner;

        public string Name => $"{kind}-{number}".ToLowerInvariant();

        /// <summary>The greatest number of anything that has ended.</summary>
        public long Floor => Interlocked.Read(ref _floor);

        /// <summary>The number of the last write that has begun.</summary>
        public long Begun => Interlocked.Read(ref _begun);

        public long BeginWrite() => Interlocked.Increment(ref _begun);

        public void Ended(long value)
        {
            long seen = Floor;
            while (seen < value)
            {
                seen = Interlocked.CompareExchange(ref _floor, value, seen);
            }
        }
    }

    private sealed class History
    {
        private readonly VirtioFsClient[] _clients;
        private readonly Register[] _registers;
        private readonly VirtioFsFile[][] _files;
        private readonly ConcurrentQueue<Exception> _failures = new();
        private long _reads;
        private volatile bool _isOver;

        private History(VirtioFsClient[] clients, Register[] registers, VirtioFsFile[][] files)
        {
            _clients = clients;
            _registers = registers;
            _files = files;
        }

        public ConcurrentQueue<string> Violations { get; } = new();

        public long Reads => Interlocked.Read(ref _reads);

        public static async Task<History> StartAsync(CoherentRig rig, CacheMode mode, int maxNames)
        {
            Kind[] kinds = Enum.GetValues<Kind>();
            Register[] registers =
                [.. Enumerable.Range(0, Guests * kinds.Length).Select(i => new Register(kinds[i % kinds.Length], i / kinds.Length, i))];
            foreach (Register register in registers)
            {
                string path = rig.Host(register.Name);
                switch (register.Kind)
                {
                    case Kind.Target:
                        File.CreateSymbolicLink(path, "0");
                        break;
                    case Kind.Listing:
                        Directory.CreateDirectory(path);
                        File.WriteAllBytes(Path.Combine(path, "0"), []);
                        break;
                    default:
                        File.WriteAllBytes(path, register.Kind == Kind.Data ? new byte[8] : []);
                        break;
                }
            }

            var clients = new VirtioFsClient[Guests];
            var files = new VirtioFsFile[Guests][];
            for (int i = 0; i < Guests; i++)
            {
                clients[i] = (await rig.AddAsync(mode, new VirtioFsClientOptions { MaxCachedNames = maxNames })).Client;
                files[i] = new VirtioFsFile[registers.Length];
                for (int j = 0; j < registers.Length; j++)
                {
                    if (registers[j].Kind is Kind.Data or Kind.Length)
                    {
                        files[i][j] = await clients[i].OpenFileAsync(
                            registers[j].Name, new OpenFileOptions { Access = FileAccess.ReadWrite });
                    }
                    else if (registers[j].Kind == Kind.Xattr && i == 0)
                    {
                        await clients[i].SetExtendedAttributeAsync(registers[j].Name, "user.n", "0"u8.ToArray());
                    }
                }
            }

            return new History(clients, registers, files);
        }

        public void Run(int reads)
        {
            var threads = new List<Thread>();
            for (int guest = 0; guest < Guests; guest++)
            {
                int own = guest;
                threads.Add(new Thread(() => Guarded(() => Write(own, reads))));
                for (int i = 0; i < ThreadsPerGuest; i++)
                {
                    int seed = (guest * ThreadsPerGuest) + i;
                    threads.Add(new Thread(() => Guarded(() => Read(own, new Random(seed), reads))));
                }
            }

            threads.ForEach(thread => thread.Start());
            threads.ForEach(thread => thread.Join());
            Assert.Equal([], _failures);
            foreach (VirtioFsFile file in _files.SelectMany(files => files).Where(file => file is not null))
            {
                file.DisposeAsync().AsTask().GetAwaiter().GetResult();
            }
        }

        private static T Wait<T>(ValueTask<T> task) =>
            task.IsCompletedSuccessfully ? task.Result : task.AsTask().GetAwaiter().GetResult();

        private static void Wait(ValueTask task) => task.AsTask().GetAwaiter().GetResult();

        private static byte[] Bytes(long value) => System.Text.Encoding.ASCII.GetBytes(Text(value));

        private static string Text(long value) => value.ToString(CultureInfo.InvariantCulture);

        private static long Number(string text) => long.Parse(text, CultureInfo.InvariantCulture);

        private void Guarded(Action run)
        {
            try
            {
                run();
            }
            catch (Exception exception)
            {
                _failures.Enqueue(exception);
                _isOver = true;
            }
        }

        private void Write(int guest, int reads)
        {
            var random = new Random(1000 + guest);
            int[] own = [.. Enumerable.Range(0, _registers.Length).Where(i => _registers[i].Owner == guest)];
            while (!_isOver && Reads < reads)
            {
                int which = own[random.Next(own.Length)];
                Register register = _registers[which];
                long value = register.BeginWrite();
                Write(guest, which, value);
                register.Ended(value);
                long until = Reads + ReadsPerWrite;
                SpinWait.SpinUntil(() => _isOver || Reads >= until, TimeSpan.FromSeconds(60));
            }
        }

        private void Write(int guest, int which, long value)
        {
            Register register = _registers[which];
            VirtioFsClient client = _clients[guest];
            switch (register.Kind)
            {
                case Kind.Length:
                    Wait(_files[guest][which].SetLengthAsync(value));
                    break;
                case Kind.Data:
                    byte[] data = new byte[8];
                    BinaryPrimitives.WriteInt64LittleEndian(data, value);
                    Wait(_files[guest][which].WriteAsync(data, 0));
                    break;
                case Kind.Name:
                    VirtioFsFile made = Wait(client.OpenFileAsync(
                        $"{register.Name}.new", new OpenFileOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write }));
                    Wait(made.SetLengthAsync(value));
                    Wait(made.DisposeAsync());
                    Wait(client.RenameAsync($"{register.Name}.new", register.Name));
                    break;
                case Kind.Target:
                    Wait(client.CreateSymbolicLinkAsync($"{register.Name}.new", Text(value)));
                    Wait(client.RenameAsync($"{register.Name}.new", register.Name));
                    break;
                case Kind.Xattr:
                    Wait(client.SetExtendedAttributeAsync(register.Name, "user.n", Bytes(value)));
                    break;
                default:
                    Wait(client.RenameAsync($"{register.Name}/{value - 1}", $"{register.Name}/{value}"));
                    break;
            }
        }

        private void Read(int guest, Random random, int reads)
        {
            while (!_isOver && Interlocked.Increment(ref _reads) <= reads)
            {
                int which = random.Next(_registers.Length);
                Register register = _registers[which];

                // Listings are long, and so few.
                if (register.Kind == Kind.Listing && random.Next(20) != 0)
                {
                    continue;
                }

                (long floor, long begunBefore) = (register.Floor, register.Begun);
                long? read = Read(guest, which);
                long begun = register.Begun;

                // A listing that overlaps a rename may show both names or none.
                if (register.Kind == Kind.Listing && (floor != begunBefore || begun != begunBefore))
                {
                    continue;
                }

                if (read is not { } value || value < floor || value > begun)
                {
                    Violations.Enqueue($"{register.Name}: client {guest} read {read}, and not {floor} to {begun}");
                    _isOver = Violations.Count > 10;
                    continue;
                }

                register.Ended(value);
            }
        }

        private long? Read(int guest, int which)
        {
            Register register = _registers[which];
            VirtioFsClient client = _clients[guest];
            switch (register.Kind)
            {
                case Kind.Length:
                    return Wait(client.GetStatusAsync(register.Name)).Length;
                case Kind.Data:
                    byte[] data = new byte[8];
                    Assert.Equal(8, Wait(_files[guest][which].ReadAsync(data, 0)));
                    return BinaryPrimitives.ReadInt64LittleEndian(data);
                case Kind.Name:
                    return Wait(client.GetStatusAsync(register.Name)).Length;
                case Kind.Target:
                    return Number(Wait(client.ReadLinkAsync(register.Name)));
                case Kind.Xattr:
                    return Number(System.Text.Encoding.ASCII.GetString(
                        Wait(client.GetExtendedAttributeAsync(register.Name, "user.n"))!));
                default:
                    string[] names = Wait(ListAsync(client, register.Name));
                    return names.Length == 1 ? Number(names[0]) : null;
            }
        }

        private static async ValueTask<string[]> ListAsync(VirtioFsClient client, string path)
        {
            var names = new List<string>();
            await foreach (DirectoryItem item in client.EnumerateAsync(path))
            {
                names.Add(item.Name);
            }

            return [.. names];
        }
    }
}
