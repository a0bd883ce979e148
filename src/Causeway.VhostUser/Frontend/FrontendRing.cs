using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Frontend;

/// <summary>All that a front end says about a ring, for <see cref="VhostUserFrontend.StartRing"/>.</summary>
public sealed record FrontendRing
{
    /// <summary>The ring's number.</summary>
    public required int Index { get; init; }

    /// <summary>How many descriptors it has.</summary>
    public required int Size { get; init; }

    /// <summary>
    /// Where it is, in front-end addresses. Zero the memory before: some back ends read the used index at once.
    /// </summary>
    public required QueueAddresses Addresses { get; init; }

    /// <summary>
    /// Where the ring goes on: what <see cref="VhostUserFrontend.StopRing"/> returned before. Default: null, for a new ring.
    /// </summary>
    public uint? Base { get; init; }

    /// <summary>The eventfd of the driver's kicks. It stays the caller's.</summary>
    public required SafeFileHandle KickEvent { get; init; }

    /// <summary>The eventfd of the device's calls; null for none. It stays the caller's.</summary>
    public SafeFileHandle? CallEvent { get; init; }

    /// <summary>The eventfd for "the ring is broken"; null for none. It stays the caller's.</summary>
    public SafeFileHandle? ErrorEvent { get; init; }
}

/// <summary>A region of memory to share with the back end.</summary>
/// <param name="Range">Where it is, for the guest, for the front end, and in the file.</param>
/// <param name="File">The file; it stays the caller's, who may close it once the request has returned.</param>
public readonly record struct FrontendRegion(GuestMemoryRange Range, SafeFileHandle File);

/// <summary>What <see cref="VhostUserFrontend.Negotiate"/> asks for; what the back end does not offer is left out.</summary>
public sealed record FrontendOptions
{
    /// <summary>
    /// The virtio features. Default: VERSION_1, indirect descriptors, EVENT_IDX and packed rings. The bit for protocol features is added.
    /// </summary>
    public VirtioFeatures Features { get; init; } =
        VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex | VirtioFeatures.PackedRing;

    /// <summary>The protocol features. Default: everything that <see cref="VhostUserFrontend"/> has a method for.</summary>
    public VhostUserProtocolFeatures ProtocolFeatures { get; init; } =
        VhostUserProtocolFeatures.MultipleQueues
        | VhostUserProtocolFeatures.LogSharedMemory
        | VhostUserProtocolFeatures.ReplyAcknowledge
        | VhostUserProtocolFeatures.BackendRequests
        | VhostUserProtocolFeatures.Config
        | VhostUserProtocolFeatures.BackendSendsDescriptors
        | VhostUserProtocolFeatures.ResetDevice
        | VhostUserProtocolFeatures.ConfigureMemorySlots
        | VhostUserProtocolFeatures.SharedMemory
        | VhostUserProtocolFeatures.FuseDevices;
}
