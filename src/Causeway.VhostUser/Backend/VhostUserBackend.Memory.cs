using Causeway.Linux;
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

    // What the last SET_MEM_TABLE contained; null when regions were added or removed since.
    private List<TableEntry>? _table;

    private string? SetMemoryTable(in RequestMessage message, DescriptorBatch descriptors)
    {
        var table = GuestMemory.CreateEmpty();
        List<TableEntry> entries = [];
        try
        {
            for (int i = 0; i < message.RegionCount; i++)
            {
                using SafeFileHandle file = descriptors.Take(i);
                GuestMemoryRange range = Describe(message.RegionAt(i));
                var entry = TableEntry.Of(range, file);
                if (IsMappedFile(entry, file))
                {
                    continue;
                }

                GuestMemory larger = table.Add(range, file);
                table.Release();
                table = larger;
                entries.Add(entry);
            }
        }
        catch (GuestMemoryException exception)
        {
            table.Release();
            return exception.Message;
        }

        if (_table is not null && entries.SequenceEqual(_table))
        {
            // QEMU sends the table again for each of our own mappings. To wait for the queues now would be to wait for those
            // who have asked for the next one, and QEMU does not answer them before it has our answer.
            table.Release();
            return null;
        }

        Publish(table, _log, mustDrain: _memory.Regions.Count > 0);
        _table = entries;
        return null;
    }

    // Our own mappings, and those of other devices of the machine: QEMU shows all of them to everybody. What is added while we
    // run is a window's if its file has a name; memory that was plugged in has none.
    private bool IsMappedFile(in TableEntry entry, SafeFileHandle file)
    {
        if (!_isSharedMemoryOffered)
        {
            return false;
        }

        return _device.IsSharedMemory(file, entry.Range.FileOffset)
            || (entry.HasName && Array.Exists(_rings, ring => ring.IsRunning) && _table?.Contains(entry) == false);
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

        _table = ReferenceEquals(memory, _memory) ? _table : null;
        _memory = memory;
        _log = log;

        // Whoever waits for the front end on the other channel must not be waited for: it is waiting for us.
        bool isChannelBusy = Channel?.Interrupt() ?? false;
        _device.UpdateMemory(new MemoryUpdate
        {
            Memory = memory,
            RunningRings = LocateRunningRings(),
            MustDrain = mustDrain,
        });
        if (isChannelBusy)
        {
            Channel?.Resume();
        }

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
        if (!ring.IsDescribed || !TryResolve(ring.Addresses!.Value, ring.Size, memory, out QueueMemory queue))
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

    private QueueFeatures LayoutFeatures =>
        (QueueFeatures)(ulong)_features.GetValueOrDefault() & (QueueFeatures.EventIndex | QueueFeatures.PackedRing);

    private bool HasPackedRings => LayoutFeatures.HasFlag(QueueFeatures.PackedRing);

    private uint FirstBase => DeviceQueue.FirstBase(LayoutFeatures);

    private bool TryResolve(in VringAddresses addresses, int size, GuestMemory memory, out QueueMemory queue) =>
        QueueMemory.TryResolve(
            memory,
            size,
            LayoutFeatures,
            new QueueAddresses(addresses.Descriptors, addresses.Available, addresses.Used),
            out queue);

    /// <summary>A region of the memory table, and the file behind it.</summary>
    private readonly record struct TableEntry(GuestMemoryRange Range, ulong Device, ulong Inode, bool HasName)
    {
        public static TableEntry Of(GuestMemoryRange range, SafeFileHandle file)
        {
            Files.Statx((int)file.DangerousGetHandle(), StatxMask.Basic, out StatxBuffer status)
                .ThrowIfError("look at the file of a memory region");
            return new TableEntry(
                range, ((ulong)status.DeviceMajor << 32) | status.DeviceMinor, status.Inode, status.LinkCount > 0);
        }
    }
}
