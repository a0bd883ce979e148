using Causeway.Linux;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Virtio;

/// <summary>
/// Guest memory with a driver's and a device's half of one queue in it. Queue and buffers are in one region at
/// <see cref="Base"/>; a second region follows it directly for the guest, and is elsewhere in the process.
/// </summary>
internal sealed unsafe class QueueRig : IDisposable
{
    public const ulong Base = 0x100000;
    public const ulong FrontendBase = 0x7000_0000_0000;
    public const ulong RegionSize = 256 * 1024;
    public const ulong SecondBase = Base + RegionSize;
    public const ulong SecondSize = 64 * 1024;

    private readonly SafeFileHandle _file;

    public QueueRig(DriverQueueOptions options, ushort startIndex = 0)
    {
        Guest = Map(out _file);
        Start = Guest.Regions[0].Address;
        Second = Guest.Regions[1].Address;
        Driver = new SplitDriverQueue(Start, new GuestAddress(Base), options, startIndex);
        Buffers = new GuestAddress(Base + SplitDriverQueue.GetRequiredBytes(options));
        Features = options.Features;
        Oracle = new SpecificationRing(
            Start, Base, (int)RegionSize, Driver, options.Features.HasFlag(QueueFeatures.EventIndex));
        Device = NewDevice(startIndex);
    }

    public GuestMemory Guest { get; }

    public byte* Start { get; }

    public byte* Second { get; }

    public QueueFeatures Features { get; }

    public SplitDriverQueue Driver { get; }

    public SplitDeviceQueue Device { get; }

    public SpecificationRing Oracle { get; }

    /// <summary>The first address behind the queue.</summary>
    public GuestAddress Buffers { get; }

    public SplitDeviceQueue NewDevice(ushort nextAvailable) =>
        new(Resolve(), Guest, new DeviceQueueStart(Features, nextAvailable));

    public QueueMemory Resolve()
    {
        Assert.True(QueueMemory.TryResolve(
            Guest,
            Driver.Size,
            Features,
            new(Translate(Driver.DescriptorArea), Translate(Driver.DriverArea), Translate(Driver.DeviceArea)),
            out QueueMemory queue));
        return queue;
    }

    /// <summary>A pointer to something in the first region.</summary>
    public byte* At(GuestAddress address) => Start + (address.Value - Base);

    /// <summary>The descriptor table as the driver's memory has it, to be corrupted.</summary>
    public Span<SplitDescriptor> Descriptors => new(At(Driver.DescriptorArea), Driver.Size);

    /// <summary>The available ring's words: flags, idx, ring, used_event.</summary>
    public Span<ushort> AvailableWords => new(At(Driver.DriverArea), Driver.Size + 3);

    public void Dispose()
    {
        Guest.Release();
        _file.Dispose();
    }

    /// <summary>Both regions.</summary>
    public static GuestMemory Map(out SafeFileHandle file)
    {
        file = Memory.CreateMemoryFile("queue\0"u8, (long)(RegionSize + 4096 + SecondSize), FileSeals.Shrink);
        GuestMemory empty = GuestMemory.CreateEmpty();
        GuestMemory first = empty.Add(new(new(Base), new(FrontendBase), RegionSize, 0), file);
        GuestMemory both = first.Add(
            new(new(SecondBase), new(FrontendBase + RegionSize), SecondSize, RegionSize + 4096), file);
        first.Release();
        empty.Release();
        return both;
    }

    public static FrontendAddress Translate(GuestAddress address) => new(address.Value - Base + FrontendBase);
}
