namespace Causeway.Virtio;

/// <summary>Where the front end says that the three parts of a queue are (vhost-user SET_VRING_ADDR).</summary>
/// <param name="DescriptorArea">Address of the descriptor table, or of a packed ring.</param>
/// <param name="DriverArea">Address of the available ring, or of the driver event suppression structure.</param>
/// <param name="DeviceArea">Address of the used ring, or of the device event suppression structure.</param>
public readonly record struct QueueAddresses(
    FrontendAddress DescriptorArea, FrontendAddress DriverArea, FrontendAddress DeviceArea);

/// <summary>Where the three parts of a queue are in this process, checked for size and alignment.</summary>
public readonly unsafe struct QueueMemory
{
    private QueueMemory(byte* descriptorArea, byte* driverArea, byte* deviceArea, int size, GuestAddress ringAddress)
    {
        DescriptorArea = descriptorArea;
        DriverArea = driverArea;
        DeviceArea = deviceArea;
        Size = size;
        DescriptorAddress = ringAddress;
    }

    /// <summary>The descriptor table, or the packed ring.</summary>
    public byte* DescriptorArea { get; }

    /// <summary>The available ring, or the driver event suppression structure.</summary>
    public byte* DriverArea { get; }

    /// <summary>The used ring, or the device event suppression structure.</summary>
    public byte* DeviceArea { get; }

    /// <summary>The queue size: a power of two from 2 to 32768, or anything from 1 to 32768 for a packed ring.</summary>
    public int Size { get; }

    /// <summary>The descriptor area for the guest: the device writes to a packed ring, and notes what it writes.</summary>
    internal GuestAddress DescriptorAddress { get; }

    /// <summary>Finds a queue that the front end describes by its own addresses.</summary>
    /// <param name="memory">The guest's memory. The pointers are valid as long as it is.</param>
    /// <param name="size">The queue size; hostile.</param>
    /// <param name="features">Features agreed on: they decide what the parts are, and how long.</param>
    /// <param name="addresses">Where the parts are; hostile.</param>
    /// <param name="queue">The queue.</param>
    /// <returns>
    /// Whether the size is valid, each part lies in one region, and each is aligned as virtio 1.4 asks: 16, 2 and 4 bytes for split
    /// (section 2.7), 16, 4 and 4 for packed rings (section 2.8.10.1).
    /// </returns>
    public static bool TryResolve(
        GuestMemory memory, int size, QueueFeatures features, QueueAddresses addresses, out QueueMemory queue)
    {
        queue = default;
        bool isPacked = features.HasFlag(QueueFeatures.PackedRing);
        if (isPacked ? !PackedRing.IsValidSize(size) : !SplitRing.IsValidSize(size))
        {
            return false;
        }

        // Descriptors of both kinds take 16 bytes.
        ulong driverBytes = isPacked ? PackedRing.EventSize : SplitRing.AvailableRingBytes(size, features);
        ulong deviceBytes = isPacked ? PackedRing.EventSize : SplitRing.UsedRingBytes(size, features);
        nuint driverAlignment = isPacked ? 4u : 2u;
        if (!memory.TryTranslate(addresses.DescriptorArea, SplitRing.DescriptorTableBytes(size), out byte* descriptors) ||
            !memory.TryTranslate(addresses.DriverArea, driverBytes, out byte* driver) ||
            !memory.TryTranslate(addresses.DeviceArea, deviceBytes, out byte* device) ||
            !memory.TryTranslate(addresses.DescriptorArea, out GuestAddress descriptorAddress) ||
            (nuint)descriptors % 16 != 0 || (nuint)driver % driverAlignment != 0 || (nuint)device % 4 != 0)
        {
            return false;
        }

        queue = new QueueMemory(descriptors, driver, device, size, descriptorAddress);
        return true;
    }
}
