using Causeway.Fuse;

namespace Causeway.Tests.Fuse;

/// <summary>Real requests give the right calls and, byte for byte, the right replies.</summary>
public sealed class GoldenTests
{
    public static TheoryData<string> Messages => [.. GoldenMessage.Names];

    [Theory]
    [MemberData(nameof(Messages))]
    public void A_request_gives_the_calls_and_the_reply_of_its_file(string file)
    {
        GoldenMessage golden = GoldenMessage.Read(file);
        SessionRig rig = golden.Prepare();

        byte[] reply = rig.Send(golden.Request, golden.Room);

        Assert.Equal(golden.Calls, rig.FileSystem.Calls);
        Assert.Equal(Convert.ToHexString(golden.Reply), Convert.ToHexString(reply));
    }

    [Theory]
    [MemberData(nameof(Messages))]
    public void A_request_gives_the_same_wherever_its_bytes_and_those_of_the_reply_are_cut(string file)
    {
        GoldenMessage golden = GoldenMessage.Read(file);
        for (int cut = 0; cut <= Math.Max(golden.Request.Length, golden.Reply.Length); cut++)
        {
            SessionRig rig = golden.Prepare();

            byte[] reply = rig.SendSplit(golden.Request, golden.Room, [cut, cut, cut + 3], [cut, cut, cut + 5]);

            Assert.Equal(golden.Calls, rig.FileSystem.Calls);
            Assert.Equal(Convert.ToHexString(golden.Reply), Convert.ToHexString(reply));
        }
    }

    [Theory]
    [MemberData(nameof(Messages))]
    public void A_request_in_pieces_of_one_byte_is_like_any_other(string file)
    {
        GoldenMessage golden = GoldenMessage.Read(file);
        SessionRig rig = golden.Prepare();

        byte[] reply = rig.SendSplit(
            golden.Request,
            golden.Room,
            [.. Enumerable.Range(0, golden.Request.Length)],
            [.. Enumerable.Range(0, golden.Room)]);

        Assert.Equal(golden.Calls, rig.FileSystem.Calls);
        Assert.Equal(Convert.ToHexString(golden.Reply), Convert.ToHexString(reply));
    }

    [Theory]
    [MemberData(nameof(Messages))]
    public void A_request_that_is_cut_short_is_refused_and_reaches_no_file_system(string file)
    {
        GoldenMessage golden = GoldenMessage.Read(file);
        // All but those with a name that ends somewhere else, or with data, are of a fixed length.
        for (int length = 40; length < golden.Request.Length; length++)
        {
            SessionRig rig = golden.Prepare();
            byte[] message = golden.Request[..length];

            byte[] reply = rig.Send(message, golden.Room);

            Assert.Empty(rig.FileSystem.Calls);
            Assert.True(reply.Length is 0 or 16);
        }
    }

    [Theory]
    [MemberData(nameof(Messages))]
    public void A_request_whose_header_is_right_but_whose_end_is_missing_reaches_no_file_system(string file)
    {
        GoldenMessage golden = GoldenMessage.Read(file);
        for (int length = 40; length < golden.Request.Length; length++)
        {
            SessionRig rig = golden.Prepare();
            byte[] message = golden.Request[..length].WithLength((uint)length);

            byte[] reply = rig.Send(message, golden.Room);

            // INIT may be as short as 16 bytes, but not when it announces more.
            Assert.Empty(rig.FileSystem.Calls);
            Assert.True(reply.Length is 0 or 16);
        }
    }

    [Theory]
    [MemberData(nameof(Messages))]
    public void A_request_with_too_little_room_for_its_reply_is_not_done(string file)
    {
        GoldenMessage golden = GoldenMessage.Read(file);
        FuseOpcode opcode = (FuseOpcode)BitConverter.ToUInt32(golden.Request, 4);
        if (golden.Reply.Length == 0 || opcode is FuseOpcode.Destroy)
        {
            return;
        }

        for (int room = 0; room < 16; room++)
        {
            SessionRig rig = golden.Prepare();

            Assert.Empty(rig.Send(golden.Request, room));
            Assert.Empty(rig.FileSystem.Calls);
        }

        // READ is cut, and a target is only known to be too long when it is there.
        int least = opcode is FuseOpcode.Read or FuseOpcode.ReadLink ? 16 : golden.Room;
        for (int room = 16; room < least; room++)
        {
            SessionRig rig = golden.Prepare();

            Assert.Equal(16, rig.Send(golden.Request, room).Length);
            Assert.Empty(rig.FileSystem.Calls);
        }
    }

    [Fact]
    public void There_is_a_file_for_every_opcode()
    {
        HashSet<uint> found = [.. GoldenMessage.Names.Select(name => BitConverter.ToUInt32(GoldenMessage.Read(name).Request, 4))];

        Assert.Empty(Enum.GetValues<FuseOpcode>().Select(opcode => (uint)opcode).Except(found));
    }
}
