using Causeway.Linux;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Frontend;

/// <summary>The sequences of requests that take a device from connected to running and back.</summary>
public sealed partial class VhostUserFrontend
{
    /// <summary>How many queues the device has; 0 when the back end does not tell.</summary>
    public int QueueCount { get; private set; }

    /// <summary>How many memory regions the back end takes; 8 when it does not tell.</summary>
    public int MemorySlots { get; private set; } = 8;

    /// <summary>Our end of the channel for requests of the back end; null when it was not negotiated.</summary>
    public SafeFileHandle? BackendRequests { get; private set; }

    /// <summary>
    /// Everything before memory and rings: SET_OWNER, features of both kinds, number of queues and memory slots, and the
    /// channel for the back end's requests.
    /// </summary>
    /// <param name="options">What is wanted.</param>
    public void Negotiate(FrontendOptions options)
    {
        SetOwner();
        VirtioFeatures offered = GetFeatures();
        if ((offered & VirtioFeatures.ProtocolFeatures) != 0)
        {
            SetProtocolFeatures(GetProtocolFeatures() & options.ProtocolFeatures);
        }

        if (Has(VhostUserProtocolFeatures.MultipleQueues))
        {
            QueueCount = GetQueueNum();
        }

        if (Has(VhostUserProtocolFeatures.ConfigureMemorySlots))
        {
            MemorySlots = GetMaxMemorySlots();
        }

        if (Has(VhostUserProtocolFeatures.BackendRequests))
        {
            OpenChannel();
        }

        SetFeatures(offered & (options.Features | VirtioFeatures.ProtocolFeatures));
    }

    /// <summary>Shares memory, region by region where the back end takes that and else as a table.</summary>
    /// <param name="regions">All the memory.</param>
    public void ShareMemory(params ReadOnlySpan<FrontendRegion> regions)
    {
        if (!Has(VhostUserProtocolFeatures.ConfigureMemorySlots))
        {
            SetMemoryTable(regions);
            return;
        }

        foreach (FrontendRegion region in regions)
        {
            AddMemoryRegion(region);
        }
    }

    /// <summary>Describes, starts and enables a ring, and kicks it once: some back ends start with the first kick.</summary>
    /// <param name="ring">The ring; its memory is shared already.</param>
    public void StartRing(FrontendRing ring)
    {
        SetVringNum(ring.Index, ring.Size);
        SetVringBase(
            ring.Index, ring.Base ?? DeviceQueue.FirstBase((QueueFeatures)NegotiatedFeatures & QueueFeatures.PackedRing));
        SetVringAddresses(Place(ring, log: null));
        SetVringCall(ring.Index, ring.CallEvent);
        if (ring.ErrorEvent is not null)
        {
            SetVringError(ring.Index, ring.ErrorEvent);
        }

        SetVringKick(ring.Index, ring.KickEvent);
        if ((NegotiatedFeatures & VirtioFeatures.ProtocolFeatures) != 0)
        {
            SetVringEnable(ring.Index, isEnabled: true);
        }

        Events.Signal(Number(ring.KickEvent)).ThrowIfError("kick a ring");
    }

    /// <summary>Disables and stops a ring; on return none of its requests is in flight.</summary>
    /// <param name="index">The ring.</param>
    /// <returns>Where to start it again.</returns>
    public uint StopRing(int index)
    {
        if ((NegotiatedFeatures & VirtioFeatures.ProtocolFeatures) != 0)
        {
            SetVringEnable(index, isEnabled: false);
        }

        return GetVringBase(index);
    }

    /// <summary>Makes the back end record what it writes, as a live migration does, or not any more.</summary>
    /// <param name="isOn">Whether to record. Before that, <see cref="SetLogBase"/> gives the log.</param>
    /// <param name="rings">
    /// The running rings, each with the guest address under which its used ring is recorded.
    /// </param>
    public void LogWrites(bool isOn, params ReadOnlySpan<(FrontendRing Ring, GuestAddress UsedAddress)> rings)
    {
        SetFeatures(isOn ? NegotiatedFeatures | VirtioFeatures.LogAll : NegotiatedFeatures & ~VirtioFeatures.LogAll);
        foreach ((FrontendRing ring, GuestAddress used) in rings)
        {
            SetVringAddresses(Place(ring, isOn ? used : null));
        }
    }

    private static VringAddresses Place(FrontendRing ring, GuestAddress? log) => new(
        (uint)ring.Index,
        log is null ? VringAddressFlags.None : VringAddressFlags.LogUsedRing,
        ring.Addresses.DescriptorArea,
        ring.Addresses.DeviceArea,
        ring.Addresses.DriverArea,
        log ?? default);

    private bool Has(VhostUserProtocolFeatures feature) => (NegotiatedProtocolFeatures & feature) != 0;

    private void OpenChannel()
    {
        Sockets.Socketpair(SocketType.Stream, out int ours, out int theirs).ThrowIfError("create a pair of sockets");
        BackendRequests?.Dispose();
        _channel?.Dispose();
        (_channel, _sharedMemorySizes) = (null, null);
        BackendRequests = new SafeFileHandle(ours, ownsHandle: true);
        using SafeFileHandle given = new(theirs, ownsHandle: true);
        SetBackendRequestChannel(given);
    }
}
