using Causeway.Linux;
using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Backend;

/// <summary>The rings' life (vhost-user document, "Ring states").</summary>
public sealed partial class VhostUserBackend
{
    private const ushort FileTypeMask = 0xF000;

    private string? SetRingSize(VringState state)
    {
        if (RefuseChange(state.Index) is string refusal)
        {
            return refusal;
        }

        // Packed rings may have any size, but no front end is known that gives them one that split rings may not have.
        if (state.Value < 2 || state.Value > (uint)_device.MaxQueueSize || (state.Value & (state.Value - 1)) != 0)
        {
            return $"{state.Value} descriptors: not a power of two from 2 to {_device.MaxQueueSize}";
        }

        _rings[state.Index].Size = (int)state.Value;
        return null;
    }

    private string? SetRingBase(VringState state)
    {
        if (RefuseChange(state.Index) is string refusal)
        {
            return refusal;
        }

        if (state.Value > ushort.MaxValue && !HasPackedRings)
        {
            return $"the base 0x{state.Value:x} is none of a split ring";
        }

        _rings[state.Index].Base = state.Value;
        return null;
    }

    private string? SetRingAddresses(in VringAddresses addresses)
    {
        if (RefuseIndex(addresses.Index) is string refusal)
        {
            return refusal;
        }

        if (addresses.Descriptors.Value % 16 != 0 || addresses.Available.Value % (HasPackedRings ? 4u : 2u) != 0 || addresses.Used.Value % 4 != 0)
        {
            return "the addresses are not aligned";
        }

        // Before there is any memory the addresses cannot be looked up; the ring will wait.
        Ring ring = _rings[addresses.Index];
        if (_memory.Regions.Count > 0 && !TryResolve(addresses, Math.Max(ring.Size, 2), _memory, out _))
        {
            return "the addresses are not in the guest's memory";
        }

        if (!ring.IsRunning)
        {
            ring.Addresses = addresses;
            ring.IsReportedUnmapped = false;
            return null;
        }

        VringAddresses now = ring.Addresses.GetValueOrDefault();
        if (addresses != now with { Flags = addresses.Flags, Log = addresses.Log })
        {
            return "the ring is running elsewhere";
        }

        // A running ring may be told to log or not to.
        ring.Addresses = addresses;
        Publish(_memory, _log, mustDrain: false);
        return null;
    }

    private string? EnableRing(VringState state)
    {
        if (RefuseIndex(state.Index) is string refusal)
        {
            return refusal;
        }

        if (state.Value > 1)
        {
            return $"{state.Value} is neither on nor off";
        }

        _rings[state.Index].IsEnabled = state.Value == 1;
        if (state.Value == 0)
        {
            StopRunningRing((int)state.Index);
        }

        return null;
    }

    private string? SetRingEvent(in RequestMessage message, DescriptorBatch descriptors)
    {
        VringEventWord word = message.Event;
        if (RefuseIndex((uint)word.Index) is string refusal)
        {
            return refusal;
        }

        SafeFileHandle? handle = word.HasDescriptor ? descriptors.Take(0) : null;
        if (handle is not null && !IsEvent(handle))
        {
            handle.Dispose();
            return "the descriptor is not an eventfd";
        }

        Ring ring = _rings[word.Index];
        switch (message.Request)
        {
            case VhostUserRequest.SetVringKick when handle is null:
                return "a ring without kick event would have to be polled, which is not supported";

            case VhostUserRequest.SetVringKick:
                StopRunningRing(word.Index);
                ring.Start(handle!);
                return null;

            case VhostUserRequest.SetVringCall:
                // A call may have gone to the old event that nobody listens to any more.
                ring.CallEvent.Connect(handle);
                if (ring.IsRunning)
                {
                    ring.CallEvent.Signal();
                }

                return null;

            default:
                ring.ErrorEvent.Connect(handle);
                return null;
        }
    }

    /// <summary>GET_VRING_BASE.</summary>
    private VringState StopRing(VringState state)
    {
        if (RefuseIndex(state.Index) is string refusal)
        {
            throw new VhostUserException($"the front end's GET_VRING_BASE: {refusal}");
        }

        Ring ring = _rings[state.Index];
        StopRunningRing((int)state.Index);
        ring.Stop();
        return state with { Value = ring.Base ?? FirstBase };
    }

    /// <summary>Starts every ring that has become able to run.</summary>
    private void StartReadyRings()
    {
        if (_features is not VirtioFeatures features)
        {
            return;
        }

        for (int i = 0; i < _rings.Length; i++)
        {
            Ring ring = _rings[i];
            if (ring.IsRunning || !ring.IsStarted || !ring.IsEnabled || !ring.IsDescribed)
            {
                continue;
            }

            if (!TryLocate(i, _memory, out RingLocation location))
            {
                ReportUnmapped(i);
                continue;
            }

            uint start = ring.Base ?? FirstBase;
            Log.RingStarted(_logger, i, ring.Size, start);
            RingSetup setup = new()
            {
                Location = location,
                Memory = _memory,
                Base = start,
                Features = features,
                KickEvent = ring.KickEvent!,
                CallEvent = ring.CallEvent.Handle,
                ErrorEvent = ring.ErrorEvent.Handle,
            };
            _device.StartRing(setup);
            ring.IsRunning = true;
        }
    }

    private void StopRunningRing(int index)
    {
        Ring ring = _rings[index];
        if (!ring.IsRunning)
        {
            return;
        }

        ring.CallEvent.Unblock();
        ring.ErrorEvent.Unblock();
        uint next = _device.StopRing(index);
        ring.Base = next;
        ring.IsRunning = false;
        Log.RingStopped(_logger, index, next);
    }

    private void StopRunningRings()
    {
        for (int i = 0; i < _rings.Length; i++)
        {
            StopRunningRing(i);
        }
    }

    private void ReportUnmapped(int index)
    {
        if (!_rings[index].IsReportedUnmapped)
        {
            _rings[index].IsReportedUnmapped = true;
            Log.RingUnmapped(_logger, index);
        }
    }

    private string? RefuseIndex(uint index) =>
        index < _rings.Length ? null : $"ring {index} of a device with {_rings.Length}";

    /// <summary>
    /// Size and base may change unless the ring runs. That it is stopped is not asked for: some front ends reset a device
    /// by disabling its rings and nothing else.
    /// </summary>
    private string? RefuseChange(uint index) =>
        RefuseIndex(index) ?? (_rings[index].IsRunning ? $"ring {index} is running" : null);

    /// <summary>Whether a descriptor may be an event: only objects without a file system have no type.</summary>
    private static bool IsEvent(SafeFileHandle handle) =>
        !Files.Statx((int)handle.DangerousGetHandle(), StatxMask.Basic, out StatxBuffer status).IsError
        && (status.Mode & FileTypeMask) == 0;
}
