using System.Runtime.InteropServices;
using Causeway.Tests.Virtio;
using Causeway.Virtio;

namespace Causeway.Fuzz.Targets;

/// <summary>A device takes chains from a queue whose memory a hostile driver has written.</summary>
/// <remarks>
/// An input is the available ring (index, heads), then the descriptor table and a table for indirect descriptors, as they are in
/// memory but for their addresses (<see cref="ChainMemory.Place"/>).
/// </remarks>
internal static unsafe class ChainTarget
{
    private const int Size = 16;
    private const int IndirectEntries = 16;
    private const int RingBytes = 2 + (2 * Size);

    public static void Run(ReadOnlySpan<byte> input)
    {
        foreach (QueueFeatures features in (QueueFeatures[])[QueueFeatures.None, QueueFeatures.EventIndex | QueueFeatures.IndirectDescriptors])
        {
            using var rig = new QueueRig(new DriverQueueOptions { Size = Size, Features = features });
            Fill(rig, input);
            Drain(rig);
        }
    }

    /// <summary>What Linux guests make, and some chains that the specification allows or forbids.</summary>
    public static IEnumerable<(string Name, byte[] Input)> Seeds()
    {
        List<(bool IsIndirect, SplitDescriptor[] Chain)> recorded = [.. ChainMemory.Recorded().Select(ToSplit)];
        for (int i = 0; i < recorded.Count; i++)
        {
            yield return ($"linux-{i}", Input(recorded.GetRange(i, 1)));
        }

        // As many of them as the tables have room for, at the same time.
        while (recorded.Count > 0)
        {
            int entries = 0;
            List<(bool IsIndirect, SplitDescriptor[] Chain)> some = [.. recorded.TakeWhile(one => (entries += one.Chain.Length) <= Size)];
            yield return ($"linux-{recorded.Count}-and-before", Input(some));
            recorded.RemoveRange(0, some.Count);
        }

        SplitDescriptor[] direct = new SplitDescriptor[Size];
        direct[0] = new(new(0x9000), 56, DescriptorFlags.Next, 1);
        direct[1] = new(new(0x9100), 120, DescriptorFlags.Write, 0);
        yield return ("two", Input(1, [0], direct, []));

        SplitDescriptor[] several = [.. direct];
        several[2] = new(new(0x9000), 40, DescriptorFlags.Next, 3);
        several[3] = new(new(0x9200), 0, DescriptorFlags.Next, 4);
        several[4] = new(new(0x9300), 16, DescriptorFlags.Next, 5);
        several[5] = new(new(QueueRig.RegionSize - 100), 4096, DescriptorFlags.Next | DescriptorFlags.Write, 6);
        several[6] = new(new(0xa000), 16, DescriptorFlags.Write, 0);
        yield return ("border", Input(2, [0, 2], several, []));

        SplitDescriptor[] indirect = [.. direct];
        indirect[7] = new(new(ChainMemory.TableOffset), 48, DescriptorFlags.Indirect, 0);
        yield return ("indirect", Input(1, [7], indirect, [several[2], direct[1], several[6]]));

        SplitDescriptor[] loop = [.. direct];
        loop[1] = new(new(0x9100), 120, DescriptorFlags.Next, 0);
        yield return ("loop", Input(3, [0, 1, 15], loop, []));
    }

    private static (bool IsIndirect, SplitDescriptor[] Chain) ToSplit(RecordedChain recorded)
    {
        int last = recorded.Buffers.Count - 1;
        return (recorded.IsIndirect, [.. recorded.Buffers.Select((buffer, i) => new SplitDescriptor(
            buffer.Range.Address,
            (uint)buffer.Range.Length,
            (buffer.IsWritable ? DescriptorFlags.Write : DescriptorFlags.None) | (i < last ? DescriptorFlags.Next : DescriptorFlags.None),
            (ushort)(i + 1)))]);
    }

    // Each indirect chain has one descriptor of the ring's table, and a piece of the other table.
    private static byte[] Input(List<(bool IsIndirect, SplitDescriptor[] Chain)> chains)
    {
        var heads = new List<ushort>();
        var table = new List<SplitDescriptor>();
        var indirect = new List<SplitDescriptor>();
        foreach ((bool isIndirect, SplitDescriptor[] chain) in chains)
        {
            heads.Add((ushort)table.Count);
            if (isIndirect)
            {
                ulong place = ChainMemory.TableOffset + ((ulong)indirect.Count * (ulong)sizeof(SplitDescriptor));
                table.Add(new(new(place), (uint)(chain.Length * sizeof(SplitDescriptor)), DescriptorFlags.Indirect, 0));
                indirect.AddRange(chain);
            }
            else
            {
                int first = table.Count;
                table.AddRange(chain.Select(one => new SplitDescriptor(one.Address, one.Length, one.Flags, (ushort)(one.Next + first))));
            }
        }

        return Input((ushort)heads.Count, [.. heads], [.. table, .. new SplitDescriptor[Size - table.Count]], [.. indirect]);
    }

    private static byte[] Input(ushort index, ushort[] heads, SplitDescriptor[] table, SplitDescriptor[] indirect)
    {
        byte[] input = new byte[RingBytes + ((Size + IndirectEntries) * sizeof(SplitDescriptor))];
        MemoryMarshal.Write(input, in index);
        heads.CopyTo(MemoryMarshal.Cast<byte, ushort>(input.AsSpan(2, 2 * Size)));
        Span<SplitDescriptor> all = MemoryMarshal.Cast<byte, SplitDescriptor>(input.AsSpan(RingBytes));
        table.CopyTo(all);
        indirect.CopyTo(all[Size..]);
        return input;
    }

    private static void Fill(QueueRig rig, ReadOnlySpan<byte> input)
    {
        Span<byte> padded = stackalloc byte[RingBytes + ((Size + IndirectEntries) * sizeof(SplitDescriptor))];
        padded.Clear();
        input[..Math.Min(input.Length, padded.Length)].CopyTo(padded);

        ReadOnlySpan<ushort> ring = MemoryMarshal.Cast<byte, ushort>(padded[..RingBytes]);
        // flags, idx, ring
        rig.AvailableWords[1] = ring[0];
        ring[1..].CopyTo(rig.AvailableWords[2..]);
        ReadOnlySpan<SplitDescriptor> all = MemoryMarshal.Cast<byte, SplitDescriptor>(padded[RingBytes..]);
        Copy(all[..Size], rig.Descriptors);
        Copy(all[Size..], new Span<SplitDescriptor>(rig.Start + ChainMemory.TableOffset, IndirectEntries));
    }

    private static void Copy(ReadOnlySpan<SplitDescriptor> from, Span<SplitDescriptor> to)
    {
        for (int i = 0; i < from.Length; i++)
        {
            SplitDescriptor one = from[i];
            to[i] = new SplitDescriptor(ChainMemory.Place(one.Address), one.Length, one.Flags, one.Next);
        }
    }

    private static void Drain(QueueRig rig)
    {
        var chain = new DescriptorChain();
        for (int i = 0; i <= Size; i++)
        {
            PopResult result = rig.Device.TryPop(chain);
            if (result is PopResult.Empty or PopResult.Broken)
            {
                return;
            }

            ChainMemory.AssertInside(rig.Guest, chain);
            Assert.InRange(chain.HeadIndex, 0, Size - 1);
            rig.Device.Push(chain, (uint)chain.Writable.Length);
            rig.Device.NeedsCall();
        }

        Assert.Fail("more chains were popped than the ring has entries");
    }
}
