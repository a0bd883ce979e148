using Causeway.Linux;
using Causeway.VhostUser;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;

namespace Causeway.Tests.VhostUser;

/// <summary>The orders in which front ends describe rings, and the states of section "Ring states".</summary>
public sealed class BackendOrderTests
{
    private const VhostUserProtocolFeatures NoAcknowledgements = VhostUserProtocolFeatures.Config;
    private const VhostUserProtocolFeatures Everything = (VhostUserProtocolFeatures)ulong.MaxValue;

    // N size, B base, A addresses, K kick, C call, E enable, each with the number of the ring; M memory; F features.
    [Theory]
    [InlineData("QEMU", Everything, "C0 C1 F M N0 B0 A0 K0 C0 N1 B1 A1 K1 C1 E0 E1 C0 C1")]
    [InlineData("crosvm", Everything, "F M N0 A0 B0 C0 K0 N1 A1 B1 C1 K1 E0 E1")]
    [InlineData("cloud-hypervisor", Everything, "F M N0 N1 A0 B0 C0 K0 A1 B1 C1 K1 E0 E1")]
    [InlineData("libkrun", NoAcknowledgements, "M F N0 B0 A0 K0 C0 E0 N1 B1 A1 K1 C1 E1")]
    [InlineData("alioth", Everything, "F M K0 K1 C0 N0 B0 A0 E0 C1 N1 B1 A1 E1")]
    [InlineData("memory last", Everything, "F N0 B0 A0 C0 K0 E0 N1 B1 A1 C1 K1 E1 M")]
    [InlineData("features last", Everything, "M N0 B0 A0 C0 K0 E0 N1 B1 A1 C1 K1 E1 F")]
    [InlineData("enabled first", Everything, "E0 E1 F M A0 A1 N0 N1 B0 B1 C0 C1 K0 K1")]
    public void Rings_start_once_they_are_complete_in_any_order(
        string frontEnd, VhostUserProtocolFeatures protocol, string order)
    {
        Assert.NotEmpty(frontEnd);
        using TestMemory memory = new();
        using TestRing first = new(0);
        using TestRing second = new(1);
        using BackendRig rig = new();
        rig.Frontend.SetProtocolFeatures(rig.Frontend.GetProtocolFeatures() & protocol);

        foreach (string step in order.Split(' '))
        {
            Perform(rig.Frontend, step, memory, step[^1] == '0' ? first : second);
        }

        rig.Frontend.GetFeatures();
        Assert.Equal("0 1", rig.Device.Running);
        Assert.Equal(2, rig.Device.Calls.Split(' ').Count(call => call.StartsWith("start", StringComparison.Ordinal)));
        Assert.Equal(TestMemory.QueueSize, rig.Device.Setups[0].Location.Queue.Size);
        Assert.Equal(1000u, rig.Device.Setups[0].Base);
        Assert.Equal(1001u, rig.Device.Setups[1].Base);
    }

    [Fact]
    public void Without_the_protocol_features_bit_all_rings_are_enabled_at_once()
    {
        using TestMemory memory = new();
        using TestRing ring = new(1);
        using BackendRig rig = new();

        rig.Frontend.SetMemoryTable(memory.Region);
        rig.Frontend.SetFeatures(VirtioFeatures.Version1);
        rig.Frontend.StartRing(ring.Description);

        rig.Frontend.GetFeatures();
        Assert.Equal("1", rig.Device.Running);
    }

    [Fact]
    public void Features_set_again_neither_start_nor_stop_a_ring()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        rig.Device.Forget();

        rig.Frontend.SetFeatures(rig.Frontend.NegotiatedFeatures);

        Assert.Equal("features", rig.Device.Calls);
        Assert.Equal("0", rig.Device.Running);
    }

    [Fact]
    public void A_ring_is_enabled_before_it_is_started_and_remembers_it()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.SetVringEnable(0, isEnabled: true);
        Assert.Equal("", rig.Device.Running);

        rig.Frontend.SetVringNum(0, 64);
        rig.Frontend.SetVringAddresses(TestMemory.WireAddresses(0));
        rig.Frontend.SetVringKick(0, ring.Kick);

        Assert.Equal("0", rig.Device.Running);
    }

    [Fact]
    public void Disabling_stops_a_ring_and_enabling_continues_where_it_was()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        rig.Device.StopsAt[0] = 77;

        rig.Frontend.SetVringEnable(0, isEnabled: false);
        Assert.Equal("", rig.Device.Running);
        rig.Frontend.SetVringEnable(0, isEnabled: true);

        Assert.Equal("0", rig.Device.Running);
        Assert.Equal(77u, rig.Device.Setups[0].Base);
    }

    [Fact]
    public void Get_vring_base_stops_a_ring_until_the_next_kick_event()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        rig.Device.StopsAt[0] = 0xfffe;

        Assert.Equal(0xfffeu, rig.Frontend.GetVringBase(0));
        Assert.Equal("", rig.Device.Running);
        rig.Frontend.SetVringEnable(0, isEnabled: true);
        Assert.Equal("", rig.Device.Running);
        rig.Frontend.SetVringKick(0, ring.Kick);

        Assert.Equal("0", rig.Device.Running);
        Assert.Equal(0xfffeu, rig.Device.Setups[0].Base);
    }

    [Fact]
    public void The_base_of_a_ring_that_never_ran_is_the_one_that_was_set()
    {
        using BackendRig rig = new();
        rig.Frontend.SetVringBase(1, 4711);

        Assert.Equal(4711u, rig.Frontend.GetVringBase(1));
    }

    [Fact]
    public void A_device_that_was_only_disabled_takes_a_new_description()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);

        // libkrun and alioth reset like this.
        rig.Frontend.SetVringEnable(0, isEnabled: false);
        rig.Frontend.SetMemoryTable(memory.Region);
        rig.Frontend.SetVringKick(0, ring.Kick);
        rig.Frontend.SetVringCall(0, ring.Call);
        rig.Frontend.SetVringNum(0, 64);
        rig.Frontend.SetVringBase(0, 0);
        rig.Frontend.SetVringAddresses(TestMemory.WireAddresses(3) with { Index = 0 });
        rig.Frontend.SetVringEnable(0, isEnabled: true);

        Assert.Equal("0", rig.Device.Running);
        Assert.Equal(64, rig.Device.Setups[0].Location.Queue.Size);
        Assert.Equal(0u, rig.Device.Setups[0].Base);
    }

    [Fact]
    public void Enabling_rings_that_were_never_described_does_nothing()
    {
        // QEMU enables every queue, also those that the guest left alone.
        using TestMemory memory = new();
        using BackendRig rig = new BackendRig().Connected(memory);

        rig.Frontend.SetVringEnable(0, isEnabled: true);
        rig.Frontend.SetVringEnable(1, isEnabled: true);

        Assert.Equal("", rig.Device.Running);
    }

    [Fact]
    public void A_reset_stops_all_rings_and_forgets_their_description_but_not_the_session()
    {
        using TestMemory memory = new();
        using TestRing first = new(0);
        using TestRing second = new(1);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(first.Description);
        rig.Frontend.StartRing(second.Description);
        rig.Device.StopsAt[0] = 9;
        rig.Device.Forget();

        rig.Frontend.ResetDevice();
        Assert.Equal("stop0 stop1 reset", rig.Device.Calls);
        Assert.Equal(0u, rig.Frontend.GetVringBase(0));
        rig.Frontend.SetVringEnable(0, isEnabled: true);
        rig.Frontend.SetVringKick(0, first.Kick);
        Assert.Equal("", rig.Device.Running);

        rig.Frontend.StartRing(first.Description);
        Assert.Equal("0", rig.Device.Running);
    }

    [Fact]
    public void The_end_of_the_connection_stops_the_rings_and_takes_the_memory()
    {
        using TestMemory memory = new();
        using TestRing ring = new(1);
        BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        rig.Device.Forget();

        rig.Frontend.Dispose();

        Assert.Null(rig.Ended());
        Assert.Equal("stop1 memory disconnected", rig.Device.Calls);
        Assert.True(rig.Device.MustDrain);
    }

    [Fact]
    public void Stop_ends_a_connection_from_outside()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);

        rig.Backend.Stop();

        Assert.Null(rig.Ended());
        Assert.EndsWith("stop0 memory disconnected", rig.Device.Calls, StringComparison.Ordinal);
        Assert.False(rig.Frontend.IsConnected);
        rig.Backend.Stop();
    }

    [Fact]
    public void Stop_ends_a_connection_in_the_middle_of_a_message()
    {
        using BackendRig rig = new();
        rig.Socket.SendHex("01000000 0100");

        rig.Backend.Stop();

        Assert.Null(rig.Ended());
    }

    [Fact]
    public void A_ring_is_answered_as_stopped_only_when_the_device_is_done_with_it()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        using ManualResetEventSlim requestDone = new();
        using BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        rig.Device.Stopping = _ => requestDone.Wait();

        rig.Socket.SendHex("0b000000 01000000 08000000 00000000 00000000");
        PollDescriptor wait = new((int)rig.Socket.DangerousGetHandle(), PollEvents.Readable);
        Assert.Equal(0, Poll.Wait(new Span<PollDescriptor>(ref wait), 20).Count);
        requestDone.Set();

        Assert.Equal("0b00000005000000080000000000000000000000", rig.Socket.ReceiveHex(20));
    }

    [Fact]
    public void A_device_that_throws_ends_the_connection_and_the_error_reaches_the_caller()
    {
        using TestMemory memory = new();
        using TestRing ring = new(0);
        BackendRig rig = new BackendRig().Connected(memory);
        rig.Frontend.StartRing(ring.Description);
        rig.Device.Stopping = _ => throw new InvalidOperationException("broken device");

        Assert.Throws<VhostUserException>(() => rig.Frontend.GetVringBase(0));

        Assert.Equal("broken device", Assert.IsType<InvalidOperationException>(rig.Ended()).Message);

        // Whether the device still uses the memory is not known: better lost than gone.
        Assert.NotEmpty(rig.Device.Memory!.Regions);
        rig.Frontend.Dispose();
    }

    private static void Perform(VhostUserFrontend frontend, string step, TestMemory memory, TestRing ring)
    {
        int index = step.Length > 1 ? step[1] - '0' : 0;
        switch (step[0])
        {
            case 'F':
                frontend.SetFeatures(frontend.GetFeatures() & ~VirtioFeatures.LogAll);
                break;
            case 'M':
                frontend.SetMemoryTable(memory.Region);
                break;
            case 'N':
                frontend.SetVringNum(index, TestMemory.QueueSize);
                break;
            case 'B':
                frontend.SetVringBase(index, (ushort)(1000 + index));
                break;
            case 'A':
                frontend.SetVringAddresses(TestMemory.WireAddresses(index));
                break;
            case 'K':
                frontend.SetVringKick(index, ring.Kick);
                break;
            case 'C':
                frontend.SetVringCall(index, ring.Call);
                break;
            default:
                Assert.Equal('E', step[0]);
                frontend.SetVringEnable(index, isEnabled: true);
                break;
        }
    }
}
