using Causeway.Linux;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.Virtio;

/// <summary>What the random programs do not reach: batches, restarts, the dirty log, allocation.</summary>
public sealed unsafe class SplitDeviceQueueTests
{
    [Fact]
    public void Nothing_is_allocated_once_queues_and_chains_exist()
    {
        using var rig = new QueueRig(
            new(64, QueueFeatures.EventIndex | QueueFeatures.IndirectDescriptors, IndirectTableEntries: 8));
        var chain = new DescriptorChain();
        Turns(rig, chain, 100);

        Assert.Equal(0, Allocations.Least(() => Turns(rig, chain, 10_000)));
    }

    [Fact]
    public void A_batch_asks_for_one_call_and_each_chain_is_visible_at_once()
    {
        using var rig = new QueueRig(new(8, QueueFeatures.EventIndex, 0));
        DescriptorChain[] chains = [new(), new(), new()];
        int pushed = 0;
        for (int i = 0; i < 3; i++)
        {
            Assert.True(rig.Driver.TryAdd([], [new(rig.Buffers, 16)], out _));
        }

        rig.Driver.NeedsKick();
        foreach (DescriptorChain chain in chains)
        {
            Assert.Equal(PopResult.Popped, rig.Device.TryPop(chain));
            rig.Device.Push(chain, 16);
            Assert.Equal(++pushed, rig.Oracle.UsedIndex);
        }

        Assert.True(rig.Device.NeedsCall());
        Assert.False(rig.Device.NeedsCall());
    }

    [Fact]
    public void The_first_call_of_a_started_queue_does_not_depend_on_used_event()
    {
        using var rig = new QueueRig(new(8, QueueFeatures.EventIndex, 0));
        var chain = new DescriptorChain();
        rig.AvailableWords[^1] = 1000;

        Assert.True(Complete(rig, rig.Device, chain));
        Assert.False(Complete(rig, rig.Device, chain));
        rig.Device.Rebind(rig.Resolve(), rig.Guest);
        Assert.True(Complete(rig, rig.Device, chain));
        Assert.False(Complete(rig, rig.Device, chain));
    }

    [Fact]
    public void A_queue_made_again_goes_on_where_the_last_one_stopped()
    {
        using var rig = new QueueRig(new(8, QueueFeatures.None, 0), startIndex: 65533);
        var chain = new DescriptorChain();
        SplitDeviceQueue device = rig.Device;
        for (int i = 0; i < 20; i++)
        {
            Complete(rig, device, chain);
            Assert.Equal(TakeResult.Taken, rig.Driver.TryTake(out _, out _));
            device = rig.NewDevice(device.NextAvailable);
        }

        Assert.Equal(17, device.NextAvailable);
        Assert.Equal(17, device.NextUsed);
    }

    [Fact]
    public void A_chain_that_is_put_back_is_the_next_one_again()
    {
        using var rig = new QueueRig(new(8, QueueFeatures.None, 0), startIndex: 65535);
        var chain = new DescriptorChain();
        Assert.True(rig.Driver.TryAdd([], [new(rig.Buffers, 16)], out ushort first));
        Assert.True(rig.Driver.TryAdd([], [new(rig.Buffers, 32)], out ushort second));
        rig.Driver.NeedsKick();
        for (int i = 0; i < 100; i++)
        {
            Assert.Equal(PopResult.Popped, rig.Device.TryPop(chain));
            Assert.Equal(first, chain.HeadIndex);
            rig.Device.PutBack(chain);
        }

        Assert.Equal(65535, rig.Device.NextAvailable);
        Assert.Equal(0, rig.Device.InFlight);
        Assert.True(rig.Device.HasAvailable);
        Assert.Equal(PopResult.Popped, rig.Device.TryPop(chain));
        Assert.Equal((first, 16), (chain.HeadIndex, chain.Writable.Length));
        Assert.Equal(PopResult.Popped, rig.Device.TryPop(chain));
        Assert.Equal((second, 32), (chain.HeadIndex, chain.Writable.Length));
        Assert.Equal(PopResult.Empty, rig.Device.TryPop(chain));
    }

    [Fact]
    public void Memory_can_be_exchanged_while_the_queue_rests()
    {
        using var rig = new QueueRig(new(8, QueueFeatures.None, 0));
        var chain = new DescriptorChain();
        Complete(rig, rig.Device, chain);

        // A table that adds a region; what the driver adds next lies there.
        using SafeFileHandle file = Memory.CreateMemoryFile("more\0"u8, 4096, FileSeals.None);
        GuestMemory more = rig.Guest.Add(new(new(1UL << 40), new(1UL << 40), 4096, 0), file);
        Assert.True(rig.Driver.TryAdd([new(new(1UL << 40), 100)], [], out _));
        rig.Driver.NeedsKick();
        rig.Device.Rebind(rig.Resolve(), more);
        Assert.Equal(PopResult.Popped, rig.Device.TryPop(chain));
        Assert.Equal(100, chain.Readable.Length);
        rig.Device.Push(chain, 0);
        rig.Device.NeedsCall();
        more.Release();
    }

    [Fact]
    public void Without_event_words_the_flags_say_whether_to_kick_and_to_call()
    {
        using var rig = new QueueRig(new(8, QueueFeatures.None, 0));
        var chain = new DescriptorChain();

        rig.Device.DisarmNotifications();
        rig.Driver.DisarmCalls();
        Assert.True(rig.Driver.TryAdd([new(rig.Buffers, 4)], [], out _));
        Assert.False(rig.Driver.NeedsKick());
        Assert.Equal(PopResult.Popped, rig.Device.TryPop(chain));
        rig.Device.Push(chain, 0);
        Assert.False(rig.Device.NeedsCall());

        Assert.True(rig.Device.ArmNotifications());
        Assert.False(rig.Driver.ArmCalls());
        Assert.True(rig.Driver.TryAdd([new(rig.Buffers, 4)], [], out _));
        Assert.True(rig.Driver.NeedsKick());
        Assert.False(rig.Device.ArmNotifications());
        Assert.Equal(PopResult.Popped, rig.Device.TryPop(chain));
        rig.Device.Push(chain, 0);
        Assert.True(rig.Device.NeedsCall());
    }

    [Fact]
    public void A_device_that_looks_by_itself_is_kicked_once_more_wait_than_it_said()
    {
        using var rig = new QueueRig(new(8, QueueFeatures.EventIndex, 0));
        Assert.True(rig.Device.ArmNotificationsAfter(4));
        for (int i = 0; i < 5; i++)
        {
            Assert.True(rig.Driver.TryAdd([new(rig.Buffers, 4)], [], out _));
            Assert.Equal(i == 4, rig.Driver.NeedsKick());
            Assert.Equal(i < 4, rig.Device.ArmNotificationsAfter(4));
        }

        // And for the next one again, once it asks for that.
        var chain = new DescriptorChain();
        while (rig.Device.TryPop(chain) == PopResult.Popped)
        {
            rig.Device.Push(chain, 0);
        }

        rig.Device.NeedsCall();
        Assert.True(rig.Device.ArmNotifications());
        Assert.True(rig.Driver.TryAdd([new(rig.Buffers, 4)], [], out _));
        Assert.True(rig.Driver.NeedsKick());
    }

    [Fact]
    public void A_device_that_looks_by_itself_is_never_kicked_without_event_words()
    {
        using var rig = new QueueRig(new(4, QueueFeatures.None, 0));
        Assert.True(rig.Device.ArmNotificationsAfter(4));
        for (int i = 0; i < 4; i++)
        {
            Assert.True(rig.Driver.TryAdd([new(rig.Buffers, 4)], [], out _));
            Assert.False(rig.Driver.NeedsKick());
        }

        Assert.False(rig.Device.ArmNotifications());
    }

    [Fact]
    public void Pages_written_to_buffers_and_to_the_used_ring_are_logged()
    {
        using var rig = new QueueRig(new(8, QueueFeatures.EventIndex, 0));
        using SafeFileHandle file = Memory.CreateMemoryFile("log\0"u8, 4096, FileSeals.None);
        using var log = new DirtyLog(file, 4096, 0);
        var chain = new DescriptorChain();
        ulong first = rig.Buffers.Value + 8192;
        Assert.True(rig.Driver.TryAdd(
            [new(rig.Buffers, 100)],
            [new(new(first), 16), new(new(first + 0x10000), 4096), new(new(first + 0x20000), 4096)],
            out _));
        rig.Driver.NeedsKick();

        // The log starts while the chain is with the device; the last piece stays unwritten.
        Assert.Equal(PopResult.Popped, rig.Device.TryPop(chain));
        rig.Device.SetDirtyLog(log, rig.Driver.DeviceArea);
        _ = chain.Writable.Narrow(0, 8);
        rig.Device.Push(chain, 16 + 4096);
        rig.Device.NeedsCall();
        rig.Device.ArmNotifications();

        ulong usedStart = rig.Driver.DeviceArea.Value;
        ulong usedEnd = usedStart + 4 + (8 * 8) + 1;
        ulong[] expected =
        [
            .. new[]
            {
                usedStart, usedEnd, first, first + 15, first + 0x10000, first + 0x10000 + 4095,
            }.Select(address => address / 4096).Distinct().Order(),
        ];
        Assert.Equal(expected, DirtyLogTests.DirtyPages(file, 0, 4096));
    }

    [Fact]
    public void A_used_ring_that_is_not_to_be_logged_is_not()
    {
        using var rig = new QueueRig(new(8, QueueFeatures.None, 0));
        using SafeFileHandle file = Memory.CreateMemoryFile("log\0"u8, 4096, FileSeals.None);
        using var log = new DirtyLog(file, 4096, 0);
        rig.Device.SetDirtyLog(log, null);
        Complete(rig, rig.Device, new DescriptorChain());
        rig.Device.DisarmNotifications();
        rig.Device.ArmNotifications();
        Assert.Empty(DirtyLogTests.DirtyPages(file, 0, 4096));

        rig.Device.SetDirtyLog(null, rig.Driver.DeviceArea);
        Complete(rig, rig.Device, new DescriptorChain());
        Assert.Empty(DirtyLogTests.DirtyPages(file, 0, 4096));
    }

    /// <summary>One chain there, and given back without a byte written; not taken by the driver.</summary>
    private static bool Complete(QueueRig rig, SplitDeviceQueue device, DescriptorChain chain)
    {
        Assert.True(rig.Driver.TryAdd([new(rig.Buffers, 4)], [new(rig.Buffers, 16)], out _));
        rig.Driver.NeedsKick();
        Assert.Equal(PopResult.Popped, device.TryPop(chain));
        device.Push(chain, 0);
        return device.NeedsCall();
    }

    private static void Turns(QueueRig rig, DescriptorChain chain, int count)
    {
        Span<GuestRange> readable = stackalloc GuestRange[2];
        Span<GuestRange> writable = stackalloc GuestRange[2];
        readable[0] = new(rig.Buffers, 40);
        readable[1] = new(new(QueueRig.SecondBase - 100), 200);
        writable[0] = new(new(rig.Buffers.Value + 4096), 16);
        writable[1] = new(new(rig.Buffers.Value + 8192), 4096);
        for (int i = 0; i < count; i++)
        {
            rig.Driver.TryAdd(readable, writable, out _);
            rig.Driver.NeedsKick();
            rig.Device.DisarmNotifications();
            rig.Device.TryPop(chain);
            rig.Device.Push(chain, 16);
            rig.Device.NeedsCall();
            rig.Device.ArmNotifications();
            if (rig.Driver.TryTake(out _, out _) != TakeResult.Taken)
            {
                Assert.Fail("a chain did not come back");
            }

            rig.Driver.ArmCalls();
        }
    }
}
