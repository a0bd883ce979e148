using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Passthrough;
using Causeway.Server;
using CacheMode = Causeway.Driver.CacheMode;

namespace Causeway.Benchmarks;

/// <summary>
/// A stat that is answered from the cache, and checked against the version table, beside one that is a FUSE request, one at a time.
/// What is compared takes turns, so that a busy machine is busy for all.
/// </summary>
internal sealed class CoherentBenchmark : IAsyncDisposable
{
    private const int Files = 10_000;
    private const int Turns = 15;
    private const int RoundTripsPerTurn = 2000;

    // What takes turns displaces what the others use from the processor's caches. After so many passes over all files the next is
    // no faster (tried: 538, 406, 258, 214, 204, 200, 200, 200 ns).
    private const int PassesToWarm = 5;

    // Stats between two looks at the clock, which takes as long as a fraction of one.
    private const int Batch = 50;

    private readonly string _folder;
    private readonly string[] _paths;
    private readonly Share _share;
    private readonly List<(PassthroughFileSystem FileSystem, VirtioFsServer Server, Thread Thread)> _servers = [];
    private long _slashes;

    private CoherentBenchmark(string folder)
    {
        _folder = folder;
        _paths = [.. Enumerable.Range(0, Files).Select(i => $"d{i / 1000}/file{i}")];
        foreach (string path in (ReadOnlySpan<string>)[.. _paths, Deep])
        {
            string host = Path.Combine(folder, path);
            Directory.CreateDirectory(Path.GetDirectoryName(host)!);
            File.WriteAllBytes(host, []);
        }

        new Random(1).Shuffle(_paths);
        _share = Share.Open(new PassthroughOptions { SharedDirectory = folder, VersionTable = VersionTableLayout.Default });
    }

    private static string Deep => "one/two/three/four/five";

    public static CoherentBenchmark Start(string directory)
    {
        string folder = Path.Combine(directory, $"causeway-bench-{Environment.ProcessId}");
        Directory.CreateDirectory(folder);
        return new CoherentBenchmark(folder);
    }

    public async Task RunAsync()
    {
        string socket = Serve();
        VirtioFsClient client = await VirtioFsClient.ConnectAsync(
            socket, new VirtioFsClientOptions { Cache = CacheMode.Coherent });
        await using (client.ConfigureAwait(false))
        {
            // The plainest driver there is: one thread that submits and waits.
            using VirtioFsDriver driver = VirtioFsDriver.Connect(Serve());
            var fuse = new FuseClient(driver);
            fuse.Initialize(FuseFeatures.InitExt | FuseFeatures.MaxPages);

            // And one that never sleeps, and whose device looks at its ring as long as that pays.
            using VirtioFsDriver looking = VirtioFsDriver.Connect(Serve(polls: true));
            var lookingFuse = new FuseClient(looking);
            lookingFuse.Initialize(FuseFeatures.InitExt | FuseFeatures.MaxPages);
            VirtioFsClient plain = await VirtioFsClient.ConnectAsync(
                Serve(), new VirtioFsClientOptions { Cache = CacheMode.None });
            await using ConfiguredAsyncDisposable ended = plain.ConfigureAwait(false);
            using VirtioFsNode known = await plain.GetNodeAsync(_paths[0]);
            string folder = _paths[0].Split('/')[0];
            NodeId node = fuse.Lookup(NodeId.Root, folder).Value.NodeId;
            NodeId lookedAt = lookingFuse.Lookup(NodeId.Root, folder).Value.NodeId;
            for (int i = 0; i < 3; i++)
            {
                foreach (string path in _paths)
                {
                    await client.GetStatusAsync(path);
                }

                await client.GetStatusAsync(Deep);
            }

            long before = Requests;
            var first = new List<double>();
            var warm = new List<double>();
            var atHand = new List<double>();
            var hot = new List<double>();
            var deep = new List<double>();
            var trips = new List<double>();
            var looks = new List<double>();
            var asked = new List<double>();
            for (int turn = 0; turn < Turns; turn++)
            {
                StatAll(client, arePathsAtHand: false, first);
                for (int pass = 1; pass < PassesToWarm; pass++)
                {
                    StatAll(client, arePathsAtHand: false, []);
                }

                StatAll(client, arePathsAtHand: false, warm);
                StatAll(client, arePathsAtHand: true, atHand);
                StatOne(client, _paths[0], hot);
                StatOne(client, Deep, deep);
                RoundTrips(fuse, node, trips);
                LookingRoundTrips(looking.RequestQueues[0], lookedAt, looks);
                await AskAsync(known, asked);
            }

            long sent = Requests - before - (Turns * 3L * RoundTripsPerTurn);
            Console.WriteLine($"stat of {Files} files in any order, known, ns: {Median(warm):0} (median of batches of {Batch}; "
                + $"{Quantile(warm, 0.1):0} to {Quantile(warm, 0.9):0} without the extremes)");
            Console.WriteLine($"the same, the first time after other work: {Median(first):0} "
                + $"({Quantile(first, 0.1):0} to {Quantile(first, 0.9):0})");
            Console.WriteLine($"as the first, where the paths are in the processor's cache: {Median(atHand):0} "
                + $"({Quantile(atHand, 0.1):0} to {Quantile(atHand, 0.9):0})");
            Console.WriteLine($"stat of one of them again and again: {Median(hot):0}; of a path of five names: {Median(deep):0}");
            Compare("FUSE_GETATTR, one at a time, by a thread that sleeps until it is called", Median(trips), warm, hot);
            Compare("the same, both sides looking at the ring all the time", Median(looks), warm, hot);
            Compare("VirtioFsNode.GetStatusAsync without a cache, one at a time", Median(asked), warm, hot);
            Console.WriteLine($"requests that the stats sent: {sent}");
        }
    }

    public ValueTask DisposeAsync()
    {
        foreach ((PassthroughFileSystem fileSystem, VirtioFsServer server, Thread thread) in _servers)
        {
            server.Stop();
            thread.Join();
            server.Dispose();
            fileSystem.Dispose();
        }

        _share.Dispose();
        Directory.Delete(_folder, recursive: true);
        return ValueTask.CompletedTask;
    }

    private long Requests => _servers.Sum(
        server => Enum.GetValues<FuseOpcode>().Sum(opcode => server.Server.CountRequests(opcode)));

    private static double Median(List<double> values) => Quantile(values, 0.5);

    private static double Quantile(List<double> values, double part) => values.Order().ElementAt((int)(values.Count * part));

    private static double Nanoseconds(long from, int count) => Stopwatch.GetElapsedTime(from).TotalNanoseconds / count;

    private static void Compare(string what, double time, List<double> warm, List<double> hot) => Console.WriteLine(
        $"{what}: {time:0}; a known stat has {time / Median(warm):0} times its rate, {time / Median(hot):0} of one file");

    private static void Check(ValueTask<FileStatus> status)
    {
        if (!status.IsCompletedSuccessfully)
        {
            throw new InvalidOperationException("a stat was not answered from the cache");
        }
    }

    private void StatAll(VirtioFsClient client, bool arePathsAtHand, List<double> times)
    {
        foreach (string[] batch in _paths.Chunk(Batch))
        {
            // A program has usually just made the path that it asks for.
            if (arePathsAtHand)
            {
                _slashes += batch.Sum(path => path.Count('/'));
            }

            long start = Stopwatch.GetTimestamp();
            foreach (string path in batch)
            {
                Check(client.GetStatusAsync(path));
            }

            times.Add(Nanoseconds(start, batch.Length));
        }
    }

    private static void StatOne(VirtioFsClient client, string path, List<double> times)
    {
        for (int i = 0; i < 200; i++)
        {
            long start = Stopwatch.GetTimestamp();
            for (int j = 0; j < Batch; j++)
            {
                Check(client.GetStatusAsync(path));
            }

            times.Add(Nanoseconds(start, Batch));
        }
    }

    private static void RoundTrips(FuseClient fuse, NodeId node, List<double> times)
    {
        for (int i = 0; i < RoundTripsPerTurn; i++)
        {
            long start = Stopwatch.GetTimestamp();
            if (fuse.GetAttr(node).IsError)
            {
                throw new InvalidOperationException("GETATTR failed");
            }

            times.Add(Nanoseconds(start, 1));
        }
    }

    private static void LookingRoundTrips(VirtioFsQueue queue, NodeId node, List<double> times)
    {
        byte[] request = new byte[Unsafe.SizeOf<FuseInHeader>() + Unsafe.SizeOf<FuseGetAttrIn>()];
        var reply = new byte[Unsafe.SizeOf<FuseOutHeader>() + Unsafe.SizeOf<FuseAttrOut>()];
        var header = new FuseInHeader { Length = (uint)request.Length, Opcode = FuseOpcode.GetAttr, NodeId = node };
        for (int i = 0; i < RoundTripsPerTurn; i++)
        {
            long start = Stopwatch.GetTimestamp();
            header.Unique = new RequestId((ulong)i + 1);
            MemoryMarshal.Write(request, in header);
            queue.TrySubmit(request, reply.Length, out _);
            queue.Kick();
            int slot, length;
            while (!queue.TryTake(out slot, out length))
            {
                Thread.SpinWait(1);
            }

            queue.Reply(slot, length).CopyTo(reply);
            queue.Release(slot);
            FuseOutHeader answer = MemoryMarshal.Read<FuseOutHeader>(reply);
            if (length != reply.Length || answer.Error != 0 || answer.Unique != header.Unique)
            {
                throw new InvalidOperationException("GETATTR failed");
            }

            times.Add(Nanoseconds(start, 1));
        }
    }

    private static async Task AskAsync(VirtioFsNode node, List<double> times)
    {
        for (int i = 0; i < RoundTripsPerTurn; i++)
        {
            long start = Stopwatch.GetTimestamp();
            await node.GetStatusAsync();
            times.Add(Nanoseconds(start, 1));
        }
    }

    private string Serve(bool polls = false)
    {
        string socket = Path.Combine(Path.GetTempPath(), $"causeway-bench-{Environment.ProcessId}-{_servers.Count}.sock");
        var fileSystem = new PassthroughFileSystem(_share);
        var server = new VirtioFsServer(
            fileSystem, new VirtioFsServerOptions { SocketPath = socket, IsPersistent = true, Polls = polls });
        var thread = new Thread(server.Run) { IsBackground = true };
        thread.Start();
        _servers.Add((fileSystem, server, thread));
        return socket;
    }
}
