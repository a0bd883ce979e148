using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using Causeway.Cli.Bench;
using Causeway.Linux;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Benchmarks;

/// <summary>
/// What a request costs in the ring alone: a driver's and a device's half on two processors, neither of which ever sleeps, with chains
/// as GETATTR has them. Rings take turns in short slices.
/// </summary>
internal sealed unsafe class RingBenchmark : IDisposable
{
    // The default of QEMU's and of our driver's queues.
    private const int QueueSize = 128;

    private const ulong Base = 0x100000;
    private const ulong QueueBytes = 256 * 1024;
    private const ulong CellBytes = 512;
    private const int Iterations = 1000;

    // fuse_in_header and fuse_getattr_in; fuse_out_header and fuse_attr_out.
    private const int HeaderBytes = 40;
    private const int ArgumentBytes = 16;
    private const int ReplyHeaderBytes = 16;
    private const int ReplyBytes = 104;

    private static readonly TimeSpan s_warmUp = TimeSpan.FromMilliseconds(3);
    private static readonly TimeSpan s_slice = TimeSpan.FromMilliseconds(30);

    private readonly SafeFileHandle _file;
    private readonly GuestMemory _guest;
    private readonly byte* _start;
    private readonly int _rounds;
    private readonly string _only;

    public RingBenchmark(int rounds, string only)
    {
        _rounds = rounds;
        _only = only;
        _file = Memory.CreateMemoryFile("rings\0"u8, 1 << 20, FileSeals.Shrink);
        GuestMemory empty = GuestMemory.CreateEmpty();
        _guest = empty.Add(new(new(Base), new(Base), 1 << 20, 0), _file);
        empty.Release();
        _start = _guest.Regions[0].Address;
    }

    private enum Shape
    {
        Direct2,
        Direct4,
        Indirect4,
    }

    public void Run()
    {
        double perIteration = Calibrate();
        foreach (int nanoseconds in (ReadOnlySpan<int>)[0, 400])
        {
            int work = (int)(nanoseconds / perIteration);
            foreach (int depth in (ReadOnlySpan<int>)[16, 1])
            {
                foreach (Shape shape in Enum.GetValues<Shape>())
                {
                    Report(
                        $"depth {depth}, {shape}, {nanoseconds} ns of work",
                        ["split", "packed"],
                        [
                            () => Run(depth, shape, work, QueueFeatures.None),
                            () => Run(depth, shape, work, QueueFeatures.PackedRing),
                        ]);
                }
            }
        }
    }

    public void Dispose()
    {
        _guest.Release();
        _file.Dispose();
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static ulong Work(ulong seed, int iterations)
    {
        for (int i = 0; i < iterations; i++)
        {
            seed = (seed * 6364136223846793005) + 1;
        }

        return seed;
    }

    private static double Calibrate()
    {
        double best = double.MaxValue;
        ulong seed = 1;
        for (int i = 0; i < 2000; i++)
        {
            long began = Stopwatch.GetTimestamp();
            seed = Work(seed, Iterations);
            best = Math.Min(best, Stopwatch.GetElapsedTime(began).TotalNanoseconds / Iterations);
        }

        return seed == 0 ? 0 : best;
    }

    private void Report(string what, string[] names, Func<double>[] measure)
    {
        if (!what.Contains(_only, StringComparison.Ordinal))
        {
            return;
        }

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

        Console.WriteLine(what);
        for (int i = 0; i < names.Length; i++)
        {
            Spread cost = Spread.Of(costs[i]);
            Spread gain = Spread.Of(costs[i].Zip(costs[0]).Select(pair => pair.First - pair.Second));
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"  {names[i],-16} {cost.Median,7:0.0} ns ({cost.Lower:0.0}-{cost.Upper:0.0})   {gain.Median,6:+0.0;-0.0} ({gain.Lower:+0.0;-0.0} to {gain.Upper:+0.0;-0.0})"));
        }
    }

    private double Run(int depth, Shape shape, int work, QueueFeatures more)
    {
        var options = new DriverQueueOptions(
            QueueSize, QueueFeatures.EventIndex | QueueFeatures.IndirectDescriptors | more, shape == Shape.Indirect4 ? 4 : 0);
        DriverQueue driver = DriverQueue.Create(_start, new GuestAddress(Base), options);
        if (!QueueMemory.TryResolve(
            _guest, QueueSize, options.Features,
            new(new(driver.DescriptorArea.Value), new(driver.DriverArea.Value), new(driver.DeviceArea.Value)),
            out QueueMemory memory))
        {
            throw new InvalidOperationException("the queue is not in the memory");
        }

        var device = DeviceQueue.Create(memory, _guest, new(options.Features, DeviceQueue.FirstBase(options.Features)));
        device.DisarmNotifications();
        driver.DisarmCalls();
        return Run(driver, device, depth, shape, work);
    }

    private double Run(DriverQueue driver, DeviceQueue device, int depth, Shape shape, int work)
    {
        bool isStopped = false;
        ulong sum = 0;
        var thread = new Thread(() =>
        {
            _ = Processors.SetAffinity([1]);
            sum = Serve(device, ref isStopped, work);
        });
        _ = Processors.SetAffinity([0]);
        thread.Start();
        double cost = Drive(driver, depth, shape);
        Volatile.Write(ref isStopped, true);
        thread.Join();
        GC.KeepAlive(sum);
        return cost;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private double Drive(DriverQueue driver, int depth, Shape shape)
    {
        var readable = new GuestRange[depth][];
        var writable = new GuestRange[depth][];
        for (int i = 0; i < depth; i++)
        {
            ulong cell = Base + QueueBytes + ((ulong)i * CellBytes);
            readable[i] = shape == Shape.Direct2
                ? [new(new(cell), HeaderBytes + ArgumentBytes)]
                : [new(new(cell), HeaderBytes), new(new(cell + 64), ArgumentBytes)];
            writable[i] = shape == Shape.Direct2
                ? [new(new(cell + 128), ReplyHeaderBytes + ReplyBytes)]
                : [new(new(cell + 128), ReplyHeaderBytes), new(new(cell + 192), ReplyBytes)];
        }

        var cells = new int[QueueSize];
        ulong number = 0;
        for (int i = 0; i < depth; i++)
        {
            Ask(driver, i, ++number, readable[i], writable[i], cells);
        }

        _ = driver.NeedsKick();
        long count = 0;
        long began = Stopwatch.GetTimestamp();
        long start = 0;
        long startCount = 0;
        while (true)
        {
            int taken = 0;
            while (driver.TryTake(out ushort id, out _) == TakeResult.Taken)
            {
                int i = cells[id];
                byte* cell = _start + QueueBytes + ((ulong)i * CellBytes);
                if (Unsafe.Read<ulong>(cell + 128 + 8) != Unsafe.Read<ulong>(cell))
                {
                    throw new InvalidOperationException("a reply belongs to another request");
                }

                Ask(driver, i, ++number, readable[i], writable[i], cells);
                taken++;
            }

            if (taken == 0)
            {
                continue;
            }

            // Nobody sleeps, so no kick is sent.
            _ = driver.NeedsKick();
            count += taken;
            if ((count & 0x3f) < taken)
            {
                long now = Stopwatch.GetTimestamp();
                if (start == 0)
                {
                    if (Stopwatch.GetElapsedTime(began, now) >= s_warmUp)
                    {
                        start = now;
                        startCount = count;
                    }
                }
                else if (Stopwatch.GetElapsedTime(start, now) >= s_slice)
                {
                    return Stopwatch.GetElapsedTime(start, now).TotalNanoseconds / (count - startCount);
                }
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void Ask(
        DriverQueue driver, int i, ulong number, GuestRange[] readable, GuestRange[] writable, int[] cells)
    {
        byte* cell = _start + QueueBytes + ((ulong)i * CellBytes);
        new Span<byte>(cell, HeaderBytes).Fill((byte)number);
        Unsafe.Write(cell, number);
        int offset = readable.Length == 1 ? HeaderBytes : 64;
        new Span<byte>(cell + offset, ArgumentBytes).Clear();
        if (!driver.TryAdd(readable, writable, out ushort id))
        {
            throw new InvalidOperationException("no free descriptors");
        }

        cells[id] = i;
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static ulong Serve(DeviceQueue device, ref bool isStopped, int work)
    {
        var chain = new DescriptorChain();
        Span<byte> request = stackalloc byte[HeaderBytes + ArgumentBytes];
        Span<byte> reply = stackalloc byte[ReplyHeaderBytes + ReplyBytes];
        reply.Fill(7);
        ulong sum = 0;
        bool isIdle = true;
        while (true)
        {
            if (device.TryPop(chain) != PopResult.Popped)
            {
                if (!isIdle)
                {
                    isIdle = true;
                    _ = device.NeedsCall();
                }
                else if (Volatile.Read(ref isStopped))
                {
                    return sum;
                }

                continue;
            }

            isIdle = false;
            int at = 0;
            foreach (ref readonly IoVector vector in chain.Readable.Vectors)
            {
                new ReadOnlySpan<byte>(vector.Address, (int)vector.Length).CopyTo(request[at..]);
                at += (int)vector.Length;
            }

            Unsafe.WriteUnaligned(ref reply[8], Unsafe.ReadUnaligned<ulong>(ref request[0]));
            sum += Work(sum, work) & 2;
            at = 0;
            foreach (ref readonly IoVector vector in chain.Writable.Vectors)
            {
                reply.Slice(at, (int)vector.Length).CopyTo(new Span<byte>(vector.Address, (int)vector.Length));
                at += (int)vector.Length;
            }

            device.Push(chain, (uint)at);
        }
    }
}
