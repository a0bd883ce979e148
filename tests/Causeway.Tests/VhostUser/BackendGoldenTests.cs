using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Tests.VhostUser;

/// <summary>Requests as bytes to a live back end, and its answers as bytes. Header: request, flags, size of the payload.</summary>
public sealed class BackendGoldenTests
{
    private const string NegotiateEverything = "10000000 01000000 08000000 2ba6000000000000";

    // The replies carry flags 5 exactly: version 1 and REPLY.
    [Theory]
    [InlineData("GET_FEATURES: 26, 28, 29, 30, 32",
        "01000000 01000000 00000000", "01000000 05000000 08000000 0000007401000000")]
    [InlineData("GET_PROTOCOL_FEATURES: 0, 1, 3, 5, 9, 10, 13, 15",
        "0f000000 01000000 00000000", "0f000000 05000000 08000000 2ba6000000000000")]
    [InlineData("GET_QUEUE_NUM",
        "11000000 01000000 00000000", "11000000 05000000 08000000 0200000000000000")]
    [InlineData("GET_MAX_MEM_SLOTS: 509",
        "24000000 01000000 00000000", "24000000 05000000 08000000 fd01000000000000")]
    [InlineData("GET_VRING_BASE of ring 1",
        "0b000000 01000000 08000000 01000000 00000000", "0b000000 05000000 08000000 01000000 00000000")]
    [InlineData("GET_CONFIG of 4 bytes at 2, flags 1 as crosvm sends",
        "18000000 01000000 10000000 02000000 04000000 01000000 00000000",
        "18000000 05000000 10000000 02000000 04000000 01000000 63646566")]
    [InlineData("GET_CONFIG beyond the end reads zeros",
        "18000000 01000000 12000000 06000000 06000000 00000000 000000000000",
        "18000000 05000000 12000000 06000000 06000000 00000000 676800000000")]
    [InlineData("GET_CONFIG at an offset where no configuration ends fails with no payload",
        "18000000 01000000 10000000 ffffffff 04000000 00000000 00000000", "18000000 05000000 00000000")]
    [InlineData("GET_CONFIG of nothing fails with no payload",
        "18000000 01000000 0c000000 00000000 00000000 00000000", "18000000 05000000 00000000")]
    [InlineData("a reply of its own is not acknowledged besides",
        "01000000 09000000 00000000", "01000000 05000000 08000000 0000007401000000")]
    [InlineData("SET_OWNER",
        "03000000 09000000 00000000", "03000000 05000000 08000000 0000000000000000")]
    [InlineData("RESET_OWNER",
        "04000000 09000000 00000000", "04000000 05000000 08000000 0000000000000000")]
    [InlineData("SET_FEATURES 28, 29, 30, 32 as QEMU sends",
        "02000000 09000000 08000000 0000007001000000", "02000000 05000000 08000000 0000000000000000")]
    [InlineData("SET_PROTOCOL_FEATURES once more",
        "10000000 09000000 08000000 2ba6000000000000", "10000000 05000000 08000000 0000000000000000")]
    [InlineData("SET_MEM_TABLE without regions",
        "05000000 09000000 08000000 0000000000000000", "05000000 05000000 08000000 0000000000000000")]
    [InlineData("SET_VRING_NUM 1024 of ring 0",
        "08000000 09000000 08000000 00000000 00040000", "08000000 05000000 08000000 0000000000000000")]
    [InlineData("SET_VRING_BASE 65535 of ring 1",
        "0a000000 09000000 08000000 01000000 ffff0000", "0a000000 05000000 08000000 0000000000000000")]
    [InlineData("SET_VRING_ADDR of ring 0",
        "09000000 09000000 28000000 00000000 00000000 0000000000100000 0000000000200000 0000000000300000 0000000000000000",
        "09000000 05000000 08000000 0000000000000000")]
    [InlineData("SET_VRING_ENABLE 1 of ring 0",
        "12000000 09000000 08000000 00000000 01000000", "12000000 05000000 08000000 0000000000000000")]
    [InlineData("SET_VRING_CALL of ring 0 without event",
        "0d000000 09000000 08000000 0001000000000000", "0d000000 05000000 08000000 0000000000000000")]
    [InlineData("SET_VRING_ERR of ring 1 without event",
        "0e000000 09000000 08000000 0101000000000000", "0e000000 05000000 08000000 0000000000000000")]
    [InlineData("RESET_DEVICE",
        "22000000 09000000 00000000", "22000000 05000000 08000000 0000000000000000")]
    [InlineData("SET_CONFIG after migration",
        "19000000 09000000 0d000000 00000000 01000000 01000000 61", "19000000 05000000 08000000 0000000000000000")]
    [InlineData("SET_CONFIG by the driver: no field is writable",
        "19000000 09000000 0d000000 00000000 01000000 00000000 61", "19000000 05000000 08000000 0100000000000000")]
    [InlineData("SEND_RARP: a network's",
        "13000000 09000000 08000000 0000000000000000", "13000000 05000000 08000000 0100000000000000")]
    [InlineData("SET_STATUS: not offered",
        "27000000 09000000 08000000 0800000000000000", "27000000 05000000 08000000 0100000000000000")]
    [InlineData("request 1000: unknown",
        "e8030000 09000000 00000000", "e8030000 05000000 08000000 0100000000000000")]
    public void A_request_has_a_certain_answer(string meaning, string request, string answer)
    {
        Assert.NotEmpty(meaning);
        using BackendRig rig = new(new RecordingDevice { Config = "abcdefgh"u8.ToArray() });
        rig.Socket.SendHex(NegotiateEverything);

        rig.Socket.SendHex(request);

        string expected = answer.Replace(" ", "");
        Assert.Equal(expected, rig.Socket.ReceiveHex(expected.Length / 2, out int descriptors));
        Assert.Equal(0, descriptors);
        AssertSilentAndAlive(rig);
    }

    [Theory]
    [InlineData("SET_VRING_KICK", "0c000000 09000000 08000000 0100000000000000")]
    [InlineData("SET_VRING_CALL", "0d000000 09000000 08000000 0100000000000000")]
    [InlineData("SET_VRING_ERR", "0e000000 09000000 08000000 0100000000000000")]
    [InlineData("SET_LOG_FD", "07000000 09000000 00000000")]
    public void A_request_with_an_event_is_acknowledged(string meaning, string request)
    {
        Assert.NotEmpty(meaning);
        using SafeFileHandle handle = Events.CreateEvent();
        using BackendRig rig = new();
        rig.Socket.SendHex("10000000 01000000 08000000 2ba4000000000000");

        rig.Socket.SendHex(request, handle);

        Assert.Equal(request[..8] + "05000000080000000000000000000000", rig.Socket.ReceiveHex(20));
        AssertSilentAndAlive(rig);
    }

    [Fact]
    public void Memory_and_log_have_their_bytes_too()
    {
        using TestMemory memory = new();
        using BackendRig rig = new();
        rig.Socket.SendHex("10000000 01000000 08000000 2ba4000000000000");

        rig.Socket.SendHex(
            "25000000 09000000 28000000 0000000000000000 0000004000000000 0000100000000000 00000000127f0000 0000000000000000",
            memory.File);
        Assert.Equal("2500000005000000080000000000000000000000", rig.Socket.ReceiveHex(20));
        Assert.Equal([TestMemory.Range], rig.Device.Memory!.Regions.Select(region => region.Range));

        // Without descriptor, and with another offset in the file: neither matters.
        rig.Socket.SendHex(
            "26000000 09000000 28000000 0000000000000000 0000004000000000 0000100000000000 00000000127f0000 0010000000000000");
        Assert.Equal("2600000005000000080000000000000000000000", rig.Socket.ReceiveHex(20));
        Assert.Empty(rig.Device.Memory!.Regions);

        rig.Socket.SendHex("06000000 01000000 10000000 0020000000000000 0000000000000000", memory.File);
        Assert.Equal("0600000005000000080000000000000000000000", rig.Socket.ReceiveHex(20));
        AssertSilentAndAlive(rig);
    }

    [Fact]
    public void Without_configuration_space_the_feature_is_not_offered()
    {
        using BackendRig rig = new();

        rig.Socket.SendHex("0f000000 01000000 00000000");

        Assert.Equal("0f00000005000000080000002ba4000000000000", rig.Socket.ReceiveHex(20));
    }

    [Fact]
    public void Nothing_is_acknowledged_before_the_feature_is_negotiated()
    {
        using BackendRig rig = new();

        rig.Socket.SendHex("03000000 09000000 00000000");
        rig.Socket.SendHex("10000000 09000000 08000000 0900000000000000");
        rig.Socket.SendHex("03000000 09000000 00000000");

        // The one for the last SET_OWNER and no other.
        Assert.Equal("0300000005000000080000000000000000000000", rig.Socket.ReceiveHex(20));
        AssertSilentAndAlive(rig);
    }

    [Fact]
    public void Nothing_is_acknowledged_that_did_not_ask()
    {
        using BackendRig rig = new();
        rig.Socket.SendHex(NegotiateEverything.Replace("2ba6", "2ba4", StringComparison.Ordinal));

        rig.Socket.SendHex("03000000 01000000 00000000");
        rig.Socket.SendHex("27000000 01000000 08000000 0800000000000000");

        AssertSilentAndAlive(rig);
    }

    [Fact]
    public void A_message_may_come_byte_by_byte()
    {
        using SafeFileHandle handle = Events.CreateEvent();
        using BackendRig rig = new();
        rig.Socket.SendHex("10000000 01000000 08000000 2ba4000000000000");
        byte[] request = Convert.FromHexString("0d00000009000000080000000000000000000000");

        rig.Socket.SendBytes(request.AsSpan(0, 1), handle);
        for (int i = 1; i < request.Length; i++)
        {
            rig.Socket.SendBytes(request.AsSpan(i, 1));
        }

        Assert.Equal("0d00000005000000080000000000000000000000", rig.Socket.ReceiveHex(20));
    }

    private static void AssertSilentAndAlive(BackendRig rig)
    {
        rig.Socket.SendHex("01000000 01000000 00000000");
        Assert.Equal("0100000005000000080000000000007401000000", rig.Socket.ReceiveHex(20));
    }
}
