using System.Runtime.InteropServices;
using Causeway.Tests.Virtio;
using Causeway.Virtio;

namespace Causeway.Fuzz.Targets;

/// <summary>A device takes chains from a packed ring that a hostile driver has written, several times.</summary>
/// <remarks>
/// An input is where the device begins, as four bytes, exclusive or with the base of a new ring; and then, as often as there are bytes,
/// the ring and a table for indirect descriptors, as they are in memory but for their addresses (<see cref="ChainMemory.Place"/>).
/// Each is written when the device has taken all of the one before.
/// </remarks>
internal static unsafe class PackedChainTarget
{
    private const int Size = 16;
    private const int IndirectEntries = 16;
    private const int MostRounds = 4;

    private static int RoundBytes => (Size + IndirectEntries) * sizeof(PackedDescriptor);

    public static void Run(ReadOnlySpan<byte> input)
    {
        foreach (QueueFeatures features in (QueueFeatures[])[QueueFeatures.None, QueueFeatures.EventIndex | QueueFeatures.IndirectDescriptors])
        {
            using var rig = new PackedQueueRig(new DriverQueueOptions { Size = Size, Features = features });
            Play(rig, input);
        }
    }

    /// <summary>What Linux guests make, and some chains that the specification allows or forbids.</summary>
    public static IEnumerable<(string Name, byte[] Input)> Seeds()
    {
        List<RecordedChain> recorded = [.. ChainMemory.Recorded()];
        for (int i = 0; i < recorded.Count; i++)
        {
            yield return ($"linux-{i}", Input([recorded.GetRange(i, 1)]));
        }

        // Lap after lap, as many at the same time as there is room for.
        var rounds = new List<List<RecordedChain>>();
        for (int next = 0; next < recorded.Count; next += rounds[^1].Count)
        {
            int entries = 0;
            rounds.Add([.. recorded.Skip(next).TakeWhile(one => (entries += one.Buffers.Count) <= Size)]);
        }

        yield return ("linux-all", Input(rounds));

        var request = new PackedDescriptor(new(0x9000), 56, 0, DescriptorFlags.Available | DescriptorFlags.Next);
        var reply = new PackedDescriptor(new(QueueRig.RegionSize - 100), 4096, 3, DescriptorFlags.Available | DescriptorFlags.Write);
        yield return ("border", Input(0, [[request, reply, new(new(0x9000), 0, 1, DescriptorFlags.Available)]]));
        yield return ("rest-missing", Input(0, [[request]]));
        yield return ("without-end", Input(0, [Enumerable.Repeat(request, Size)]));
        yield return ("nothing-may-follow-a-table", Input(
            0, [[new(new(ChainMemory.TableOffset), 16, 0, request.Flags | DescriptorFlags.Indirect), reply]]));
        yield return ("base-outside", Input(Size << 16, [[request, reply]]));
        yield return ("old-lap", Input(0x8000_8000, [[request, reply]]));
    }

    private static void Play(PackedQueueRig rig, ReadOnlySpan<byte> input)
    {
        Span<byte> start = stackalloc byte[sizeof(uint)];
        input[..Math.Min(input.Length, start.Length)].CopyTo(start);
        ReadOnlySpan<byte> rest = input[Math.Min(input.Length, start.Length)..];
        PackedDeviceQueue device = rig.NewDevice(MemoryMarshal.Read<uint>(start) ^ DeviceQueue.FirstBase(QueueFeatures.PackedRing));
        var chains = new DescriptorChain[Size];
        for (int i = 0; i < Size; i++)
        {
            chains[i] = new DescriptorChain();
        }

        Span<byte> round = stackalloc byte[RoundBytes];
        for (int i = 0; i < MostRounds && !rest.IsEmpty; i++)
        {
            round.Clear();
            int count = Math.Min(rest.Length, round.Length);
            rest[..count].CopyTo(round);
            rest = rest[count..];
            ReadOnlySpan<PackedDescriptor> all = MemoryMarshal.Cast<byte, PackedDescriptor>(round);
            Copy(all[..Size], rig.Ring);
            Copy(all[Size..], new Span<PackedDescriptor>(rig.Start + ChainMemory.TableOffset, IndirectEntries));
            Drain(rig, device, chains);
        }
    }

    private static void Copy(ReadOnlySpan<PackedDescriptor> from, Span<PackedDescriptor> to)
    {
        for (int i = 0; i < from.Length; i++)
        {
            PackedDescriptor one = from[i];
            to[i] = new PackedDescriptor(ChainMemory.Place(one.Address), one.Length, one.Id, one.Flags);
        }
    }

    // Takes all, and gives it back in another order.
    private static void Drain(PackedQueueRig rig, PackedDeviceQueue device, DescriptorChain[] chains)
    {
        int taken = 0;
        int slots = 0;
        while (device.TryPop(chains[taken]) is PopResult.Popped or PopResult.Malformed)
        {
            DescriptorChain chain = chains[taken];
            Assert.InRange(chain.Slots, 1, Size - slots);
            slots += chain.Slots;
            Assert.Equal(slots, device.InFlight);
            ChainMemory.AssertInside(rig.Guest, chain);
            if (++taken == Size)
            {
                break;
            }
        }

        if (taken > 0 && !device.IsBroken)
        {
            DescriptorChain last = chains[taken - 1];
            (int Id, int Slots, int Pieces) before = (last.HeadIndex, last.Slots, last.Readable.Count + last.Writable.Count);
            device.PutBack(last);
            Assert.True(device.TryPop(last) is PopResult.Popped or PopResult.Malformed);
            Assert.Equal(before, (last.HeadIndex, last.Slots, last.Readable.Count + last.Writable.Count));
        }

        for (int i = taken - 1; i >= 0; i--)
        {
            device.Push(chains[i], (uint)chains[i].Writable.Length);
            device.NeedsCall();
        }

        Assert.Equal(0, device.InFlight);
        device.ArmNotifications();
    }

    // Each round goes on where the one before has ended, with the flags of that lap.
    private static byte[] Input(IEnumerable<List<RecordedChain>> rounds)
    {
        var ring = PackedPosition.Start;
        var written = new List<byte>(new byte[sizeof(uint)]);
        foreach (List<RecordedChain> chains in rounds)
        {
            var all = new PackedDescriptor[Size + IndirectEntries];
            int indirect = Size;
            ushort id = 0;
            foreach ((bool isIndirect, IReadOnlyList<(GuestRange Range, bool IsWritable)> buffers) in chains)
            {
                if (isIndirect)
                {
                    ulong place = ChainMemory.TableOffset + ((ulong)(indirect - Size) * (ulong)sizeof(PackedDescriptor));
                    all[ring.Slot] = new(
                        new(place), (uint)(buffers.Count * sizeof(PackedDescriptor)), id, ring.AvailableFlags | DescriptorFlags.Indirect);
                    ring = ring.Plus(1, Size);
                }

                for (int i = 0; i < buffers.Count; i++)
                {
                    DescriptorFlags flags = buffers[i].IsWritable ? DescriptorFlags.Write : DescriptorFlags.None;
                    if (isIndirect)
                    {
                        all[indirect++] = new(buffers[i].Range.Address, (uint)buffers[i].Range.Length, 0, flags);
                        continue;
                    }

                    flags |= ring.AvailableFlags | (i + 1 < buffers.Count ? DescriptorFlags.Next : DescriptorFlags.None);
                    all[ring.Slot] = new(buffers[i].Range.Address, (uint)buffers[i].Range.Length, id, flags);
                    ring = ring.Plus(1, Size);
                }

                id++;
            }

            written.AddRange(MemoryMarshal.AsBytes(all.AsSpan()));
        }

        return [.. written];
    }

    private static byte[] Input(uint start, IEnumerable<PackedDescriptor>[] rings)
    {
        byte[] input = new byte[sizeof(uint) + (rings.Length * RoundBytes)];
        MemoryMarshal.Write(input, in start);
        Span<PackedDescriptor> all = MemoryMarshal.Cast<byte, PackedDescriptor>(input.AsSpan(sizeof(uint)));
        for (int i = 0; i < rings.Length; i++)
        {
            rings[i].ToArray().CopyTo(all[(i * (Size + IndirectEntries))..]);
        }

        return input;
    }
}
