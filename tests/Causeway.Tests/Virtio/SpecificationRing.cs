using System.Buffers.Binary;
using Causeway.Virtio;

namespace Causeway.Tests.Virtio;

/// <summary>
/// The split ring once more, slowly, straight from virtio 1.4 section 2.7: reads guest memory as bytes and believes it.
/// What the two halves do is compared with it.
/// </summary>
internal sealed unsafe class SpecificationRing(byte* memory, ulong guestBase, int length, SplitDriverQueue queue, bool eventIndex)
{
    private const int Next = 1;
    private const int Write = 2;
    private const int Indirect = 4;

    /// <summary>le16 idx of struct virtq_avail.</summary>
    public ushort AvailableIndex => Read16(queue.DriverArea.Value + 2);

    /// <summary>le16 idx of struct virtq_used.</summary>
    public ushort UsedIndex => Read16(queue.DeviceArea.Value + 2);

    /// <summary>le16 ring[idx mod N] of struct virtq_avail.</summary>
    public ushort AvailableEntry(ushort index) => Read16(queue.DriverArea.Value + 4 + 2UL * (ulong)(index % queue.Size));

    /// <summary>ring[idx mod N] of struct virtq_used.</summary>
    public (uint Id, uint Length) UsedEntry(ushort index)
    {
        ulong address = queue.DeviceArea.Value + 4 + 8UL * (ulong)(index % queue.Size);
        return (Read32(address), Read32(address + 4));
    }

    /// <summary>All buffers of a chain in order.</summary>
    public List<(GuestRange Range, bool IsWritable)> Chain(ushort head)
    {
        var buffers = new List<(GuestRange, bool)>();
        Walk(queue.DescriptorArea.Value, head, buffers);
        return buffers;
    }

    /// <summary>
    /// Section 2.7.7: with EVENT_IDX the device tells the driver when it writes the entry that used_event names; else
    /// unless flags say no.
    /// </summary>
    public bool DriverWantsCall(ushort from, ushort to) => eventIndex
        ? IsAmong(Read16(queue.DriverArea.Value + 4 + 2UL * (ulong)queue.Size), from, to)
        : from != to && (Read16(queue.DriverArea.Value) & 1) == 0;

    /// <summary>Section 2.7.10: the same the other way round, with avail_event.</summary>
    public bool DeviceWantsKick(ushort from, ushort to) => eventIndex
        ? IsAmong(Read16(queue.DeviceArea.Value + 4 + 8UL * (ulong)queue.Size), from, to)
        : from != to && (Read16(queue.DeviceArea.Value) & 1) == 0;

    private static bool IsAmong(ushort wanted, ushort from, ushort to)
    {
        for (ushort index = from; index != to; index++)
        {
            if (index == wanted)
            {
                return true;
            }
        }

        return false;
    }

    private void Walk(ulong table, ushort first, List<(GuestRange, bool)> buffers)
    {
        ushort index = first;
        while (true)
        {
            ulong descriptor = table + 16UL * index;
            ulong address = Read64(descriptor);
            uint size = Read32(descriptor + 8);
            int flags = Read16(descriptor + 12);
            if ((flags & Indirect) != 0)
            {
                Walk(address, 0, buffers);
            }
            else if (size > 0)
            {
                buffers.Add((new GuestRange(new GuestAddress(address), size), (flags & Write) != 0));
            }

            if ((flags & Next) == 0)
            {
                return;
            }

            index = Read16(descriptor + 14);
        }
    }

    private ReadOnlySpan<byte> Bytes(ulong address) => new ReadOnlySpan<byte>(memory, length)[(int)(address - guestBase)..];

    private ushort Read16(ulong address) => BinaryPrimitives.ReadUInt16LittleEndian(Bytes(address));

    private uint Read32(ulong address) => BinaryPrimitives.ReadUInt32LittleEndian(Bytes(address));

    private ulong Read64(ulong address) => BinaryPrimitives.ReadUInt64LittleEndian(Bytes(address));
}
