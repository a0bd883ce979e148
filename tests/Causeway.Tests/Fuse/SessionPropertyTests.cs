using Causeway.Fuse;
using CsCheck;

namespace Causeway.Tests.Fuse;

/// <summary>Whatever a guest sends, cut into whatever pieces: what must hold for every reply, holds.</summary>
public sealed class SessionPropertyTests
{
    private const int Iterations = 100_000;

    private static readonly byte[][] GoldenRequests =
        [.. GoldenMessage.Names.Select(name => GoldenMessage.Read(name).Request)];

    private static readonly Gen<byte[]> Noise = Gen.Byte.Array[0, 200];

    // Noise hardly ever has a length and an opcode that make sense: give it both.
    private static readonly Gen<byte[]> Plausible = Gen.Select(
        Gen.UInt[0, 60], Gen.Byte.Array[0, 160], Gen.Byte[0, 3], (opcode, arguments, zeroes) =>
        {
            Array.Clear(arguments, 0, Math.Min(arguments.Length, zeroes * 16));
            return Message.Request((FuseOpcode)opcode, 1, arguments);
        });

    private static readonly Gen<byte[]> Mutated = Gen.Select(
        Gen.OneOf(GoldenRequests), Gen.Select(Gen.Int[0, 255], Gen.Byte).Array[1, 4], Gen.Int[-9, 9],
        (request, changes, growth) =>
        {
            byte[] changed = [.. request];
            foreach ((int at, byte value) in changes)
            {
                changed[at % changed.Length] = value;
            }

            Array.Resize(ref changed, Math.Max(0, changed.Length + growth));
            // Half of the time the length tells the truth, so that what comes after is looked at.
            return growth % 2 == 0 && changed.Length >= 4 ? changed.WithLength((uint)changed.Length) : changed;
        });

    private static readonly Gen<byte[]> Any = Gen.Frequency((1, Noise), (4, Plausible), (6, Mutated));

    private static readonly Gen<int> Room =
        Gen.Frequency((1, Gen.Int[0, 20]), (3, Gen.Int[16, 400]), (2, Gen.OneOf(16, 24, 80, 120, 144, 160, 4112)));

    private static readonly Gen<int[]> Cuts = Gen.Int[0, 220].Array[0, 6];

    [Fact]
    public void A_reply_is_whole_and_its_own_and_the_same_however_the_request_is_cut() => Gen
        .Select(Any, Room, Cuts, Cuts)
        .Sample(
            (message, room, requestCuts, replyCuts) =>
            {
                const FuseFeatures granted = FuseFeatures.CreateSuppGroup | FuseFeatures.HandleKillPrivV2;
                SessionRig whole = SessionRig.Open(granted);
                SessionRig cut = SessionRig.Open(granted);

                // Send asserts what holds for every reply.
                byte[] expected = whole.Send(message, room);
                byte[] reply = cut.SendSplit(message, room, requestCuts, replyCuts);

                Assert.Equal(expected, reply);
                Assert.Equal(whole.FileSystem.Calls, cut.FileSystem.Calls);
                Assert.Equal(whole.Request.Counters.TotalViolations, cut.Request.Counters.TotalViolations);
                Assert.DoesNotContain(whole.Logger.Entries, entry => entry.Event is 302 or 303);
            },
            iter: Iterations,
            threads: 1);

    [Fact]
    public void A_good_request_between_bad_ones_is_answered_as_ever()
    {
        GoldenMessage good = GoldenMessage.Read("getattr.hex");
        SessionRig rig = SessionRig.Open();
        Any.Sample(
            message =>
            {
                rig.Send(message, room: 200);
                // An INIT or DESTROY among them is obeyed.
                if (!rig.Session.IsOpen || rig.FileSystem.Calls.Any(call => call.StartsWith("INIT", StringComparison.Ordinal)))
                {
                    Assert.Equal(80, rig.Send(Message.Init(SessionRig.AllFeatures), room: 80).Length);
                }

                rig.FileSystem.Calls.Clear();
                Assert.Equal(good.Reply, rig.Send(good.Request, room: 120));
                Assert.Equal(good.Calls, rig.FileSystem.Calls);
            },
            iter: Iterations / 10,
            threads: 1);
    }
}
