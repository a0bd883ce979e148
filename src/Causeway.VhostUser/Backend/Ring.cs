using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Backend;

/// <summary>
/// What the front end has said about one ring. Whether the ring is started and whether it is enabled are independent
/// (vhost-user document, "Ring states"); it runs when it is both and completely described.
/// </summary>
internal sealed class Ring : IDisposable
{
    /// <summary>SET_VRING_KICK came after the last GET_VRING_BASE.</summary>
    internal bool IsStarted => KickEvent is not null;

    /// <summary>SET_VRING_ENABLE 1, or features without the bit that makes that request exist.</summary>
    internal bool IsEnabled { get; set; }

    /// <summary>Whether the device has it.</summary>
    internal bool IsRunning { get; set; }

    /// <summary>How many descriptors it has; 0 when not said.</summary>
    internal int Size { get; set; }

    /// <summary>Where the ring continues: what the front end said, or where the device stopped; null for its start.</summary>
    internal uint? Base { get; set; }

    /// <summary>Where it is; null when not said.</summary>
    internal VringAddresses? Addresses { get; set; }

    /// <summary>The kick event; null as long as the ring is stopped.</summary>
    internal SafeFileHandle? KickEvent { get; private set; }

    /// <summary>The call event.</summary>
    internal RingEvent CallEvent { get; } = new();

    /// <summary>The error event.</summary>
    internal RingEvent ErrorEvent { get; } = new();

    /// <summary>Whether everything is known that is needed to look for the ring in memory.</summary>
    internal bool IsDescribed => Size != 0 && Addresses is not null;

    /// <summary>Whether an unmapped ring was reported; it is once per set of addresses.</summary>
    internal bool IsReportedUnmapped { get; set; }

    /// <summary>SET_VRING_KICK: the ring is started.</summary>
    /// <param name="kick">The event, owned from here on.</param>
    internal void Start(SafeFileHandle kick)
    {
        KickEvent?.Dispose();
        KickEvent = kick;
    }

    /// <summary>GET_VRING_BASE: the ring is stopped, and forgets two of its events.</summary>
    internal void Stop()
    {
        KickEvent?.Dispose();
        KickEvent = null;
        CallEvent.Dispose();
    }

    /// <summary>
    /// RESET_DEVICE: as at first, but the call and error events stay. QEMU gives them once before and does not repeat them.
    /// </summary>
    internal void Reset()
    {
        KickEvent?.Dispose();
        KickEvent = null;
        IsEnabled = false;
        Size = 0;
        Base = null;
        Addresses = null;
        IsReportedUnmapped = false;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        KickEvent?.Dispose();
        CallEvent.Dispose();
        ErrorEvent.Dispose();
    }
}
