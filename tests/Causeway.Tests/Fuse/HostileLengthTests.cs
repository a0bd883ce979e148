using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Fuse;

/// <summary>Lengths that lie: the rules of fuse-virtiofs.md 6.1, and H1 to H4 of passthrough.md 7.12.</summary>
public sealed class HostileLengthTests
{
    private static readonly byte[] GetAttr =
        Message.Request(FuseOpcode.GetAttr, 1, Message.Bytes(default(FuseGetAttrIn)));

    [Theory]
    [InlineData(0)]
    [InlineData(20)]
    [InlineData(39)]
    public void A_request_without_a_whole_header_is_answered_with_EIO_for_nobody(int length)
    {
        SessionRig rig = SessionRig.Open();

        Assert.Equal(Message.ErrorReply(Errno.EIO, unique: 0), rig.Send(GetAttr[..length], room: 120));
        Assert.Empty(rig.FileSystem.Calls);
        Assert.Equal(1, rig.Request.Counters.Violations(FuseViolation.NoHeader));
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(20, 15)]
    [InlineData(39, 8)]
    public void A_request_without_a_header_and_without_room_is_only_given_back(int length, int room) =>
        Assert.Empty(SessionRig.Open().Send(GetAttr[..length], room));

    [Theory]
    [InlineData(0u, Errno.EINVAL)]
    [InlineData(39u, Errno.EINVAL)]
    [InlineData(57u, Errno.EINVAL)]
    [InlineData((1u << 20) + 4096, Errno.EINVAL)]
    [InlineData((1u << 20) + 4097, Errno.ENOMEM)]
    [InlineData(0x8000_0000u, Errno.ENOMEM)]
    [InlineData(uint.MaxValue, Errno.ENOMEM)]
    public void A_length_that_is_not_that_of_the_request_is_refused(uint length, Errno expected)
    {
        SessionRig rig = SessionRig.Open();

        Assert.Equal(Message.ErrorReply(expected), rig.Send(GetAttr.WithLength(length), room: 120));
        Assert.Empty(rig.FileSystem.Calls);
        Assert.Equal(1, rig.Request.Counters.TotalViolations);
    }

    [Fact]
    public void Bytes_after_the_length_are_ignored()
    {
        SessionRig rig = SessionRig.Open();

        Assert.Equal(120, rig.Send([.. GetAttr, 1, 2, 3], room: 120).Length);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(8)]
    [InlineData(15)]
    public void Without_room_for_a_header_nothing_is_done(int room)
    {
        SessionRig rig = SessionRig.Open();

        Assert.Empty(rig.Send(GetAttr, room));
        Assert.Empty(rig.FileSystem.Calls);
        Assert.Equal(1, rig.Request.Counters.Violations(FuseViolation.NoReplySpace));
    }

    [Theory]
    [InlineData(16)]
    [InlineData(119)]
    public void With_room_for_a_header_only_the_answer_is_EIO(int room)
    {
        SessionRig rig = SessionRig.Open();

        Assert.Equal(Message.ErrorReply(Errno.EIO), rig.Send(GetAttr, room));
        Assert.Empty(rig.FileSystem.Calls);
    }

    [Fact]
    public void More_room_than_the_reply_needs_is_left_alone()
    {
        SessionRig rig = SessionRig.Open();

        Assert.Equal(120, rig.Send(GetAttr, room: 4096).Length);
    }

    public static TheoryData<FuseOpcode, int> FixedLengths => new()
    {
        { FuseOpcode.GetAttr, 16 }, { FuseOpcode.Statx, 24 }, { FuseOpcode.SetAttr, 88 }, { FuseOpcode.ReadLink, 0 },
        { FuseOpcode.Open, 8 }, { FuseOpcode.OpenDir, 8 }, { FuseOpcode.Read, 40 }, { FuseOpcode.ReadDir, 40 },
        { FuseOpcode.ReadDirPlus, 40 }, { FuseOpcode.Statfs, 0 }, { FuseOpcode.Release, 24 },
        { FuseOpcode.ReleaseDir, 24 }, { FuseOpcode.Flush, 24 }, { FuseOpcode.Fsync, 16 }, { FuseOpcode.FsyncDir, 16 },
        { FuseOpcode.ListXattr, 8 }, { FuseOpcode.Access, 8 }, { FuseOpcode.Fallocate, 32 }, { FuseOpcode.Lseek, 24 },
        { FuseOpcode.CopyFileRange, 56 }, { FuseOpcode.CopyFileRange64, 56 }, { FuseOpcode.SyncFs, 8 },
        { FuseOpcode.Destroy, 0 },
    };

    [Theory]
    [MemberData(nameof(FixedLengths))]
    public void Arguments_of_a_fixed_length_have_exactly_that_length(FuseOpcode opcode, int length)
    {
        // Whence 3, a length of 3, a size of 3 and so on: valid for all of them but SETATTR's nanoseconds and ACCESS.
        byte[] arguments = new byte[length + 1];
        if (opcode is FuseOpcode.Lseek or FuseOpcode.Fallocate)
        {
            arguments[16] = 3;
        }

        for (int given = 0; given <= length + 1; given++)
        {
            SessionRig rig = SessionRig.Open();
            byte[] reply = rig.Send(Message.Request(opcode, 1, arguments[..given]), room: 70000);
            bool isCalled = rig.FileSystem.Calls.Count == 1;
            bool isListing = opcode is FuseOpcode.ReadDir or FuseOpcode.ReadDirPlus;

            if (given == length)
            {
                Assert.True(isCalled || isListing);
                Assert.Equal(0, BitConverter.ToInt32(reply, 4));
            }
            else
            {
                Assert.Empty(rig.FileSystem.Calls);
                Assert.Equal(Message.ErrorReply(Errno.EINVAL), reply);
            }
        }
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(7u)]
    [InlineData(19u)]
    [InlineData(54u)]
    [InlineData(4096u)]
    [InlineData(9999u)]
    [InlineData(1048576u)]
    [InlineData(436207616u)]
    [InlineData(uint.MaxValue)]
    public void An_unknown_opcode_is_not_implemented(uint opcode)
    {
        SessionRig rig = SessionRig.Open();

        Assert.Equal(
            Message.ErrorReply(Errno.ENOSYS), rig.Send(Message.Request((FuseOpcode)opcode, 1, new byte[200_000]), room: 16));
        Assert.Equal(1, rig.Request.Counters.Requests(0));
    }

    [Fact]
    public void Arguments_longer_than_any_may_be_are_refused()
    {
        SessionRig rig = SessionRig.Open();
        byte[] message = Message.Request(FuseOpcode.Lookup, 1, [.. Enumerable.Repeat((byte)'a', 200_000), 0]);

        Assert.Equal(Message.ErrorReply(Errno.ENOMEM), rig.Send(message, room: 144));
        Assert.Empty(rig.FileSystem.Calls);
    }

    [Fact]
    public void A_violation_is_counted_each_time_and_logged_once()
    {
        SessionRig rig = SessionRig.Open();
        for (int i = 0; i < 3; i++)
        {
            rig.Send(GetAttr.WithLength(39), room: 120);
        }

        Assert.Equal(3, rig.Request.Counters.Violations(FuseViolation.WrongLength));
        (_, _, string text, _) = Assert.Single(rig.Logger.Entries, entry => entry.Event == 301);
        Assert.Contains("test: the guest broke the FUSE protocol (WrongLength)", text, StringComparison.Ordinal);
        Assert.Contains("270000000300000088776655443322110100000000000000", text, StringComparison.Ordinal);

        rig.Send(GetAttr[..20], room: 120);

        Assert.Equal(2, rig.Logger.CountOf(301));
    }
}
