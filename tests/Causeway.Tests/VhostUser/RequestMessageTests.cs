using System.Runtime.InteropServices;
using Causeway.VhostUser.Messages;
using Causeway.Virtio;
using CsCheck;

namespace Causeway.Tests.VhostUser;

/// <summary>The decoder alone: bytes in, message or fault out.</summary>
public sealed class RequestMessageTests
{
    [Theory]
    [InlineData("", 0, RequestFault.Incomplete)]
    [InlineData("01000000 01000000 000000", 0, RequestFault.Incomplete)]
    [InlineData("01000000 00000000 00000000", 0, RequestFault.WrongVersion)]
    [InlineData("01000000 02000000 00000000", 0, RequestFault.WrongVersion)]
    [InlineData("01000000 03000000 00000000", 0, RequestFault.WrongVersion)]
    [InlineData("01000000 05000000 00000000", 0, RequestFault.IsReply)]
    [InlineData("01000000 11000000 00000000", 0, RequestFault.UnknownFlags)]
    [InlineData("01000000 01000080 00000000", 0, RequestFault.UnknownFlags)]
    [InlineData("01000000 01000000 01100000", 0, RequestFault.TooLong)]
    [InlineData("01000000 01000000 ffffffff", 0, RequestFault.TooLong)]
    [InlineData("01000000 01000000 08000000", 0, RequestFault.Incomplete)]
    [InlineData("01000000 01000000 00000000 00", 0, RequestFault.Incomplete)]
    [InlineData("01000000 01000000 00000000", 0, RequestFault.None)]
    [InlineData("01000000 09000000 00000000", 0, RequestFault.None)]
    [InlineData("01000000 01000000 00000000", 1, RequestFault.WrongDescriptorCount)]
    [InlineData("00000000 01000000 00000000", 0, RequestFault.UnknownRequest)]
    [InlineData("2d000000 01000000 00000000", 0, RequestFault.UnknownRequest)]
    [InlineData("ffffffff 01000000 00000000", 0, RequestFault.UnknownRequest)]
    [InlineData("13000000 01000000 08000000 0000000000000000", 0, RequestFault.UnsupportedRequest)]
    [InlineData("29000000 01000000 00000000", 0, RequestFault.UnsupportedRequest)]
    [InlineData("02000000 01000000 04000000 00000000", 0, RequestFault.WrongSize)]
    [InlineData("08000000 01000000 0c000000 000000000000000000000000", 0, RequestFault.WrongSize)]
    [InlineData("0c000000 01000000 08000000 0000000000000000", 0, RequestFault.WrongDescriptorCount)]
    [InlineData("0c000000 01000000 08000000 0000000000000000", 2, RequestFault.WrongDescriptorCount)]
    [InlineData("0c000000 01000000 08000000 0001000000000000", 1, RequestFault.WrongDescriptorCount)]
    [InlineData("0c000000 01000000 08000000 0001000000000000", 0, RequestFault.None)]
    [InlineData("0c000000 01000000 08000000 0000000000000000", 1, RequestFault.None)]
    [InlineData("05000000 01000000 04000000 00000000", 0, RequestFault.WrongSize)]
    [InlineData("05000000 01000000 08000000 0000000000000000", 0, RequestFault.None)]
    [InlineData("05000000 01000000 08000000 0100000000000000", 1, RequestFault.WrongSize)]
    [InlineData("05000000 01000000 08000000 2100000000000000", 33, RequestFault.WrongDescriptorCount)]
    [InlineData("05000000 01000000 08000000 ffffffff00000000", 0, RequestFault.WrongDescriptorCount)]
    [InlineData("15000000 01000000 00000000", 0, RequestFault.WrongDescriptorCount)]
    [InlineData("06000000 01000000 08000000 0000000000000000", 0, RequestFault.None)]
    [InlineData("18000000 01000000 08000000 0000000000000000", 0, RequestFault.WrongSize)]
    [InlineData("18000000 01000000 0c000000 00000000 04000000 00000000", 0, RequestFault.WrongSize)]
    [InlineData("18000000 01000000 0c000000 00000000 ffffffff 00000000", 0, RequestFault.WrongSize)]
    [InlineData("18000000 01000000 10000000 00000000 04000000 00000000 00000000", 0, RequestFault.None)]
    public void Bytes_are_a_request_or_have_a_certain_fault(string hex, int descriptors, RequestFault expected)
    {
        byte[] bytes = Convert.FromHexString(hex.Replace(" ", ""));

        Assert.Equal(expected, RequestMessage.TryDecode(bytes, descriptors, out _));
    }

    [Fact]
    public void The_fields_of_ring_addresses_are_in_the_order_of_the_document()
    {
        byte[] bytes = Convert.FromHexString(
            "09000000" + "01000000" + "28000000"
            + "03000000" + "01000000"
            + "1111000000000000" + "2222000000000000" + "3333000000000000" + "4444000000000000");

        Assert.Equal(RequestFault.None, RequestMessage.TryDecode(bytes, 0, out RequestMessage message));
        VringAddresses addresses = message.Addresses;
        Assert.Equal(3u, addresses.Index);
        Assert.Equal(VringAddressFlags.LogUsedRing, addresses.Flags);
        Assert.Equal(new FrontendAddress(0x1111), addresses.Descriptors);
        Assert.Equal(new FrontendAddress(0x2222), addresses.Used);
        Assert.Equal(new FrontendAddress(0x3333), addresses.Available);
        Assert.Equal(new GuestAddress(0x4444), addresses.Log);
    }

    [Fact]
    public void The_regions_of_a_table_are_found_one_by_one()
    {
        // What QEMU 11.1 sends for a small q35 guest: 640 KiB, and the rest of the same file above the hole.
        byte[] bytes = Convert.FromHexString(
            "05000000" + "09000000" + "48000000" + "02000000" + "00000000"
            + "0000000000000000" + "00000a0000000000" + "000020aaaa7f0000" + "0000000000000000"
            + "00000c0000000000" + "0000f40f00000000" + "00002caaaa7f0000" + "00000c0000000000");

        Assert.Equal(RequestFault.None, RequestMessage.TryDecode(bytes, 2, out RequestMessage message));
        Assert.True(message.NeedsReply);
        Assert.Equal(2, message.RegionCount);
        Assert.Equal(
            new MemoryRegionEntry(new GuestAddress(0), 0xa0000, new FrontendAddress(0x7faaaa200000), 0),
            message.RegionAt(0));
        Assert.Equal(
            new MemoryRegionEntry(new GuestAddress(0xc0000), 0xff40000, new FrontendAddress(0x7faaaa2c0000), 0xc0000),
            message.RegionAt(1));
    }

    [Fact]
    public void Random_bytes_are_decoded_or_refused_and_never_read_past_their_end()
    {
        // Half the samples have a plausible header, or nearly all would fail at the version.
        Gen<byte[]> noise = Gen.Byte.Array[0, 120];
        Gen<byte[]> plausible = Gen.Select(Gen.UInt[0, 48], Gen.UInt[0, 15], Gen.Byte.Array[0, 200], Gen.Int[0, 9])
            .Select((request, flags, payload, lie) =>
            {
                byte[] bytes = new byte[VhostUserHeader.Length + payload.Length];
                uint size = (uint)payload.Length + (lie == 0 ? 1u : 0u);
                MemoryMarshal.Write(bytes, new VhostUserHeader(request, (VhostUserHeaderFlags)flags, size));
                payload.CopyTo(bytes, VhostUserHeader.Length);
                return bytes;
            });
        Gen.Select(Gen.Bool, noise, plausible, Gen.Int[0, 34]).Sample(
            (isNoise, first, second, descriptors) => ReadEverything(isNoise ? first : second, descriptors),
            iter: 100_000,
            threads: 1);
    }

    /// <summary>Uses each accessor that belongs to the request; one that reads too far throws.</summary>
    private static void ReadEverything(byte[] bytes, int descriptors)
    {
        if (RequestMessage.TryDecode(bytes, descriptors, out RequestMessage message) != RequestFault.None)
        {
            return;
        }

        switch (message.Request)
        {
            case VhostUserRequest.SetFeatures or VhostUserRequest.SetProtocolFeatures:
                _ = message.Word;
                break;
            case VhostUserRequest.SetVringNum or VhostUserRequest.SetVringBase or VhostUserRequest.GetVringBase
                or VhostUserRequest.SetVringEnable:
                _ = message.State;
                break;
            case VhostUserRequest.SetVringKick or VhostUserRequest.SetVringCall or VhostUserRequest.SetVringError:
                Assert.Equal(message.Event.HasDescriptor ? 1 : 0, descriptors);
                break;
            case VhostUserRequest.SetVringAddress:
                _ = message.Addresses;
                break;
            case VhostUserRequest.AddMemoryRegion or VhostUserRequest.RemoveMemoryRegion:
                _ = message.Region;
                break;
            case VhostUserRequest.AddFuseDevice:
                _ = message.FuseDevice;
                Assert.Equal(3, descriptors);
                break;
            case VhostUserRequest.SetLogBase:
                Assert.Equal(message.Log is null ? 0 : 1, descriptors);
                break;
            case VhostUserRequest.GetConfig or VhostUserRequest.SetConfig:
                Assert.Equal(message.Config.Size, (uint)message.ConfigBytes.Length);
                break;
            case VhostUserRequest.SetMemoryTable:
                Assert.Equal(message.RegionCount, descriptors);
                for (int i = 0; i < message.RegionCount; i++)
                {
                    _ = message.RegionAt(i);
                }

                break;
            default:
                break;
        }
    }
}
