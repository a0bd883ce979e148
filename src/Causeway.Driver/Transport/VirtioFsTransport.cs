using Causeway.Fuse;
using Causeway.VhostUser.Frontend;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver;

/// <summary>
/// The way of FUSE messages to a virtio-fs device (virtio 1.4, 5.11) and back, in user space: the front end of a
/// vhost-user-fs daemon, which shares memory with it and keeps many requests in flight from many threads. What the messages
/// say is the caller's; only the headers of replies are looked at.
/// </summary>
/// <remarks>
/// <para>A request: rent a payload buffer if one is needed (first: who holds a call never waits for a buffer), rent a call,
/// write header and arguments into <see cref="FuseCall.Request"/>, set the lengths, submit, look at the reply, return the
/// call. No step allocates once everything has been used once.</para>
/// <para>Threads: one per request queue completes its requests, one for notifications, and one that watches the control
/// socket and the high-priority queue. Completions of one queue never run at the same time.</para>
/// <para>Once the device is lost every call ends with <see cref="FuseReplyStatus.Lost"/>, and <see cref="Loss"/> says why.
/// To reconnect, make a new transport: node and handle numbers of the old session mean nothing to it.</para>
/// </remarks>
public sealed partial class VirtioFsTransport : IDisposable
{
    private readonly DeviceConnection _connection;
    private readonly VirtioFsTransportOptions _options;
#pragma warning disable CA2213 // Disposed of when the last call and buffer are back, by PoolEmptied.
    private readonly GuestArena _arena;
#pragma warning restore CA2213
    private readonly TransportPool<FuseCall> _calls;
    private readonly TransportPool<FuseCall> _highPriorityCalls;
    private readonly TransportPool<GuestBuffer> _buffers;
    private readonly TransportPool<GuestBuffer> _cacheBuffers;
    private readonly TransportQueue _highPriority;
    private readonly TransportQueue[] _queues;
    private ulong _unique;
    private long _malformedReplies;

    /// <summary>The tag the device announces; null when it leaves naming to the front end.</summary>
    public string? Tag => _connection.Tag;

    /// <summary>Whether the device has a DAX window, and it was wanted.</summary>
    internal bool HasWindow => _connection.HasWindow;

    /// <summary>How many request queues are in use.</summary>
    public int RequestQueueCount => _queues.Length;

    /// <summary>Whether the device has a notification queue and it is in use.</summary>
    public bool HasNotifications => _connection.HasNotifications;

    /// <summary>Whether guest memory is made of huge pages.</summary>
    public bool HasHugePages => _arena.HasHugePages;

    /// <summary>Bytes of a payload buffer, and so of the longest READ and WRITE.</summary>
    public int PayloadBytes => _options.PayloadBytes;

    /// <summary>The size of the guest memory in bytes; used is only what was touched.</summary>
    public long GuestMemoryBytes => (long)_arena.Size;

    /// <summary>How many calls are rented: in flight, or between that and being returned.</summary>
    public int RentedCalls => _calls.Lent;

    /// <summary>How many replies had a header that breaks the protocol.</summary>
    public long MalformedReplies => Interlocked.Read(ref _malformedReplies);

    /// <summary>Why the device is lost; null while it is not.</summary>
    public VirtioFsDeviceException? Loss => _connection.Loss;

    /// <summary>The control connection, for what the transport does not do itself. One thread at a time.</summary>
    public VhostUserFrontend Frontend => _connection.Frontend;

    /// <summary>Connects to a daemon that listens, and starts all queues.</summary>
    /// <param name="socketPath">The daemon's socket.</param>
    /// <param name="options">How to use the device.</param>
    /// <exception cref="VirtioFsDeviceException">What answers is no virtio-fs device.</exception>
    /// <exception cref="IOException">Nobody listens, or setting up failed; the message says what and why.</exception>
    public static VirtioFsTransport Connect(string socketPath, VirtioFsTransportOptions? options = null) =>
        Start(VhostUserFrontend.Connect(socketPath), $"'{socketPath}'", options);

    /// <summary>Uses a connection that exists, whoever connected to whom, and starts all queues.</summary>
    /// <param name="socket">The connected stream socket; owned from here on.</param>
    /// <param name="options">How to use the device.</param>
    /// <exception cref="VirtioFsDeviceException">What answers is no virtio-fs device.</exception>
    /// <exception cref="IOException">Setting up failed; the message says what and why.</exception>
    public static VirtioFsTransport Open(SafeFileHandle socket, VirtioFsTransportOptions? options = null) =>
        Start(new VhostUserFrontend(socket), "the other end of the socket", options);

    /// <summary>Takes a call if one is free.</summary>
    /// <returns>The call, or null.</returns>
    public FuseCall? TryRentCall() => _calls.TryRent();

    /// <summary>Takes a call, and waits until one is free.</summary>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask<FuseCall> RentCallAsync(CancellationToken cancellationToken = default) =>
        _calls.RentAsync(cancellationToken);

    /// <summary>Takes a payload buffer if one is free.</summary>
    /// <returns>The buffer, or null.</returns>
    public GuestBuffer? TryRentBuffer() => _buffers.TryRent();

    /// <summary>Takes a payload buffer, and waits until one is free. Not while holding a call.</summary>
    /// <param name="cancellationToken">Stops waiting.</param>
    public ValueTask<GuestBuffer> RentBufferAsync(CancellationToken cancellationToken = default) =>
        _buffers.RentAsync(cancellationToken);

    /// <summary>Takes a cache buffer if one is free. It is kept as long as the caller likes.</summary>
    /// <returns>The buffer, or null.</returns>
    public GuestBuffer? TryRentCacheBuffer() => _cacheBuffers.TryRent();

    /// <summary>
    /// A number for a request of one's own. It is odd and above 2^62, so that it never is the number of a request that
    /// comes from /dev/fuse.
    /// </summary>
    public RequestId NextUnique() => new((1UL << 62) | (2 * Interlocked.Increment(ref _unique)) | 1);

    /// <summary>A queue for a request of the current thread: threads on one processor share one, as in Linux guests.</summary>
    public int PreferredQueue() => _queues.Length == 1 ? 0 : Thread.GetCurrentProcessorId() % _queues.Length;

    /// <summary>Takes the DAX window over, which from then on is the caller's to dispose of.</summary>
    internal SharedMemoryRegion? TakeWindow() => _connection.TakeWindow();

    /// <summary>Whether the device has a version table, and it was wanted.</summary>
    internal bool HasVersionTable => _connection.HasVersionTable;

    /// <summary>Takes the region of the version table over, which from then on is the caller's to dispose of.</summary>
    internal SharedMemoryRegion? TakeVersionTable() => _connection.TakeVersionTable();

    internal TransportQueue Queue(int index) => _queues[index];

    internal void CountMalformedReply() => Interlocked.Increment(ref _malformedReplies);
}
