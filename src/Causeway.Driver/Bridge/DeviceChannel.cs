using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver.Bridge;

/// <summary>
/// Requests read from /dev/fuse straight into guest memory, and replies written straight out of it (<see cref="DeviceMessage"/>): nothing
/// on this way is copied by us.
/// </summary>
/// <param name="device">A descriptor of the connection; owned from here on.</param>
/// <param name="control">An event that ends <see cref="Wait"/>; the caller's.</param>
internal sealed unsafe class DeviceChannel(SafeFileHandle device, SafeFileHandle control) : KernelChannel
{
    // Of how many requests that came alone one is followed by a look for another (a power of two, arbitrary).
    private const int BatchProbe = 16;

    private const ulong DeviceToken = 0;
    private const ulong CallToken = 1;
    private const ulong ControlToken = 2;

    private static readonly SlotPart s_reply = new(DeviceMessage.HalfBytes + DeviceMessage.ReplyStart, DeviceMessage.ReplyBytes);

    private SafeFileHandle? _all;
    private SafeFileHandle? _completions;

    // The session's.
#pragma warning disable CA2213
    private VirtioFsQueue _queue = null!;
#pragma warning restore CA2213
    private byte* _refused;
    private bool _mayHaveRequests;
    private bool _comeInBatches;
    private int _inBatch;
    private int _batches;

    /// <inheritdoc/>
    public override int LockSlots => BridgeWorker.Slots / 2;

    /// <inheritdoc/>
    public override void Begin(VirtioFsQueue queue)
    {
        _queue = queue;
        _all?.Dispose();
        _completions?.Dispose();
        _all = Events.CreateEpoll();
        _completions = Events.CreateEpoll();
        Add(_all, device, EpollEvents.In | EpollEvents.Exclusive, DeviceToken);
        foreach (SafeFileHandle epoll in (ReadOnlySpan<SafeFileHandle>)[_all, _completions])
        {
            // Edge-triggered and never read: each call makes a new edge, which saves a system call per wake-up.
            Add(epoll, queue.Ring.CallEvent, EpollEvents.In | EpollEvents.EdgeTriggered, CallToken);
            Add(epoll, control, EpollEvents.In, ControlToken);
        }

        _mayHaveRequests = true;
    }

    /// <inheritdoc/>
    public override Arrival TryTake(bool isFirst, out KernelRequest request)
    {
        request = default;
        if (isFirst)
        {
            _inBatch = 0;
        }

        // One at a time as a rule: whether there are more is not asked each time, but learned. Those that are there all the
        // same end the next wait at once.
        bool isAsked = _inBatch != 1 || _comeInBatches || (++_batches & (BatchProbe - 1)) == 0;
        _mayHaveRequests &= isAsked;
        while (_mayHaveRequests && _queue.TryAcquire(out int slot))
        {
            byte* message = _queue.Memory(slot) + DeviceMessage.RequestStart;
            SyscallResult read = FuseDevice.Read(Number(device), message, DeviceMessage.RequestBytes);
            if (!read.IsError)
            {
                _comeInBatches |= ++_inBatch > 1;
                request = new KernelRequest(slot, message, new SlotPart(DeviceMessage.RequestStart, read.Count), s_reply);
                return Arrival.Request;
            }

            _queue.Release(slot);
            if (read.Error is Errno.ENOENT or Errno.EINTR)
            {
                // Taken back before it could be read.
                continue;
            }

            if (read.Error != Errno.EAGAIN)
            {
                // ENODEV: unmounted. ECONNABORTED: aborted through fusectl.
                return Arrival.Over;
            }

            // A look in vain says nothing of how many come when some do.
            _comeInBatches = _inBatch > 1 || (_inBatch == 0 && _comeInBatches);
            break;
        }

        _mayHaveRequests = false;
        return Arrival.None;
    }

    /// <inheritdoc/>
    public override void Answer(int slot, FuseOutHeader header, byte* body, int length)
    {
        ReadOnlySpan<IoVector> message = [new IoVector((byte*)&header, ReplyHeaderSize), new IoVector(body, (nuint)length)];
        SyscallResult written = FuseDevice.Write(Number(device), length == 0 ? message[..1] : message);

        // ENOENT: nobody waits any more. EINVAL: the length is not what the kernel expects, which it reports as EIO. What
        // ends the connection shows at the next read.
        RefusedReplies += written.Error == Errno.EINVAL ? 1 : 0;
        _queue.Release(slot);
    }

    /// <inheritdoc/>
    public override void Expect() => _mayHaveRequests = true;

    /// <inheritdoc/>
    public override void Release(int slot) => _queue.Release(slot);

    /// <inheritdoc/>
    public override void Wait(bool hasRoom, int timeoutMilliseconds)
    {
        // Without a free slot a request could not be taken, and waiting for one would not be waiting.
        Span<EpollEvent> events = stackalloc EpollEvent[3];
        int count = Events.EpollWait(Number(hasRoom ? _all! : _completions!), events, timeoutMilliseconds).Count;
        for (int i = 0; i < count; i++)
        {
            switch (events[i].Data)
            {
                case DeviceToken:
                    _mayHaveRequests = true;
                    break;

                case ControlToken:
                    Events.Drain(Number(control), out _);
                    break;
            }
        }
    }

    /// <inheritdoc/>
    public override void Refuse()
    {
        // In memory that the device cannot change: this is for when it is not to be relied on.
        _refused = _refused != null ? _refused : (byte*)NativeMemory.Alloc(DeviceMessage.RequestBytes);
        _ = TryRefuse(Number(device), _refused, DeviceMessage.RequestBytes);
    }

    /// <summary>Takes a request from a descriptor of the device, and has it fail with EIO.</summary>
    /// <param name="device">The descriptor; it does not block.</param>
    /// <param name="buffer">Room for the request.</param>
    /// <param name="capacity">How much.</param>
    /// <returns>Whether there may be more.</returns>
    internal static bool TryRefuse(int device, byte* buffer, int capacity)
    {
        SyscallResult read = FuseDevice.Read(device, buffer, capacity);
        if (read.IsError)
        {
            return read.Error is Errno.ENOENT or Errno.EINTR;
        }

        var reply = new FuseOutHeader
        {
            Length = ReplyHeaderSize,
            Error = -(int)Errno.EIO,
            Unique = ((FuseInHeader*)buffer)->Unique,
        };

        // Refused for what is never answered, which does no harm.
        FuseDevice.Write(device, (byte*)&reply, ReplyHeaderSize);
        return true;
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _all?.Dispose();
        _completions?.Dispose();
        device.Dispose();
        NativeMemory.Free(_refused);
        _refused = null;
    }

    private static void Add(SafeFileHandle epoll, SafeFileHandle handle, EpollEvents events, ulong token) => Events.EpollCtl(
        Number(epoll), EpollOperation.Add, Number(handle), new EpollEvent { Events = events, Data = token })
        .ThrowIfError("watch a descriptor");
}
