namespace Causeway.Virtio;

/// <summary>Where the front end says that the three parts of a split queue are (vhost-user SET_VRING_ADDR).</summary>
/// <param name="DescriptorTable">Address of the descriptor table.</param>
/// <param name="AvailableRing">Address of the available ring.</param>
/// <param name="UsedRing">Address of the used ring.</param>
public readonly record struct SplitQueueAddresses(
    FrontendAddress DescriptorTable, FrontendAddress AvailableRing, FrontendAddress UsedRing);

/// <summary>Where the three parts of a split queue are in this process, checked for size and alignment.</summary>
public readonly unsafe struct SplitQueueMemory
{
    private SplitQueueMemory(byte* descriptorTable, byte* availableRing, byte* usedRing, int size)
    {
        DescriptorTable = descriptorTable;
        AvailableRing = availableRing;
        UsedRing = usedRing;
        Size = size;
    }

    /// <summary>The descriptor table (vhost-user "descriptor area").</summary>
    public byte* DescriptorTable { get; }

    /// <summary>The available ring ("driver area").</summary>
    public byte* AvailableRing { get; }

    /// <summary>The used ring ("device area").</summary>
    public byte* UsedRing { get; }

    /// <summary>The queue size: a power of two from 2 to 32768.</summary>
    public int Size { get; }

    /// <summary>Finds a queue that the front end describes by its own addresses.</summary>
    /// <param name="memory">The guest's memory. The pointers are valid as long as it is.</param>
    /// <param name="size">The queue size; hostile.</param>
    /// <param name="features">Features agreed on: they decide how long the rings are.</param>
    /// <param name="addresses">Where the parts are; hostile.</param>
    /// <param name="queue">The queue.</param>
    /// <returns>
    /// Whether the size is valid, each part lies in one region, and each is aligned as virtio 1.4 section 2.7 asks: 16, 2
    /// and 4 bytes.
    /// </returns>
    public static bool TryResolve(
        GuestMemory memory, int size, QueueFeatures features, SplitQueueAddresses addresses, out SplitQueueMemory queue)
    {
        if (SplitRing.IsValidSize(size) &&
            memory.TryTranslate(
                addresses.DescriptorTable, SplitRing.DescriptorTableBytes(size), out byte* descriptors) &&
            memory.TryTranslate(
                addresses.AvailableRing, SplitRing.AvailableRingBytes(size, features), out byte* available) &&
            memory.TryTranslate(addresses.UsedRing, SplitRing.UsedRingBytes(size, features), out byte* used))
        {
            return TryCreate(descriptors, available, used, size, out queue);
        }

        queue = default;
        return false;
    }

    /// <summary>Takes pointers that are known to be valid for the sizes the queue needs.</summary>
    /// <param name="descriptorTable">The descriptor table.</param>
    /// <param name="availableRing">The available ring.</param>
    /// <param name="usedRing">The used ring.</param>
    /// <param name="size">The queue size; hostile.</param>
    /// <param name="queue">The queue.</param>
    /// <returns>Whether the size and the alignment are valid.</returns>
    public static bool TryCreate(
        byte* descriptorTable, byte* availableRing, byte* usedRing, int size, out SplitQueueMemory queue)
    {
        if (!SplitRing.IsValidSize(size) ||
            (nuint)descriptorTable % 16 != 0 || (nuint)availableRing % 2 != 0 || (nuint)usedRing % 4 != 0)
        {
            queue = default;
            return false;
        }

        queue = new SplitQueueMemory(descriptorTable, availableRing, usedRing, size);
        return true;
    }
}
