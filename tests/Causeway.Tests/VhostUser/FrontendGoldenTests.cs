using Causeway.Linux;
using Causeway.VhostUser;
using Causeway.VhostUser.Frontend;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.VhostUser;

/// <summary>The front end's methods as bytes, and back ends that answer wrongly.</summary>
public sealed class FrontendGoldenTests : IDisposable
{
    private readonly SafeFileHandle _event = Events.CreateEvent();
    private readonly SafeFileHandle _backend;
    private readonly VhostUserFrontend _frontend;

    public FrontendGoldenTests()
    {
        (SafeFileHandle first, _backend) = BackendRig.SocketPair();
        _frontend = new VhostUserFrontend(first);
    }

    [Fact]
    public void Requests_without_answer_have_certain_bytes()
    {
        AssertSends(0, "03000000 01000000 00000000", () => _frontend.SetOwner());
        AssertSends(
            0, "02000000 01000000 08000000 0000007001000000", () => _frontend.SetFeatures(
                VirtioFeatures.Version1 | VirtioFeatures.EventIndex | VirtioFeatures.IndirectDescriptors
                | VirtioFeatures.ProtocolFeatures));
        AssertSends(0, "08000000 01000000 08000000 01000000 00040000", () => _frontend.SetVringNum(1, 1024));
        AssertSends(0, "0a000000 01000000 08000000 01000000 efbe0000", () => _frontend.SetVringBase(1, 0xbeef));
        AssertSends(0, "12000000 01000000 08000000 02000000 01000000", () => _frontend.SetVringEnable(2, true));
        AssertSends(0, "12000000 01000000 08000000 02000000 00000000", () => _frontend.SetVringEnable(2, false));
        AssertSends(
            0,
            "09000000 01000000 28000000 02000000 01000000 1000000000000000 3000000000000000 2000000000000000 4000000000000000",
            () => _frontend.SetVringAddresses(new VringAddresses(
                2,
                VringAddressFlags.LogUsedRing,
                Descriptors: new FrontendAddress(0x10),
                Available: new FrontendAddress(0x20),
                Used: new FrontendAddress(0x30),
                Log: new GuestAddress(0x40))));
        AssertSends(0, "22000000 01000000 00000000", () => _frontend.ResetDevice());
        AssertSends(
            0, "26000000 01000000 28000000 0000000000000000 0000004000000000 0000100000000000 00000000127f0000 0000000000000000",
            () => _frontend.RemoveMemoryRegion(TestMemory.Range));
        AssertSends(
            0, "19000000 01000000 0e000000 04000000 02000000 01000000 6162",
            () => _frontend.SetConfig(4, "ab"u8, ConfigFlags.Migration));
        AssertSends(
            0, "10000000 01000000 08000000 0900000000000000",
            () => _frontend.SetProtocolFeatures(
                VhostUserProtocolFeatures.MultipleQueues | VhostUserProtocolFeatures.ReplyAcknowledge));
    }

    [Fact]
    public void Requests_with_descriptors_have_certain_bytes()
    {
        using TestMemory memory = new();
        AssertSends(1, "0c000000 01000000 08000000 0300000000000000", () => _frontend.SetVringKick(3, _event));
        AssertSends(0, "0c000000 01000000 08000000 0301000000000000", () => _frontend.SetVringKick(3, null));
        AssertSends(1, "0d000000 01000000 08000000 0300000000000000", () => _frontend.SetVringCall(3, _event));
        AssertSends(1, "0e000000 01000000 08000000 0300000000000000", () => _frontend.SetVringError(3, _event));
        AssertSends(1, "15000000 01000000 00000000", () => _frontend.SetBackendRequestChannel(_event));
        AssertSends(
            3, "01005743 01000000 08000000 0200000001000000",
            () => _frontend.AddFuseDevice(_event, _event, _event, new FuseDeviceDescription(2, FuseDeviceFlags.NeverPolls)));
        AssertSends(
            1, "06000000 01000000 10000000 0020000000000000 0010000000000000",
            () => _frontend.SetLogBase(memory.File, new LogArea(0x2000, 0x1000)));
        AssertSends(
            1, "25000000 01000000 28000000 0000000000000000 0000004000000000 0000100000000000 00000000127f0000 0000000000000000",
            () => _frontend.AddMemoryRegion(memory.Region));
        AssertSends(
            2, "05000000 01000000 48000000 0200000000000000 "
                + "0000004000000000 0000100000000000 00000000127f0000 0000000000000000"
                + "0000005000000000 0010000000000000 0000000055550000 0020000000000000",
            () => _frontend.SetMemoryTable(memory.Region, new FrontendRegion(
                new GuestMemoryRange(new GuestAddress(0x5000_0000), new FrontendAddress(0x5555_0000_0000), 0x1000, 0x2000),
                memory.File)));
    }

    [Fact]
    public void Questions_have_certain_bytes_and_understand_the_answer()
    {
        _backend.SendHex("01000000 05000000 08000000 0000007401000000");
        AssertSends(0, "01000000 01000000 00000000", () => Assert.Equal(0x174000000UL, (ulong)_frontend.GetFeatures()));
        _backend.SendHex("0f000000 05000000 08000000 2ba4000000000000");
        AssertSends(
            0, "0f000000 01000000 00000000", () => Assert.Equal(0xa42bUL, (ulong)_frontend.GetProtocolFeatures()));
        _backend.SendHex("11000000 05000000 08000000 0500000000000000");
        AssertSends(0, "11000000 01000000 00000000", () => Assert.Equal(5, _frontend.GetQueueNum()));
        _backend.SendHex("24000000 05000000 08000000 fd01000000000000");
        AssertSends(0, "24000000 01000000 00000000", () => Assert.Equal(509, _frontend.GetMaxMemorySlots()));
        _backend.SendHex("0b000000 05000000 08000000 02000000 feff0000");
        AssertSends(
            0, "0b000000 01000000 08000000 02000000 00000000", () => Assert.Equal(0xfffeu, _frontend.GetVringBase(2)));
        _backend.SendHex("18000000 05000000 0f000000 04000000 03000000 00000000 616263");
        AssertSends(0, "18000000 01000000 0f000000 04000000 03000000 00000000 000000", () =>
        {
            byte[] config = new byte[3];
            _frontend.GetConfig(4, config);
            Assert.Equal("abc"u8.ToArray(), config);
        });
    }

    [Fact]
    public void With_acknowledgements_each_request_asks_for_one_and_a_refusal_leaves_the_connection_open()
    {
        Acknowledge();

        _backend.SendHex("08000000 05000000 08000000 0000000000000000");
        AssertSends(0, "08000000 09000000 08000000 00000000 00010000", () => _frontend.SetVringNum(0, 256));
        _backend.SendHex("08000000 05000000 08000000 1600000000000000");
        AssertSends(0, "08000000 09000000 08000000 00000000 03000000", () =>
        {
            VhostUserRefusedException refusal =
                Assert.Throws<VhostUserRefusedException>(() => _frontend.SetVringNum(0, 3));
            Assert.Equal(VhostUserRequest.SetVringNum, refusal.Request);
            Assert.Equal("the back end refused SET_VRING_NUM (0x16)", refusal.Message);
        });
        Assert.True(_frontend.IsConnected);
    }

    [Theory]
    [InlineData("02000000 05000000 08000000 0000000000000000", "answered SET_FEATURES instead of SET_OWNER")]
    [InlineData("03000000 0d000000 08000000 0000000000000000", "flags 0xd")]
    [InlineData("03000000 01000000 08000000 0000000000000000", "flags 0x1")]
    [InlineData("03000000 05000000 04000000 00000000", "4 bytes instead of 8")]
    [InlineData("03000000 05000000 00000100", "65536 bytes")]
    [InlineData("03000000 05000000 08000000 000000", "in the middle of a message")]
    [InlineData("0300", "in the middle of a message")]
    [InlineData("", "closed the connection instead of answering SET_OWNER")]
    public void A_wrong_answer_ends_the_connection(string answer, string complaint)
    {
        Acknowledge();
        if (answer.Length > 0)
        {
            _backend.SendHex(answer);
        }

        Sockets.Shutdown((int)_backend.DangerousGetHandle(), SocketShutdown.Write);

        VhostUserException exception = Assert.Throws<VhostUserException>(_frontend.SetOwner);

        Assert.Contains(complaint, exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_back_end_that_is_gone_is_reported_by_name_of_the_request()
    {
        _backend.Dispose();

        Assert.False(_frontend.IsConnected);
        VhostUserException exception = Assert.Throws<VhostUserException>(_frontend.SetOwner);
        Assert.Equal("the back end closed the connection before SET_OWNER", exception.Message);
    }

    [Fact]
    public void A_back_end_that_does_not_answer_is_given_up_and_a_late_answer_not_mistaken()
    {
        _frontend.ReplyTimeout = TimeSpan.FromMilliseconds(1);

        Assert.Contains(
            "did not answer GET_FEATURES",
            Assert.Throws<VhostUserException>(() => _frontend.GetFeatures()).Message, StringComparison.Ordinal);
        Assert.Throws<VhostUserException>(() => _frontend.GetQueueNum());
    }

    [Fact]
    public void The_answer_for_another_ring_is_no_answer()
    {
        _backend.SendHex("0b000000 05000000 08000000 01000000 00000000");

        Assert.Throws<VhostUserException>(() => _frontend.GetVringBase(0));
    }

    [Fact]
    public void A_configuration_that_the_back_end_does_not_have_is_a_refusal()
    {
        _backend.SendHex("18000000 05000000 00000000");

        Assert.Throws<VhostUserRefusedException>(() => _frontend.GetConfig(0, new byte[40]));
        Assert.True(_frontend.IsConnected);
    }

    public void Dispose()
    {
        _frontend.Dispose();
        _backend.Dispose();
        _event.Dispose();
    }

    private void Acknowledge()
    {
        _frontend.SetProtocolFeatures(VhostUserProtocolFeatures.ReplyAcknowledge);
        Assert.Equal("1000000001000000080000000800000000000000", _backend.ReceiveHex(20));
    }

    private void AssertSends(int descriptors, string hex, Action action)
    {
        action();
        string expected = hex.Replace(" ", "");
        Assert.Equal(expected, _backend.ReceiveHex(expected.Length / 2, out int received));
        Assert.Equal(descriptors, received);
    }
}
