using Causeway.Linux;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver;

/// <summary>
/// The driver's end of a virtio-fs device (virtio 1.4, 5.11), in user space: connects to a vhost-user-fs daemon as its front
/// end, shares a block of memory with it as guest memory, and sets up the high-priority queue and the request queues.
/// </summary>
public sealed class VirtioFsDriver : IDisposable
{
    // Guest addresses are ours to choose; not zero, so that a null address is noticed.
    private static readonly GuestAddress MemoryStart = new(1 << 30);

    // The high-priority queue carries FORGET and INTERRUPT only, which are short.
    private const int HighPriorityMessage = 4096;

    private readonly VhostUserFrontend _frontend;
    private readonly SafeFileHandle _memoryFile;
    private readonly MemoryMapping _memory;
    private readonly VirtioFsQueue[] _queues;

    private VirtioFsDriver(VhostUserFrontend frontend, VirtioFsDriverOptions options)
    {
        _frontend = frontend;
        frontend.Negotiate(new FrontendOptions());
        var features = (QueueFeatures)frontend.NegotiatedFeatures
            & (QueueFeatures.IndirectDescriptors | QueueFeatures.EventIndex);
        QueueShape[] shapes = Shapes(options, features);
        ulong size = 0;
        foreach (QueueShape shape in shapes)
        {
            size += shape.Bytes;
        }

        _memoryFile = Memory.CreateMemoryFile("causeway-driver"u8, (long)size, FileSeals.Shrink | FileSeals.Grow);
        _memory = MemoryMapping.MapShared(
            _memoryFile, 0, size, MemoryProtection.Read | MemoryProtection.Write);
        ShareMemory(size);
        _queues = StartQueues(shapes, options);
    }

    /// <summary>The queue for FORGET, BATCH_FORGET and INTERRUPT.</summary>
    public VirtioFsQueue HighPriorityQueue => _queues[0];

    /// <summary>The request queues.</summary>
    public ReadOnlySpan<VirtioFsQueue> RequestQueues => _queues.AsSpan(1);

    /// <summary>The control connection, for what the driver does not do itself.</summary>
    public VhostUserFrontend Frontend => _frontend;

    /// <summary>Connects to a daemon and starts all queues.</summary>
    /// <param name="socketPath">The daemon's socket.</param>
    /// <param name="options">How to use the device.</param>
    /// <exception cref="IOException">Connecting or setting up failed; the message says what and why.</exception>
    public static VirtioFsDriver Connect(string socketPath, VirtioFsDriverOptions? options = null)
    {
        VhostUserFrontend frontend = VhostUserFrontend.Connect(socketPath);
        try
        {
            return new VirtioFsDriver(frontend, options ?? new VirtioFsDriverOptions());
        }
        catch
        {
            frontend.Dispose();
            throw;
        }
    }

    /// <summary>Stops the queues, as a front end does whose guest shuts down; requests in flight complete first.</summary>
    public void Stop()
    {
        for (int i = 0; i < _queues.Length; i++)
        {
            _frontend.StopRing(i);
        }
    }

    /// <summary>Starts a queue again that the front end has stopped.</summary>
    /// <param name="index">The queue, counted from the high-priority queue.</param>
    /// <param name="nextAvailable">What stopping it returned.</param>
    public void RestartQueue(int index, ushort nextAvailable) =>
        _frontend.StartRing(_queues[index].Describe(index, ToFrontendAddress) with { NextAvailable = nextAvailable });

    /// <summary>Closes the connection, whatever is in flight.</summary>
    public void Dispose()
    {
        _frontend.Dispose();
        foreach (VirtioFsQueue queue in _queues)
        {
            queue.Dispose();
        }

        _memory.Dispose();
        _memoryFile.Dispose();
    }

    private static QueueShape[] Shapes(VirtioFsDriverOptions options, QueueFeatures features)
    {
        var shapes = new QueueShape[1 + options.RequestQueues];
        var ring = new DriverQueueOptions(options.QueueSize, features, IndirectTableEntries: 2);
        shapes[0] = new QueueShape(ring, options.RequestsPerQueue, HighPriorityMessage);
        Array.Fill(shapes, new QueueShape(ring, options.RequestsPerQueue, options.MaxMessage), 1, options.RequestQueues);
        return shapes;
    }

    // The addresses of our own process serve as front-end addresses, as the protocol has it.
    private unsafe void ShareMemory(ulong size) => _frontend.ShareMemory(
        new FrontendRegion(
            new GuestMemoryRange(MemoryStart, new FrontendAddress((ulong)_memory.Address), size, FileOffset: 0),
            _memoryFile));

    private unsafe VirtioFsQueue[] StartQueues(QueueShape[] shapes, VirtioFsDriverOptions options)
    {
        var queues = new VirtioFsQueue[shapes.Length];
        ulong offset = 0;
        for (int i = 0; i < shapes.Length; i++)
        {
            queues[i] = new VirtioFsQueue(
                _memory.Address + offset, new GuestAddress(MemoryStart.Value + offset), shapes[i], options.ReplyTimeout);
            _frontend.StartRing(queues[i].Describe(i, ToFrontendAddress));
            offset += shapes[i].Bytes;
        }

        return queues;
    }

    private unsafe FrontendAddress ToFrontendAddress(GuestAddress address) =>
        new((ulong)_memory.Address + (address.Value - MemoryStart.Value));
}
