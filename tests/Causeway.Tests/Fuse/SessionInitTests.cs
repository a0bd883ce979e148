using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Fuse;

public sealed class SessionInitTests
{
    [Fact]
    public void Init_grants_the_sessions_features_and_the_file_systems_that_were_offered()
    {
        SessionRig rig = new();
        rig.FileSystem.Features = FuseFeatures.AutoInvalData | FuseFeatures.CreateSuppGroup | FuseFeatures.PosixAcl;

        FuseInitOut reply = Init(rig, Message.Init(SessionRig.AllFeatures & ~FuseFeatures.PosixAcl));

        const FuseFeatures expected =
            FuseFeatures.AsyncRead | FuseFeatures.AtomicOTrunc | FuseFeatures.BigWrites | FuseFeatures.HasIoctlDir
            | FuseFeatures.AsyncDio | FuseFeatures.ParallelDirOps | FuseFeatures.MaxPages | FuseFeatures.InitExt
            | FuseFeatures.AutoInvalData | FuseFeatures.CreateSuppGroup;
        Assert.Equal(expected, Granted(reply));
        Assert.Equal(7u, reply.Major);
        Assert.Equal(46u, reply.Minor);
        Assert.Equal(0x20000u, reply.MaxReadahead);
        Assert.Equal(1u << 20, reply.MaxWrite);
        Assert.Equal(256, reply.MaxPages);
        Assert.Equal(1u, reply.TimeGranularity);
        Assert.Equal(128, reply.MaxBackground);
        Assert.Equal(96, reply.CongestionThreshold);
        Assert.Equal(0, reply.MapAlignment);
        Assert.Equal(0u, reply.MaxStackDepth);
        Assert.Equal(0, reply.RequestTimeout);
    }

    [Fact]
    public void Init_never_grants_what_would_hang_or_break_a_virtio_fs_mount()
    {
        SessionRig rig = new();
        rig.FileSystem.Features = (FuseFeatures)ulong.MaxValue;

        FuseFeatures granted = Granted(Init(rig, Message.Init((FuseFeatures)ulong.MaxValue)));

        const FuseFeatures never =
            FuseFeatures.OverIoUring | FuseFeatures.Passthrough | FuseFeatures.ExplicitInvalData
            | FuseFeatures.AbortError | FuseFeatures.SpliceRead | FuseFeatures.SpliceWrite | FuseFeatures.SpliceMove
            | FuseFeatures.HasResend | FuseFeatures.HasExpireOnly | FuseFeatures.IoUringBufferPool
            | FuseFeatures.RequestTimeout | FuseFeatures.ExportSupport | FuseFeatures.HasInodeDax
            | FuseFeatures.MapAlignment | (FuseFeatures)(1UL << 31) | (FuseFeatures)(1UL << 2)
            | (FuseFeatures)0xffff_f000_0000_0000;
        Assert.Equal(FuseFeatures.None, granted & never);
    }

    [Theory]
    [InlineData(46, 46)]
    [InlineData(47, 46)]
    [InlineData(38, 38)]
    [InlineData(31, 31)]
    public void Init_settles_on_the_older_minor_version(uint offered, uint expected) =>
        Assert.Equal(expected, Init(new SessionRig(), Message.Init(SessionRig.AllFeatures, offered)).Minor);

    [Theory]
    [InlineData(7, 30)]
    [InlineData(7, 0)]
    [InlineData(6, 46)]
    [InlineData(0, 0)]
    public void Init_of_a_version_that_is_too_old_is_refused(uint major, uint minor)
    {
        SessionRig rig = new();

        byte[] reply = rig.Send(Message.Init(SessionRig.AllFeatures, minor, major), room: 80);

        Assert.Equal(Message.ErrorReply(Errno.EPROTO), reply);
        Assert.Empty(rig.FileSystem.Calls);
        Assert.False(rig.Session.IsOpen);
    }

    [Fact]
    public void Init_of_a_later_major_version_is_told_ours_and_tries_again()
    {
        SessionRig rig = new();

        FuseInitOut first = Init(rig, Message.Init(SessionRig.AllFeatures, 1, major: 8));

        Assert.Equal(Message.Bytes(new FuseInitOut { Major = 7, Minor = 46 }), Message.Bytes(first));
        Assert.Empty(rig.FileSystem.Calls);
        Assert.False(rig.Session.IsOpen);

        FuseInitOut second = Init(rig, Message.Init(SessionRig.AllFeatures));

        Assert.Equal(46u, second.Minor);
        Assert.True(rig.Session.IsOpen);
    }

    [Fact]
    public void Init_of_16_bytes_is_understood()
    {
        SessionRig rig = new();
        rig.FileSystem.Features = (FuseFeatures)ulong.MaxValue;
        byte[] message = Message.Init(FuseFeatures.AsyncRead | FuseFeatures.MaxPages, 31)[..56].WithLength(56);

        FuseInitOut reply = Init(rig, message);

        Assert.Equal(FuseFeatures.AsyncRead | FuseFeatures.MaxPages, Granted(reply));
        Assert.Equal(31u, reply.Minor);
    }

    [Theory]
    [InlineData(56)]
    [InlineData(60)]
    [InlineData(103)]
    public void Init_that_announces_more_features_than_it_sends_is_refused(int length)
    {
        SessionRig rig = new();
        byte[] message = Message.Init(SessionRig.AllFeatures)[..length].WithLength((uint)length);

        Assert.Equal(Message.ErrorReply(Errno.EINVAL), rig.Send(message, room: 80));
        Assert.Empty(rig.FileSystem.Calls);
    }

    [Fact]
    public void Init_without_INIT_EXT_ignores_the_second_word()
    {
        SessionRig rig = new();
        rig.FileSystem.Features = FuseFeatures.CreateSuppGroup | FuseFeatures.AutoInvalData;

        FuseInitOut reply = Init(rig, Message.Init(SessionRig.AllFeatures & ~FuseFeatures.InitExt));

        Assert.Equal(0u, reply.Flags2);
        Assert.Equal("INIT minor=46 offered=bffffffb", rig.FileSystem.Calls[0]);
    }

    [Theory]
    [InlineData(79)]
    [InlineData(16)]
    public void Init_without_room_for_the_reply_does_not_open_the_session(int room)
    {
        SessionRig rig = new();

        Assert.Equal(Message.ErrorReply(Errno.EIO), rig.Send(Message.Init(SessionRig.AllFeatures), room));
        Assert.Empty(rig.FileSystem.Calls);
        Assert.False(rig.Session.IsOpen);
    }

    [Fact]
    public void Limits_that_a_file_system_sets_are_kept_within_the_protocols()
    {
        SessionRig rig = new();
        rig.FileSystem.OnInitialize = negotiation =>
        {
            negotiation.MaxWrite = uint.MaxValue;
            negotiation.TimeGranularity = 0;
            negotiation.MaxBackground = 7;
        };

        FuseInitOut reply = Init(rig, Message.Init(SessionRig.AllFeatures));

        Assert.Equal(1u << 20, reply.MaxWrite);
        Assert.Equal(1u, reply.TimeGranularity);
        Assert.Equal(7, reply.MaxBackground);
    }

    [Fact]
    public void An_error_of_the_file_system_leaves_the_session_closed()
    {
        SessionRig rig = new();
        rig.FileSystem.Error = Errno.EPROTO;

        Assert.Equal(Message.ErrorReply(Errno.EPROTO), rig.Send(Message.Init(SessionRig.AllFeatures), room: 80));
        Assert.False(rig.Session.IsOpen);

        rig.FileSystem.Error = Errno.Success;
        Init(rig, Message.Init(SessionRig.AllFeatures));
        Assert.True(rig.Session.IsOpen);
    }

    [Fact]
    public void A_second_init_starts_the_file_system_anew()
    {
        SessionRig rig = SessionRig.Open();

        Init(rig, Message.Init(FuseFeatures.AsyncRead, 31));

        Assert.Equal(["INIT minor=31 offered=1"], rig.FileSystem.Calls);
        Assert.True(rig.Session.IsOpen);
    }

    [Fact]
    public void Before_init_every_request_is_refused()
    {
        for (uint opcode = 0; opcode < 60; opcode++)
        {
            if (opcode == (uint)FuseOpcode.Init)
            {
                continue;
            }

            SessionRig rig = new();
            byte[] reply = rig.Send(Message.Request((FuseOpcode)opcode, 1, new byte[88]), room: 400);

            bool isAnswered = opcode is not (2 or 36 or 41 or 42);
            Assert.Equal(isAnswered ? Message.ErrorReply(Errno.EIO) : [], reply);
            Assert.Empty(rig.FileSystem.Calls);
            Assert.Equal(1, rig.Request.Counters.Violations(FuseViolation.NotInitialized));
        }
    }

    [Fact]
    public void Destroy_ends_the_session_and_is_answered()
    {
        SessionRig rig = SessionRig.Open();

        Assert.Equal(Message.Reply(), rig.Send(Message.Request(FuseOpcode.Destroy, 0), room: 16));
        Assert.Equal(["DESTROY"], rig.FileSystem.Calls);
        Assert.Equal(
            Message.ErrorReply(Errno.EIO), rig.Send(Message.Request(FuseOpcode.Statfs, 1), room: 96));
        Assert.Equal(["DESTROY"], rig.FileSystem.Calls);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(15)]
    public void Destroy_without_room_for_a_reply_still_ends_the_session(int room)
    {
        SessionRig rig = SessionRig.Open();

        Assert.Empty(rig.Send(Message.Request(FuseOpcode.Destroy, 0), room));
        Assert.Equal(["DESTROY"], rig.FileSystem.Calls);
        Assert.False(rig.Session.IsOpen);
    }

    [Fact]
    public void Reset_ends_an_open_session_once()
    {
        SessionRig rig = SessionRig.Open();

        rig.Session.Reset();
        rig.Session.Reset();

        Assert.Equal(["DESTROY"], rig.FileSystem.Calls);
        Assert.False(rig.Session.IsOpen);
    }

    private static FuseInitOut Init(SessionRig rig, byte[] message)
    {
        byte[] reply = rig.Send(message, room: 80);
        Assert.Equal(80, reply.Length);
        return MemoryMarshal.Read<FuseInitOut>(reply.AsSpan(16));
    }

    private static FuseFeatures Granted(FuseInitOut reply) =>
        (FuseFeatures)(reply.Flags | ((ulong)reply.Flags2 << 32));
}
