using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser.Frontend;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver.Bridge;

/// <summary>Why a bridge ended.</summary>
public enum BridgeEnd
{
    /// <summary>Somebody unmounted, or <see cref="FuseBridge.Stop"/> did.</summary>
    Unmounted,

    /// <summary>The daemon went away or broke the protocol.</summary>
    Lost,
}

/// <summary>
/// Mounts a share without a virtual machine: /dev/fuse on one side, the queues of a virtio-fs device on the other.
/// </summary>
/// <remarks>
/// Messages go from one side to the other as they are, save where the protocols differ: INIT is negotiated on each side by
/// itself, FORGET and INTERRUPT go to the high-priority queue, and the numbers of processes are left out. Where nothing needs the
/// bridge in between, the daemon takes messages from the kernel by itself.
/// </remarks>
public sealed partial class FuseBridge : IDisposable
{
    private const int RetryMilliseconds = 200;

    // How long a daemon may take to see that the bridge before us is gone (arbitrary).
    private const int DyingMilliseconds = 1000;
    private const int DyingStepMilliseconds = 10;

    // Unless told otherwise (arbitrary).
    private const int MostThreads = 4;

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(10);

    private readonly BridgeOptions _options;
    private readonly string? _ringObstacle;
    private readonly ManualResetEventSlim _isStarted = new();
    private readonly SafeFileHandle _wake = Events.CreateEvent();
    private readonly List<BridgeWorker> _workers = [];
    private readonly List<Thread> _threads = [];

    // Guards the change of sessions: who waits for the next one, and which it is.
    private readonly object _gate = new();
    private BridgeSession _session;
    private int _waitingWorkers;
    private FuseInitIn _asked;
    private FuseInitOut _granted;
    private long _invalidationCount;
    private int _notificationDevice = -1;
    private volatile bool _isNotifying;
    private volatile bool _isOver;
    private volatile string? _loss;

    private FuseBridge(BridgeOptions options)
    {
        if (options.UsesVersions && options.Loss == BridgeLoss.Wait)
        {
            throw new IOException("'cache=coherent' and 'lost=wait' exclude each other: the next daemon has another version table");
        }

        _options = options;
        PollingSeats = new PollingSeats(options.Polls);
        _ringObstacle = options.UsesIoUring == false ? "it is not wanted"
            : options.Loss == BridgeLoss.Wait ? "a mount with 'lost=wait' is without"
            : !FuseDevice.OffersIoUring()
                ? "the kernel does not offer it; 'echo Y > /sys/module/fuse/parameters/enable_uring' has it do so"
            : null;
        _session = new BridgeSession(Connect(), number: 0, options);
        _session.TellLossTo(this);
    }

    /// <summary>Why the device is lost, in words; null while it is not.</summary>
    public string? Loss => _loss;

    /// <summary>Requests taken from the kernel so far.</summary>
    public long RequestCount => _workers.Sum(worker => worker.RequestCount);

    /// <summary>Replies of the device that broke the protocol; each became EIO.</summary>
    public long BadReplyCount => _workers.Sum(worker => worker.BadReplyCount);

    /// <summary>Notifications passed on to the kernel.</summary>
    public long NotificationCount { get; private set; }

    /// <summary>Whether requests come over io_uring.</summary>
    public bool UsesIoUring { get; private set; }

    private int RingThreads => _options.Threads ?? Math.Min(Environment.ProcessorCount, MostThreads);

    // One wakes up for each batch of requests; two would wake up for half a batch each, and the programs that wait for the replies
    // want processors, too. With four programs on two processors one thread gets a fifth to a third more done than two
    // (benchmarks/bridge).
    private int DeviceThreads => _options.Threads ?? Math.Clamp(Environment.ProcessorCount / 2, 1, MostThreads);

    private int SlotsPerQueue => _ringObstacle is null ? RingShare.MostSlots : BridgeWorker.Slots;

    /// <summary>What is kept by the version table; null in other cache modes.</summary>
    internal BridgeCoherency? Coherency { get; private set; }

    /// <summary>Which of the threads may wait for replies awake.</summary>
    internal PollingSeats PollingSeats { get; }

    /// <summary>Managed memory that the threads which move messages have allocated so far. For tests.</summary>
    internal long AllocatedBytes => _workers.Sum(worker => worker.AllocatedBytes);

    /// <summary>Whether the threads are to end.</summary>
    internal bool IsOver => _isOver;

    /// <summary>Whether a notification is with the kernel, which may wait for requests to be answered.</summary>
    internal bool IsNotifying => _isNotifying;

    /// <summary>How often something was invalidated. Raised before the kernel is told.</summary>
    internal long InvalidationCount => Volatile.Read(ref _invalidationCount);

    /// <summary>Connects to the daemon and mounts; when this returns, the mount can be used.</summary>
    /// <param name="options">What and where.</param>
    /// <exception cref="IOException">Something failed; the message says what, why and what to do.</exception>
    public static FuseBridge Mount(BridgeOptions options)
    {
        RemoveDead(options.MountPoint, patienceMilliseconds: 0);
        var bridge = new FuseBridge(options);
        try
        {
            RemoveDead(options.MountPoint, DyingMilliseconds);
            bridge.Start();
            return bridge;
        }
        catch
        {
            bridge.Dispose();
            throw;
        }
    }

    // A bridge was killed; what it left can only be in the way. A daemon that served the mount by itself lets go of it when it sees
    // that, at the latest before it answers the next one, and is asked meanwhile.
    private static void RemoveDead(string path, int patienceMilliseconds)
    {
        long end = Environment.TickCount64 + patienceMilliseconds;
        while (MountPoint.IsOurs(path))
        {
            if (MountPoint.IsDead(path))
            {
                MountPoint.Unmount(path, isLazy: true);
                return;
            }

            if (Environment.TickCount64 >= end)
            {
                // Somebody lives there, and it is mounted over.
                return;
            }

            Thread.Sleep(DyingStepMilliseconds);
        }
    }

    /// <summary>Serves until the end, on the caller's thread and others.</summary>
    /// <returns>Why it ended. The mount is gone then.</returns>
    public BridgeEnd Run()
    {
        while (!_isOver)
        {
            BridgeSession session = _session;
            session.Watch(_wake);
            Events.Drain(Number(_wake), out _);
            if (IsHandedOver && !session.IsLost && IsConnectionOver())
            {
                End();
            }

            if (!_isOver && session.IsLost)
            {
                Replace(session);
            }
        }

        return Finish();
    }

    /// <summary>
    /// Unmounts, at once if nobody uses the mount, else lazily; <see cref="Run"/> returns. Any thread may call it, and once
    /// more when the first call waits for a daemon that is gone.
    /// </summary>
    public void Stop()
    {
        // While the threads still run: unmounting writes back what is dirty. Without a daemon there is nothing to wait for.
        if (!_session.IsLost && MountPoint.Unmount(_options.MountPoint, isLazy: false) == Errno.EBUSY)
        {
            MountPoint.Unmount(_options.MountPoint, isLazy: true);
        }

        End();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        End();
        Join();
        _isStarted.Set();
        DisposeWorkers();
        Coherency?.Dispose();
        _session.Dispose();
        _wake.Dispose();
        _isStarted.Dispose();
    }

    /// <summary>The kernel has ended the connection, or nothing can go on.</summary>
    /// <param name="why">Why, when it is not by unmounting.</param>
    internal void End(string? why = null)
    {
        _loss ??= why;
        _isOver = true;
        _session.Close();
        WakeAll();
    }

    /// <summary>The device of a session cannot be used any more. Called once for each.</summary>
    /// <param name="session">The session.</param>
    /// <param name="why">Why.</param>
    internal void HasLost(BridgeSession session, string why)
    {
        if (_isOver)
        {
            return;
        }

        if (_options.Loss == BridgeLoss.End || session.Number == SessionTag.Last)
        {
            End(why);
            return;
        }

        _options.Report?.Invoke($"{why}; '{_options.MountPoint}' waits for the next daemon there");
        WakeAll();
    }

    /// <summary>Waits for the session that comes after one.</summary>
    /// <param name="session">The session; the caller does not use it any more.</param>
    /// <returns>The next one; null when the bridge ends.</returns>
    internal BridgeSession? WaitForNext(BridgeSession session)
    {
        lock (_gate)
        {
            _waitingWorkers++;
            Monitor.PulseAll(_gate);
            while (!_isOver && _session == session)
            {
                Monitor.Wait(_gate);
            }

            _waitingWorkers--;
            return _isOver ? null : _session;
        }
    }

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    private VirtioFsDriver Connect() => VirtioFsDriver.Connect(_options.SocketPath, new VirtioFsDriverOptions
    {
        RequestQueues = _ringObstacle is null ? RingThreads : DeviceThreads,
        QueueSize = 4 * SlotsPerQueue,
        RequestsPerQueue = SlotsPerQueue,
        MaxMessage = DeviceMessage.HalfBytes,
        ReplyTimeout = s_patience,
        SetUpTimeout = s_patience,

        // Nobody here would do what the device asks for.
        OffersBackendRequests = false,
        OpensVersionTable = _options.UsesVersions,

        // The version table says the same, and nothing is to be said twice.
        OnNotification = _options.Notifications && !_options.UsesVersions ? Notify : null,
    });

    private void WakeAll()
    {
        Events.Signal(Number(_wake));
        foreach (BridgeWorker worker in _workers)
        {
            worker.Wake();
        }

        lock (_gate)
        {
            Monitor.PulseAll(_gate);
        }
    }

    private void Join()
    {
        foreach (Thread thread in _threads)
        {
            thread.Join();
        }
    }

    private BridgeEnd Finish()
    {
        Join();
        Coherency?.Stop();
        if (_loss is null)
        {
            SayGoodbye();
        }
        else if (IsHandedOver)
        {
            FailWhatWasTaken();
        }

        // First the descriptors, which ends the connection: unmounting could wait for a reply that nobody gives.
        DisposeWorkers();
        if (MountPoint.IsOurs(_options.MountPoint) && MountPoint.IsDead(_options.MountPoint))
        {
            MountPoint.Unmount(_options.MountPoint, isLazy: true);
        }

        return _loss is null ? BridgeEnd.Unmounted : BridgeEnd.Lost;
    }

    private void DisposeWorkers()
    {
        foreach (BridgeWorker worker in _workers)
        {
            worker.Dispose();
        }

        _workers.Clear();
        foreach (SafeFileHandle device in _handedOver)
        {
            device.Dispose();
        }

        _handedOver.Clear();
    }

    // Over /dev/fuse the kernel does not send DESTROY.
    private void SayGoodbye()
    {
        try
        {
            new FuseClient(_session.Driver).Destroy();
        }
        catch (Exception exception) when (exception is IOException or TimeoutException)
        {
            // Requests that were in flight come back first, or the daemon has gone as well.
        }
    }

    // The daemon is gone, and the mount waits for the next one.
    private void Replace(BridgeSession session)
    {
        lock (_gate)
        {
            // Until nobody looks into the memory of the session any more.
            while (!_isOver && _waitingWorkers < _threads.Count)
            {
                Monitor.Wait(_gate);
            }
        }

        BridgeSession? next = null;
        Span<PollDescriptor> wait = [new PollDescriptor(Number(_wake), PollEvents.Readable)];
        while (!_isOver && (next = TryContinue(session.Number + 1)) is null)
        {
            Poll.Wait(wait, RetryMilliseconds);
            Events.Drain(Number(_wake), out _);
        }

        if (next is null)
        {
            return;
        }

        lock (_gate)
        {
            _session = next;
            Monitor.PulseAll(_gate);
        }

        next.TellLossTo(this);

        // What the kernel knows is from another session: names are to be looked up again, and the root's attributes.
        Tell(FuseNotifyCode.IncEpoch, default);
        var root = new FuseNotifyInvalInodeOut { NodeId = NodeId.Root };
        Tell(FuseNotifyCode.InvalInode, MemoryMarshal.AsBytes(new ReadOnlySpan<FuseNotifyInvalInodeOut>(in root)));
        _options.Report?.Invoke($"'{_options.MountPoint}' goes on with a new daemon");

        // Last, because its notifications may have been waiting for requests of ours.
        session.Dispose();
    }

    private BridgeSession? TryContinue(int number)
    {
        VirtioFsDriver? driver = null;
        try
        {
            driver = Connect();
            FuseInitOut granted = BridgeNegotiation.ToKernel(_asked, Begin(driver, _asked));
            bool isEnough = (granted.Flags & _granted.Flags) == _granted.Flags
                && (granted.Flags2 & _granted.Flags2) == _granted.Flags2
                && granted.MaxWrite >= _granted.MaxWrite && granted.Minor >= _granted.Minor;
            if (isEnough)
            {
                return new BridgeSession(driver, number, _options);
            }

            // The kernel will not negotiate again.
            End("the new daemon grants less than the one before; mount again");
        }
        catch (IOException)
        {
            // Nobody there yet.
        }

        driver?.Dispose();
        return null;
    }

    private void Start()
    {
        if (_session.Driver.Connection.Loss is { } loss)
        {
            throw new VirtioFsDeviceException(loss.Failure, loss.Message, loss);
        }

        SafeFileHandle device = MountPoint.Mount(_options);
        try
        {
            (RequestId unique, FuseInitIn kernel) = ReadInit(Number(device));
            _asked = BridgeNegotiation.ToDevice(kernel, _options);
            FuseInitOut answer = Begin(_session.Driver, _asked);
            _granted = BridgeNegotiation.ToKernel(_asked, answer);
            Coherency = _options.UsesVersions ? OpenVersions(answer) : null;
            bool handsOver = CanHandOver();
            if (!handsOver)
            {
                MakeWorkers(device, kernel);
            }

            WriteInit(Number(device), unique, UsesIoUring ? BridgeNegotiation.WithRings(_granted) : _granted);
            if (handsOver)
            {
                HandOver(device);
            }

            _notificationDevice = Number(device);
        }
        catch
        {
            device.Dispose();
            MountPoint.Unmount(_options.MountPoint, isLazy: true);
            throw;
        }

        foreach (BridgeWorker worker in _workers)
        {
            var thread = new Thread(worker.Run) { IsBackground = true, Name = $"bridge:{_threads.Count}" };
            _threads.Add(thread);
            thread.Start();
        }

        Coherency?.Follow();
        _isStarted.Set();
    }

    private BridgeCoherency OpenVersions(in FuseInitOut answer)
    {
        SharedMemoryRegion? region = _session.Driver.Connection.TakeVersionTable();
        if (region is not null && BridgeNegotiation.HasVersions(answer) && VersionTableReader.TryOpen(region) is { } reader)
        {
            return new BridgeCoherency(reader, _options.Cache == BridgeCache.Strict, Notify);
        }

        region?.Dispose();
        throw new IOException(
            $"the device at '{_options.SocketPath}' has no version table, which 'cache=coherent' and 'cache=strict' need; start the "
            + "daemon with --version-table, or mount with 'cache=auto'");
    }

    // Before the kernel is answered: what it is told to use has to be there.
    private void MakeWorkers(SafeFileHandle device, in FuseInitIn kernel)
    {
        int queues = Processors.CountPossible();
        int available = _session.Driver.RequestQueues.Length;
        var share = new RingShare(0, Math.Min(available, queues), queues);
        Queue<IoUring>? rings = TryMakeRings(kernel, share);
        UsesIoUring = rings is not null;
        int threads = UsesIoUring ? share.Threads : Math.Min(available, DeviceThreads);
        while (_workers.Count < threads)
        {
            int index = _workers.Count;
            SafeFileHandle end = index == 0 ? device : Clone(device);
            _workers.Add(new BridgeWorker(this, _session, index, control => rings is null
                ? new DeviceChannel(end, control)
                : new RingChannel(end, control, rings.Dequeue(), share with { Index = index })));
        }
    }

    private Queue<IoUring>? TryMakeRings(in FuseInitIn kernel, RingShare share)
    {
        string? obstacle = _ringObstacle
            ?? (BridgeNegotiation.OffersRings(kernel) ? null : "the kernel does not offer it any more")
            ?? (share.IsPossible ? null : "there are too many processors");
        var rings = new Queue<IoUring>();
        while (obstacle is null && rings.Count < share.Threads)
        {
            SyscallResult result = RingChannel.TryCreateRing(share with { Index = rings.Count }, out IoUring? ring);
            obstacle = result.IsError ? ErrnoException.Describe(result.Error) : null;
            if (ring is not null)
            {
                rings.Enqueue(ring);
            }
        }

        if (obstacle is null)
        {
            return rings;
        }

        if (_options.UsesIoUring == true)
        {
            _options.Report?.Invoke($"io_uring is not used: {obstacle}");
        }

        foreach (IoUring ring in rings)
        {
            ring.Dispose();
        }

        return null;
    }

    // On the thread of the notification queue, so that nothing else waits while the kernel writes back what is dirty, or
    // waits for a lock that a request holds.
    private void Notify(FuseNotifyCode code, ReadOnlySpan<byte> payload)
    {
        _isStarted.Wait();
        if (_isOver || !IsKnown(code, payload))
        {
            return;
        }

        _isNotifying = true;
        // Pairs with the end of a bridge, which says that it is over and then looks whether somebody notifies.
        Interlocked.MemoryBarrier();
        if (_isOver)
        {
            _isNotifying = false;
            return;
        }

        Interlocked.Increment(ref _invalidationCount);
        foreach (BridgeWorker worker in _workers)
        {
            worker.WaitForDelivery();
        }

        Tell(code, payload);
        NotificationCount++;
        _isNotifying = false;
    }

    private unsafe void Tell(FuseNotifyCode code, ReadOnlySpan<byte> payload)
    {
        var header = new FuseOutHeader { Length = (uint)(sizeof(FuseOutHeader) + payload.Length), Error = (int)code };
        fixed (byte* body = payload)
        {
            ReadOnlySpan<IoVector> message =
            [
                new IoVector((byte*)&header, (nuint)sizeof(FuseOutHeader)), new IoVector(body, (nuint)payload.Length),
            ];
            // ENOENT: the kernel does not know what it is about, as a rule. EINVAL: it does not know the message.
            FuseDevice.Write(_notificationDevice, payload.IsEmpty ? message[..1] : message);
        }
    }

    // What only the kernel could do harm by is checked by the kernel; the rest is not passed on.
    private static bool IsKnown(FuseNotifyCode code, ReadOnlySpan<byte> payload) => code switch
    {
        FuseNotifyCode.InvalInode => payload.Length == Unsafe.SizeOf<FuseNotifyInvalInodeOut>(),
        FuseNotifyCode.InvalEntry => payload.Length > Unsafe.SizeOf<FuseNotifyInvalEntryOut>(),
        FuseNotifyCode.Delete => payload.Length > Unsafe.SizeOf<FuseNotifyDeleteOut>(),
        FuseNotifyCode.IncEpoch => payload.IsEmpty,
        _ => false,
    };

    private static SafeFileHandle Clone(SafeFileHandle device, bool blocks = false)
    {
        var clone = new SafeFileHandle(FuseDevice.Open(blocks).ThrowIfError("open '/dev/fuse'").Descriptor, ownsHandle: true);
        try
        {
            FuseDevice.Clone(Number(clone), Number(device)).ThrowIfError("clone the device of a mount");
            return clone;
        }
        catch
        {
            clone.Dispose();
            throw;
        }
    }

    // INIT with the device.
    private FuseInitOut Begin(VirtioFsDriver driver, in FuseInitIn asked)
    {
        Errno error;
        ReadOnlySpan<byte> reply;
        byte[] arguments = MemoryMarshal.AsBytes(new ReadOnlySpan<FuseInitIn>(in asked)).ToArray();
        try
        {
            error = new FuseClient(driver).Call(
                FuseOpcode.Init, NodeId.None, arguments, Unsafe.SizeOf<FuseInitOut>(), out reply);
        }
        catch (TimeoutException exception)
        {
            throw new IOException(
                $"the device at '{_options.SocketPath}' does not answer FUSE_INIT; restart the daemon", exception);
        }

        if (error != Errno.Success)
        {
            throw new IOException(
                $"the device at '{_options.SocketPath}' refuses FUSE_INIT: {ErrnoException.Describe(error)}");
        }

        // A short answer is one of an old version, whose missing fields are zero.
        FuseInitOut answer = default;
        reply.CopyTo(MemoryMarshal.AsBytes(new Span<FuseInitOut>(ref answer)));
        return BridgeNegotiation.Refuse(asked, answer) is { } reason
            ? throw new IOException($"the device at '{_options.SocketPath}' cannot be used: {reason}")
            : answer;
    }

    private static unsafe (RequestId Unique, FuseInitIn Init) ReadInit(int device)
    {
        Span<PollDescriptor> wait = [new PollDescriptor(device, PollEvents.Readable)];
        Poll.Wait(wait, (int)s_patience.TotalMilliseconds).ThrowIfError("wait for the kernel's FUSE_INIT");
        byte* buffer = stackalloc byte[FuseDevice.MinReadBuffer];
        int length = FuseDevice.Read(device, buffer, FuseDevice.MinReadBuffer).ThrowIfError("read the kernel's FUSE_INIT").Count;
        int header = sizeof(FuseInHeader);
        FuseInHeader request = *(FuseInHeader*)buffer;
        if (length < header + sizeof(FuseInitIn) || request.Opcode != FuseOpcode.Init)
        {
            throw new IOException("the kernel's FUSE is too old: version 7.36 (Linux 5.17) is needed at least");
        }

        return (request.Unique, *(FuseInitIn*)(buffer + header));
    }

    private static unsafe void WriteInit(int device, RequestId unique, FuseInitOut answer)
    {
        int length = sizeof(FuseOutHeader) + sizeof(FuseInitOut);
        var header = new FuseOutHeader { Length = (uint)length, Unique = unique };
        FuseDevice.Write(
            device,
            [new IoVector((byte*)&header, (nuint)sizeof(FuseOutHeader)), new IoVector((byte*)&answer, (nuint)sizeof(FuseInitOut))])
            .ThrowIfError("answer the kernel's FUSE_INIT");
    }
}
