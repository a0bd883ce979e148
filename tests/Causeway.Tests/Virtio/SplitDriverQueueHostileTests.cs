using System.Runtime.InteropServices;
using Causeway.Virtio;
using CsCheck;

namespace Causeway.Tests.Virtio;

/// <summary>A device that lies to the driver's half.</summary>
public sealed unsafe class SplitDriverQueueHostileTests : IDisposable
{
    private const int Size = 8;
    private readonly QueueRig _rig = new(new(Size, QueueFeatures.None, 0));

    public void Dispose() => _rig.Dispose();

    [Theory]
    [InlineData(0, 16, TakeResult.Taken)]
    [InlineData(0, 17, TakeResult.Broken)]
    [InlineData(1, 0, TakeResult.Broken)]
    [InlineData(Size, 0, TakeResult.Broken)]
    [InlineData(-1, 0, TakeResult.Broken)]
    public void An_element_is_believed_only_for_a_chain_that_is_out_and_as_far_as_it_has_room(
        int id, uint written, TakeResult expected)
    {
        Assert.True(_rig.Driver.TryAdd([new(_rig.Buffers, 4)], [new(_rig.Buffers, 16)], out _));
        _rig.Driver.NeedsKick();
        Return(0, (uint)id, written);

        Assert.Equal(expected, _rig.Driver.TryTake(out _, out _));
        Assert.Equal(expected == TakeResult.Broken, _rig.Driver.IsBroken);
        Assert.Equal(
            expected == TakeResult.Broken ? TakeResult.Broken : TakeResult.Empty, _rig.Driver.TryTake(out _, out _));
    }

    [Fact]
    public void A_chain_that_comes_back_twice_breaks_the_queue()
    {
        Assert.True(_rig.Driver.TryAdd([new(_rig.Buffers, 4)], [], out ushort first));
        Assert.True(_rig.Driver.TryAdd([new(_rig.Buffers, 4)], [], out _));
        _rig.Driver.NeedsKick();
        Return(0, first, 0);
        Return(1, first, 0);

        Assert.Equal(TakeResult.Taken, _rig.Driver.TryTake(out _, out _));
        Assert.Equal(TakeResult.Broken, _rig.Driver.TryTake(out _, out _));
        Assert.Equal(1, _rig.Driver.Outstanding);
    }

    [Fact]
    public void An_index_beyond_what_is_out_breaks_the_queue()
    {
        Assert.True(_rig.Driver.TryAdd([new(_rig.Buffers, 4)], [], out _));
        _rig.Driver.NeedsKick();
        Return(0, 0, 0);
        UsedWords[1] = 2;
        Assert.Equal(TakeResult.Broken, _rig.Driver.TryTake(out _, out _));
    }

    [Fact]
    public void A_device_that_rewrites_the_descriptor_table_does_not_confuse_the_free_list()
    {
        GuestRange[] buffers = [.. Enumerable.Range(0, 4).Select(i => new GuestRange(_rig.Buffers, 8))];
        Assert.True(_rig.Driver.TryAdd(buffers, [], out ushort head));
        _rig.Driver.NeedsKick();
        foreach (ref SplitDescriptor descriptor in _rig.Descriptors)
        {
            descriptor = new SplitDescriptor(new(ulong.MaxValue), uint.MaxValue, (DescriptorFlags)0xFFFF, 0xFFFF);
        }

        Return(0, head, 0);
        Assert.Equal(TakeResult.Taken, _rig.Driver.TryTake(out _, out _));
        Assert.Equal(Size, _rig.Driver.FreeDescriptors);
        Assert.True(_rig.Driver.TryAdd(buffers, buffers, out _));
        Assert.Equal(0, _rig.Driver.FreeDescriptors);
        Assert.False(_rig.Driver.TryAdd(buffers.AsSpan(0, 1), [], out _));
    }

    [Fact]
    public void Random_bytes_in_the_used_ring_never_give_a_chain_twice_or_more_than_its_room() => Gen.UInt.Sample(
        seed =>
        {
            var random = new Random((int)seed);
            var driver = new SplitDriverQueue(_rig.Start, new(QueueRig.Base), new(Size, QueueFeatures.None, 0));
            var capacities = new Dictionary<ushort, uint>();
            int count = random.Next(0, Size);
            for (int i = 0; i < count; i++)
            {
                uint capacity = (uint)random.Next(1, 20);
                if (driver.TryAdd([new(_rig.Buffers, 4)], [new(_rig.Buffers, capacity)], out ushort head))
                {
                    capacities.Add(head, capacity);
                }
            }

            driver.NeedsKick();
            random.NextBytes(MemoryMarshal.AsBytes(UsedWords));
            if (random.Next(4) > 0)
            {
                UsedWords[1] = (ushort)random.Next(Size + 1);
                Span<uint> elements = MemoryMarshal.Cast<ushort, uint>(UsedWords[2..]);
                for (int i = 0; i + 1 < elements.Length; i += 2)
                {
                    elements[i] = (uint)random.Next(Size);
                    elements[i + 1] = (uint)random.Next(20);
                }
            }

            for (int i = 0; i <= Size; i++)
            {
                TakeResult result = driver.TryTake(out ushort head, out uint written);
                if (result != TakeResult.Taken)
                {
                    Assert.Equal(capacities.Count, driver.Outstanding);
                    return;
                }

                Assert.True(capacities.Remove(head, out uint capacity));
                Assert.True(written <= capacity);
            }

            Assert.Fail("more chains came back than were out");
        },
        iter: 100_000,
        threads: 1);

    private Span<ushort> UsedWords => new(_rig.At(_rig.Driver.DeviceArea), 2 + (4 * Size) + 1);

    private void Return(int index, uint id, uint written)
    {
        Span<uint> elements = MemoryMarshal.Cast<ushort, uint>(UsedWords[2..]);
        elements[2 * index] = id;
        elements[(2 * index) + 1] = written;
        UsedWords[1] = (ushort)(index + 1);
    }
}
