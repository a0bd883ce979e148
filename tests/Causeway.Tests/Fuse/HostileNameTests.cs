using System.Buffers.Binary;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Fuse;

/// <summary>Names, targets and extension blocks: L4 to L10, C6, C9 and C21 of passthrough.md, and FORGET.</summary>
public sealed class HostileNameTests
{
    private static readonly byte[] Valid = Message.Name("valid");

    // What precedes a name, and what follows it, in each request that has one.
    private static readonly (FuseOpcode Opcode, byte[] Before, byte[] After)[] Named =
    [
        (FuseOpcode.Lookup, [], []),
        (FuseOpcode.Unlink, [], []),
        (FuseOpcode.Rmdir, [], []),
        (FuseOpcode.Symlink, [], Message.Name("target")),
        (FuseOpcode.Mknod, Message.Bytes(default(FuseMknodIn)), []),
        (FuseOpcode.Mkdir, Message.Bytes(default(FuseMkdirIn)), []),
        (FuseOpcode.Create, Message.Bytes(default(FuseCreateIn)), []),
        (FuseOpcode.Link, Message.Bytes(default(FuseLinkIn)), []),
        (FuseOpcode.Rename, Message.Bytes(default(FuseRenameIn)), Valid),
        (FuseOpcode.Rename, [.. Message.Bytes(default(FuseRenameIn)), .. Valid], []),
        (FuseOpcode.Rename2, Message.Bytes(default(FuseRename2In)), Valid),
        (FuseOpcode.Rename2, [.. Message.Bytes(default(FuseRename2In)), .. Valid], []),
    ];

    public static TheoryData<string> BadNames =>
        ["", ".", "..", "/", "a/b", "/etc/passwd", "../victim", "d/", "d/../f", "\xff/"];

    [Theory]
    [MemberData(nameof(BadNames))]
    public void A_name_that_could_lead_elsewhere_is_refused_in_every_request(string name) =>
        AllRefuse(Message.Name(name), Errno.EINVAL);

    [Theory]
    [InlineData(256)]
    [InlineData(4095)]
    public void A_name_that_is_too_long_is_refused_and_no_violation(int length)
    {
        byte[] name = Message.Name(new string('a', length));
        AllRefuse(name, Errno.ENAMETOOLONG);

        SessionRig rig = SessionRig.Open();
        rig.Send(Message.Request(FuseOpcode.Lookup, 1, name), room: 144);
        Assert.Equal(0, rig.Request.Counters.TotalViolations);
        Assert.Equal(0, rig.Logger.CountOf(301));
    }

    [Fact]
    public void A_name_of_255_bytes_or_of_any_bytes_is_passed_on()
    {
        foreach (string name in (string[])[new string('a', 255), "\xff\xfe", "\n \x01", "..."])
        {
            foreach ((FuseOpcode opcode, byte[] before, byte[] after) in Named)
            {
                SessionRig rig = SessionRig.Open();
                rig.Send(Message.Request(opcode, 1, before, Message.Name(name), after), room: 160);
                Assert.Single(rig.FileSystem.Calls);
            }
        }
    }

    [Fact]
    public void A_name_without_its_NUL_is_refused_in_every_request()
    {
        foreach ((FuseOpcode opcode, byte[] before, byte[] after) in Named)
        {
            if (after.Length == 0)
            {
                Refused(Errno.EINVAL, Message.Request(opcode, 1, before, "name"u8.ToArray()));
                Refused(Errno.EINVAL, Message.Request(opcode, 1, before));
            }
        }

        Refused(Errno.EINVAL, Message.Request(FuseOpcode.GetXattr, 1, new byte[8], "user.a"u8.ToArray()));
        Refused(Errno.EINVAL, Message.Request(FuseOpcode.RemoveXattr, 1, "user.a"u8.ToArray()));
        Refused(Errno.EINVAL, Message.Request(FuseOpcode.SetXattr, 1, new byte[8], "user.a"u8.ToArray()));
        Refused(Errno.EINVAL, Message.Request(FuseOpcode.Tmpfile, 1, new byte[16], "/"u8.ToArray()));
    }

    [Fact]
    public void Bytes_after_the_last_name_are_refused()
    {
        foreach ((FuseOpcode opcode, byte[] before, byte[] after) in Named)
        {
            byte[] trailing = opcode == FuseOpcode.Symlink || opcode == FuseOpcode.Rename || opcode == FuseOpcode.Rename2
                ? [.. after, 1]
                : Message.Name("more");
            if (opcode is FuseOpcode.Rename or FuseOpcode.Rename2 && after.Length == 0)
            {
                trailing = [0];
            }

            Refused(Errno.EINVAL, Message.Request(opcode, 1, before, Valid, trailing));
        }

        Refused(Errno.EINVAL, Message.Request(FuseOpcode.GetXattr, 1, new byte[8], Message.Name("user.a"), [7]));
        Refused(Errno.EINVAL, Message.Request(FuseOpcode.RemoveXattr, 1, Message.Name("user.a"), [7]));
        Refused(Errno.EINVAL, Message.Request(FuseOpcode.Tmpfile, 1, new byte[16], Message.Name("/"), [7]));
    }

    [Fact]
    public void A_target_is_1_to_4095_bytes()
    {
        Refused(Errno.ENOENT, Message.Request(FuseOpcode.Symlink, 1, Valid, [0]));
        Refused(Errno.ENAMETOOLONG, Message.Request(FuseOpcode.Symlink, 1, Valid, Message.Name(new string('t', 4096))));
        Refused(Errno.EINVAL, Message.Request(FuseOpcode.Symlink, 1, Valid));
        Refused(Errno.EINVAL, Message.Request(FuseOpcode.Symlink, 1, Valid, "target"u8.ToArray()));

        SessionRig rig = SessionRig.Open();
        rig.Send(Message.Request(FuseOpcode.Symlink, 1, Valid, Message.Name(new string('t', 4095))), room: 144);
        Assert.EndsWith($"target={new string('t', 4095)}\\0 by=1000:100:4321", rig.FileSystem.Calls[0], StringComparison.Ordinal);
    }

    [Fact]
    public void Every_creating_request_takes_groups()
    {
        (FuseOpcode Opcode, byte[] Arguments)[] creating =
        [
            (FuseOpcode.Symlink, [.. Valid, .. Valid]),
            (FuseOpcode.Mknod, [.. new byte[16], .. Valid]),
            (FuseOpcode.Mkdir, [.. new byte[8], .. Valid]),
            (FuseOpcode.Create, [.. new byte[16], .. Valid]),
            (FuseOpcode.Tmpfile, [.. new byte[16], .. Valid]),
        ];
        foreach ((FuseOpcode opcode, byte[] arguments) in creating)
        {
            SessionRig rig = SessionRig.Open(FuseFeatures.CreateSuppGroup);
            byte[] message = Message.Request(opcode, 1, arguments);

            rig.Send(message.WithExtensions(Message.Groups(4, 5, 6)), room: 160);
            rig.Send(message, room: 160);

            Assert.EndsWith(" groups=4,5,6", rig.FileSystem.Calls[0], StringComparison.Ordinal);
            // And they are gone with their request.
            Assert.EndsWith(" by=1000:100:4321", rig.FileSystem.Calls[1], StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Sixty_four_groups_are_taken_and_one_more_is_refused()
    {
        SessionRig rig = SessionRig.Open(FuseFeatures.CreateSuppGroup);
        uint[] ids = [.. Enumerable.Range(1, 64).Select(id => (uint)id)];

        rig.Send(Mkdir.WithExtensions(Message.Groups(ids)), room: 144);

        Assert.EndsWith($" groups={string.Join(',', ids)}", rig.FileSystem.Calls[0], StringComparison.Ordinal);
        Refused(Errno.EINVAL, Mkdir.WithExtensions(Message.Groups([.. ids, 65])), FuseFeatures.CreateSuppGroup);
    }

    public static TheoryData<string, byte[]> BadExtensions => new()
    {
        { "size beyond the block", Changed(Message.Groups(4), 0, 4096) },
        { "size 4", Changed(Message.Groups(4), 0, 4) },
        { "size 0", Changed(Message.Groups(4), 0, 0) },
        { "size not a multiple of eight", Changed(Message.Groups(4), 0, 12) },
        { "size of a header only", Changed(Message.Groups(4)[..8], 0, 8) },
        { "more groups than fit", Changed(Message.Groups(4), 8, 2) },
        { "fewer groups than there is room for", Changed(Message.Groups(4, 5), 8, 1) },
        { "70000 groups", Changed(Message.Groups(4), 8, 70000) },
        { "-1 groups", Changed(Message.Groups(4), 8, -1) },
        { "two records", [.. Message.Groups(4), .. Message.Groups(4)] },
        { "type 77", Changed(Message.Groups(4), 4, 77) },
        { "no security context", Changed(Changed(new byte[8], 0, 8), 4, 0) },
        { "a security context", Changed(Message.Groups(4), 4, 1) },
        { "groups, then zeroes", [.. Message.Groups(4), .. new byte[8]] },
    };

    [Theory]
    [MemberData(nameof(BadExtensions))]
    public void A_malformed_or_unknown_extension_is_refused(string what, byte[] block)
    {
        Assert.NotEmpty(what);
        Refused(Errno.EINVAL, Mkdir.WithExtensions(block), FuseFeatures.CreateSuppGroup);
    }

    [Fact]
    public void An_extension_block_that_is_not_where_the_header_says_is_refused()
    {
        byte[] valid = Mkdir.WithExtensions(Message.Groups(4));
        foreach (ushort length in (ushort[])[0, 1, 3, ushort.MaxValue])
        {
            byte[] changed = [.. valid];
            BinaryPrimitives.WriteUInt16LittleEndian(changed.AsSpan(36), length);
            Refused(Errno.EINVAL, changed, FuseFeatures.CreateSuppGroup);
        }

        // Three stray bytes.
        byte[] longer = [.. valid, 1, 2, 3];
        Refused(Errno.EINVAL, longer.WithLength((uint)longer.Length), FuseFeatures.CreateSuppGroup);
    }

    [Fact]
    public void Groups_that_were_not_granted_are_refused() =>
        Refused(Errno.EINVAL, Mkdir.WithExtensions(Message.Groups(4)));

    [Fact]
    public void Extensions_belong_to_creating_requests()
    {
        foreach ((FuseOpcode opcode, byte[] before, byte[] after) in Named)
        {
            if (opcode is not (FuseOpcode.Symlink or FuseOpcode.Mknod or FuseOpcode.Mkdir or FuseOpcode.Create))
            {
                Refused(
                    Errno.EINVAL,
                    Message.Request(opcode, 1, before, Valid, after).WithExtensions(Message.Groups(4)),
                    FuseFeatures.CreateSuppGroup);
            }
        }

        Refused(
            Errno.EINVAL,
            Message.Request(FuseOpcode.GetAttr, 1, new byte[16]).WithExtensions(Message.Groups(4)),
            FuseFeatures.CreateSuppGroup);
        // Announced, but not there.
        byte[] write = Message.Request(FuseOpcode.Write, 1, new byte[40]);
        write[36] = 1;
        Refused(Errno.EINVAL, write, FuseFeatures.CreateSuppGroup);
    }

    [Fact]
    public void Before_7_38_the_field_for_extensions_is_padding()
    {
        SessionRig rig = SessionRig.Open(FuseFeatures.CreateSuppGroup, minor: 37);
        byte[] message = [.. Mkdir];
        message[36] = 2;

        Assert.Equal(144, rig.Send(message, room: 144).Length);
        Assert.Equal(
            Message.ErrorReply(Errno.EINVAL), rig.Send(Mkdir.WithExtensions(Message.Groups(4)), room: 144));
    }

    [Fact]
    public void Forget_ignores_the_root_and_what_is_malformed()
    {
        SessionRig rig = SessionRig.Open();

        rig.Send(Message.Request(FuseOpcode.Forget, 1, Message.Bytes(1000UL)), room: 0);
        rig.Send(Message.Request(FuseOpcode.Forget, 2, Message.Bytes(0UL)), room: 0);
        rig.Send(Message.Request(FuseOpcode.Forget, 2, new byte[7]), room: 0);
        rig.Send(Message.Request(FuseOpcode.Forget, 2, new byte[9]), room: 0);
        Assert.Empty(rig.FileSystem.Calls);

        // On any queue, with or without room for a reply, there is none.
        Assert.Empty(rig.Send(Message.Request(FuseOpcode.Forget, 2, Message.Bytes(ulong.MaxValue)), room: 100));
        Assert.Equal([$"FORGET node=2 count={ulong.MaxValue}"], rig.FileSystem.Calls);
    }

    [Theory]
    [InlineData(2u, 1)]
    [InlineData(100u, 1)]
    [InlineData(0x1000_0000u, 0)]
    [InlineData(0x1000_0001u, 1)]
    [InlineData(uint.MaxValue, 3)]
    public void Batch_forget_of_more_entries_than_there_are_does_nothing(uint count, int entries)
    {
        SessionRig rig = SessionRig.Open();
        byte[] message = Message.Request(
            FuseOpcode.BatchForget,
            0,
            Message.Bytes(new FuseBatchForgetIn { Count = count }),
            [.. Enumerable.Range(0, entries).SelectMany(i => Message.Bytes(Forgotten(i)))]);

        Assert.Empty(rig.Send(message, room: 0));
        Assert.Empty(rig.Send(message, room: 100));
        Assert.Empty(rig.FileSystem.Calls);
        Assert.Equal(2, rig.Request.Counters.Violations(FuseViolation.SizeMismatch));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(256)]
    [InlineData(259)]
    [InlineData(5000)]
    public void Batch_forget_takes_each_entry_once(int count)
    {
        SessionRig rig = SessionRig.Open();
        byte[] message = Message.Request(
            FuseOpcode.BatchForget,
            0,
            Message.Bytes(new FuseBatchForgetIn { Count = (uint)count }),
            [.. Enumerable.Range(0, count).SelectMany(i => Message.Bytes(Forgotten(i)))]);

        rig.SendSplit(message, 0, [41, 70, 500], []);

        Assert.Equal(
            Enumerable.Range(0, count).Select(i => $"FORGET node={i + 2} count={i + 1}"), rig.FileSystem.Calls);
    }

    private static byte[] Mkdir => Message.Request(FuseOpcode.Mkdir, 1, new byte[8], Valid);

    private static FuseForgetOne Forgotten(int index) =>
        new() { NodeId = new NodeId((ulong)index + 2), LookupCount = (ulong)index + 1 };

    private static byte[] Changed(byte[] record, int at, int value)
    {
        byte[] changed = [.. record];
        BinaryPrimitives.WriteInt32LittleEndian(changed.AsSpan(at), value);
        return changed;
    }

    private static void AllRefuse(byte[] name, Errno expected)
    {
        foreach ((FuseOpcode opcode, byte[] before, byte[] after) in Named)
        {
            Refused(expected, Message.Request(opcode, 1, before, name, after));
        }
    }

    private static void Refused(Errno expected, byte[] message, FuseFeatures granted = FuseFeatures.None)
    {
        SessionRig rig = SessionRig.Open(granted);

        byte[] reply = rig.Send(message, room: 160);

        Assert.Equal(Message.ErrorReply(expected), reply);
        Assert.Empty(rig.FileSystem.Calls);
    }
}
