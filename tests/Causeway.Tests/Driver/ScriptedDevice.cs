using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Causeway.Driver;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser;
using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Driver;

/// <summary>What a scripted device does with a request.</summary>
internal sealed record Answer(byte[] Bytes)
{
    /// <summary>Takes the request and never gives it back, unless <see cref="ScriptedDevice.Release"/> does.</summary>
    public static readonly Answer Hold = new([]);

    /// <summary>Gives back the chain as if nothing had been written.</summary>
    public static readonly Answer Nothing = new([]);

    /// <summary>Writes an element with this id to the used ring, instead of the one that is due.</summary>
    public uint? UsedId { get; init; }

    /// <summary>Claims to have written this many bytes.</summary>
    public uint? UsedLength { get; init; }

    public static Answer Reply(FuseInHeader request, ReadOnlySpan<byte> body, int error = 0)
    {
        byte[] bytes = new byte[16 + body.Length];
        MemoryMarshal.Write(bytes, new FuseOutHeader { Length = (uint)bytes.Length, Error = error, Unique = request.Unique });
        body.CopyTo(bytes.AsSpan(16));
        return new Answer(bytes);
    }

    public static Answer Reply<T>(FuseInHeader request, T body)
        where T : unmanaged => Reply(request, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in body)));
}

/// <summary>
/// A virtio-fs device on our own back-end half that does as a script says, lies included: the real daemon never would.
/// </summary>
internal sealed class ScriptedDevice : IVhostUserDevice, IDisposable
{
    private readonly Func<FuseInHeader, byte[], Answer> _script;
    private readonly Dictionary<int, Ring> _rings = [];
    private readonly SafeFileHandle _backendSocket;
    private VhostUserBackend? _backend;
    private Thread? _thread;
    private bool _isDisposed;

    public ScriptedDevice(Func<FuseInHeader, byte[], Answer> script)
    {
        _script = script;
        Sockets.Socketpair(SocketType.Stream, out int ours, out int theirs).ThrowIfError("socketpair");
        DriverSocket = new SafeFileHandle(ours, ownsHandle: true);
        _backendSocket = new SafeFileHandle(theirs, ownsHandle: true);
    }

    /// <summary>The driver's end; owned by whoever opens it.</summary>
    public SafeFileHandle DriverSocket { get; }

    public ConcurrentQueue<(int Queue, FuseInHeader Header, byte[] Arguments)> Requests { get; } = new();

    public VirtioFeatures DeviceFeatures { get; init; } =
        VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex;

    public int QueueCount { get; init; } = 2;

    public int MaxQueueSize => 1024;

    public IReadOnlyList<ulong> SharedMemorySizes { get; init; } = [];

    /// <summary>By which files can be mapped into its regions; null before the driver has asked for their sizes.</summary>
    public BackendChannel? Channel { get; private set; }

    public byte[] Config { get; init; } = MakeConfig("scripted", 1);

    public int ConfigSize => Config.Length;

    public static byte[] MakeConfig(string tag, uint queues)
    {
        byte[] config = new byte[40];
        Encoding.UTF8.GetBytes(tag, config);
        System.Buffers.Binary.BinaryPrimitives.WriteUInt32LittleEndian(config.AsSpan(36), queues);
        return config;
    }

    /// <summary>Begins to listen to <see cref="DriverSocket"/>.</summary>
    public void Start()
    {
        _backend = new VhostUserBackend(_backendSocket, this, NullLogger.Instance);
        _thread = new Thread(Run) { IsBackground = true, Name = "scripted device" };
        _thread.Start();
    }

    public VirtioFsTransport Open(VirtioFsTransportOptions? options = null)
    {
        Start();
        return VirtioFsTransport.Open(DriverSocket, options);
    }

    /// <summary>Answers a request that is held.</summary>
    public void Release(RequestId unique, Func<FuseInHeader, Answer> answer) =>
        Assert.Contains(_rings.Values, ring => ring.Release(unique, answer));

    /// <summary>Puts bytes into the next buffer of the notification queue.</summary>
    public void Notify(ReadOnlySpan<byte> message) => _rings[1].Notify(message);

    /// <summary>Goes away like a daemon that is killed.</summary>
    public void Die() => Dispose();

    public void ReadConfig(int offset, Span<byte> destination) => Config.AsSpan(offset, destination.Length).CopyTo(destination);

    public void OnFeaturesNegotiated(VirtioFeatures features)
    {
    }

    public void StartRing(in RingSetup setup)
    {
        bool isNotification = setup.Location.Index == 1 && (setup.Features & VirtioFeatures.FsNotification) != 0;
        _rings[setup.Location.Index] = new Ring(this, setup, isNotification);
    }

    public uint StopRing(int index)
    {
        _rings[index].Stop();
        return 0;
    }

    public void UpdateSharedMemory(BackendChannel? channel) => Channel = channel;

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
        if (_isDisposed)
        {
            return;
        }

        _isDisposed = true;
        if (_backend is null)
        {
            _backendSocket.Dispose();
            return;
        }

        _backend.Stop();
        Assert.True(_thread!.Join(TimeSpan.FromSeconds(60)));
        _backend.Dispose();
    }

    private void Run()
    {
        try
        {
            _backend!.Run();
        }
        catch (VhostUserException)
        {
            // The driver left in the middle of an exchange.
        }
    }

    private sealed class Ring
    {
        private readonly ScriptedDevice _device;
        private readonly RingSetup _setup;
        private readonly SplitDeviceQueue _queue;
        private readonly Dictionary<RequestId, (DescriptorChain Chain, FuseInHeader Header)> _held = [];
        private readonly SafeFileHandle _stopEvent = Events.CreateEvent();
        private readonly Thread? _thread;

        public Ring(ScriptedDevice device, RingSetup setup, bool isNotification)
        {
            _device = device;
            _setup = setup;
            var features = (QueueFeatures)setup.Features
                & (QueueFeatures.IndirectDescriptors | QueueFeatures.EventIndex);
            _queue = new SplitDeviceQueue(
                setup.Location.Queue, setup.Memory, new DeviceQueueStart(features, setup.Base));
            if (!isNotification)
            {
                _thread = new Thread(Run) { IsBackground = true };
                _thread.Start();
            }
        }

        public void Stop()
        {
            Events.Signal((int)_stopEvent.DangerousGetHandle());
            _thread?.Join();
            _stopEvent.Dispose();
        }

        public bool Release(RequestId unique, Func<FuseInHeader, Answer> answer)
        {
            lock (_queue)
            {
                if (!_held.Remove(unique, out (DescriptorChain Chain, FuseInHeader Header) held))
                {
                    return false;
                }

                Give(held.Chain, answer(held.Header));
                return true;
            }
        }

        public void Notify(ReadOnlySpan<byte> message)
        {
            lock (_queue)
            {
                var chain = new DescriptorChain();
                Assert.Equal(PopResult.Popped, _queue.TryPop(chain));
                Give(chain, new Answer(message.ToArray()));
            }
        }

        private void Run()
        {
            PollDescriptor[] waits =
            [
                new PollDescriptor((int)_stopEvent.DangerousGetHandle(), PollEvents.Readable),
                new PollDescriptor((int)_setup.KickEvent.DangerousGetHandle(), PollEvents.Readable),
            ];
            while (waits[0].Returned == PollEvents.None)
            {
                PopAll();
                if (_queue.ArmNotifications())
                {
                    Poll.Wait(waits, Poll.Forever);
                    if (waits[1].Returned != PollEvents.None)
                    {
                        Events.Drain(waits[1].Descriptor, out _);
                    }
                }
            }
        }

        private unsafe void PopAll()
        {
            while (true)
            {
                lock (_queue)
                {
                    var chain = new DescriptorChain();
                    if (_queue.TryPop(chain) != PopResult.Popped)
                    {
                        return;
                    }

                    byte[] bytes = new byte[chain.Readable.Length];
                    Assert.Equal(bytes.Length, chain.Readable.CopyTo(0, bytes));
                    FuseInHeader header = MemoryMarshal.Read<FuseInHeader>(bytes);
                    byte[] arguments = bytes[Unsafe.SizeOf<FuseInHeader>()..];
                    _device.Requests.Enqueue((_setup.Location.Index, header, arguments));
                    Answer answer = chain.Writable.Length == 0 ? Answer.Nothing : _device._script(header, arguments);
                    if (ReferenceEquals(answer, Answer.Hold))
                    {
                        _held.Add(header.Unique, (chain, header));
                    }
                    else
                    {
                        Give(chain, answer);
                    }
                }
            }
        }

        private void Give(DescriptorChain chain, Answer answer)
        {
            chain.Writable.CopyFrom(0, answer.Bytes);
            uint length = answer.UsedLength ?? (uint)answer.Bytes.Length;
            if (answer.UsedId is { } id)
            {
                PushAs(id, length);
                return;
            }

            _queue.Push(chain, length);
            if (_queue.NeedsCall())
            {
                Call();
            }
        }

        // Past the queue, which would not lie.
        private unsafe void PushAs(uint id, uint length)
        {
            byte* ring = _setup.Location.Queue.DeviceArea;
            *(UsedElement*)(ring + 4 + (8 * (_queue.NextUsed & (_queue.Size - 1)))) = new UsedElement(id, length);
            Volatile.Write(ref *(ushort*)(ring + 2), (ushort)(_queue.NextUsed + 1));
            Call();
        }

        private void Call() => Events.Signal((int)_setup.CallEvent.DangerousGetHandle());
    }
}
