using System.Buffers.Binary;
using System.Text;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Fuse;

/// <summary>Security contexts in creating requests (passthrough.md 3.5; cases C6 and C7, and X9 beside them).</summary>
public sealed class SecurityContextTests
{
    private const FuseFeatures Granted = FuseFeatures.SecurityContext | FuseFeatures.CreateSuppGroup;

    private static readonly byte[] s_label = Message.SecurityContext("security.selinux", "some_u:object"u8);

    public static TheoryData<FuseOpcode, byte[]> Creating => new()
    {
        { FuseOpcode.Symlink, [.. "name\0"u8, .. "target\0"u8] },
        { FuseOpcode.Mknod, [.. new byte[16], .. "name\0"u8] },
        { FuseOpcode.Mkdir, [.. new byte[8], .. "name\0"u8] },
        { FuseOpcode.Create, [.. new byte[16], .. "name\0"u8] },
        { FuseOpcode.Tmpfile, [.. new byte[16], .. "name\0"u8] },
    };

    [Theory]
    [MemberData(nameof(Creating))]
    public void Every_creating_request_takes_a_context_and_the_next_one_does_not_have_it(
        FuseOpcode opcode, byte[] arguments)
    {
        SessionRig rig = SessionRig.Open(Granted);
        byte[] message = Message.Request(opcode, 1, arguments);

        rig.Send(message.WithExtensions(s_label, Message.Groups(4)), room: 160);
        rig.Send(message.WithExtensions(Message.Groups(5), s_label), room: 160);
        rig.Send(message.WithExtensions(Message.NoSecurityContext()), room: 160);

        Assert.EndsWith(" groups=4 label=security.selinux\\0:some_u:object", rig.FileSystem.Calls[0], StringComparison.Ordinal);
        Assert.EndsWith(" groups=5 label=security.selinux\\0:some_u:object", rig.FileSystem.Calls[1], StringComparison.Ordinal);
        Assert.EndsWith(" by=1000:100:4321", rig.FileSystem.Calls[2], StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Creating))]
    public void Once_negotiated_a_request_without_a_context_record_is_refused(FuseOpcode opcode, byte[] arguments)
    {
        byte[] message = Message.Request(opcode, 1, arguments);
        Refused(message);
        Refused(message.WithExtensions(Message.Groups(4)));
    }

    public static TheoryData<string, byte[]> BadRecords => new()
    {
        { "two records", [.. s_label, .. s_label] },
        { "two empty ones", [.. Message.NoSecurityContext(), .. Message.NoSecurityContext()] },
        { "two contexts announced", Changed(s_label, 4, 2) },
        { "31 contexts announced", Changed(s_label, 4, 31) },
        { "one announced and none there", Changed(Message.NoSecurityContext(), 4, 1) },
        { "none announced and one there", Changed(s_label, 4, 0) },
        { "a context of no bytes", Message.SecurityContext("security.selinux", []) },
        { "a context longer than its record", Changed(s_label, 8, 100) },
        { "a context of 2^32-1 bytes", Changed(s_label, 8, -1) },
        { "a context that leaves bytes over", Changed(s_label, 8, 1) },
        { "a name of no bytes", Message.SecurityContext("", "x"u8) },
        { "a name of 256 bytes", Message.SecurityContext("security." + new string('x', 247), "x"u8) },
        { "a name without its NUL", [24, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, .. "security"u8] },
        { "a record that ends within its header", [16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0] },
    };

    [Theory]
    [MemberData(nameof(BadRecords))]
    public void A_malformed_context_is_refused(string what, byte[] block)
    {
        Assert.NotEmpty(what);
        Refused(Message.Request(FuseOpcode.Mkdir, 1, new byte[8], "name\0"u8.ToArray()).WithExtensions(block));
    }

    [Fact]
    public void The_longest_name_and_value_are_taken()
    {
        SessionRig rig = SessionRig.Open(Granted);
        string name = "security." + new string('x', 246);
        byte[] value = new byte[65536];
        value.AsSpan().Fill((byte)'v');

        rig.Send(
            Message.Request(FuseOpcode.Mkdir, 1, new byte[8], "name\0"u8.ToArray())
                .WithExtensions(Message.SecurityContext(name, value)),
            room: 160);

        Assert.EndsWith(
            $" label={name}\\0:{Encoding.ASCII.GetString(value)}", rig.FileSystem.Calls[0], StringComparison.Ordinal);
    }

    [Fact]
    public void Before_7_38_the_context_is_what_follows_the_name()
    {
        SessionRig rig = SessionRig.Open(Granted, minor: 37);
        byte[] message = Message.Request(FuseOpcode.Mkdir, 1, new byte[8], "name\0"u8.ToArray(), s_label);

        rig.Send(message, room: 160);
        Assert.EndsWith(" label=security.selinux\\0:some_u:object", rig.FileSystem.Calls[0], StringComparison.Ordinal);

        byte[] stray = [.. message, 1, 2, 3];
        Assert.Equal(
            Message.ErrorReply(Errno.EINVAL), rig.Send(stray.WithLength((uint)stray.Length), room: 160));
        Assert.Equal(
            Message.ErrorReply(Errno.EINVAL),
            rig.Send(Message.Request(FuseOpcode.Mkdir, 1, new byte[8], "name\0"u8.ToArray()), room: 160));
        Assert.Single(rig.FileSystem.Calls);
    }

    [Fact]
    public void A_setxattr_of_the_old_layout_is_refused_once_the_long_one_is_negotiated()
    {
        SessionRig rig = SessionRig.Open(FuseFeatures.SetXattrExt);

        // Size and flags; a guest that negotiated SETXATTR_EXT sends two words more.
        byte[] reply = rig.Send(
            Message.Request(FuseOpcode.SetXattr, 1, [3, 0, 0, 0, 0, 0, 0, 0], "user.a\0"u8.ToArray(), "abc"u8.ToArray()),
            room: 16);

        Assert.Equal(Message.ErrorReply(Errno.EINVAL), reply);
        Assert.Empty(rig.FileSystem.Calls);
    }

    private static byte[] Changed(byte[] record, int at, int value)
    {
        byte[] changed = [.. record];
        BinaryPrimitives.WriteInt32LittleEndian(changed.AsSpan(at), value);
        return changed;
    }

    private static void Refused(byte[] message)
    {
        SessionRig rig = SessionRig.Open(Granted);

        byte[] reply = rig.Send(message, room: 160);

        Assert.Equal(Message.ErrorReply(Errno.EINVAL), reply);
        Assert.Empty(rig.FileSystem.Calls);
    }
}
