using System.Diagnostics;
using System.Runtime.CompilerServices;
using Causeway.Linux;
using Causeway.VhostUser.Backend;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Server.Queues;

/// <content>What the control thread does to a queue. Nothing here is on the way of a request.</content>
internal sealed partial class QueueWorker
{
    // Beside the free ones: who takes the last of those knows by it that there is another.
    private ChainSlot? _reserve;
    private int _slots;
    private long _missedMemory;
    private bool _lacksMemory;
    private bool _isBroken;

    /// <summary>Whether the worker has a queue to serve.</summary>
    public bool HasQueue => _queue is not null;

    /// <inheritdoc/>
    public override int Waiting => _queue?.AvailableCount ?? 0;

    /// <inheritdoc/>
    protected override bool HasMore => _queue is { HasAvailable: true };

    /// <inheritdoc/>
    protected override bool IsAtRest => _queue!.InFlight == 0;

    // Each takes two descriptors where the guest has no indirect ones, and half of the ring has to stay free.
    private int WaitLimit => _queue!.Size / 4;

    /// <summary>Starts to serve a queue.</summary>
    /// <param name="queue">The queue.</param>
    /// <param name="setup">Its events, borrowed until <see cref="Stop"/> returns.</param>
    public void Start(DeviceQueue queue, in RingSetup setup)
    {
        Debug.Assert(IsPaused && _queue is null, "a queue is stopped before it is started again");
        _queue = queue;
        Waits.Limit = WaitLimit;
        _lacksMemory = false;
        _setup = setup;
        _isBroken = false;
        Watch(setup.KickEvent, EpollEvents.In | EpollEvents.EdgeTriggered, KickToken);
        Resume();
    }

    /// <summary>Stops serving: on return nothing is in flight and nothing will be written any more.</summary>
    /// <returns>Where the queue continues.</returns>
    public uint Stop()
    {
        Pause();
        uint next = _queue!.Base;
        // Fails only when the front end gave something that epoll cannot watch; then there is nothing to remove.
        Events.EpollCtl(Number(_epoll), EpollOperation.Delete, Number(_setup.KickEvent), default);
        _queue = null;
        _setup = default;
        Log.QueueStopped(
            Logger, Name, RequestCount, CallCount, StallCount, (_polling.Polls, _polling.Successes, _polling.Disturbances));
        return next;
    }

    /// <summary>Moves the running queue to another place, another view of guest memory or another dirty log.</summary>
    public void Move(in RingLocation location, GuestMemory memory)
    {
        Debug.Assert(_queue is not null, "only a running queue is moved");
        Pause();
        _queue.Rebind(location.Queue, memory);
        _queue.SetDirtyLog(location.Log, location.UsedLogAddress);
        Resume();
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        Debug.Assert(_queue is null, "a queue is stopped before its worker goes");
        base.Dispose();
        _epoll.Dispose();
        _control.Dispose();
    }

    /// <inheritdoc/>
    protected override void Wake() => Events.Signal(Number(_control));

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    private void Watch(SafeFileHandle handle, EpollEvents events, ulong token)
    {
        var interest = new EpollEvent { Events = events, Data = token };
        SyscallResult result = Events.EpollCtl(Number(_epoll), EpollOperation.Add, Number(handle), interest);
        if (result.IsError)
        {
            // A kick event that cannot be watched (a regular file, say) never kicks: the guest's loss.
            Log.EventNotWatched(Logger, Name, result.Error);
        }
    }

    // Sees to a free slot, and one in reserve. There may be no memory for them (a control group, DOTNET_GCHeapHardLimit), which is no
    // reason to end: without a reserve requests are done one by one, and none may wait for another, as what ends its wait could not be
    // taken any more. Without any slot the ring has to wait. In a method of its own, so that the loop has no handler of exceptions.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private bool TryProvideSlots()
    {
        if (_free is null)
        {
            (_free, _reserve) = (_reserve, null);
        }

        if (_lacksMemory && Environment.TickCount64 - _missedMemory < NoMemoryMilliseconds)
        {
            return _free is not null;
        }

        try
        {
            _free ??= MakeSlot();
            _reserve ??= MakeSlot();
            if (_lacksMemory)
            {
                _lacksMemory = false;
                Waits.Limit = WaitLimit;
            }
        }
        catch (OutOfMemoryException)
        {
            MissMemory();
        }

        return _free is not null;
    }

    private ChainSlot MakeSlot()
    {
        // Slots must not take the last memory: starting a thread needs some, for example, and ends the process where it gets none.
        if (_slots >= 2)
        {
            GC.KeepAlive(GC.AllocateUninitializedArray<byte>(MemoryToLeave));
        }

        var slot = new ChainSlot(this, Waits);
        _slots++;
        return slot;
    }

    private void MissMemory()
    {
        _missedMemory = Environment.TickCount64;
        if (_lacksMemory)
        {
            return;
        }

        _lacksMemory = true;
        Waits.Limit = 0;
        try
        {
            Log.SlotRefused(Logger, Name);
        }
        catch (OutOfMemoryException)
        {
            // Not even for a line of the log.
        }
    }
}
