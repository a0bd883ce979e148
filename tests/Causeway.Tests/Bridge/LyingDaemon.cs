using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Server;
using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Extensions.Logging.Abstractions;

namespace Causeway.Tests.Bridge;

/// <summary>
/// A virtio-fs device that sets itself up as it should and then answers requests with whatever a test says, wrong or not.
/// </summary>
internal sealed class LyingDaemon : IVhostUserDevice, IDisposable
{
    private readonly VhostUserListener _listener;
    private readonly Thread _thread;
    private readonly Func<FuseInHeader, byte[]?> _answer;
    private readonly (Thread? Thread, int Stop, int Call, SplitDeviceQueue Queue)?[] _rings =
        new (Thread?, int, int, SplitDeviceQueue)?[8];
    private VhostUserBackend? _backend;
    private volatile bool _isEnding;
    private int _unanswered;

    /// <summary>Listens, and serves one front end after the other.</summary>
    /// <param name="answer">
    /// The bytes to write in answer to a request, with the header; null for an honest ENOENT, or an honest INIT.
    /// </param>
    public LyingDaemon(Func<FuseInHeader, byte[]?> answer)
    {
        _answer = answer;
        SocketPath = Path.Combine(Path.GetTempPath(), $"causeway-{Guid.NewGuid():N}.sock");
        _listener = VhostUserListener.Bind(SocketPath);
        _thread = new Thread(Serve) { IsBackground = true, Name = "lying-daemon" };
        _thread.Start();
    }

    public string SocketPath { get; }

    /// <summary>Whether the second queue is for notifications, and requests have the third.</summary>
    public bool HasNotifications { get; init; }

    public VirtioFeatures DeviceFeatures => VirtioFeatures.Version1 | VirtioFeatures.EventIndex
        | (HasNotifications ? VirtioFeatures.FsNotification : 0);

    /// <summary>How many queues there are, that of high priority and of notifications included; 0 for one of each kind.</summary>
    public int QueueCount
    {
        get => field > 0 ? field : HasNotifications ? 3 : 2;
        init;
    }

    /// <summary>How many messages without room for an answer have come.</summary>
    public int Unanswered => Volatile.Read(ref _unanswered);

    public int MaxQueueSize => 1024;

    public int ConfigSize => 0;

    public static byte[] Reply(ulong unique, int error, int length, int bodyLength)
    {
        byte[] reply = new byte[16 + bodyLength];
        MemoryMarshal.Write(reply, new FuseOutHeader { Length = (uint)length, Error = error, Unique = new RequestId(unique) });
        return reply;
    }

    public static byte[] Reply<T>(RequestId unique, T body)
        where T : unmanaged
    {
        int size = Unsafe.SizeOf<T>();
        byte[] reply = Reply(unique.Value, 0, 16 + size, size);
        MemoryMarshal.Write(reply.AsSpan(16), in body);
        return reply;
    }

    /// <summary>Sends what a notification has, or should have not.</summary>
    public void Notify(ReadOnlySpan<byte> message)
    {
        var (_, _, call, queue) = _rings[1]!.Value;
        var chain = new DescriptorChain();
        while (queue.TryPop(chain) != PopResult.Popped)
        {
            // The driver gives buffers back as it has looked at them.
            Thread.Yield();
        }

        chain.Writable.CopyFrom(0, message);
        queue.Push(chain, (uint)message.Length);
        if (queue.NeedsCall())
        {
            Events.Signal(call);
        }
    }

    public void ReadConfig(int offset, Span<byte> destination) => destination.Clear();

    public void OnFeaturesNegotiated(VirtioFeatures features)
    {
    }

    public void StartRing(in RingSetup setup)
    {
        RingLocation location = setup.Location;
        var features = (QueueFeatures)setup.Features & QueueFeatures.EventIndex;
        var queue = new SplitDeviceQueue(
            location.Queue, setup.Memory, new DeviceQueueStart(features, setup.Base));
        int stop = Events.Eventfd(0, EventFlags.CloseOnExec).ThrowIfError("make an event").Descriptor;
        int kick = (int)setup.KickEvent.DangerousGetHandle();
        int call = (int)setup.CallEvent.DangerousGetHandle();
        bool isServed = !HasNotifications || location.Index != 1;
        Thread? thread = isServed ? new Thread(() => Run(queue, kick, call, stop)) { IsBackground = true } : null;
        _rings[location.Index] = (thread, stop, call, queue);
        thread?.Start();
    }

    public uint StopRing(int index)
    {
        var (thread, stop, _, queue) = _rings[index]!.Value;
        Events.Signal(stop);
        thread?.Join();
        _ = FileIO.Close(stop);
        _rings[index] = null;
        return queue.NextAvailable;
    }

    public void UpdateMemory(in MemoryUpdate update)
    {
    }

    public void Reset()
    {
    }

    public void Disconnected()
    {
    }

    public void Dispose()
    {
        _isEnding = true;
        _listener.Stop();
        Volatile.Read(ref _backend)?.Stop();
        _thread.Join();
        _listener.Dispose();
    }

    private void Serve()
    {
        while (!_isEnding && _listener.Accept() is { } socket)
        {
            using var backend = new VhostUserBackend(socket, this, NullLogger.Instance);
            Volatile.Write(ref _backend, backend);
            if (!_isEnding)
            {
                backend.Run();
            }
        }
    }

    private void Run(SplitDeviceQueue queue, int kick, int call, int stop)
    {
        var chain = new DescriptorChain();
        while (true)
        {
            while (queue.TryPop(chain) == PopResult.Popped)
            {
                byte[] request = new byte[40];
                chain.Readable.CopyTo(0, request);
                byte[] reply = chain.Writable.Length == 0 ? [] : Answer(MemoryMarshal.Read<FuseInHeader>(request));
                _ = chain.Writable.Length == 0 ? Interlocked.Increment(ref _unanswered) : 0;
                chain.Writable.CopyFrom(0, reply);
                queue.Push(chain, (uint)reply.Length);
                if (queue.NeedsCall())
                {
                    Events.Signal(call);
                }
            }

            if (!queue.ArmNotifications())
            {
                continue;
            }

            PollDescriptor[] waits =
                [new PollDescriptor(kick, PollEvents.Readable), new PollDescriptor(stop, PollEvents.Readable)];
            Poll.Wait(waits, -1);
            if (Poll.Now(stop, PollEvents.Readable) != 0)
            {
                return;
            }

            Events.Drain(kick, out _);
        }
    }

    private byte[] Answer(in FuseInHeader request)
    {
        if (_answer(request) is { } lie)
        {
            return lie;
        }

        return request.Opcode switch
        {
            FuseOpcode.Init => Reply(
                request.Unique, new FuseInitOut { Major = 7, Minor = 38, MaxWrite = 1 << 16, TimeGranularity = 1 }),
            FuseOpcode.GetAttr => Reply(
                request.Unique,
                new FuseAttrOut { Attributes = new FuseAttributes { Inode = 1, Mode = 0x41ED, LinkCount = 2 } }),
            _ => Reply(request.Unique.Value, -(int)Errno.ENOENT, 16, 0),
        };
    }
}
