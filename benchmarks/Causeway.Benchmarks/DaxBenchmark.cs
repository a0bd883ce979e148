using System.Diagnostics;
using System.Net.Sockets;
using Causeway.Driver;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Server;
using Microsoft.Win32.SafeHandles;
using CacheMode = Causeway.Driver.CacheMode;

namespace Causeway.Benchmarks;

/// <summary>
/// A file through the DAX window beside the same file as a plain mapping of this process and by FUSE requests, one at a time.
/// </summary>
/// <remarks>
/// What is compared takes turns of about a millisecond, in an order drawn anew for each turn, each at other places of the file.
/// A turn gives a ratio, and the median of all turns' ratios counts: whatever else the machine does for longer than a turn is there on
/// both sides of it. <see cref="VirtioFsMapping"/> beside a plain mapping, which is the same loop twice, shows how far to trust it.
/// </remarks>
internal sealed class DaxBenchmark : IAsyncDisposable
{
    private const int Small = 4096;
    private const int Large = 1 << 20;
    private const int Turns = 401;
    private const int Slices = 20;
    private const int Slot = 2 << 20;

    private readonly string _folder;
    private readonly long _size;
    private readonly long[] _offsets;
    private readonly long[] _pieces;
    private readonly byte[] _buffer = new byte[Large];
    private readonly Share _share;

    // One session at a time has a device: the one for requests has its own.
    private readonly (VirtioFsServer Server, Thread Thread, string Socket)[] _devices;
    private readonly List<PassthroughFileSystem> _fileSystems = [];

    private DaxBenchmark(string folder, int megabytes)
    {
        _folder = folder;
        _size = (long)megabytes << 20;
        var random = new Random(1);
        _offsets = [.. Enumerable.Range(0, Slices * 2000).Select(_ => random.NextInt64(_size / Small) * Small)];
        _pieces = [.. Enumerable.Range(0, (int)(_size / Large)).Select(i => (long)i * Large)];
        byte[] bytes = new byte[Large];
        using (FileStream file = File.Create(FilePath))
        {
            for (long done = 0; done < _size; done += Large)
            {
                random.NextBytes(bytes);
                file.Write(bytes);
            }
        }

        _share = Share.Open(new PassthroughOptions { SharedDirectory = folder });
        _devices = [StartDevice("dax"), StartDevice("requests")];
    }

    private string FilePath => Path.Combine(_folder, "file");

    public static DaxBenchmark Start(string directory, int megabytes)
    {
        string folder = Path.Combine(directory, $"causeway-bench-{Environment.ProcessId}");
        Directory.CreateDirectory(folder);
        return new DaxBenchmark(folder, megabytes);
    }

    public async Task RunAsync()
    {
        using SafeFileHandle handle = File.OpenHandle(FilePath, System.IO.FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using var plain = MemoryMapping.MapShared(handle, 0, (ulong)_size, MemoryProtection.Read);

        await using VirtioFsClient asking = await ConnectAsync(DaxMode.Never);
        await using VirtioFsFile asked = await asking.OpenFileAsync("file");
        await using VirtioFsClient client = await ConnectAsync(DaxMode.Always);
        await using VirtioFsFile file = await client.OpenFileAsync("file");
        await FirstTouchAsync(client, file);
        using VirtioFsMapping mapped = await client.MapAsync("file");

        double[][] random = TakeTurns(
            slice => ReadPlain(plain, Offsets(slice, 2000), Small),
            slice => ReadFile(file, Offsets(slice, 2000), Small),
            slice => ReadMapping(mapped, Offsets(slice, 2000), Small),
            slice => ReadHost(handle, Offsets(slice, 1000), Small),
            slice => ReadFile(asked, Offsets(slice, 100), Small));
        double[][] sequential = TakeTurns(
            slice => ReadPlain(plain, Pieces(slice), Large),
            slice => ReadFile(file, Pieces(slice), Large),
            slice => ReadMapping(mapped, Pieces(slice), Large));

        Console.WriteLine($"random 4 KiB reads, ns each: mmap {Median(random[0]):0}, VirtioFsFile {Median(random[1]):0}, "
            + $"VirtioFsMapping {Median(random[2]):0}, pread of the host's file {Median(random[3]):0}, "
            + $"FUSE_READ at depth 1 {Median(random[4]):0}");
        Console.WriteLine($"  VirtioFsFile is {Ratio(random[4], random[1]):0.0} times the rate of FUSE_READ, "
            + $"{100 * Ratio(random[0], random[1]):0} % of mmap "
            + $"({Median([.. random[1].Zip(random[0], (file, plain) => file - plain)]):0} ns more); VirtioFsMapping {100 * Ratio(random[0], random[2]):0} % of mmap");
        Console.WriteLine($"sequential 1 MiB reads, GB/s: mmap {Large / Median(sequential[0]):0.00}, "
            + $"VirtioFsFile {Large / Median(sequential[1]):0.00}, VirtioFsMapping {Large / Median(sequential[2]):0.00}");
        Console.WriteLine($"  VirtioFsFile is {100 * Ratio(sequential[0], sequential[1]):0} % of mmap, "
            + $"VirtioFsMapping {100 * Ratio(sequential[0], sequential[2]):0} %");
    }

    public ValueTask DisposeAsync()
    {
        foreach ((VirtioFsServer server, Thread thread, _) in _devices)
        {
            server.Stop();
            thread.Join();
            server.Dispose();
        }

        _fileSystems.ForEach(fileSystem => fileSystem.Dispose());
        _share.Dispose();
        Directory.Delete(_folder, recursive: true);
        return ValueTask.CompletedTask;
    }

    private (VirtioFsServer Server, Thread Thread, string Socket) StartDevice(string name)
    {
        var fileSystem = new PassthroughFileSystem(_share);
        _fileSystems.Add(fileSystem);
        string socket = Path.Combine(Path.GetTempPath(), $"causeway-bench-{Environment.ProcessId}-{name}.sock");
        var server = new VirtioFsServer(
            fileSystem,
            new VirtioFsServerOptions
            {
                SocketPath = socket,
                IsPersistent = true,
                DaxWindowSize = System.Numerics.BitOperations.RoundUpToPowerOf2((ulong)_size * 2),
            });
        var thread = new Thread(server.Run) { IsBackground = true };
        thread.Start();
        return (server, thread, socket);
    }

    private ValueTask<VirtioFsClient> ConnectAsync(DaxMode mode) => VirtioFsClient.ConnectAsync(
        _devices[mode == DaxMode.Never ? 1 : 0].Socket, new VirtioFsClientOptions { Dax = mode, Cache = CacheMode.None });

    // What a range costs that is touched for the first time: by one byte, beside the round trips that it cannot do without. Those are one
    // request to the device, and one message of the device to the front end and back, over a socket between two threads. One of each
    // at a time: who sends several in a row finds all threads awake, and a first touch does not.
    private async Task FirstTouchAsync(VirtioFsClient client, VirtioFsFile file)
    {
        using EchoingSocket echo = new();
        double[] touch = new double[_size / Slot];
        double[] trips = new double[touch.Length];
        byte[] one = new byte[1];
        for (int i = 0; i < touch.Length; i++)
        {
            trips[i] = StatRoot(client) + echo.PingPong();
            long start = Stopwatch.GetTimestamp();
            _ = await file.ReadAsync(one, (long)i * Slot);
            touch[i] = Stopwatch.GetElapsedTime(start).TotalNanoseconds;
        }

        Console.WriteLine($"first touch of 2 MiB, µs: {Median(touch) / 1000:0.0}, round trips alone {Median(trips) / 1000:0.0}: "
            + $"{Ratio(touch, trips):0.0} times");
    }

    // GETATTR and nothing else.
    private static double StatRoot(VirtioFsClient client)
    {
        long start = Stopwatch.GetTimestamp();
        Wait(client.GetStatusAsync("/"));
        return Stopwatch.GetElapsedTime(start).TotalNanoseconds;
    }

    private unsafe double ReadPlain(MemoryMapping mapping, ReadOnlySpan<long> offsets, int length)
    {
        long start = Stopwatch.GetTimestamp();
        foreach (long offset in offsets)
        {
            new ReadOnlySpan<byte>(mapping.Address + offset, length).CopyTo(_buffer);
        }

        return Stopwatch.GetElapsedTime(start).TotalNanoseconds / offsets.Length;
    }

    private double ReadMapping(VirtioFsMapping mapping, ReadOnlySpan<long> offsets, int length)
    {
        long start = Stopwatch.GetTimestamp();
        foreach (long offset in offsets)
        {
            mapping.GetSpan().Slice((int)offset, length).CopyTo(_buffer);
        }

        return Stopwatch.GetElapsedTime(start).TotalNanoseconds / offsets.Length;
    }

    private double ReadFile(VirtioFsFile file, ReadOnlySpan<long> offsets, int length)
    {
        Memory<byte> destination = _buffer.AsMemory(0, length);
        long start = Stopwatch.GetTimestamp();
        foreach (long offset in offsets)
        {
            Wait(file.ReadAsync(destination, offset));
        }

        return Stopwatch.GetElapsedTime(start).TotalNanoseconds / offsets.Length;
    }

    private double ReadHost(SafeFileHandle handle, ReadOnlySpan<long> offsets, int length)
    {
        long start = Stopwatch.GetTimestamp();
        foreach (long offset in offsets)
        {
            RandomAccess.Read(handle, _buffer.AsSpan(0, length), offset);
        }

        return Stopwatch.GetElapsedTime(start).TotalNanoseconds / offsets.Length;
    }

    private static T Wait<T>(ValueTask<T> task) =>
        task.IsCompletedSuccessfully ? task.Result : task.AsTask().GetAwaiter().GetResult();

    private ReadOnlySpan<long> Offsets(int slice, int count) => _offsets.AsSpan(slice * 2000, count);

    // Eight neighbouring pieces, or fewer in a small file.
    private ReadOnlySpan<long> Pieces(int slice)
    {
        int count = Math.Min(8, _pieces.Length);
        return _pieces.AsSpan(slice * 8 % (_pieces.Length - count + 1), count);
    }

    // Time per operation, by measure and turn.
    private static double[][] TakeTurns(params Func<int, double>[] measures)
    {
        // Not one after the other: who comes after the requests finds the caches as these have left them.
        var random = new Random(2);
        int[] order = [.. Enumerable.Range(0, measures.Length)];
        double[][] times = [.. measures.Select(_ => new double[Turns])];
        for (int turn = 0; turn < Turns; turn++)
        {
            random.Shuffle(order);
            for (int i = 0; i < measures.Length; i++)
            {
                times[order[i]][turn] = measures[order[i]](((turn * measures.Length) + i) % Slices);
            }
        }

        return times;
    }

    private static double Ratio(double[] some, double[] others) =>
        Median([.. some.Zip(others, (one, other) => one / other)]);

    private static double Median(double[] values)
    {
        double[] sorted = [.. values.Order()];
        return sorted[sorted.Length / 2];
    }

    /// <summary>A socket with a thread at its other end that sends back what comes.</summary>
    private sealed class EchoingSocket : IDisposable
    {
        private readonly Socket _here = new(AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, ProtocolType.Unspecified);
        private readonly Socket _there;
        private readonly Thread _thread;
        private readonly byte[] _message = new byte[52];

        public EchoingSocket()
        {
            string path = Path.Combine(Path.GetTempPath(), $"causeway-bench-{Environment.ProcessId}-ping.sock");
            using Socket listener = new(AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, ProtocolType.Unspecified);
            listener.Bind(new UnixDomainSocketEndPoint(path));
            listener.Listen();
            _here.Connect(new UnixDomainSocketEndPoint(path));
            _there = listener.Accept();
            File.Delete(path);
            _thread = new Thread(Echo) { IsBackground = true };
            _thread.Start();
        }

        public double PingPong()
        {
            long start = Stopwatch.GetTimestamp();
            _here.Send(_message);
            _here.Receive(_message);
            return Stopwatch.GetElapsedTime(start).TotalNanoseconds;
        }

        public void Dispose()
        {
            _here.Shutdown(System.Net.Sockets.SocketShutdown.Both);
            _thread.Join();
            _here.Dispose();
            _there.Dispose();
        }

        private void Echo()
        {
            byte[] received = new byte[64];
            for (int length = _there.Receive(received); length > 0; length = _there.Receive(received))
            {
                _there.Send(received, length, SocketFlags.None);
            }
        }
    }
}
