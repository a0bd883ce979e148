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
/// A file through the DAX window beside the same file as a plain mapping of this process and by FUSE requests, one at a time. What is
/// compared takes turns, so that a busy machine is busy for all; the least of all turns counts.
/// </summary>
internal sealed class DaxBenchmark : IAsyncDisposable
{
    private const int Small = 4096;
    private const int Large = 1 << 20;
    private const int Turns = 15;
    private const int Slot = 2 << 20;

    private readonly string _folder;
    private readonly long _size;
    private readonly long[] _offsets;
    private readonly byte[] _buffer = new byte[Large];
    private readonly Share _share;
    private readonly PassthroughFileSystem _fileSystem;
    private readonly VirtioFsServer _server;
    private readonly Thread _thread;
    private readonly string _socket;

    private DaxBenchmark(string folder, int megabytes)
    {
        _folder = folder;
        _size = (long)megabytes << 20;
        var random = new Random(1);
        _offsets = [.. Enumerable.Range(0, 20_000).Select(_ => random.NextInt64(_size / Small) * Small)];
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
        _fileSystem = new PassthroughFileSystem(_share);
        _socket = Path.Combine(Path.GetTempPath(), $"causeway-bench-{Environment.ProcessId}.sock");
        _server = new VirtioFsServer(
            _fileSystem,
            new VirtioFsServerOptions
            {
                SocketPath = _socket,
                IsPersistent = true,
                DaxWindowSize = System.Numerics.BitOperations.RoundUpToPowerOf2((ulong)_size * 2),
            });
        _thread = new Thread(_server.Run) { IsBackground = true };
        _thread.Start();
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

        // One session at a time has the device.
        double request = await RequestAsync();
        VirtioFsClient client = await ConnectAsync(DaxMode.Always);
        await using (client.ConfigureAwait(false))
        {
            await using VirtioFsFile file = await client.OpenFileAsync("file");
            await FirstTouchAsync(client, file);
            using VirtioFsMapping mapped = await client.MapAsync("file");

            double[] random = Least(
                () => ReadPlain(plain, _offsets, Small),
                () => ReadFile(file, _offsets, Small),
                () => ReadMapping(mapped, _offsets, Small),
                () => ReadHost(handle, _offsets, Small));
            long[] all = [.. Enumerable.Range(0, (int)(_size / Large)).Select(i => (long)i * Large)];
            double[] sequential = Least(
                () => ReadPlain(plain, all, Large), () => ReadFile(file, all, Large), () => ReadMapping(mapped, all, Large));

            Console.WriteLine($"random 4 KiB reads, ns each: mmap {random[0]:0}, VirtioFsFile {random[1]:0}, "
                + $"VirtioFsMapping {random[2]:0}, pread of the host's file {random[3]:0}, FUSE_READ at depth 1 {request:0}");
            Console.WriteLine($"  VirtioFsFile is {request / random[1]:0.0} times the rate of FUSE_READ, "
                + $"{100 * random[0] / random[1]:0} % of mmap; VirtioFsMapping {100 * random[0] / random[2]:0} % of mmap");
            Console.WriteLine($"sequential 1 MiB reads, GB/s: mmap {Large / sequential[0]:0.00}, VirtioFsFile {Large / sequential[1]:0.00}, "
                + $"VirtioFsMapping {Large / sequential[2]:0.00}");
            Console.WriteLine($"  VirtioFsFile is {100 * sequential[0] / sequential[1]:0} % of mmap, "
                + $"VirtioFsMapping {100 * sequential[0] / sequential[2]:0} %");
        }
    }

    public ValueTask DisposeAsync()
    {
        _server.Stop();
        _thread.Join();
        _server.Dispose();
        _fileSystem.Dispose();
        _share.Dispose();
        Directory.Delete(_folder, recursive: true);
        return ValueTask.CompletedTask;
    }

    private ValueTask<VirtioFsClient> ConnectAsync(DaxMode mode) =>
        VirtioFsClient.ConnectAsync(_socket, new VirtioFsClientOptions { Dax = mode, Cache = CacheMode.None });

    private async Task<double> RequestAsync()
    {
        await using VirtioFsClient client = await ConnectAsync(DaxMode.Never);
        await using VirtioFsFile file = await client.OpenFileAsync("file");
        return Least(() => ReadFile(file, _offsets[..3000], Small))[0];
    }

    // What a range costs that is touched for the first time: by one byte, beside the round trips that it cannot do without. Those are one
    // request to the device, and one message of the device to the front end and back, over a socket between two threads.
    private async Task FirstTouchAsync(VirtioFsClient client, VirtioFsFile file)
    {
        double trip = Least(() => StatAll(client, 1000))[0];
        double message = PingPong(2000);
        long[] touches = new long[_size / Slot];
        byte[] one = new byte[1];
        for (int i = 0; i < touches.Length; i++)
        {
            long start = Stopwatch.GetTimestamp();
            _ = await file.ReadAsync(one, (long)i * Slot);
            touches[i] = Stopwatch.GetTimestamp() - start;
        }

        Array.Sort(touches);
        double median = Stopwatch.GetElapsedTime(0, touches[touches.Length / 2]).TotalNanoseconds;
        Console.WriteLine($"first touch of 2 MiB, µs: {median / 1000:0.0} (median), round trips alone {(trip + message) / 1000:0.0} "
            + $"(request {trip / 1000:0.0}, message {message / 1000:0.0}): {median / (trip + message):0.0} times");
    }

    private static double StatAll(VirtioFsClient client, int count)
    {
        long start = Stopwatch.GetTimestamp();
        for (int i = 0; i < count; i++)
        {
            // The root: GETATTR and nothing else.
            Wait(client.GetStatusAsync("/"));
        }

        return Stopwatch.GetElapsedTime(start).TotalNanoseconds / count;
    }

    private static double PingPong(int count)
    {
        string path = Path.Combine(Path.GetTempPath(), $"causeway-bench-{Environment.ProcessId}-ping.sock");
        using Socket listener = new(AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen();
        using Socket here = new(AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, ProtocolType.Unspecified);
        here.Connect(new UnixDomainSocketEndPoint(path));
        using Socket there = listener.Accept();
        File.Delete(path);
        var echo = new Thread(() =>
        {
            byte[] received = new byte[64];
            for (int length = there.Receive(received); length > 0; length = there.Receive(received))
            {
                there.Send(received, length, SocketFlags.None);
            }
        }) { IsBackground = true };
        echo.Start();
        byte[] message = new byte[52];
        double least = Least(() =>
        {
            long start = Stopwatch.GetTimestamp();
            for (int i = 0; i < count; i++)
            {
                here.Send(message);
                here.Receive(message);
            }

            return Stopwatch.GetElapsedTime(start).TotalNanoseconds / count;
        })[0];
        here.Shutdown(System.Net.Sockets.SocketShutdown.Both);
        echo.Join();
        return least;
    }

    private unsafe double ReadPlain(MemoryMapping mapping, long[] offsets, int length)
    {
        long start = Stopwatch.GetTimestamp();
        foreach (long offset in offsets)
        {
            new ReadOnlySpan<byte>(mapping.Address + offset, length).CopyTo(_buffer);
        }

        return Stopwatch.GetElapsedTime(start).TotalNanoseconds / offsets.Length;
    }

    private double ReadMapping(VirtioFsMapping mapping, long[] offsets, int length)
    {
        long start = Stopwatch.GetTimestamp();
        foreach (long offset in offsets)
        {
            mapping.GetSpan().Slice((int)offset, length).CopyTo(_buffer);
        }

        return Stopwatch.GetElapsedTime(start).TotalNanoseconds / offsets.Length;
    }

    private double ReadFile(VirtioFsFile file, long[] offsets, int length)
    {
        Memory<byte> destination = _buffer.AsMemory(0, length);
        long start = Stopwatch.GetTimestamp();
        foreach (long offset in offsets)
        {
            Wait(file.ReadAsync(destination, offset));
        }

        return Stopwatch.GetElapsedTime(start).TotalNanoseconds / offsets.Length;
    }

    private double ReadHost(SafeFileHandle handle, long[] offsets, int length)
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

    private static double[] Least(params Func<double>[] measures)
    {
        double[] least = [.. measures.Select(_ => double.MaxValue)];
        for (int turn = 0; turn < Turns; turn++)
        {
            for (int i = 0; i < measures.Length; i++)
            {
                least[i] = Math.Min(least[i], measures[i]());
            }
        }

        return least;
    }
}
