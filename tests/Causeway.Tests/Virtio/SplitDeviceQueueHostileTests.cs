using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.Virtio;
using CsCheck;

namespace Causeway.Tests.Virtio;

/// <summary>Each rule for what the driver writes, broken once; then random bytes everywhere.</summary>
public sealed unsafe class SplitDeviceQueueHostileTests : IDisposable
{
    private const QueueFeatures AllFeatures = QueueFeatures.IndirectDescriptors | QueueFeatures.EventIndex;
    private const int RandomCases = 100_000;
    private const int Size = 8;

    private readonly QueueRig _rig = new(new(Size, AllFeatures, IndirectTableEntries: 16));
    private readonly DescriptorChain _chain = new();
    private readonly GuestAddress _buffer;
    private readonly GuestAddress _table;

    public SplitDeviceQueueHostileTests()
    {
        _buffer = _rig.Buffers;
        _table = new GuestAddress(_rig.Buffers.Value + 4096);
    }

    public void Dispose() => _rig.Dispose();

    [Fact]
    public void An_index_that_jumps_by_more_than_the_size_breaks_the_queue()
    {
        _rig.AvailableWords[1] = Size + 1;
        AssertBroken();
    }

    [Fact]
    public void A_head_beyond_the_table_breaks_the_queue()
    {
        _rig.AvailableWords[2] = Size;
        _rig.AvailableWords[1] = 1;
        Assert.Equal(PopResult.Broken, _rig.Device.TryPop(_chain));

        // Repairing it does not help: the queue stays broken.
        _rig.AvailableWords[2] = 0;
        AssertBroken();
    }

    [Fact]
    public void More_chains_in_flight_than_descriptors_break_the_queue()
    {
        Offer(new SplitDescriptor(_buffer, 10, DescriptorFlags.None, 0));
        var chains = Enumerable.Range(0, Size).Select(_ => new DescriptorChain()).ToList();
        for (int i = 0; i < Size; i++)
        {
            _rig.AvailableWords[1] = (ushort)(i + 1);
            Assert.Equal(PopResult.Popped, _rig.Device.TryPop(chains[i]));
        }

        _rig.AvailableWords[1] = Size + 1;
        AssertBroken();
    }

    [Fact]
    public void The_same_head_twice_is_given_back_twice()
    {
        Offer(new SplitDescriptor(_buffer, 10, DescriptorFlags.Write, 0));
        _rig.AvailableWords[1] = 2;
        var second = new DescriptorChain();
        Assert.Equal(PopResult.Popped, _rig.Device.TryPop(_chain));
        Assert.Equal(PopResult.Popped, _rig.Device.TryPop(second));
        _rig.Device.Push(second, 1);
        _rig.Device.Push(_chain, 2);
        _rig.Device.NeedsCall();
        Assert.Equal((0u, 1u), _rig.Oracle.UsedEntry(0));
        Assert.Equal((0u, 2u), _rig.Oracle.UsedEntry(1));
    }

    [Fact]
    public void A_loop_in_the_ring_is_sent_back()
    {
        AssertMalformed(
            new SplitDescriptor(_buffer, 10, DescriptorFlags.Next, 1),
            new SplitDescriptor(_buffer, 10, DescriptorFlags.Next, 0));
        AssertMalformed(new SplitDescriptor(_buffer, 0, DescriptorFlags.Next, 0));
    }

    [Fact]
    public void A_next_beyond_the_table_is_sent_back()
    {
        // Behind a table of 16 is the available ring. Its words are chosen to look like a good descriptor.
        using var rig = new QueueRig(new(16, QueueFeatures.None, 0));
        rig.Descriptors[0] = new SplitDescriptor(rig.Buffers, 10, DescriptorFlags.Next, 16);
        ulong address = rig.Buffers.Value;
        Span<ushort> good = [(ushort)address, (ushort)(address >> 16), 0, 0, 10, 0, 0, 0];
        good.CopyTo(rig.AvailableWords);
        Assert.Equal(16, rig.Oracle.AvailableIndex);

        Assert.Equal(PopResult.Malformed, rig.Device.TryPop(_chain));
    }

    [Theory]
    [InlineData(0UL, 1u)]
    [InlineData(QueueRig.Base - 1, 1u)]
    [InlineData(QueueRig.Base - 1, 2u)]
    [InlineData(QueueRig.SecondBase + QueueRig.SecondSize, 1u)]
    [InlineData(QueueRig.SecondBase + QueueRig.SecondSize - 1, 2u)]
    [InlineData(QueueRig.Base, uint.MaxValue)]
    [InlineData(ulong.MaxValue, 2u)]
    [InlineData(ulong.MaxValue - 4095, 8192u)]
    public void A_buffer_that_is_not_in_guest_memory_is_sent_back(ulong address, uint length)
    {
        AssertMalformed(new SplitDescriptor(new GuestAddress(address), length, DescriptorFlags.None, 0));
        AssertMalformed(
            new SplitDescriptor(_buffer, 10, DescriptorFlags.Next, 1),
            new SplitDescriptor(new GuestAddress(address), length, DescriptorFlags.Write, 0));
        WriteTable(new SplitDescriptor(new GuestAddress(address), length, DescriptorFlags.Write, 0));
        AssertMalformed(new SplitDescriptor(_table, 16, DescriptorFlags.Indirect, 0));
    }

    [Fact]
    public void A_buffer_over_the_border_of_adjacent_regions_is_two_pieces()
    {
        Offer(new SplitDescriptor(new(QueueRig.SecondBase - 100), 300, DescriptorFlags.Write, 0));
        Assert.Equal(PopResult.Popped, _rig.Device.TryPop(_chain));
        Assert.Equal(2, _chain.Writable.Count);
        Assert.Equal(300, _chain.Writable.Length);
        Assert.True(_chain.Writable.Vectors[0].Address == _rig.Start + QueueRig.RegionSize - 100);
        Assert.Equal(100u, _chain.Writable.Vectors[0].Length);
        Assert.True(_chain.Writable.Vectors[1].Address == _rig.Second);
        Assert.Equal(200u, _chain.Writable.Vectors[1].Length);
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(8u)]
    [InlineData(17u)]
    [InlineData(65537u * 16)]
    [InlineData(uint.MaxValue & ~15u)]
    public void A_table_of_a_wrong_length_is_sent_back(uint length)
    {
        WriteTable(new SplitDescriptor(_buffer, 10, DescriptorFlags.None, 0));
        AssertMalformed(new SplitDescriptor(_table, length, DescriptorFlags.Indirect, 0));
    }

    [Fact]
    public void A_table_outside_guest_memory_is_sent_back()
    {
        AssertMalformed(new SplitDescriptor(new(0), 16, DescriptorFlags.Indirect, 0));
        AssertMalformed(new SplitDescriptor(new(ulong.MaxValue - 15), 16, DescriptorFlags.Indirect, 0));
        AssertMalformed(new SplitDescriptor(
            new(QueueRig.SecondBase + QueueRig.SecondSize - 8), 16, DescriptorFlags.Indirect, 0));
    }

    [Fact]
    public void A_table_over_the_border_of_adjacent_regions_is_read()
    {
        // The second entry starts eight bytes before the border.
        var start = new GuestAddress(QueueRig.SecondBase - 24);
        Span<SplitDescriptor> entries =
        [
            new(_buffer, 11, DescriptorFlags.Next, 1),
            new(new(_buffer.Value + 100), 22, DescriptorFlags.Write, 0),
        ];
        ReadOnlySpan<byte> bytes = MemoryMarshal.AsBytes(entries);
        bytes[..24].CopyTo(new Span<byte>(_rig.At(start), 24));
        bytes[24..].CopyTo(new Span<byte>(_rig.Second, 8));

        Offer(new SplitDescriptor(start, 32, DescriptorFlags.Indirect, 0));
        Assert.Equal(PopResult.Popped, _rig.Device.TryPop(_chain));
        Assert.Equal(11, _chain.Readable.Length);
        Assert.Equal(22, _chain.Writable.Length);
    }

    [Fact]
    public void A_table_in_a_table_is_sent_back()
    {
        WriteTable(new SplitDescriptor(_table, 16, DescriptorFlags.Indirect, 0));
        AssertMalformed(new SplitDescriptor(_table, 16, DescriptorFlags.Indirect, 0));
    }

    [Fact]
    public void A_table_that_is_not_the_end_of_the_chain_is_sent_back()
    {
        WriteTable(new SplitDescriptor(_buffer, 10, DescriptorFlags.None, 0));
        AssertMalformed(
            new SplitDescriptor(_table, 16, DescriptorFlags.Indirect | DescriptorFlags.Next, 1),
            new SplitDescriptor(_buffer, 10, DescriptorFlags.None, 0));
    }

    [Fact]
    public void A_loop_in_a_table_and_a_next_beyond_it_are_sent_back()
    {
        WriteTable(
            new SplitDescriptor(_buffer, 0, DescriptorFlags.Next, 1),
            new SplitDescriptor(_buffer, 0, DescriptorFlags.Next, 0));
        AssertMalformed(new SplitDescriptor(_table, 32, DescriptorFlags.Indirect, 0));

        // The entry behind the table is a good one.
        WriteTable(
            new SplitDescriptor(_buffer, 10, DescriptorFlags.Next, 1),
            new SplitDescriptor(_buffer, 10, DescriptorFlags.None, 0));
        AssertMalformed(new SplitDescriptor(_table, 16, DescriptorFlags.Indirect, 0));
    }

    [Fact]
    public void A_table_is_sent_back_when_the_feature_was_not_agreed_on()
    {
        using var rig = new QueueRig(new(Size, QueueFeatures.None, 0));
        rig.Descriptors[0] = new SplitDescriptor(rig.Buffers, 16, DescriptorFlags.Indirect, 0);
        rig.AvailableWords[1] = 1;
        Assert.Equal(PopResult.Malformed, rig.Device.TryPop(_chain));
    }

    [Fact]
    public void Pieces_beyond_the_limit_are_sent_back_and_at_the_limit_are_not()
    {
        using var rig = new QueueRig(new(4096, QueueFeatures.None, 0));
        GuestRange[] buffers = [.. Enumerable.Range(0, DescriptorChain.MaxPieces + 1).Select(
            i => new GuestRange(new(rig.Buffers.Value + ((ulong)i * 2)), 1))];
        Assert.True(rig.Driver.TryAdd(buffers.AsSpan(0, 512), buffers.AsSpan(512, 512), out _));
        Assert.True(rig.Driver.TryAdd(buffers.AsSpan(0, 512), buffers.AsSpan(512, 513), out ushort head));
        rig.Driver.NeedsKick();

        Assert.Equal(PopResult.Popped, rig.Device.TryPop(_chain));
        Assert.Equal(512, _chain.Readable.Count);
        Assert.Equal(512, _chain.Writable.Count);
        Assert.Equal(PopResult.Malformed, rig.Device.TryPop(_chain));
        Assert.Equal(head, _chain.HeadIndex);
        Assert.Equal(0, _chain.Readable.Count);
        Assert.Equal(0, _chain.Writable.Count);
    }

    [Fact]
    public void More_than_four_gigabytes_in_one_chain_are_sent_back()
    {
        // A sparse file of 1 GiB, four times and five times in one chain.
        const uint Gigabyte = 1u << 30;
        using var file = Memory.CreateMemoryFile("big\0"u8, Gigabyte, FileSeals.None);
        GuestMemory big = _rig.Guest.Add(new(new(1UL << 32), new(1UL << 32), Gigabyte, 0), file);
        var device = new SplitDeviceQueue(_rig.Resolve(), big, new DeviceQueueStart(AllFeatures, 0));
        for (int i = 0; i < 5; i++)
        {
            _rig.Descriptors[i] = new SplitDescriptor(
                new(1UL << 32), Gigabyte - 1, i < 3 ? DescriptorFlags.Next : DescriptorFlags.None, (ushort)(i + 1));
        }

        _rig.AvailableWords[1] = 1;
        Assert.Equal(PopResult.Popped, device.TryPop(_chain));
        Assert.Equal(4L * (Gigabyte - 1), _chain.Readable.Length);

        _rig.Descriptors[3] = new SplitDescriptor(new(1UL << 32), Gigabyte - 1, DescriptorFlags.Next, 4);
        _rig.AvailableWords[1] = 2;
        Assert.Equal(PopResult.Malformed, device.TryPop(_chain));
        big.Release();
    }

    [Fact]
    public void Writable_before_readable_and_empty_buffers_work()
    {
        Offer(
            new SplitDescriptor(_buffer, 10, DescriptorFlags.Write | DescriptorFlags.Next, 1),
            new SplitDescriptor(new(0), 0, DescriptorFlags.Next, 2),
            new SplitDescriptor(_table, 20, DescriptorFlags.Next, 3),
            new SplitDescriptor(_buffer, 30, DescriptorFlags.Write, 0));
        Assert.Equal(PopResult.Popped, _rig.Device.TryPop(_chain));
        Assert.Equal(20, _chain.Readable.Length);
        Assert.Equal(40, _chain.Writable.Length);
        Assert.Equal(2, _chain.Writable.Count);
    }

    [Fact]
    public void A_chain_without_any_byte_is_a_chain()
    {
        Offer(new SplitDescriptor(new(ulong.MaxValue), 0, DescriptorFlags.None, 0));
        Assert.Equal(PopResult.Popped, _rig.Device.TryPop(_chain));
        Assert.Equal(0, _chain.Readable.Count + _chain.Writable.Count);
    }

    [Fact]
    public void Good_chains_around_a_malformed_one_are_not_affected()
    {
        _rig.Descriptors[0] = new SplitDescriptor(_buffer, 5, DescriptorFlags.Write, 0);
        _rig.Descriptors[1] = new SplitDescriptor(new(0), 5, DescriptorFlags.Write, 0);
        _rig.AvailableWords[2] = 0;
        _rig.AvailableWords[3] = 1;
        _rig.AvailableWords[4] = 0;
        _rig.AvailableWords[1] = 3;
        foreach (PopResult expected in new[] { PopResult.Popped, PopResult.Malformed, PopResult.Popped })
        {
            Assert.Equal(expected, _rig.Device.TryPop(_chain));
            _rig.Device.Push(_chain, expected == PopResult.Popped ? 5u : 0);
        }

        Assert.Equal(PopResult.Empty, _rig.Device.TryPop(_chain));
        _rig.Device.NeedsCall();
        Assert.Equal((0u, 5u), _rig.Oracle.UsedEntry(0));
        Assert.Equal((1u, 0u), _rig.Oracle.UsedEntry(1));
        Assert.Equal((0u, 5u), _rig.Oracle.UsedEntry(2));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(24)]
    [InlineData(65536)]
    public void A_size_that_is_no_size_is_refused(int size) =>
        Assert.False(QueueMemory.TryResolve(
            _rig.Guest, size, QueueFeatures.None, Addresses(0, 1024 * 64, 1024 * 128), out _));

    [Theory]
    [InlineData(8, 1024, 2048)]
    [InlineData(0, 1023, 2048)]
    [InlineData(0, 1024, 2050)]
    [InlineData(-16, 1024, 2048)]
    [InlineData((int)QueueRig.RegionSize - 64, 1024, 2048)]
    [InlineData(0, (int)QueueRig.RegionSize - 20, 2048)]
    [InlineData(0, 1024, (int)QueueRig.RegionSize - 68)]
    public void Rings_that_are_misaligned_or_not_inside_one_region_are_refused(int table, int available, int used) =>
        Assert.False(QueueMemory.TryResolve(
            _rig.Guest, Size, AllFeatures, Addresses(table, available, used), out _));

    [Fact]
    public void Rings_that_end_with_the_region_are_accepted_without_event_words_when_there_are_none()
    {
        Assert.True(QueueMemory.TryResolve(
            _rig.Guest, Size, QueueFeatures.None, Addresses(0, 1024, (int)QueueRig.RegionSize - 68), out _));
        Assert.True(QueueMemory.TryResolve(
            _rig.Guest, Size, QueueFeatures.None, Addresses(0, (int)QueueRig.RegionSize - 20, 2048), out _));
    }

    [Fact]
    public void Random_bytes_in_the_available_ring_never_lead_outside() => Gen.UInt.Sample(
        seed =>
        {
            var random = new Random((int)seed);
            FillDescriptors(random, _rig.Descriptors, Size);
            random.NextBytes(MemoryMarshal.AsBytes(_rig.AvailableWords));
            if (random.Next(4) > 0)
            {
                // Mostly an index and heads that make sense, or nothing would ever be popped.
                _rig.AvailableWords[1] = (ushort)random.Next(0, Size + 2);
                foreach (ref ushort head in _rig.AvailableWords[2..])
                {
                    head = (ushort)(random.Next(30) == 0 ? head : random.Next(Size));
                }
            }

            DrainAndCheck();
        },
        iter: RandomCases,
        threads: 1);

    [Fact]
    public void Random_bytes_in_the_descriptor_table_never_lead_outside() => Gen.UInt.Sample(
        seed =>
        {
            var random = new Random((int)seed);
            random.NextBytes(MemoryMarshal.AsBytes(_rig.Descriptors));
            if (random.Next(8) > 0)
            {
                FillDescriptors(random, _rig.Descriptors, Size);
            }

            OfferAllHeads();
            DrainAndCheck();
        },
        iter: RandomCases,
        threads: 1);

    [Fact]
    public void Random_bytes_in_indirect_tables_never_lead_outside() => Gen.UInt.Sample(
        seed =>
        {
            var random = new Random((int)seed);
            int entries = random.Next(1, 20);
            var table = new Span<SplitDescriptor>(_rig.At(_table), 20);
            random.NextBytes(MemoryMarshal.AsBytes(table));
            if (random.Next(8) > 0)
            {
                FillDescriptors(random, table, entries);
            }

            int shift = random.Next(8) == 0 ? random.Next(16) : 0;
            foreach (ref SplitDescriptor descriptor in _rig.Descriptors)
            {
                descriptor = new SplitDescriptor(
                    new(_table.Value + (ulong)shift), (uint)(entries * 16), DescriptorFlags.Indirect, 0);
            }

            OfferAllHeads();
            DrainAndCheck();
        },
        iter: RandomCases,
        threads: 1);

    [Fact]
    public void A_driver_that_changes_everything_meanwhile_never_leads_outside()
    {
        using var stop = new CancellationTokenSource();
        var scribbler = new Thread(() =>
        {
            var random = new Random(1);
            while (!stop.IsCancellationRequested)
            {
                FillDescriptors(random, _rig.Descriptors, Size);
                FillDescriptors(random, new Span<SplitDescriptor>(_rig.At(_table), 20), 20);
                Thread.Yield();
            }
        });
        scribbler.Start();
        try
        {
            for (int i = 0; i < 20_000; i++)
            {
                OfferAllHeads();
                DrainAndCheck();
            }
        }
        finally
        {
            stop.Cancel();
            scribbler.Join();
        }
    }

    /// <summary>Descriptors that are nearly right: borders of memory, small numbers, tables.</summary>
    private void FillDescriptors(Random random, Span<SplitDescriptor> table, int size)
    {
        ReadOnlySpan<ulong> addresses =
        [
            _buffer.Value, _table.Value, _table.Value + 8, QueueRig.Base, QueueRig.Base - 1, QueueRig.SecondBase,
            QueueRig.SecondBase - 7, QueueRig.SecondBase + QueueRig.SecondSize - 1,
            QueueRig.SecondBase + QueueRig.SecondSize, 0, ulong.MaxValue, ulong.MaxValue - 4095,
        ];
        ReadOnlySpan<uint> lengths =
            [0, 1, 8, 16, 32, 16 * 20, 4096, (uint)QueueRig.RegionSize, 65536 * 16, int.MaxValue, uint.MaxValue, 17];
        for (int i = 0; i < table.Length; i++)
        {
            bool isHarmless = random.Next(3) > 0;
            ulong address = isHarmless ? _buffer.Value : addresses[random.Next(addresses.Length)];
            uint length = isHarmless ? (uint)random.Next(64) : lengths[random.Next(lengths.Length)];
            var flags = (DescriptorFlags)(random.Next(4) | (random.Next(8) == 0 ? 4 : 0));

            // Forward in most cases: each loop costs a walk to the limit.
            int next = random.Next(6) == 0 ? random.Next(size + 1) : i + 1;
            table[i] = new SplitDescriptor(new(address), length, flags, (ushort)next);
        }
    }

    private void OfferAllHeads()
    {
        for (int i = 0; i < Size; i++)
        {
            _rig.AvailableWords[2 + i] = (ushort)i;
        }

        _rig.AvailableWords[1] = Size;
    }

    /// <summary>Pops what there is with a new device, and looks at every pointer it hands out.</summary>
    private void DrainAndCheck()
    {
        SplitDeviceQueue device = _rig.NewDevice(0);
        for (int i = 0; i <= Size; i++)
        {
            PopResult result = device.TryPop(_chain);
            if (result is PopResult.Empty or PopResult.Broken)
            {
                Assert.True(device.ArmNotifications() || result == PopResult.Empty);
                return;
            }

            AssertInside(_chain.Readable);
            AssertInside(_chain.Writable);
            Assert.InRange(_chain.Readable.Count + _chain.Writable.Count, 0, DescriptorChain.MaxPieces);
            Assert.InRange(_chain.HeadIndex, 0, Size - 1);
            device.Push(_chain, (uint)_chain.Writable.Length);
            device.NeedsCall();
        }

        Assert.Fail("more chains were popped than the ring has entries");
    }

    private void AssertInside(IoVectorList list)
    {
        foreach (IoVector vector in list.Vectors)
        {
            bool isInside = IsInside(vector, _rig.Start, QueueRig.RegionSize) ||
                IsInside(vector, _rig.Second, QueueRig.SecondSize);
            if (!isInside || vector.Length == 0)
            {
                Assert.Fail($"piece of {vector.Length} bytes at {(nuint)vector.Address:x}");
            }
        }
    }

    private static bool IsInside(IoVector vector, byte* start, ulong size) =>
        vector.Address >= start && vector.Address < start + size &&
        vector.Length <= (ulong)(start + size - vector.Address);

    private static QueueAddresses Addresses(int table, int available, int used) => new(
        new(QueueRig.FrontendBase + (ulong)table),
        new(QueueRig.FrontendBase + (ulong)available),
        new(QueueRig.FrontendBase + (ulong)used));

    private void Offer(params ReadOnlySpan<SplitDescriptor> descriptors)
    {
        descriptors.CopyTo(_rig.Descriptors);
        _rig.AvailableWords[2..^1].Clear();
        _rig.AvailableWords[1] = (ushort)(_rig.Device.NextAvailable + 1);
    }

    private void WriteTable(params ReadOnlySpan<SplitDescriptor> descriptors) =>
        descriptors.CopyTo(new Span<SplitDescriptor>(_rig.At(_table), descriptors.Length));

    private void AssertMalformed(params ReadOnlySpan<SplitDescriptor> descriptors)
    {
        Offer(descriptors);
        Assert.Equal(PopResult.Malformed, _rig.Device.TryPop(_chain));
        Assert.Equal(0, _chain.HeadIndex);
        Assert.Equal(0, _chain.Readable.Count);
        Assert.Equal(0, _chain.Writable.Count);

        // It goes back with length 0, and the queue goes on.
        ushort used = _rig.Oracle.UsedIndex;
        _rig.Device.Push(_chain, 0);
        _rig.Device.NeedsCall();
        Assert.Equal((0u, 0u), _rig.Oracle.UsedEntry(used));
        Assert.False(_rig.Device.IsBroken);
        Assert.Equal(PopResult.Empty, _rig.Device.TryPop(_chain));
    }

    private void AssertBroken()
    {
        Assert.Equal(PopResult.Broken, _rig.Device.TryPop(_chain));
        Assert.Equal(PopResult.Broken, _rig.Device.TryPop(_chain));
        Assert.True(_rig.Device.IsBroken);
        Assert.True(_rig.Device.ArmNotifications());
        Assert.False(_rig.Device.HasAvailable);
    }
}
