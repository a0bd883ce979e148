using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Backend;

/// <summary>The memory table and the dirty log.</summary>
public sealed partial class VhostUserBackend
{
    /// <summary>
    /// The answer to GET_MAX_MEM_SLOTS; 509 is what others say, and what leaves QEMU's own limit of 512 to it.
    /// </summary>
    private const int OfferedMemorySlots = 509;

    private string? SetMemoryTable(in RequestMessage message, DescriptorBatch descriptors)
    {
        var table = GuestMemory.CreateEmpty();
        try
        {
            for (int i = 0; i < message.RegionCount; i++)
            {
                using SafeFileHandle file = descriptors.Take(i);
                GuestMemory larger = table.Add(Describe(message.RegionAt(i)), file);
                table.Release();
                table = larger;
            }
        }
        catch (GuestMemoryException exception)
        {
            table.Release();
            return exception.Message;
        }

        Publish(table, _log, mustDrain: _memory.Regions.Count > 0);
        return null;
    }

    private string? AddRegion(MemoryRegionEntry region, DescriptorBatch descriptors)
    {
        if ((_protocolFeatures & VhostUserProtocolFeatures.ConfigureMemorySlots) == 0)
        {
            return "CONFIGURE_MEM_SLOTS was not negotiated";
        }

        try
        {
            using SafeFileHandle file = descriptors.Take(0);
            Publish(_memory.Add(Describe(region), file), _log, mustDrain: false);
            return null;
        }
        catch (GuestMemoryException exception)
        {
            return exception.Message;
        }
    }

    private string? RemoveRegion(MemoryRegionEntry region)
    {
        if ((_protocolFeatures & VhostUserProtocolFeatures.ConfigureMemorySlots) == 0)
        {
            return "CONFIGURE_MEM_SLOTS was not negotiated";
        }

        if (!_memory.TryRemove(Describe(region), out GuestMemory? smaller))
        {
            return $"there is no region of {Describe(region)} and front-end address {region.UserAddress}";
        }

        Publish(smaller!, _log, mustDrain: true);
        return null;
    }

    private void SetLog(in RequestMessage message, DescriptorBatch descriptors)
    {
        // There is no answer that says no: QEMU does not look at the word, and would migrate without what is not logged.
        LogArea area = message.Log
            ?? throw new VhostUserException("the front end's SET_LOG_BASE has no area although LOG_SHMFD was negotiated");
        try
        {
            using SafeFileHandle file = descriptors.Take(0);
            Publish(_memory, new DirtyLog(file, area.Size, area.Offset), mustDrain: _log is not null);
        }
        catch (GuestMemoryException exception)
        {
            throw new VhostUserException($"the front end's SET_LOG_BASE: {exception.Message}", exception);
        }
    }

    private static GuestMemoryRange Describe(MemoryRegionEntry region) =>
        new(region.Start, region.UserAddress, region.Size, region.FileOffset);

    /// <summary>
    /// Makes memory and log the ones that the device uses, and lets go of the ones before when they are others. A ring
    /// whose place is not in the new memory is stopped; it starts again by itself when the place is back.
    /// </summary>
    private void Publish(GuestMemory memory, DirtyLog? log, bool mustDrain)
    {
        GuestMemory oldMemory = _memory;
        DirtyLog? oldLog = _log;
        for (int i = 0; i < _rings.Length; i++)
        {
            if (_rings[i].IsRunning && !TryLocate(i, memory, out _))
            {
                StopRunningRing(i);
                ReportUnmapped(i);
            }
        }

        _memory = memory;
        _log = log;
        _device.UpdateMemory(new MemoryUpdate
        {
            Memory = memory,
            RunningRings = LocateRunningRings(),
            MustDrain = mustDrain,
        });
        if (!ReferenceEquals(oldMemory, memory))
        {
            oldMemory.Release();
            Log.MemoryChanged(_logger, memory.Regions.Count);
        }

        if (!ReferenceEquals(oldLog, log))
        {
            oldLog?.Dispose();
        }
    }

    private RingLocation[] LocateRunningRings()
    {
        List<RingLocation> locations = [];
        for (int i = 0; i < _rings.Length; i++)
        {
            if (_rings[i].IsRunning && TryLocate(i, _memory, out RingLocation location))
            {
                locations.Add(location);
            }
        }

        return [.. locations];
    }

    private bool TryLocate(int index, GuestMemory memory, out RingLocation location)
    {
        Ring ring = _rings[index];
        if (!ring.IsDescribed || !TryResolve(ring.Addresses!.Value, ring.Size, memory, out SplitQueueMemory queue))
        {
            location = default;
            return false;
        }

        VringAddresses addresses = ring.Addresses.Value;
        bool logsUsedRing = (addresses.Flags & VringAddressFlags.LogUsedRing) != 0;
        bool logs = logsUsedRing || (_features.GetValueOrDefault() & VirtioFeatures.LogAll) != 0;
        location = new RingLocation
        {
            Index = index,
            Queue = queue,

            // A ring that logs its used ring only is logged as a whole: too much in the log costs the migration a page.
            Log = logs ? _log : null,
            UsedLogAddress = logsUsedRing ? addresses.Log : null,
        };
        return true;
    }

    private bool TryResolve(in VringAddresses addresses, int size, GuestMemory memory, out SplitQueueMemory queue) =>
        SplitQueueMemory.TryResolve(
            memory,
            size,
            (QueueFeatures)(ulong)_features.GetValueOrDefault() & QueueFeatures.EventIndex,
            new SplitQueueAddresses(addresses.Descriptors, addresses.Available, addresses.Used),
            out queue);
}
