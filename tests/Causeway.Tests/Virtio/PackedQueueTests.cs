using System.Runtime.InteropServices;
using Causeway.Linux;
using Causeway.Virtio;
using CsCheck;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Virtio;

/// <summary>A packed queue's bytes, each rule for what the other side writes broken once, and random bytes.</summary>
public sealed unsafe class PackedQueueTests : IDisposable
{
    private const QueueFeatures AllFeatures = QueueFeatures.IndirectDescriptors | QueueFeatures.EventIndex;
    private const int Size = 4;
    private const DescriptorFlags Available = DescriptorFlags.Available;
    private const DescriptorFlags Used = DescriptorFlags.Available | DescriptorFlags.Used;

    private readonly PackedQueueRig _rig = new(new(Size, AllFeatures, IndirectTableEntries: 4));
    private readonly DescriptorChain _chain = new();

    public void Dispose() => _rig.Dispose();

    [Fact]
    public void The_bytes_are_those_of_the_specification()
    {
        using var rig = new PackedQueueRig(new(2, QueueFeatures.EventIndex, 0));
        GuestRange[] readable = [new(new(0x100200), 40)];
        GuestRange[] writable = [new(new(0x100300), 16)];

        // addr, len, id, flags. The first lap: wrap counter 1, so AVAIL is set and USED is not.
        Assert.True(rig.Driver.TryAdd(readable, writable, out ushort id));
        Assert.Equal(0, id);
        Assert.Equal(
            "0002100000000000" + "28000000" + "0000" + "8100" + "0003100000000000" + "10000000" + "0000" + "8200",
            rig.Hex(rig.Driver.DescriptorArea, 32));

        // Used: both bits, WRITE, and what was written; addr is left as it was, and so is the rest of the list.
        Assert.Equal(PopResult.Popped, rig.Device.TryPop(_chain));
        rig.Device.Push(_chain, 9);
        Assert.Equal(
            "0002100000000000" + "09000000" + "0000" + "8280" + "0003100000000000" + "10000000" + "0000" + "8200",
            rig.Hex(rig.Driver.DescriptorArea, 32));
        Assert.Equal(TakeResult.Taken, rig.Driver.TryTake(out _, out _));

        // The second lap turns the bits over; nothing written, so no WRITE.
        Assert.True(rig.Driver.TryAdd(readable, writable, out _));
        Assert.EndsWith("0180", rig.Hex(rig.Driver.DescriptorArea, 16), StringComparison.Ordinal);
        Assert.Equal(PopResult.Popped, rig.Device.TryPop(_chain));
        rig.Device.Push(_chain, 0);
        Assert.EndsWith("0000", rig.Hex(rig.Driver.DescriptorArea, 16), StringComparison.Ordinal);
        Assert.Equal(0x8000_8000u, rig.Device.Base);

        // Event suppression: off and wrap, then flags.
        Assert.False(rig.Device.ArmNotifications() && rig.Driver.ArmCalls());
        Assert.Equal("00800200", rig.Hex(rig.Driver.DeviceArea, 4));
        Assert.Equal("00000200", rig.Hex(rig.Driver.DriverArea, 4));
        rig.Device.DisarmNotifications();
        rig.Driver.DisarmCalls();
        Assert.Equal("00000100", rig.Hex(rig.Driver.DeviceArea, 4));
        Assert.Equal("00000100", rig.Hex(rig.Driver.DriverArea, 4));
    }

    [Theory]
    [InlineData(QueueFeatures.PackedRing, 3, true)]
    [InlineData(QueueFeatures.PackedRing, 0, false)]
    [InlineData(QueueFeatures.PackedRing, 32769, false)]
    [InlineData(QueueFeatures.None, 4, true)]
    [InlineData(QueueFeatures.None, 3, false)]
    [InlineData(QueueFeatures.None, 65536, false)]
    public void A_size_that_the_ring_cannot_have_is_refused(QueueFeatures features, int size, bool isValid)
    {
        var options = new DriverQueueOptions(size, features, IndirectTableEntries: 0);

        Exception? refusal = Record.Exception(() => DriverQueue.GetRequiredBytes(options));

        Assert.Equal(isValid, refusal is null);
        Assert.True(isValid || refusal is ArgumentOutOfRangeException);
    }

    [Fact]
    public void An_indirect_table_has_one_descriptor_in_the_ring()
    {
        GuestRange[] two = [new(_rig.Buffers, 8), new(new(_rig.Buffers.Value + 100), 8)];
        Assert.True(_rig.Driver.TryAdd(two, two, out _));
        Assert.Equal(Size - 1, _rig.Driver.FreeDescriptors);
        Assert.EndsWith("400000000000" + "8400", _rig.Hex(_rig.Driver.DescriptorArea, 16), StringComparison.Ordinal);

        // The flags of entries but WRITE, and their ids, mean nothing.
        var table = new Span<PackedDescriptor>(_rig.At(_rig.Ring[0].Address), 4);
        table[0] = new(table[0].Address, 8, 77, DescriptorFlags.Next | DescriptorFlags.Indirect | Used);
        Assert.Equal(PopResult.Popped, _rig.Device.TryPop(_chain));
        Assert.Equal(16, _chain.Readable.Length);
        Assert.Equal(2, _chain.Writable.Count);
    }

    [Theory]
    [InlineData(0x8000_8004u)]
    [InlineData(0x8004_8000u)]
    [InlineData(0xffff_ffffu)]
    public void A_base_outside_the_ring_makes_a_broken_queue(uint start)
    {
        PackedDeviceQueue device = _rig.NewDevice(start);
        Assert.True(device.IsBroken);
        Assert.Equal(PopResult.Broken, device.TryPop(_chain));
        Assert.True(device.ArmNotifications());
    }

    [Fact]
    public void A_queue_goes_on_where_another_one_stopped()
    {
        GuestRange[] three = [new(_rig.Buffers, 1), new(new(_rig.Buffers.Value + 9), 1), new(new(_rig.Buffers.Value + 18), 1)];
        PackedDeviceQueue device = _rig.Device;
        for (int i = 0; i < 20; i++)
        {
            Assert.True(_rig.Driver.TryAdd(three, [], directCount: 3, out ushort id));
            Assert.Equal(PopResult.Popped, device.TryPop(_chain));
            Assert.Equal(id, _chain.HeadIndex);
            device.Push(_chain, 0);
            Assert.True(device.NeedsCall());
            Assert.Equal(TakeResult.Taken, _rig.Driver.TryTake(out _, out _));
            device = _rig.NewDevice(device.Base);
        }
    }

    [Fact]
    public void A_list_whose_end_is_not_available_breaks_the_queue()
    {
        _rig.Ring[0] = new(_rig.Buffers, 8, 0, Available | DescriptorFlags.Next);
        AssertBroken();

        // Repairing it does not help: the queue stays broken.
        _rig.Ring[1] = new(_rig.Buffers, 8, 0, Available);
        AssertBroken();
    }

    [Fact]
    public void A_list_without_end_breaks_the_queue()
    {
        _rig.Ring.Fill(new(_rig.Buffers, 8, 0, Available | DescriptorFlags.Next));
        AssertBroken();
    }

    [Fact]
    public void A_list_beyond_what_is_free_breaks_the_queue()
    {
        _rig.Ring.Fill(new(_rig.Buffers, 8, 0, Available));
        Assert.Equal(PopResult.Popped, _rig.Device.TryPop(_chain));

        // In the next lap the first descriptor is still the device's, and three are left.
        _rig.Ring[0] = new(_rig.Buffers, 8, 0, DescriptorFlags.Used);
        for (int i = 0; i < Size - 1; i++)
        {
            Assert.Equal(PopResult.Popped, _rig.Device.TryPop(_chain));
        }

        AssertBroken();
    }

    public static TheoryData<ulong, uint, DescriptorFlags> MalformedFirst => new()
    {
        { 0, 1, DescriptorFlags.None },
        { QueueRig.SecondBase + QueueRig.SecondSize - 1, 2, DescriptorFlags.Write },
        { ulong.MaxValue, 2, DescriptorFlags.None },
        { QueueRig.Base, 0, DescriptorFlags.Indirect },
        { QueueRig.Base, 17, DescriptorFlags.Indirect },
        { QueueRig.Base, 16 * 1025, DescriptorFlags.Indirect },
        { ulong.MaxValue - 4, 16, DescriptorFlags.Indirect },
        { QueueRig.SecondBase + QueueRig.SecondSize - 16, 32, DescriptorFlags.Indirect },
    };

    [Theory]
    [MemberData(nameof(MalformedFirst))]
    public void A_list_that_cannot_be_used_is_sent_back_as_a_whole(ulong address, uint length, DescriptorFlags flags)
    {
        _rig.Ring[0] = new(new(address), length, 5, Available | flags | DescriptorFlags.Next);
        _rig.Ring[1] = new(_rig.Buffers, 8, 6, Available);
        _rig.Ring[2] = new(new(address), length, 7, Available | flags);
        _rig.Ring[3] = new(_rig.Buffers, 8, 8, Available);

        // Its id is the last descriptor's, and what follows it is the next one.
        foreach ((ushort id, PopResult result) in
            ((ushort, PopResult)[])[(6, PopResult.Malformed), (7, PopResult.Malformed), (8, PopResult.Popped)])
        {
            Assert.Equal(result, _rig.Device.TryPop(_chain));
            Assert.Equal(id, _chain.HeadIndex);
            Assert.Equal(0, result == PopResult.Malformed ? _chain.Readable.Length + _chain.Writable.Length : 0);
            _rig.Device.Push(_chain, 0);
        }

        Assert.True(_rig.Oracle.IsUsed(0) && _rig.Oracle.IsUsed(2) && _rig.Oracle.IsUsed(3));
        Assert.Equal(0, _rig.Device.InFlight);
    }

    [Fact]
    public void A_table_in_a_list_and_a_table_that_was_not_agreed_on_are_sent_back()
    {
        _rig.Ring[0] = new(_rig.Buffers, 8, 0, Available | DescriptorFlags.Next);
        _rig.Ring[1] = new(_rig.Buffers, 16, 0, Available | DescriptorFlags.Indirect);
        Assert.Equal(PopResult.Malformed, _rig.Device.TryPop(_chain));

        using var without = new PackedQueueRig(new(Size, QueueFeatures.None, 0));
        without.Ring[0] = new(without.Buffers, 16, 0, Available | DescriptorFlags.Indirect);
        Assert.Equal(PopResult.Malformed, without.Device.TryPop(_chain));
    }

    [Fact]
    public void A_table_over_two_regions_is_read()
    {
        Assert.True(_rig.Guest.TryTranslate(new GuestAddress(QueueRig.SecondBase - 16), 16, out byte* last));
        Assert.True(_rig.Guest.TryTranslate(new GuestAddress(QueueRig.SecondBase), 16, out byte* first));
        *(PackedDescriptor*)last = new(_rig.Buffers, 8, 0, DescriptorFlags.None);
        *(PackedDescriptor*)first = new(_rig.Buffers, 9, 0, DescriptorFlags.Write);
        _rig.Ring[0] = new(new(QueueRig.SecondBase - 16), 32, 3, Available | DescriptorFlags.Indirect);
        Assert.Equal(PopResult.Popped, _rig.Device.TryPop(_chain));
        Assert.Equal((8, 9), (_chain.Readable.Length, _chain.Writable.Length));
    }

    [Fact]
    public void Random_rings_never_make_the_device_give_back_more_than_it_took() => Gen.UInt.Sample(
        seed =>
        {
            var random = new Random((int)seed);
            random.NextBytes(MemoryMarshal.AsBytes(_rig.Ring));
            foreach (ref PackedDescriptor descriptor in _rig.Ring)
            {
                DescriptorFlags flags = (DescriptorFlags)(random.Next(8) & random.Next(8)) |
                    (random.Next(8) > 0 ? Available : (DescriptorFlags)random.Next(65536));
                descriptor = new(
                    new(_rig.Buffers.Value + (ulong)random.Next(100)), (uint)random.Next(4) * 16, (ushort)random.Next(9), flags);
            }

            PackedDeviceQueue device = _rig.NewDevice(0x8000_8000);
            int slots = 0;
            for (int i = 0; i <= Size; i++)
            {
                PopResult result = device.TryPop(_chain);
                Assert.Equal(result == PopResult.Broken, device.IsBroken);
                if (result is PopResult.Empty or PopResult.Broken)
                {
                    break;
                }

                Assert.InRange(device.InFlight, slots + 1, Size);
                slots = device.InFlight;
            }

            Assert.InRange(slots, 0, Size);
        },
        iter: 50_000,
        threads: 1);

    [Theory]
    [InlineData(0, 16, TakeResult.Taken)]
    [InlineData(0, 17, TakeResult.Broken)]
    [InlineData(1, 0, TakeResult.Broken)]
    [InlineData(Size, 0, TakeResult.Broken)]
    [InlineData(ushort.MaxValue, 0, TakeResult.Broken)]
    public void A_used_descriptor_is_believed_only_for_a_chain_that_is_out_and_as_far_as_it_has_room(
        int id, uint written, TakeResult expected)
    {
        Assert.True(_rig.Driver.TryAdd([new(_rig.Buffers, 4)], [new(_rig.Buffers, 16)], out _));
        _rig.Ring[0] = new(default, written, (ushort)id, Used | DescriptorFlags.Write);

        Assert.Equal(expected, _rig.Driver.TryTake(out _, out _));
        Assert.Equal(expected == TakeResult.Broken, _rig.Driver.IsBroken);
        Assert.Equal(
            expected == TakeResult.Broken ? TakeResult.Broken : TakeResult.Empty, _rig.Driver.TryTake(out _, out _));
    }

    [Fact]
    public void A_chain_that_comes_back_twice_breaks_the_drivers_queue()
    {
        Assert.True(_rig.Driver.TryAdd([new(_rig.Buffers, 4)], [], out ushort first));
        Assert.True(_rig.Driver.TryAdd([new(_rig.Buffers, 4)], [], out _));
        _rig.Ring[0] = new(default, 0, first, Used);
        _rig.Ring[1] = new(default, 0, first, Used);
        Assert.Equal(TakeResult.Taken, _rig.Driver.TryTake(out _, out _));
        Assert.Equal(TakeResult.Broken, _rig.Driver.TryTake(out _, out _));
        Assert.Equal(1, _rig.Driver.Outstanding);
    }

    [Fact]
    public void Pages_written_to_buffers_to_the_ring_and_to_the_event_structure_are_logged()
    {
        using SafeFileHandle file = Memory.CreateMemoryFile("log\0"u8, 4096, FileSeals.None);
        using var log = new DirtyLog(file, 4096, 0);
        ulong page = 4096;
        ulong buffer = QueueRig.Base + (8 * page);
        Assert.True(_rig.Driver.TryAdd([], [new(new(buffer), 16)], out _));
        Assert.Equal(PopResult.Popped, _rig.Device.TryPop(_chain));
        _rig.Device.SetDirtyLog(log, new GuestAddress(3 * page));
        _rig.Device.Push(_chain, 16);
        _ = _rig.Device.ArmNotifications();

        Span<byte> bits = new byte[4096];
        Assert.Equal(4096, RandomAccess.Read(file, bits, 0));
        List<ulong> marked = [.. Enumerable.Range(0, 4096 * 8).Where(i => IsMarked(file, i)).Select(i => (ulong)i)];
        Assert.Equal([3, QueueRig.Base / page, buffer / page], marked);
    }

    [Fact]
    public void A_request_allocates_nothing()
    {
        GuestRange[] readable = [new(_rig.Buffers, 8)];
        GuestRange[] writable = [new(new(_rig.Buffers.Value + 64), 16)];
        Run(100);
        long before = GC.GetAllocatedBytesForCurrentThread();
        Run(10_000);
        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());

        void Run(int count)
        {
            for (int i = 0; i < count; i++)
            {
                _rig.Driver.TryAdd(readable, writable, out _);
                _rig.Driver.NeedsKick();
                _rig.Device.DisarmNotifications();
                _rig.Device.TryPop(_chain);
                _rig.Device.Push(_chain, 16);
                _rig.Device.NeedsCall();
                _rig.Device.ArmNotifications();
                _rig.Driver.TryTake(out _, out _);
                _rig.Driver.ArmCalls();
                _rig.Driver.DisarmCalls();
            }
        }
    }

    private static bool IsMarked(SafeFileHandle file, int page)
    {
        Span<byte> one = stackalloc byte[1];
        RandomAccess.Read(file, one, page / 8);
        return (one[0] & (1 << (page % 8))) != 0;
    }

    private void AssertBroken()
    {
        Assert.Equal(PopResult.Broken, _rig.Device.TryPop(_chain));
        Assert.True(_rig.Device.IsBroken);
        Assert.False(_rig.Device.HasAvailable);
        Assert.True(_rig.Device.ArmNotifications());
    }
}
