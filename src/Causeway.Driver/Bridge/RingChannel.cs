using System.Numerics;
using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver.Bridge;

/// <summary>
/// Requests and replies over io_uring: one system call hands replies over and brings the next requests. The kernel has a
/// queue for each processor, of which each thread of the bridge serves some; a slot belongs to a queue, and the kernel puts
/// what a program writes straight into guest memory and takes what it reads straight out of it.
/// </summary>
/// <remarks>
/// The kernel knows one piece of memory for each slot, for what comes and for what goes. Requests have a payload or their
/// replies do, but seldom both; the device is never given the same bytes to read and to write:
/// <code>
/// no payload    first half    [ ... | header 40, argument | room 64 | header 16 || data, on a page ]
/// payload       first half    [ .............. | header 40, argument || payload, on a page         ]
///               second half   [ .......................... header 16 || data, copied to the first  ]
/// </code>
/// FORGET, BATCH_FORGET and INTERRUPT still come through /dev/fuse, and one thread reads them.
/// </remarks>
internal sealed unsafe class RingChannel : KernelChannel
{
    private const int RequestHeaderSize = 40;

    private const ulong CallToken = ulong.MaxValue;
    private const ulong ControlToken = ulong.MaxValue - 1;
    private const ulong DeviceToken = ulong.MaxValue - 2;
    private const int Watches = 3;

    private static readonly SlotPart s_apart = new(DeviceMessage.HalfBytes + DeviceMessage.ReplyStart, DeviceMessage.ReplyBytes);
    private static readonly SlotPart s_inPlace = new(DeviceMessage.ReplyStart, DeviceMessage.ReplyBytes);

    private readonly SafeFileHandle _device;
    private readonly SafeFileHandle _control;
    private readonly IoUring _ring;
    private readonly RingShare _share;

    // Not in guest memory: what the kernel says is nothing that the device could change.
    private readonly FuseRingHeader* _headers;
    private readonly byte* _message;

    // The session's.
#pragma warning disable CA2213
    private VirtioFsQueue _queue = null!;
#pragma warning restore CA2213
    private bool _mayHaveMessages;
    private bool _isOver;
    private string? _failure;

    /// <summary>Makes a channel.</summary>
    /// <param name="device">A descriptor of the connection; owned from here on.</param>
    /// <param name="control">An event that ends <see cref="Wait"/>; the caller's.</param>
    /// <param name="ring">The ring, made by <see cref="TryCreateRing"/>; owned from here on.</param>
    /// <param name="share">Which of the kernel's queues it serves.</param>
    public RingChannel(SafeFileHandle device, SafeFileHandle control, IoUring ring, RingShare share)
    {
        _device = device;
        _control = control;
        _ring = ring;
        _share = share;
        _headers = (FuseRingHeader*)NativeMemory.AllocZeroed((nuint)share.Slots, (nuint)sizeof(FuseRingHeader));
        _message = share.IsFirst ? (byte*)NativeMemory.Alloc(DeviceMessage.HalfBytes) : null;
    }

    /// <inheritdoc/>
    public override int LockSlots => (_share.SlotsPerQueue + 1) / 2;

    /// <inheritdoc/>
    public override string? Failure => _failure;

    /// <summary>Makes a ring that has room for a share.</summary>
    /// <param name="share">The share.</param>
    /// <param name="ring">The ring; null after an error.</param>
    public static SyscallResult TryCreateRing(RingShare share, out IoUring? ring)
    {
        uint entries = BitOperations.RoundUpToPowerOf2((uint)share.Slots + Watches);
        return IoUring.TryCreate(entries, 2 * entries, out ring);
    }

    /// <inheritdoc/>
    public override void Begin(VirtioFsQueue queue)
    {
        _queue = queue;

        // The kernel has a request come up in the queue of the processor that its program is on, which sleeps from then on: there it is
        // taken, and there the reply wakes the program, without an interrupt to another processor, which takes longer than the rest
        // (docs/bridge.md). Only where the bridge may run at all (taskset); a thread that has no such processor stays where it is: all
        // works as well from there.
        _ = Processors.SetAffinity(_share.OwnQueues.Intersect(Processors.GetAffinity()));
        _ring.Enable().ThrowIfError("start io_uring");
        var pieces = (IoVector*)NativeMemory.Alloc((nuint)(2 * _share.Slots), (nuint)sizeof(IoVector));
        for (int slot = 0; slot < _share.Slots; slot++)
        {
            IoVector* vectors = pieces + (2 * slot);
            vectors[0] = new IoVector((byte*)(_headers + slot), (nuint)sizeof(FuseRingHeader));
            vectors[1] = new IoVector(Payload(slot), FuseSession.MaxTransfer);
            Prepare(slot, new DeviceCommand(Number(_device), FuseRingCommand.Register, vectors, vectorCount: 2), commitId: 0);
        }

        _ring.PrepareWatch(Number(queue.Ring.CallEvent), CallToken);
        _ring.PrepareWatch(Number(_control), ControlToken);
        if (_share.IsFirst)
        {
            _ring.PrepareWatch(Number(_device), DeviceToken);
        }

        SyscallResult submitted = _ring.Submit();
        NativeMemory.Free(pieces);
        submitted.ThrowIfError("register with the kernel's FUSE");
    }

    /// <inheritdoc/>
    public override Arrival TryTake(bool isFirst, out KernelRequest request)
    {
        request = default;
        if (isFirst && _ring.HasNews)
        {
            Check(_ring.Submit());
        }

        while (!_isOver && _ring.TryTake(out IoCompletion completion))
        {
            if (completion.Token < (ulong)_share.Slots)
            {
                if (completion.Error != Errno.Success)
                {
                    Check(SyscallResult.Failed(completion.Error));
                    return Arrival.Over;
                }

                if (TryReceive((int)completion.Token, out request))
                {
                    return Arrival.Request;
                }

                continue;
            }

            SafeFileHandle watched = Watched(completion.Token);
            if (completion.Token == ControlToken)
            {
                Events.Drain(Number(_control), out _);
            }

            _mayHaveMessages |= completion.Token == DeviceToken;
            if (!completion.IsMoreToCome)
            {
                _ring.PrepareWatch(Number(watched), completion.Token);
            }
        }

        return _isOver ? Arrival.Over : _mayHaveMessages ? ReadMessage(out request) : Arrival.None;
    }

    /// <inheritdoc/>
    public override void Answer(int slot, FuseOutHeader header, byte* body, int length)
    {
        byte* payload = Payload(slot);
        if (length > 0 && body != payload)
        {
            new ReadOnlySpan<byte>(body, length).CopyTo(new Span<byte>(payload, FuseSession.MaxTransfer));
        }

        FuseRingHeader* known = _headers + slot;
        ulong commitId = known->Entry.CommitId;
        *(FuseOutHeader*)&known->Header = header;
        known->Entry = new FuseRingEntry { CommitId = commitId, PayloadSize = (uint)length };
        Prepare(slot, new DeviceCommand(Number(_device), FuseRingCommand.CommitAndFetch), commitId);
    }

    /// <inheritdoc/>
    public override void Release(int slot)
    {
        // Only FORGET and INTERRUPT are not answered, and they have no slot.
    }

    /// <inheritdoc/>
    public override void Flush()
    {
        if (_ring.HasPrepared)
        {
            Check(_ring.Submit());
        }
    }

    /// <inheritdoc/>
    public override void Wait(bool hasRoom, int timeoutMilliseconds) => Check(_ring.Wait(timeoutMilliseconds));

    /// <inheritdoc/>
    public override void Refuse()
    {
        while (TryTake(isFirst: true, out KernelRequest request) == Arrival.Request)
        {
            if (request.Slot != KernelRequest.NoSlot)
            {
                RequestId unique = ((FuseInHeader*)&_headers[request.Slot].Header)->Unique;
                Answer(request.Slot, Failed(unique), null, 0);
            }
        }

        Flush();
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        // First the ring: the kernel knows the memory as long as there are commands in it.
        _ring.Dispose();
        _device.Dispose();
        NativeMemory.Free(_headers);
        NativeMemory.Free(_message);
    }

    private static FuseOutHeader Failed(RequestId unique) =>
        new() { Length = ReplyHeaderSize, Error = -(int)Errno.EIO, Unique = unique };

    private byte* Payload(int slot) => _queue.Memory(slot) + DeviceMessage.Page;

    private SafeFileHandle Watched(ulong token) => token switch
    {
        CallToken => _queue.Ring.CallEvent,
        ControlToken => _control,
        _ => _device,
    };

    private void Prepare(int slot, in DeviceCommand command, ulong commitId)
    {
        var data = new FuseRingCommand { CommitId = commitId, Queue = (ushort)_share.QueueOf(slot) };
        _ring.PrepareCommand(command, MemoryMarshal.AsBytes(new ReadOnlySpan<FuseRingCommand>(in data)), (ulong)slot);
    }

    private bool TryReceive(int slot, out KernelRequest request)
    {
        request = default;
        FuseRingHeader* come = _headers + slot;
        var header = (FuseInHeader*)&come->Header;
        long payload = come->Entry.PayloadSize;
        long argument = header->Length - RequestHeaderSize - payload;
        if (argument is < 0 or > FuseRingPart.Bytes)
        {
            // A kernel whose messages are longer than this one's.
            Answer(slot, Failed(header->Unique), null, 0);
            return false;
        }

        // Header and argument go right before the payload, or before the header of the reply.
        SlotPart reply = payload == 0 ? s_inPlace : s_apart;
        int end = payload == 0 ? DeviceMessage.ReplyStart - FuseVersionTags.Size : DeviceMessage.Page;
        int start = end - RequestHeaderSize - (int)argument;
        byte* message = _queue.Memory(slot) + start;
        *(FuseInHeader*)message = *header;
        new ReadOnlySpan<byte>(&come->Argument, (int)argument)
            .CopyTo(new Span<byte>(message + RequestHeaderSize, FuseRingPart.Bytes));
        request = new KernelRequest(slot, message, new SlotPart(start, (int)header->Length), reply);
        return true;
    }

    // FORGET, BATCH_FORGET or INTERRUPT.
    private Arrival ReadMessage(out KernelRequest request)
    {
        request = default;
        while (true)
        {
            SyscallResult read = FuseDevice.Read(Number(_device), _message, DeviceMessage.HalfBytes);
            switch (read.Error)
            {
                case Errno.Success:
                    request = new KernelRequest(KernelRequest.NoSlot, _message, new SlotPart(0, read.Count), default);
                    return Arrival.Request;

                case Errno.EAGAIN:
                    _mayHaveMessages = false;
                    return Arrival.None;

                case Errno.ENOENT or Errno.EINTR:
                    continue;

                default:
                    return Arrival.Over;
            }
        }
    }

    private void Check(SyscallResult result)
    {
        _isOver |= result.IsError;

        // ENOTCONN: unmounted. ECONNABORTED: aborted through fusectl. ECANCELED: the thread ends.
        if (result.Error is not (Errno.Success or Errno.ENOTCONN or Errno.ECONNABORTED or Errno.ECANCELED))
        {
            _failure ??=
                $"the kernel's FUSE refuses io_uring ({ErrnoException.Describe(result.Error)}); mount with '-o noio_uring'";
        }
    }
}

/// <summary>Which of the kernel's queues a thread serves, and with how many slots.</summary>
/// <param name="Index">The number of the thread.</param>
/// <param name="Threads">How many threads there are; not more than queues.</param>
/// <param name="Queues">How many queues the kernel has: one for each processor that there may be.</param>
internal readonly record struct RingShare(int Index, int Threads, int Queues)
{
    /// <summary>
    /// Slots of a thread at most: several for each queue, as a program with many requests at a time has them all in the queue
    /// of its processor (arbitrary).
    /// </summary>
    public const int MostSlots = 4 * BridgeWorker.Slots;

    /// <summary>Whether every queue gets a slot, without which the kernel uses none.</summary>
    public bool IsPossible => QueuesPerThread <= MostSlots;

    /// <summary>Whether this thread reads what does not come over the ring.</summary>
    public bool IsFirst => Index == 0;

    /// <summary>Slots of each queue.</summary>
    public int SlotsPerQueue => Math.Min(MostSlots / QueuesPerThread, BridgeWorker.Slots);

    /// <summary>All slots of the thread.</summary>
    public int Slots => SlotsPerQueue * ((Queues - Index + Threads - 1) / Threads);

    /// <summary>The kernel's queues that the thread serves, which are numbers of processors.</summary>
    public IEnumerable<int> OwnQueues
    {
        get
        {
            for (int queue = Index; queue < Queues; queue += Threads)
            {
                yield return queue;
            }
        }
    }

    private int QueuesPerThread => (Queues + Threads - 1) / Threads;

    /// <summary>The kernel's queue that a slot belongs to.</summary>
    /// <param name="slot">The slot.</param>
    public int QueueOf(int slot) => Index + (Threads * (slot / SlotsPerQueue));
}
