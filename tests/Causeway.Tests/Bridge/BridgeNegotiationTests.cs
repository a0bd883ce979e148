using Causeway.Driver.Bridge;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Bridge;

public sealed class BridgeNegotiationTests
{
    private static readonly BridgeOptions s_options = new() { SocketPath = "/x", MountPoint = "/y" };

    [Fact]
    public void The_device_is_offered_what_the_kernel_offers_and_both_sides_understand_alike()
    {
        FuseInitIn asked = BridgeNegotiation.ToDevice(Kernel(ulong.MaxValue & ~0x8000_0000UL), s_options);

        var offered = (FuseFeatures)(asked.Flags | ((ulong)asked.Flags2 << 32));
        Assert.Equal((7u, 46u, 131072u), (asked.Major, asked.Minor, asked.MaxReadahead));
        Assert.Equal(
            FuseFeatures.None,
            offered & (FuseFeatures.OverIoUring | FuseFeatures.IoUringBufferPool | FuseFeatures.Passthrough
                | FuseFeatures.HasResend | FuseFeatures.HasExpireOnly | FuseFeatures.AbortError | FuseFeatures.MapAlignment
                | FuseFeatures.HasInodeDax | FuseFeatures.Submounts | FuseFeatures.RequestTimeout
                | FuseFeatures.SpliceRead | FuseFeatures.SpliceWrite | FuseFeatures.SpliceMove));
        Assert.Equal(
            FuseFeatures.MaxPages | FuseFeatures.SetXattrExt | FuseFeatures.CreateSuppGroup | FuseFeatures.AllowIdmap,
            offered & (FuseFeatures.MaxPages | FuseFeatures.SetXattrExt | FuseFeatures.CreateSuppGroup | FuseFeatures.AllowIdmap));
    }

    [Fact]
    public void Without_default_permissions_idmapped_mounts_are_not_offered()
    {
        FuseInitIn asked = BridgeNegotiation.ToDevice(
            Kernel((ulong)(FuseFeatures.InitExt | FuseFeatures.AllowIdmap)), s_options with { DefaultPermissions = false });

        Assert.Equal(0u, asked.Flags2);
    }

    [Fact]
    public void The_second_word_of_features_counts_only_with_the_flag_that_says_so()
    {
        FuseInitIn asked = BridgeNegotiation.ToDevice(Kernel((ulong)FuseFeatures.CreateSuppGroup), s_options);

        Assert.Equal(0u, asked.Flags2);
    }

    [Theory]
    [InlineData(6u, 46u, false)]
    [InlineData(7u, 30u, false)]
    [InlineData(7u, 31u, true)]
    [InlineData(7u, 99u, true)]
    public void Only_versions_with_the_structures_of_today_are_taken(uint major, uint minor, bool isTaken)
    {
        FuseInitIn asked = BridgeNegotiation.ToDevice(Kernel(0), s_options);

        Assert.Equal(isTaken, BridgeNegotiation.Refuse(asked, new FuseInitOut { Major = major, Minor = minor }) is null);
    }

    [Fact]
    public void The_kernel_is_told_limits_that_the_buffers_have()
    {
        FuseInitIn asked = BridgeNegotiation.ToDevice(Kernel((ulong)FuseFeatures.MaxPages), s_options);

        FuseInitOut granted = BridgeNegotiation.ToKernel(asked, new FuseInitOut
        {
            Major = 7,
            Minor = 99,
            MaxReadahead = uint.MaxValue,
            MaxWrite = uint.MaxValue,
            MaxPages = ushort.MaxValue,
            TimeGranularity = 0,
            MapAlignment = 12,
            RequestTimeout = 5,
            MaxStackDepth = 2,
            Flags = (uint)FuseFeatures.MaxPages,
        });

        Assert.Equal(46u, granted.Minor);
        Assert.Equal(131072u, granted.MaxReadahead);
        Assert.Equal(1u << 20, granted.MaxWrite);
        Assert.Equal(256, granted.MaxPages);
        Assert.Equal(1u, granted.TimeGranularity);
        Assert.Equal((0, 0, 0u), (granted.MapAlignment, granted.RequestTimeout, granted.MaxStackDepth));
    }

    [Fact]
    public unsafe void Numbers_of_another_session_do_not_pass()
    {
        var second = new SessionTag(2);
        ulong id = 0x1234;
        Assert.True(second.TryMark(ref id));
        Assert.Equal(0x0200_0000_0000_1234UL, id);

        var request = new Request { Header = { Opcode = FuseOpcode.Read, NodeId = new NodeId(id) }, First = id };
        Assert.False(new SessionTag(1).TryUnmark((byte*)&request, sizeof(Request)));

        request = new Request { Header = { Opcode = FuseOpcode.Read, NodeId = new NodeId(id) }, First = 7 };
        Assert.False(second.TryUnmark((byte*)&request, sizeof(Request)));

        request = new Request { Header = { Opcode = FuseOpcode.Read, NodeId = new NodeId(id) }, First = id };
        Assert.True(second.TryUnmark((byte*)&request, sizeof(Request)));
        Assert.Equal((0x1234UL, 0x1234UL), (request.Header.NodeId.Value, request.First));

        request = new Request { Header = { Opcode = FuseOpcode.Lookup, NodeId = NodeId.Root } };
        Assert.True(second.TryUnmark((byte*)&request, sizeof(Request)));
        Assert.Equal(NodeId.Root, request.Header.NodeId);
    }

    private static FuseInitIn Kernel(ulong features) => new()
    {
        Major = 7,
        Minor = 46,
        MaxReadahead = 131072,
        Flags = (uint)features,
        Flags2 = (uint)(features >> 32),
    };

    private struct Request
    {
        public FuseInHeader Header;
        public ulong First;
        public ulong Second;
    }
}
