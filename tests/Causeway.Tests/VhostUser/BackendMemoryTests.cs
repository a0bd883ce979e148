using Causeway.Linux;
using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.VhostUser;

/// <summary>Memory tables, events and dirty logs under running rings.</summary>
public sealed class BackendMemoryTests
{
    private static readonly GuestMemoryRange s_elsewhere =
        new(new GuestAddress(0x9000_0000), new FrontendAddress(0x6000_0000_0000), 0x10000, 0x20000);

    [Fact]
    public void The_device_sees_the_front_ends_memory_at_the_rings_place()
    {
        using TestMemory memory = new();
        using TestRing ring = new(1);
        using BackendRig rig = new BackendRig().Connected(memory);
        memory.Bytes[0x10000] = 17;
        memory.Bytes[0x18000] = 18;
        memory.Bytes[0x1a000] = 19;

        rig.Frontend.StartRing(ring.Description);

        unsafe
        {
            QueueMemory queue = rig.Device.Setups[1].Location.Queue;
            Assert.Equal(17, *queue.DescriptorArea);
            Assert.Equal(18, *queue.DriverArea);
            Assert.Equal(19, *queue.DeviceArea);
        }
    }

    [Fact]
    public void Adding_a_region_leaves_running_rings_and_requests_in_flight_alone()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        rig.Device.Forget();

        rig.Frontend.AddMemoryRegion(new FrontendRegion(s_elsewhere, memory.File));

        Assert.Equal("memory", rig.Device.Calls);
        Assert.False(rig.Device.MustDrain);
        Assert.Equal([TestMemory.Range, s_elsewhere], rig.Device.Memory!.Regions.Select(region => region.Range));
        Assert.Equal([0], rig.Device.UpdatedRings.Select(updated => updated.Index));
    }

    [Fact]
    public void Removing_another_region_drains_and_leaves_the_ring_running()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.AddMemoryRegion(new FrontendRegion(s_elsewhere, memory.File));
        rig.Frontend.StartRing(ring.Description);
        rig.Device.Forget();

        rig.Frontend.RemoveMemoryRegion(s_elsewhere);

        Assert.Equal("memory", rig.Device.Calls);
        Assert.True(rig.Device.MustDrain);
        Assert.Equal("0", rig.Device.Running);
    }

    [Fact]
    public void A_ring_whose_memory_goes_is_stopped_first_and_starts_again_with_it()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        rig.Device.StopsAt[0] = 5;
        rig.Device.Forget();

        rig.Frontend.RemoveMemoryRegion(TestMemory.Range);
        Assert.Equal("stop0 memory", rig.Device.Calls);
        rig.Frontend.AddMemoryRegion(memory.Region);

        Assert.Equal("stop0 memory memory start0", rig.Device.Calls);
        Assert.Equal(5u, rig.Device.Setups[0].Base);
    }

    [Fact]
    public void A_new_table_moves_a_running_ring()
    {
        using TestMemory before = new();
        using TestMemory after = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(before);
        rig.Frontend.StartRing(ring.Description);
        rig.Device.Forget();
        after.Bytes[0] = 99;

        rig.Frontend.SetMemoryTable(after.Region);

        Assert.Equal("memory", rig.Device.Calls);
        Assert.True(rig.Device.MustDrain);
        unsafe
        {
            Assert.Equal(99, *rig.Device.UpdatedRings[0].Queue.DescriptorArea);
        }
    }

    [Fact]
    public void A_table_that_cannot_be_used_leaves_the_one_before()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        FrontendRegion tooLong = new(s_elsewhere with { Size = TestMemory.Size }, memory.File);

        Assert.Throws<VhostUserRefusedException>(() => rig.Frontend.SetMemoryTable(memory.Region, tooLong));

        Assert.Equal([TestMemory.Range], rig.Device.Memory!.Regions.Select(region => region.Range));
        Assert.Equal("0", rig.Device.Running);
    }

    [Fact]
    public void A_call_event_is_exchanged_behind_the_number_that_the_device_has()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using TestRing other = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        int number = (int)rig.Device.Setups[0].CallEvent.DangerousGetHandle();
        Events.Signal(number);
        Assert.Equal(1UL, TestRing.Read(ring.Call));

        // The new one is signalled once, for a call that may have gone to the old one.
        rig.Frontend.SetVringCall(0, other.Call);
        Assert.Equal(1UL, TestRing.Read(other.Call));
        Events.Signal(number);
        Assert.Equal(1UL, TestRing.Read(other.Call));
        Assert.Equal(0UL, TestRing.Read(ring.Call));

        rig.Frontend.SetVringCall(0, null);
        Events.Signal(number);
        Assert.Equal(0UL, TestRing.Read(other.Call));

        rig.Frontend.SetVringError(0, other.Error);
        Events.Signal((int)rig.Device.Setups[0].ErrorEvent.DangerousGetHandle());
        Assert.Equal(1UL, TestRing.Read(other.Error));
    }

    [Fact]
    public void A_call_event_that_is_full_and_blocks_hangs_neither_the_exchange_nor_the_stop()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using SafeFileHandle full = new(
            Events.Eventfd(0, EventFlags.CloseOnExec).ThrowIfError("eventfd").Descriptor, ownsHandle: true);
        Fill(full);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);

        rig.Frontend.SetVringCall(0, full);
        Fill(full);
        Thread? worker = null;
        rig.Device.Stopping = index =>
        {
            // What a worker does that was about to call. The event was emptied just before.
            worker = new Thread(() => Events.Signal((int)rig.Device.Setups[index].CallEvent.DangerousGetHandle()));
            worker.Start();
            Assert.True(worker.Join(TimeSpan.FromSeconds(30)), "the worker hangs in its call");
        };
        rig.Frontend.GetVringBase(0);

        Assert.NotNull(worker);
    }

    [Fact]
    public void Logging_is_switched_on_and_off_under_a_running_ring()
    {
        using TestMemory memory = new();
        using TestMemory log = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        rig.Device.Forget();
        rig.Frontend.SetLogBase(log.File, new LogArea(0x10000, 0x1000));
        Assert.Null(rig.Device.UpdatedRings[0].Log);

        rig.Frontend.LogWrites(isOn: true, (ring.Description, new GuestAddress(0x5000)));
        RingLocation logged = rig.Device.UpdatedRings[0];
        Assert.Equal(new GuestAddress(0x5000), logged.UsedLogAddress);
        logged.Log!.Mark(new GuestAddress(0x9000), 1);
        Assert.Equal(0b10, log.Bytes[0x1001]);

        rig.Frontend.LogWrites(isOn: false, (ring.Description, default));
        Assert.Null(rig.Device.UpdatedRings[0].Log);
        Assert.Null(rig.Device.UpdatedRings[0].UsedLogAddress);
        Assert.DoesNotContain("stop", rig.Device.Calls, StringComparison.Ordinal);
    }

    [Fact]
    public void A_new_log_replaces_the_one_in_use()
    {
        // cloud-hypervisor collects dirty pages by giving a fresh log each time.
        using TestMemory memory = new();
        using TestMemory first = new();
        using TestMemory second = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        rig.Frontend.SetLogBase(first.File, new LogArea(0x1000, 0));
        rig.Frontend.LogWrites(isOn: true);
        Assert.Null(rig.Device.UpdatedRings[0].UsedLogAddress);

        rig.Frontend.SetLogBase(second.File, new LogArea(0x1000, 0));

        Assert.True(rig.Device.MustDrain);
        rig.Device.UpdatedRings[0].Log!.Mark(new GuestAddress(0), 1);
        Assert.Equal(0, first.Bytes[0]);
        Assert.Equal(1, second.Bytes[0]);
    }

    [Fact]
    public void The_channel_is_kept_and_replaced()
    {
        using BackendRig rig = new();
        rig.Frontend.Negotiate(new FrontendOptions());
        Assert.Equal(1, Sockets.Sendmsg(Number(rig.Backend.Channel!.Socket), "x"u8, []).Count);
        Assert.Equal("78", rig.Frontend.BackendRequests!.ReceiveHex(1));

        (SafeFileHandle ours, SafeFileHandle theirs) =
            BackendRig.SocketPair();
        rig.Frontend.SetBackendRequestChannel(theirs);
        theirs.Dispose();

        Assert.True(rig.Frontend.BackendRequests!.IsClosed());
        Assert.Equal(1, Sockets.Sendmsg(Number(rig.Backend.Channel!.Socket), "y"u8, []).Count);
        Assert.Equal("79", ours.ReceiveHex(1));
        ours.Dispose();
    }

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();

    /// <summary>Brings an eventfd to its largest value, 2^64 - 2, where a write waits.</summary>
    private static unsafe void Fill(SafeFileHandle handle)
    {
        if ((Poll.Now(Number(handle), PollEvents.Readable) & PollEvents.Readable) != 0)
        {
            TestRing.Read(handle);
        }

        ulong value = ulong.MaxValue - 1;
        ReadOnlySpan<IoVector> source = [new IoVector((byte*)&value, sizeof(ulong))];
        Assert.Equal(8, FileIO.Pwritev2(Number(handle), source, -1, ReadWriteFlags.None).Count);
    }
}
