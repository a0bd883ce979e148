using System.Buffers.Binary;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Virtio;

/// <summary>The same as <see cref="QueueRig"/>, in the same memory, with a packed queue.</summary>
internal sealed unsafe class PackedQueueRig : IDisposable
{
    private readonly SafeFileHandle _file;

    public PackedQueueRig(DriverQueueOptions options)
    {
        options = options with { Features = options.Features | QueueFeatures.PackedRing };
        Guest = QueueRig.Map(out _file);
        Start = Guest.Regions[0].Address;
        Features = options.Features;
        Driver = new PackedDriverQueue(Start, new GuestAddress(QueueRig.Base), options);
        Buffers = new GuestAddress(QueueRig.Base + DriverQueue.GetRequiredBytes(options));
        Oracle = new PackedSpecificationRing(Start, QueueRig.Base, (int)QueueRig.RegionSize, Driver, options.Features);
        Device = NewDevice(0x8000_8000);
    }

    public GuestMemory Guest { get; }

    public byte* Start { get; }

    public QueueFeatures Features { get; }

    public PackedDriverQueue Driver { get; }

    public PackedDeviceQueue Device { get; }

    public PackedSpecificationRing Oracle { get; }

    /// <summary>The first address behind the queue.</summary>
    public GuestAddress Buffers { get; }

    /// <summary>The ring as the driver's memory has it, to be corrupted.</summary>
    public Span<PackedDescriptor> Ring => new(At(Driver.DescriptorArea), Driver.Size);

    public PackedDeviceQueue NewDevice(uint start) => new(Resolve(), Guest, new DeviceQueueStart(Features, start));

    public QueueMemory Resolve()
    {
        Assert.True(QueueMemory.TryResolve(
            Guest,
            Driver.Size,
            Features,
            new(
                QueueRig.Translate(Driver.DescriptorArea),
                QueueRig.Translate(Driver.DriverArea),
                QueueRig.Translate(Driver.DeviceArea)),
            out QueueMemory queue));
        return queue;
    }

    /// <summary>A pointer to something in the first region.</summary>
    public byte* At(GuestAddress address) => Start + (address.Value - QueueRig.Base);

    /// <summary>Bytes of the first region, as hexadecimal digits.</summary>
    public string Hex(GuestAddress address, int count) =>
        Convert.ToHexStringLower(new ReadOnlySpan<byte>(At(address), count));

    public void Dispose()
    {
        Guest.Release();
        _file.Dispose();
    }
}

/// <summary>
/// The packed ring once more, slowly, straight from virtio 1.4 section 2.8: reads guest memory as bytes and believes it, and counts
/// places without end, so that slot and wrap counter are a remainder and the parity of a quotient.
/// </summary>
internal sealed unsafe class PackedSpecificationRing(
    byte* memory, ulong guestBase, int length, PackedDriverQueue queue, QueueFeatures features)
{
    private const int Next = 1;
    private const int Write = 2;
    private const int Indirect = 4;
    private const int Available = 1 << 7;
    private const int Used = 1 << 15;

    /// <summary>Whether the descriptor at a place is the device's: AVAIL is the wrap counter, USED its inverse.</summary>
    public bool IsAvailable(long place) => Owner(place) == (Wrap(place) ? Available : Used);

    /// <summary>Whether it has been given back: both are the wrap counter.</summary>
    public bool IsUsed(long place) => Owner(place) == (Wrap(place) ? Available | Used : 0);

    /// <summary>The buffer id and the length that the device wrote; none without the flag WRITE.</summary>
    public (ushort Id, uint Length) UsedDescriptor(long place)
    {
        ulong descriptor = Descriptor(place);
        return (Read16(descriptor + 12), (Read16(descriptor + 14) & Write) != 0 ? Read32(descriptor + 8) : 0);
    }

    /// <summary>All buffers of a chain in order, its id, and how many descriptors it takes.</summary>
    public (List<(GuestRange Range, bool IsWritable)> Buffers, ushort Id, int Slots) Chain(long place)
    {
        var buffers = new List<(GuestRange, bool)>();
        for (int slots = 1; ; slots++, place++)
        {
            Assert.True(IsAvailable(place));
            ulong descriptor = Descriptor(place);
            int flags = Read16(descriptor + 14);
            if ((flags & Indirect) != 0)
            {
                ulong table = Read64(descriptor);
                for (uint at = 0; at < Read32(descriptor + 8); at += 16)
                {
                    Add(table + at, buffers);
                }
            }
            else
            {
                Add(descriptor, buffers);
            }

            if ((flags & Next) == 0)
            {
                return (buffers, Read16(descriptor + 12), slots);
            }
        }
    }

    /// <summary>Section 2.8.10: whether the driver wants to hear of descriptors used from one place to another.</summary>
    public bool DriverWantsCall(long from, long to) => IsWanted(Read32(queue.DriverArea.Value), from, to);

    /// <summary>The same the other way round.</summary>
    public bool DeviceWantsKick(long from, long to) => IsWanted(Read32(queue.DeviceArea.Value), from, to);

    private bool IsWanted(uint suppression, long from, long to)
    {
        uint flags = suppression >> 16;
        if (flags != 2 || !features.HasFlag(QueueFeatures.EventIndex))
        {
            return from != to && flags != 1;
        }

        for (long place = from; place < to; place++)
        {
            if ((suppression & 0x7fff) == (ulong)(place % queue.Size) && (suppression & 0x8000) != 0 == Wrap(place))
            {
                return true;
            }
        }

        return false;
    }

    private void Add(ulong descriptor, List<(GuestRange, bool)> buffers)
    {
        uint size = Read32(descriptor + 8);
        if (size > 0)
        {
            buffers.Add((
                new GuestRange(new GuestAddress(Read64(descriptor)), size), (Read16(descriptor + 14) & Write) != 0));
        }
    }

    private bool Wrap(long place) => place / queue.Size % 2 == 0;

    private int Owner(long place) => Read16(Descriptor(place) + 14) & (Available | Used);

    private ulong Descriptor(long place) => queue.DescriptorArea.Value + (16UL * (ulong)(place % queue.Size));

    private ReadOnlySpan<byte> Bytes(ulong address) => new ReadOnlySpan<byte>(memory, length)[(int)(address - guestBase)..];

    private ushort Read16(ulong address) => BinaryPrimitives.ReadUInt16LittleEndian(Bytes(address));

    private uint Read32(ulong address) => BinaryPrimitives.ReadUInt32LittleEndian(Bytes(address));

    private ulong Read64(ulong address) => BinaryPrimitives.ReadUInt64LittleEndian(Bytes(address));
}
