using Causeway.Linux;
using Causeway.VhostUser;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.VhostUser;

/// <summary>Each rule of the front-end side of the hostile-input checklist, broken once.</summary>
[Collection(OpenDescriptors.Collection)]
public sealed class BackendHostileTests : IDisposable
{
    private readonly HashSet<string> _descriptorsBefore = OpenDescriptors.All();
    private readonly HashSet<string> _mappingsBefore = OpenDescriptors.Mappings();

    public void Dispose()
    {
        Assert.Empty(OpenDescriptors.All().Since(_descriptorsBefore));
        Assert.Empty(OpenDescriptors.Mappings().Since(_mappingsBefore));
    }

    [Theory]
    [InlineData("WrongVersion", "01000000 02000000 00000000")]
    [InlineData("IsReply", "01000000 05000000 00000000")]
    [InlineData("UnknownFlags", "01000000 21000000 00000000")]
    [InlineData("TooLong", "01000000 01000000 01100000")]
    [InlineData("TooLong", "05000000 01000000 ffffffff")]
    [InlineData("WrongSize", "02000000 01000000 04000000 00000000")]
    [InlineData("WrongSize", "05000000 01000000 08000000 0100000000000000")]
    [InlineData("UnknownRequest", "e8030000 01000000 00000000")]
    [InlineData("UnknownRequest", "00000000 01000000 00000000")]
    [InlineData("GET_INFLIGHT_FD", "1f000000 01000000 14000000 0000000000000000000000000000000000000000")]
    [InlineData("GET_SHMEM_CONFIG", "2c000000 01000000 00000000")]
    [InlineData("without having negotiated MultipleQueues", "11000000 01000000 00000000")]
    [InlineData("without having negotiated ConfigureMemorySlots", "24000000 01000000 00000000")]
    [InlineData("without having negotiated Config", "18000000 01000000 10000000 00000000 04000000 00000000 00000000")]
    [InlineData("without having negotiated LogSharedMemory", "06000000 01000000 08000000 0000000000000000")]
    [InlineData("SET_PROTOCOL_FEATURES: the bits 0x400000", "10000000 01000000 08000000 0000400000000000")]
    [InlineData("SET_FEATURES: the bits 0x400000000", "02000000 01000000 08000000 0000000004000000")]
    [InlineData("GET_VRING_BASE: ring 2", "0b000000 01000000 08000000 02000000 00000000")]
    [InlineData("SET_VRING_NUM: ring 4294967295", "08000000 01000000 08000000 ffffffff 00010000")]
    [InlineData("in the middle", "02000000 01000000 08000000 00000000")]
    [InlineData("in the middle", "02000000 01")]
    public void Violations_end_the_connection_and_are_named(string complaint, string hex)
    {
        using BackendRig rig = new();

        rig.Socket.SendHex(hex);
        Sockets.Shutdown((int)rig.Socket.DangerousGetHandle(), SocketShutdown.Write);

        Assert.Contains(complaint, rig.Violation(), StringComparison.Ordinal);
        Assert.True(rig.Socket.IsClosed());
    }

    [Theory]
    [InlineData("08000000 09000000 08000000 02000000 00010000", "ring 2 of 2")]
    [InlineData("08000000 09000000 08000000 00000000 00000000", "no descriptors")]
    [InlineData("08000000 09000000 08000000 00000000 01000000", "one descriptor")]
    [InlineData("08000000 09000000 08000000 00000000 03000000", "not a power of two")]
    [InlineData("08000000 09000000 08000000 00000000 00080000", "more than the device's 1024")]
    [InlineData("08000000 09000000 08000000 00000000 00000080", "2^31 descriptors")]
    [InlineData("0a000000 09000000 08000000 02000000 00000000", "base of ring 2 of 2")]
    [InlineData("0a000000 09000000 08000000 00000000 00000100", "base 65536")]
    [InlineData("0a000000 09000000 08000000 00000000 00800080", "base of a packed ring")]
    [InlineData("12000000 09000000 08000000 02000000 01000000", "enabling ring 2 of 2")]
    [InlineData("12000000 09000000 08000000 00000000 02000000", "neither on nor off")]
    [InlineData("0c000000 09000000 08000000 0001000000000000", "a ring to be polled")]
    [InlineData("0d000000 09000000 08000000 0201000000000000", "call of ring 2 of 2")]
    [InlineData("0e000000 09000000 08000000 ff01000000000000", "error of ring 255")]
    [InlineData("02000000 09000000 08000000 0000000004000000", "packed rings")]
    [InlineData("02000000 09000000 08000000 0000000008000000", "in order")]
    [InlineData("10000000 09000000 08000000 0800400000000000", "shared memory")]
    public void Nonsense_is_refused_and_the_connection_goes_on(string hex, string meaning)
    {
        Assert.NotEmpty(meaning);
        using BackendRig rig = new();
        rig.Frontend.SetProtocolFeatures(VhostUserProtocolFeatures.ReplyAcknowledge);

        rig.Socket.SendHex(hex);

        Assert.Equal(hex[..8] + "05000000080000000100000000000000", rig.Socket.ReceiveHex(20));
        rig.Frontend.GetFeatures();
    }

    [Theory]
    [InlineData(0, 0, 0, 8, "descriptor table not aligned to 16")]
    [InlineData(0, 1, 0, 0, "available ring not aligned to 2")]
    [InlineData(0, 0, 2, 0, "used ring not aligned to 4")]
    [InlineData(0, 0, 0, 0x100000, "descriptor table behind the memory")]
    [InlineData(0, 0x100000, 0, 0, "available ring behind the memory")]
    [InlineData(0, 0, 0x100000, 0, "used ring behind the memory")]
    [InlineData(0, 0xf8000 - 512, 0, 0, "available ring that ends behind the memory")]
    [InlineData(0, 0, 0xf6000 - 2048, 0, "used ring that ends behind the memory")]
    [InlineData(2, 0, 0, 0, "ring 2 of 2")]
    public void Addresses_that_cannot_be_used_are_refused(
        uint index, ulong available, ulong used, ulong descriptors, string meaning)
    {
        Assert.NotEmpty(meaning);
        using TestMemory memory = new();
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.SetVringNum(0, TestMemory.QueueSize);
        VringAddresses good = TestMemory.WireAddresses(0);

        Assert.Throws<VhostUserRefusedException>(() => rig.Frontend.SetVringAddresses(good with
        {
            Index = index,
            Descriptors = new FrontendAddress(good.Descriptors.Value + descriptors),
            Available = new FrontendAddress(good.Available.Value + available),
            Used = new FrontendAddress(good.Used.Value + used),
        }));

        rig.Frontend.GetFeatures();
    }

    [Fact]
    public void Addresses_are_the_front_ends_and_not_the_guests()
    {
        using TestMemory memory = new();
        using BackendRig rig = new BackendRig().Connected(memory);

        Assert.Throws<VhostUserRefusedException>(() => rig.Frontend.SetVringAddresses(TestMemory.WireAddresses(0) with
        {
            Descriptors = new FrontendAddress(TestMemory.GuestBase.Value),
        }));
    }

    [Fact]
    public void A_ring_whose_addresses_were_checked_for_a_smaller_size_does_not_start()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.SetVringNum(0, 2);
        rig.Frontend.SetVringAddresses(TestMemory.WireAddresses(0) with
        {
            Used = new FrontendAddress(TestMemory.FrontendBase.Value + TestMemory.Size - 64),
        });

        rig.Frontend.SetVringNum(0, 1024);
        rig.Frontend.SetVringKick(0, ring.Kick);
        rig.Frontend.SetVringEnable(0, isEnabled: true);

        Assert.Equal("", rig.Device.Running);
    }

    [Fact]
    public void A_kick_without_size_and_addresses_starts_nothing()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);

        rig.Frontend.SetVringKick(0, ring.Kick);
        rig.Frontend.SetVringEnable(0, isEnabled: true);

        Assert.Equal("", rig.Device.Running);
    }

    [Fact]
    public void A_running_ring_keeps_its_description()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        VhostUserFrontend frontend = rig.Frontend;

        Assert.Throws<VhostUserRefusedException>(() => frontend.SetVringNum(0, 128));
        Assert.Throws<VhostUserRefusedException>(() => frontend.SetVringBase(0, 1));
        Assert.Throws<VhostUserRefusedException>(
            () => frontend.SetVringAddresses(TestMemory.WireAddresses(1) with { Index = 0 }));
        Assert.Throws<VhostUserRefusedException>(
            () => frontend.SetFeatures(frontend.NegotiatedFeatures & ~VirtioFeatures.EventIndex));

        Assert.Equal("0", rig.Device.Running);
    }

    [Fact]
    public void Regions_that_cannot_be_used_are_refused()
    {
        using TestMemory memory = new();
        using BackendRig rig = new BackendRig().Connected(memory);
        GuestMemoryRange range =
            new(new GuestAddress(0x9000_0000), new FrontendAddress(0x6000_0000_0000), 0x1000, 0);
        GuestMemoryRange[] bad =
        [
            range with { Size = 0 },
            range with { Size = ulong.MaxValue },
            range with { GuestBase = new GuestAddress(ulong.MaxValue - 0xfff) },
            range with { FrontendBase = new FrontendAddress(ulong.MaxValue - 0xfff) },
            range with { FileOffset = ulong.MaxValue - 0xfff },
            range with { FileOffset = TestMemory.Size },
            range with { Size = TestMemory.Size + 1 },
            range with { GuestBase = new GuestAddress(TestMemory.GuestBase.Value + 0x1000) },
            range with { FrontendBase = new FrontendAddress(TestMemory.FrontendBase.Value + 0x1000) },
            TestMemory.Range,
        ];

        foreach (GuestMemoryRange each in bad)
        {
            Assert.Throws<VhostUserRefusedException>(
                () => rig.Frontend.AddMemoryRegion(new FrontendRegion(each, memory.File)));
        }

        Assert.Throws<VhostUserRefusedException>(() => rig.Frontend.RemoveMemoryRegion(range));
        Assert.Throws<VhostUserRefusedException>(
            () => rig.Frontend.RemoveMemoryRegion(TestMemory.Range with { Size = 0x1000 }));
        Assert.Equal([TestMemory.Range], rig.Device.Memory!.Regions.Select(region => region.Range));
    }

    [Fact]
    public void More_regions_than_QEMU_can_have_are_refused()
    {
        using TestMemory memory = new();
        using BackendRig rig = new();
        rig.Frontend.Negotiate(new FrontendOptions());
        for (int i = 0; i < GuestMemory.MaxRegions; i++)
        {
            rig.Frontend.AddMemoryRegion(Small(i, memory));
        }

        Assert.Throws<VhostUserRefusedException>(
            () => rig.Frontend.AddMemoryRegion(Small(GuestMemory.MaxRegions, memory)));

        static FrontendRegion Small(int index, TestMemory memory) => new(
            new GuestMemoryRange(
                new GuestAddress((ulong)index << 12), new FrontendAddress((ulong)(index + 16) << 12), 0x1000, 0),
            memory.File);
    }

    [Fact]
    public void Memory_that_is_no_regular_file_is_refused()
    {
        using SafeFileHandle handle = Events.CreateEvent();
        using SafeFileHandle directory = OpenDirectory("/");
        using BackendRig rig = new();
        rig.Frontend.Negotiate(new FrontendOptions());

        Assert.Throws<VhostUserRefusedException>(
            () => rig.Frontend.AddMemoryRegion(new FrontendRegion(TestMemory.Range, handle)));
        Assert.Throws<VhostUserRefusedException>(
            () => rig.Frontend.AddMemoryRegion(new FrontendRegion(TestMemory.Range, directory)));
    }

    [Fact]
    public void Events_that_are_no_eventfds_are_refused()
    {
        using TestMemory memory = new();
        using BackendRig rig = new BackendRig().Connected(memory);
        (SafeFileHandle first, SafeFileHandle second) = BackendRig.SocketPair();

        Assert.Throws<VhostUserRefusedException>(() => rig.Frontend.SetVringKick(0, memory.File));
        Assert.Throws<VhostUserRefusedException>(() => rig.Frontend.SetVringCall(0, first));
        Assert.Throws<VhostUserRefusedException>(() => rig.Frontend.SetVringError(0, second));
        Assert.Throws<VhostUserRefusedException>(() => rig.Frontend.SetBackendRequestChannel(memory.File));
        first.Dispose();
        second.Dispose();
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(0x100001, 0)]
    [InlineData(0x1000, 0x100000)]
    [InlineData(0x1000, 0xfffffffffffff000)]
    [InlineData(0xffffffffffffffff, 0)]
    public void A_log_that_cannot_be_used_ends_the_connection_because_its_answer_cannot_say_no(ulong size, ulong offset)
    {
        using TestMemory memory = new();
        using BackendRig rig = new BackendRig().Connected(memory);

        Assert.Throws<VhostUserException>(() => rig.Frontend.SetLogBase(memory.File, new LogArea(size, offset)));

        Assert.Contains("SET_LOG_BASE", rig.Violation(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("01000000 01000000 00000000", 1, "WrongDescriptorCount")]
    [InlineData("03000000 01000000 00000000", 32, "WrongDescriptorCount")]
    [InlineData("03000000 01000000 00000000", 33, "more than 32 descriptors")]
    [InlineData("03000000 01000000 00000000", 253, "more than 32 descriptors")]
    [InlineData("0c000000 01000000 08000000 0000000000000000", 2, "WrongDescriptorCount")]
    [InlineData("0c000000 01000000 08000000 0001000000000000", 1, "WrongDescriptorCount")]
    [InlineData("15000000 01000000 00000000", 0, "WrongDescriptorCount")]
    [InlineData("e8030000 01000000 00000000", 3, "UnknownRequest")]
    [InlineData("01000000 02000000 00000000", 5, "WrongVersion")]
    [InlineData("1c000000 01000000 00000000", 2, "POSTCOPY_ADVISE")]
    public void Descriptors_that_nobody_asked_for_are_closed(string hex, int count, string complaint)
    {
        using SafeFileHandle handle = Events.CreateEvent();
        using BackendRig rig = new();

        rig.Socket.SendHex(hex, [.. Enumerable.Repeat(handle, count)]);

        Assert.Contains(complaint, rig.Violation(), StringComparison.Ordinal);
    }

    [Fact]
    public void Descriptors_of_ignored_and_refused_requests_are_closed()
    {
        using SafeFileHandle handle = Events.CreateEvent();
        using BackendRig rig = new();
        rig.Socket.SendHex("0a000000 01000000 08000000 0000000000000000");
        HashSet<string> before = OpenDescriptors.All();

        // GPU_SET_SOCKET, without and with a wish for an answer, and a call event for a ring that does not exist.
        rig.Socket.SendHex("21000000 01000000 00000000", handle);
        rig.Frontend.SetProtocolFeatures(VhostUserProtocolFeatures.ReplyAcknowledge);
        rig.Socket.SendHex("21000000 09000000 00000000", handle, handle);
        Assert.Equal("2100000005000000080000000100000000000000", rig.Socket.ReceiveHex(20));
        Assert.Throws<VhostUserRefusedException>(() => rig.Frontend.SetVringCall(2, handle));

        rig.Frontend.GetFeatures();
        Assert.Empty(OpenDescriptors.All().Since(before));
    }

    [Fact]
    public void Descriptors_in_the_middle_of_a_message_end_the_connection()
    {
        using SafeFileHandle handle = Events.CreateEvent();
        using BackendRig rig = new();

        rig.Socket.SendHex("02000000 01000000 08000000");
        rig.Socket.SendHex("0000000001000000", handle);

        Assert.Contains("in the middle of a message", rig.Violation(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_refused_write_to_the_configuration_does_not_cost_the_connection()
    {
        // The guest's driver may have asked for it.
        using BackendRig rig = new(new RecordingDevice { Config = new byte[40] });
        rig.Frontend.SetProtocolFeatures(VhostUserProtocolFeatures.Config);

        rig.Frontend.SetConfig(0, "x"u8, ConfigFlags.None);

        rig.Frontend.GetFeatures();
    }

    [Fact]
    public void A_front_end_that_replaces_everything_all_the_time_leaves_nothing_behind()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        rig.Frontend.SetLogBase(memory.File, new LogArea(0x1000, 0));
        (SafeFileHandle ours, SafeFileHandle theirs) = BackendRig.SocketPair();
        int before = OpenDescriptors.All().Count;
        int mappingsBefore = OpenDescriptors.Mappings().Count;

        for (int i = 0; i < 20; i++)
        {
            rig.Frontend.SetVringKick(0, ring.Kick);
            rig.Frontend.SetVringCall(0, i % 3 == 0 ? null : ring.Call);
            rig.Frontend.SetVringError(0, i % 4 == 0 ? null : ring.Error);
            rig.Frontend.SetMemoryTable(memory.Region);
            rig.Frontend.SetLogBase(memory.File, new LogArea(0x1000, 0));
            rig.Frontend.SetBackendRequestChannel(theirs);
        }

        // New ones have taken the places of those from before: only their number can say anything.
        Assert.InRange(OpenDescriptors.All().Count, 0, before);
        Assert.InRange(OpenDescriptors.Mappings().Count, 0, mappingsBefore);
        ours.Dispose();
        theirs.Dispose();
    }

    private static SafeFileHandle OpenDirectory(string path) => new(
        Files.Openat(
            Files.WorkingDirectory, System.Text.Encoding.UTF8.GetBytes(path + "\0"), OpenFlags.ReadOnly, 0).Descriptor,
        ownsHandle: true);
}
