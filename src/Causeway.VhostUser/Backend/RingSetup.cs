using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Backend;

/// <summary>All that a device needs to run a ring, for <see cref="IVhostUserDevice.StartRing"/>.</summary>
/// <remarks>
/// The three events are eventfds, borrowed until <see cref="IVhostUserDevice.StopRing"/> for this ring has returned. Their
/// descriptors are the same numbers all that time: when the front end exchanges the call or error event of a running ring,
/// the back end puts the new one behind the old number (dup3 does it atomically) and calls once, so the device need not
/// know. Whether they block is up to the front end, which shares that setting: do not read the kick event without having
/// polled it, or read it with RWF_NOWAIT.
/// </remarks>
public readonly struct RingSetup
{
    /// <summary>Where the ring is.</summary>
    public required RingLocation Location { get; init; }

    /// <summary>The guest's memory, the same as in the last <see cref="IVhostUserDevice.UpdateMemory"/>.</summary>
    public required GuestMemory Memory { get; init; }

    /// <summary>
    /// Where to continue (<see cref="DeviceQueueStart.Base"/>): of a split ring the index of the next available entry, whose next used
    /// index is in guest memory; of a packed ring both places with their wrap counters. Hostile.
    /// </summary>
    public required uint Base { get; init; }

    /// <summary>The negotiated features.</summary>
    public required VirtioFeatures Features { get; init; }

    /// <summary>The driver's "there are requests".</summary>
    public required SafeFileHandle KickEvent { get; init; }

    /// <summary>The device's "there are replies". Goes nowhere as long as the front end wants no calls.</summary>
    public required SafeFileHandle CallEvent { get; init; }

    /// <summary>The device's "this ring is broken". Goes nowhere when the front end did not ask.</summary>
    public required SafeFileHandle ErrorEvent { get; init; }
}

/// <summary>Where a ring is in this process, and where its writes are logged.</summary>
public readonly struct RingLocation
{
    /// <summary>The ring's number.</summary>
    public required int Index { get; init; }

    /// <summary>Its three parts. The size is at most <see cref="IVhostUserDevice.MaxQueueSize"/>.</summary>
    public required QueueMemory Queue { get; init; }

    /// <summary>Where everything that is written on this ring's behalf is recorded, or null when nothing is.</summary>
    public required DirtyLog? Log { get; init; }

    /// <summary>
    /// Where the used ring starts for the log, or null when writes to it are not recorded. The address need not lie in any
    /// region.
    /// </summary>
    public required GuestAddress? UsedLogAddress { get; init; }
}

/// <summary>A change of memory, for <see cref="IVhostUserDevice.UpdateMemory"/>.</summary>
public readonly ref struct MemoryUpdate
{
    /// <summary>
    /// The guest's memory from now on. Borrowed until the next update has returned; a device that wants it for longer takes
    /// a reference of its own.
    /// </summary>
    public required GuestMemory Memory { get; init; }

    /// <summary>
    /// Every running ring: its place in <see cref="Memory"/> and its log. A ring whose place is gone was stopped before.
    /// </summary>
    public required ReadOnlySpan<RingLocation> RunningRings { get; init; }

    /// <summary>
    /// Whether regions or the log of before vanish when the device returns. When false, requests in flight may finish on
    /// what they have, because all of it stays.
    /// </summary>
    public required bool MustDrain { get; init; }
}
