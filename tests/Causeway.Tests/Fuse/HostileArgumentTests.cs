using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Fuse;

/// <summary>
/// Numbers no honest guest sends, each once: fuse-virtiofs.md 6.2 and 6.3 as far as they are the session's.
/// </summary>
public sealed class HostileArgumentTests
{
    private const ulong Beyond = 1UL << 63;

    [Theory]
    [InlineData(Beyond, 1u)]
    [InlineData(ulong.MaxValue, 0u)]
    [InlineData((ulong)long.MaxValue, 1u)]
    public void Read_beyond_what_an_offset_can_be_is_refused(ulong offset, uint size) => Refused(
        Errno.EINVAL,
        Message.Request(FuseOpcode.Read, 2, Message.Bytes(new FuseReadIn { Offset = offset, Size = size })),
        room: 4112);

    [Theory]
    [InlineData(10u, 4112, 10u)]
    [InlineData(4096u, 2064, 2048u)]
    [InlineData(4096u, 16, 0u)]
    [InlineData(0u, 4112, 0u)]
    [InlineData(uint.MaxValue, 4112, 4096u)]
    [InlineData(uint.MaxValue, (1 << 20) + 116, 1u << 20)]
    public void Read_gives_no_more_than_asked_for_and_than_there_is_room(uint size, int room, uint expected)
    {
        SessionRig rig = SessionRig.Open();

        byte[] reply = rig.Send(
            Message.Request(FuseOpcode.Read, 2, Message.Bytes(new FuseReadIn { Size = size })), room);

        Assert.Equal(16 + expected, (uint)reply.Length);
        Assert.Contains($" size={expected} ", rig.FileSystem.Calls[0], StringComparison.Ordinal);
    }

    [Fact]
    public void Read_that_ends_early_is_answered_with_what_there_is()
    {
        SessionRig rig = SessionRig.Open();
        rig.FileSystem.Count = 5;

        byte[] reply = rig.SendSplit(
            Message.Request(FuseOpcode.Read, 2, Message.Bytes(new FuseReadIn { Size = 100 })), 116, [], [3, 18]);

        Assert.Equal(Message.Reply([0, 1, 2, 3, 4]), reply);
    }

    [Fact]
    public void An_error_of_READ_is_a_header_also_when_the_header_is_in_pieces()
    {
        SessionRig rig = SessionRig.Open();
        rig.FileSystem.Error = Errno.EISDIR;

        byte[] reply = rig.SendSplit(
            Message.Request(FuseOpcode.Read, 2, Message.Bytes(new FuseReadIn { Size = 100 })), 116, [], [1, 9, 17]);

        Assert.Equal(Message.ErrorReply(Errno.EISDIR), reply);
    }

    [Theory]
    [InlineData(Beyond)]
    [InlineData((ulong)long.MaxValue)]
    public void Write_beyond_what_an_offset_can_be_is_refused(ulong offset) => Refused(
        Errno.EINVAL, Write(new FuseWriteIn { Offset = offset, Size = 4 }, 4), room: 24);

    [Fact]
    public void Write_of_more_than_was_sent_is_refused() =>
        Refused(Errno.EINVAL, Write(new FuseWriteIn { Size = 100 }, 4), room: 24);

    [Fact]
    public void Write_of_less_than_was_sent_writes_only_that()
    {
        SessionRig rig = SessionRig.Open();

        byte[] reply = rig.Send(Write(new FuseWriteIn { Size = 2 }, 4), room: 24);

        Assert.Equal(Message.Reply(Message.Bytes(new FuseWriteOut { Size = 2 })), reply);
        Assert.Contains(" size=2 ", rig.FileSystem.Calls[0], StringComparison.Ordinal);
    }

    [Fact]
    public void Write_of_a_mebibyte_is_done_and_of_a_page_more_is_not()
    {
        SessionRig rig = SessionRig.Open();

        byte[] reply = rig.Send(Write(new FuseWriteIn { Size = 1 << 20 }, 1 << 20), room: 24);

        Assert.Equal(Message.Reply(Message.Bytes(new FuseWriteOut { Size = 1 << 20 })), reply);
        Refused(Errno.ENOMEM, Write(new FuseWriteIn { Size = (1 << 20) + 4096 }, (1 << 20) + 4096), room: 24);
        Refused(Errno.EINVAL, Write(new FuseWriteIn { Size = (1 << 20) + 1 }, (1 << 20) + 1), room: 24);
    }

    [Fact]
    public void Write_of_more_than_was_negotiated_is_refused()
    {
        SessionRig rig = new();
        rig.FileSystem.OnInitialize = negotiation => negotiation.MaxWrite = 8192;
        rig.Send(Message.Init(SessionRig.AllFeatures), room: 80);
        rig.FileSystem.Calls.Clear();

        Assert.Equal(24, rig.Send(Write(new FuseWriteIn { Size = 8192 }, 8192), room: 24).Length);
        Assert.Equal(
            Message.ErrorReply(Errno.EINVAL), rig.Send(Write(new FuseWriteIn { Size = 8193 }, 8193), room: 24));
        Assert.Single(rig.FileSystem.Calls);
    }

    [Fact]
    public void Flags_without_a_meaning_are_dropped()
    {
        SessionRig rig = SessionRig.Open(FuseFeatures.HandleKillPrivV2);
        const uint all = uint.MaxValue;

        rig.Send(Message.Request(FuseOpcode.GetAttr, 2, Message.Bytes(
            new FuseGetAttrIn { Flags = (FuseGetAttrFlags)all })), room: 120);
        rig.Send(Message.Request(FuseOpcode.Read, 2, Message.Bytes(new FuseReadIn { ReadFlags = all })), room: 16);
        rig.Send(Write(new FuseWriteIn { WriteFlags = (FuseWriteFlags)all }, 0), room: 24);
        rig.Send(Message.Request(FuseOpcode.Release, 2, Message.Bytes(new FuseReleaseIn { ReleaseFlags = (FuseReleaseFlags)all })), 16);
        rig.Send(Message.Request(FuseOpcode.Fsync, 2, Message.Bytes(
            new FuseFsyncIn { Flags = (FuseFsyncFlags)all })), 16);
        rig.Send(Message.Request(FuseOpcode.Open, 2, Message.Bytes(
            new FuseOpenIn { OpenFlags = (FuseOpenInFlags)all })), room: 32);
        rig.Send(Message.Request(FuseOpcode.SetAttr, 2, Message.Bytes(
            new FuseSetAttrIn { Valid = (SetAttrValid)all, Mode = all, UserId = all, GroupId = all })), room: 120);

        Assert.Collection(
            rig.FileSystem.Calls,
            call => Assert.Contains("flags=Handle", call, StringComparison.Ordinal),
            call => Assert.Contains(" flags=2 ", call, StringComparison.Ordinal),
            call => Assert.Contains(" flags=7 ", call, StringComparison.Ordinal),
            call => Assert.Contains(" release=3 ", call, StringComparison.Ordinal),
            call => Assert.Contains(" flags=DataOnly", call, StringComparison.Ordinal),
            call => Assert.Contains(" open=1 ", call, StringComparison.Ordinal),
            // UID and GID of all ones mean "unchanged".
            call => Assert.StartsWith("SETATTR node=2 valid=ff9 ", call, StringComparison.Ordinal));
        Assert.Contains(" mode=7777 ", rig.FileSystem.Calls[^1], StringComparison.Ordinal);
    }

    [Fact]
    public void The_flag_to_clear_setuid_on_open_counts_only_when_negotiated()
    {
        SessionRig rig = SessionRig.Open();

        rig.Send(Message.Request(FuseOpcode.Open, 2, Message.Bytes(
            new FuseOpenIn { OpenFlags = FuseOpenInFlags.KillSuidGid })), room: 32);

        Assert.Contains(" open=0 ", rig.FileSystem.Calls[0], StringComparison.Ordinal);
    }

    public static TheoryData<string, FuseSetAttrIn> BadAttributes => new()
    {
        { "size", new FuseSetAttrIn { Valid = SetAttrValid.Size, Size = Beyond } },
        { "atime", new FuseSetAttrIn { Valid = SetAttrValid.AccessTime, AccessTimeNanoseconds = 1_000_000_000 } },
        { "mtime", new FuseSetAttrIn { Valid = SetAttrValid.ModificationTime, ModificationTimeNanoseconds = 2_000_000_000 } },
        { "ctime", new FuseSetAttrIn { Valid = SetAttrValid.ChangeTime, ChangeTimeNanoseconds = uint.MaxValue } },
    };

    [Theory]
    [MemberData(nameof(BadAttributes))]
    public void Setattr_of_what_cannot_be_is_refused(string what, FuseSetAttrIn arguments)
    {
        Assert.NotEmpty(what);
        Refused(Errno.EINVAL, Message.Request(FuseOpcode.SetAttr, 2, Message.Bytes(arguments)), room: 120);

        // The same numbers mean nothing when their bit is not set, and a time of "now" has none.
        SessionRig rig = SessionRig.Open();
        arguments.Valid = SetAttrValid.AccessTimeNow | SetAttrValid.AccessTime | SetAttrValid.ModificationTimeNow
            | SetAttrValid.ModificationTime;
        Assert.Equal(
            120, rig.Send(Message.Request(FuseOpcode.SetAttr, 2, Message.Bytes(arguments)), room: 120).Length);
    }

    [Fact]
    public void Modes_and_umasks_keep_their_permission_bits_only()
    {
        SessionRig rig = SessionRig.Open();
        const uint octal07777777 = 0x1fffff;

        rig.Send(Message.Request(FuseOpcode.Mkdir, 1, Message.Bytes(
            new FuseMkdirIn { Mode = uint.MaxValue, Umask = uint.MaxValue }), Message.Name("d")), room: 144);
        rig.Send(Message.Request(FuseOpcode.Create, 1, Message.Bytes(
            new FuseCreateIn { Mode = octal07777777, Umask = uint.MaxValue }), Message.Name("f")), room: 160);
        rig.Send(Message.Request(FuseOpcode.Mknod, 1, Message.Bytes(
            new FuseMknodIn { Mode = 0xffff_01a4, Umask = 0x12 }), Message.Name("n")), room: 144);

        Assert.StartsWith("MKDIR parent=1 name=d mode=7777 umask=777 ", rig.FileSystem.Calls[0], StringComparison.Ordinal);
        Assert.Contains(" mode=107777 umask=777 ", rig.FileSystem.Calls[1], StringComparison.Ordinal);
        Assert.Contains(" mode=100644 ", rig.FileSystem.Calls[2], StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0x4000u, Errno.EPERM)]
    [InlineData(0xa000u, Errno.EINVAL)]
    [InlineData(0xf000u, Errno.EINVAL)]
    [InlineData(0x3000u, Errno.EINVAL)]
    public void Mknod_makes_no_directories_links_or_things_unknown(uint type, Errno expected) => Refused(
        expected,
        Message.Request(FuseOpcode.Mknod, 1, Message.Bytes(new FuseMknodIn { Mode = type | 0x1a4 }), Message.Name("n")),
        room: 144);

    [Theory]
    [InlineData(8u)]
    [InlineData(3u)]
    [InlineData(6u)]
    [InlineData(uint.MaxValue)]
    public void Rename2_with_flags_that_do_not_exist_or_exclude_each_other_is_refused(uint flags) => Refused(
        Errno.EINVAL,
        Message.Request(
            FuseOpcode.Rename2,
            1,
            Message.Bytes(new FuseRename2In { NewParent = NodeId.Root, Flags = (RenameFlags)flags }),
            Message.Name("a"),
            Message.Name("b")),
        room: 16);

    [Theory]
    [InlineData(8u)]
    [InlineData(0x8000_0000u)]
    public void Access_with_a_mask_of_more_than_three_bits_is_refused(uint mask) => Refused(
        Errno.EINVAL, Message.Request(FuseOpcode.Access, 1, Message.Bytes(new FuseAccessIn { Mask = mask })), room: 16);

    [Theory]
    [InlineData(0u, 0UL)]
    [InlineData(2u, 0UL)]
    [InlineData(5u, 0UL)]
    [InlineData(99u, 0UL)]
    public void Lseek_finds_data_and_holes_only(uint whence, ulong offset) => Refused(
        Errno.EINVAL,
        Message.Request(FuseOpcode.Lseek, 2, Message.Bytes(new FuseLseekIn { Offset = offset, Whence = whence })),
        room: 24);

    [Theory]
    [InlineData(3u, Beyond)]
    [InlineData(4u, ulong.MaxValue)]
    public void Lseek_before_the_beginning_finds_nothing_and_is_no_violation(uint whence, ulong offset)
    {
        SessionRig rig = SessionRig.Open();
        byte[] arguments = Message.Bytes(new FuseLseekIn { Offset = offset, Whence = whence });

        Assert.Equal(
            Message.ErrorReply(Errno.ENXIO), rig.Send(Message.Request(FuseOpcode.Lseek, 2, arguments), room: 24));
        Assert.Empty(rig.FileSystem.Calls);
        Assert.Equal(0, rig.Request.Counters.TotalViolations);
    }

    [Theory]
    [InlineData(0UL, 0UL, Errno.EINVAL)]
    [InlineData(0UL, Beyond, Errno.EINVAL)]
    [InlineData(Beyond, 1UL, Errno.EINVAL)]
    [InlineData((ulong)long.MaxValue, 1UL, Errno.EFBIG)]
    public void Fallocate_outside_of_what_a_file_can_be_is_refused(ulong offset, ulong length, Errno expected) => Refused(
        expected,
        Message.Request(
            FuseOpcode.Fallocate, 2, Message.Bytes(new FuseFallocateIn { Offset = offset, Length = length })),
        room: 16);

    [Theory]
    [InlineData(0UL, 0UL, 10UL, 1UL)]
    [InlineData(Beyond, 0UL, 10UL, 0UL)]
    [InlineData(0UL, Beyond, 10UL, 0UL)]
    [InlineData(0UL, 0UL, Beyond, 0UL)]
    [InlineData((ulong)long.MaxValue, 0UL, 1UL, 0UL)]
    [InlineData(0UL, (ulong)long.MaxValue, 1UL, 0UL)]
    public void Copy_file_range_with_flags_or_outside_of_what_a_file_can_be_is_refused(
        ulong source, ulong destination, ulong length, ulong flags)
    {
        byte[] arguments = Message.Bytes(new FuseCopyFileRangeIn
        {
            SourceOffset = source, DestinationOffset = destination, Length = length, Flags = flags,
        });
        Refused(Errno.EINVAL, Message.Request(FuseOpcode.CopyFileRange, 2, arguments), room: 24);
        Refused(Errno.EINVAL, Message.Request(FuseOpcode.CopyFileRange64, 2, arguments), room: 24);
    }

    [Fact]
    public void Copy_file_range_is_cut_to_what_its_reply_can_say()
    {
        SessionRig rig = SessionRig.Open();
        byte[] arguments = Message.Bytes(new FuseCopyFileRangeIn { Length = 1UL << 40 });

        byte[] reply = rig.Send(Message.Request(FuseOpcode.CopyFileRange, 2, arguments), room: 24);
        byte[] longReply = rig.Send(Message.Request(FuseOpcode.CopyFileRange64, 2, arguments), room: 24);

        Assert.Equal(Message.Reply(Message.Bytes(new FuseWriteOut { Size = 0xffff_f000 })), reply);
        Assert.Equal(Message.Reply(Message.Bytes(1UL << 40)), longReply);
    }

    [Theory]
    [InlineData(0x10000u, 0x10000)]
    [InlineData(0x10001u, 0x10000)]
    [InlineData(1u << 20, 0x10000)]
    [InlineData(4000u, 4000)]
    public void Xattr_sizes_are_cut_to_the_longest_there_is(uint size, int expected)
    {
        SessionRig rig = SessionRig.Open();

        rig.Send(Message.Request(FuseOpcode.ListXattr, 2, Message.Bytes(new FuseGetXattrIn { Size = size })),
            room: 16 + (1 << 20));

        Assert.StartsWith($"LISTXATTR node=2 room={expected} ", rig.FileSystem.Calls[0], StringComparison.Ordinal);
    }

    [Theory]
    [InlineData((1u << 20) + 1, 1 << 21, Errno.ENOMEM)]
    [InlineData(uint.MaxValue, 1 << 21, Errno.ENOMEM)]
    [InlineData(4096u, 4111, Errno.EIO)]
    [InlineData(0u, 23, Errno.EIO)]
    public void Xattr_sizes_that_cannot_be_answered_are_refused(uint size, int room, Errno expected)
    {
        byte[] arguments = Message.Bytes(new FuseGetXattrIn { Size = size });
        Refused(expected, Message.Request(FuseOpcode.ListXattr, 2, arguments), room);
        Refused(expected, Message.Request(FuseOpcode.GetXattr, 2, arguments, Message.Name("user.a")), room);
    }

    [Fact]
    public void Setxattr_refuses_a_size_that_is_not_the_values()
    {
        Refused(Errno.EINVAL, SetXattr("user.a", new FuseSetXattrIn { Size = 4 }, 5), room: 16);
        Refused(Errno.EINVAL, SetXattr("user.a", new FuseSetXattrIn { Size = 6 }, 5), room: 16);
        Refused(Errno.EINVAL, SetXattr("user.a", new FuseSetXattrIn { Size = uint.MaxValue }, 5), room: 16);
        Refused(Errno.E2BIG, SetXattr("user.a", new FuseSetXattrIn { Size = 65537 }, 65537), room: 16);
        Refused(Errno.EINVAL, SetXattr("user.a", new FuseSetXattrIn { Size = 1, Flags = 8 }, 1), room: 16);
        Refused(Errno.ERANGE, SetXattr("", new FuseSetXattrIn { Size = 1 }, 1), room: 16);
        Refused(Errno.ERANGE, SetXattr(new string('a', 256), new FuseSetXattrIn { Size = 1 }, 1), room: 16);
    }

    [Fact]
    public void Setxattr_of_the_longest_name_and_value_is_done()
    {
        SessionRig rig = SessionRig.Open();

        byte[] reply = rig.Send(SetXattr(new string('a', 255), new FuseSetXattrIn { Size = 65536 }, 65536), room: 16);

        Assert.Equal(Message.Reply(), reply);
        Assert.Contains(" size=65536 ", rig.FileSystem.Calls[0], StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0u, 16, Errno.Success)]
    [InlineData(10u, 26, Errno.EINVAL)]
    [InlineData(4096u, 4111, Errno.ENOMEM)]
    public void Readdir_of_a_size_without_sense_lists_nothing(uint size, int room, Errno expected)
    {
        foreach (FuseOpcode opcode in (FuseOpcode[])[FuseOpcode.ReadDir, FuseOpcode.ReadDirPlus])
        {
            byte[] reply = SessionRig.Open().Send(
                Message.Request(opcode, 1, Message.Bytes(new FuseReadIn { Size = size })), room);

            Assert.Equal(expected == Errno.Success ? Message.Reply() : Message.ErrorReply(expected), reply);
        }
    }

    [Theory]
    [InlineData(1u << 20)]
    [InlineData(uint.MaxValue)]
    public void Readdir_of_more_than_the_buffer_gives_a_part(uint size)
    {
        SessionRig rig = SessionRig.Open();

        rig.Send(Message.Request(FuseOpcode.ReadDir, 1, Message.Bytes(new FuseReadIn { Size = size })), 16 + (1 << 20));

        Assert.Contains(" size=65536 ", rig.FileSystem.Calls[0], StringComparison.Ordinal);
    }

    [Fact]
    public void A_listing_that_fails_after_entries_gives_the_entries()
    {
        SessionRig rig = SessionRig.Open();
        rig.FileSystem.Error = Errno.EIO;

        byte[] reply = rig.Send(
            Message.Request(FuseOpcode.ReadDir, 1, Message.Bytes(new FuseReadIn { Size = 4096 })), 16 + 4096);

        Assert.Equal(16 + 32 + 32, reply.Length);
        rig.FileSystem.Directory.Clear();
        Assert.Equal(
            Message.ErrorReply(Errno.EIO),
            rig.Send(Message.Request(FuseOpcode.ReadDir, 1, Message.Bytes(new FuseReadIn { Size = 4096 })), 16 + 4096));
    }

    private static byte[] Write(FuseWriteIn arguments, int length) =>
        Message.Request(FuseOpcode.Write, 2, Message.Bytes(arguments), new byte[length]);

    private static byte[] SetXattr(string name, FuseSetXattrIn arguments, int length) => Message.Request(
        FuseOpcode.SetXattr, 2, Message.Bytes(arguments)[..8], Message.Name(name), new byte[length]);

    private static void Refused(Errno expected, byte[] message, int room)
    {
        SessionRig rig = SessionRig.Open();

        byte[] reply = rig.Send(message, room);

        Assert.Equal(Message.ErrorReply(expected), reply);
        Assert.Empty(rig.FileSystem.Calls);
    }
}
