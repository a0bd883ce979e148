using Causeway.Linux;
using Causeway.VhostUser.Frontend;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Driver;

/// <summary>
/// One virtqueue in guest memory with its two events: what every queue of a driver is made of, whatever its buffers are
/// and whoever waits for them.
/// </summary>
internal sealed class DriverRing : IDisposable
{
    private readonly SafeFileHandle _kick = Events.CreateEvent();
    private readonly SafeFileHandle _call = Events.CreateEvent();

    /// <summary>Makes an empty queue.</summary>
    /// <param name="arena">The memory that the queue is cut from.</param>
    /// <param name="index">The number of the queue at the device.</param>
    /// <param name="options">The shape of the queue.</param>
    internal unsafe DriverRing(GuestArena arena, int index, DriverQueueOptions options)
    {
        Index = index;
        byte* block = arena.Cut(DriverQueue.GetRequiredBytes(options), out GuestAddress address);
        Queue = DriverQueue.Create(block, address, options);
    }

    /// <summary>The number of the queue at the device.</summary>
    internal int Index { get; }

    /// <summary>The queue.</summary>
    internal DriverQueue Queue { get; }

    /// <summary>The event by which the device calls.</summary>
    internal SafeFileHandle CallEvent => _call;

    /// <inheritdoc/>
    public void Dispose()
    {
        _kick.Dispose();
        _call.Dispose();
    }

    /// <summary>Guest memory for a queue, in bytes.</summary>
    internal static ulong Footprint(DriverQueueOptions options) =>
        GuestArena.Footprint(DriverQueue.GetRequiredBytes(options));

    /// <summary>What the front end says about the queue.</summary>
    internal FrontendRing Describe(GuestArena arena, SafeFileHandle errorEvent) => new()
    {
        Index = Index,
        Size = Queue.Size,
        Addresses = new QueueAddresses(
            arena.ToFrontendAddress(Queue.DescriptorArea),
            arena.ToFrontendAddress(Queue.DriverArea),
            arena.ToFrontendAddress(Queue.DeviceArea)),
        KickEvent = _kick,
        CallEvent = _call,
        ErrorEvent = errorEvent,
    };

    /// <summary>Wakes the device for what was added, if it wants to be woken.</summary>
    internal void KickIfNeeded()
    {
        if (Queue.NeedsKick())
        {
            Kick();
        }
    }

    /// <summary>Wakes the device. Of no effect once the queue has been disposed of.</summary>
    internal void Kick()
    {
        bool added = false;
        try
        {
            _kick.DangerousAddRef(ref added);
            Events.Signal((int)_kick.DangerousGetHandle()).ThrowIfError("kick a queue");
        }
        catch (ObjectDisposedException)
        {
            // Disposed of since something was added: that has been lost meanwhile.
        }
        finally
        {
            if (added)
            {
                _kick.DangerousRelease();
            }
        }
    }

    /// <summary>Sleeps until the device calls, or <see cref="WakeUp"/> is called.</summary>
    /// <param name="timeoutMilliseconds">How long at most; <see cref="Poll.Forever"/> for without end.</param>
    /// <returns>False when the time has passed.</returns>
    internal bool WaitForCall(int timeoutMilliseconds)
    {
        Span<PollDescriptor> wait = [new PollDescriptor((int)_call.DangerousGetHandle(), PollEvents.Readable)];
        if (Poll.Wait(wait, timeoutMilliseconds).ThrowIfError("wait for a call").Count == 0)
        {
            return false;
        }

        DrainCalls();
        return true;
    }

    /// <summary>Sets the call event back, before the ring is looked at.</summary>
    internal void DrainCalls() => Events.Drain((int)_call.DangerousGetHandle(), out _);

    /// <summary>Wakes who waits for a call.</summary>
    internal void WakeUp() => Events.Signal((int)_call.DangerousGetHandle()).ThrowIfError("wake a thread");
}
