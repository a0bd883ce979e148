using System.Buffers.Binary;
using Causeway.Fuse;
using Causeway.Tests.Fuse;

namespace Causeway.Fuzz.Targets;

/// <summary>A FUSE session gets requests, one after another, the way a guest would put them on a queue.</summary>
/// <remarks>
/// An input is a number of records: how the request is cut into pieces, how much room its reply has, how long it is (two bytes), and
/// the request. The file system behind the session answers everything at once.
/// </remarks>
internal static class SessionTarget
{
    private static readonly int[] _rooms = [0, 8, 16, 24, 80, 120, 144, 160, 304, 4096, 4112, 65552];

    public static void Run(ReadOnlySpan<byte> input)
    {
        SessionRig rig = SessionRig.Open((FuseFeatures)ulong.MaxValue);
        while (input.Length >= 4)
        {
            int cut = input[0];
            int room = _rooms[input[1] % _rooms.Length];
            int length = Math.Min(BinaryPrimitives.ReadUInt16LittleEndian(input[2..]), input.Length - 4);
            byte[] request = input.Slice(4, length).ToArray();
            input = input[(4 + length)..];
            // What holds for every reply is checked there: lengths, numbers, guard bytes.
            _ = rig.SendSplit(request, room, cut == 0 ? [] : [cut, cut * 3], cut == 0 ? [] : [cut % 40]);
            rig.FileSystem.Calls.Clear();
        }
    }

    /// <summary>The recorded requests of real kernels, each alone, and all of them in one.</summary>
    public static IEnumerable<(string Name, byte[] Input)> Seeds()
    {
        List<byte> all = [];
        foreach (string name in GoldenMessage.Names)
        {
            GoldenMessage message = GoldenMessage.Read(name);
            if (message.Request.Length > 4000)
            {
                continue;
            }

            int room = Array.FindIndex(_rooms, room => room >= message.Room);
            byte[] record =
            [
                0, (byte)(room < 0 ? _rooms.Length - 1 : room), (byte)message.Request.Length, (byte)(message.Request.Length >> 8),
                .. message.Request,
            ];
            yield return (name, record);
            all.AddRange(record);
        }

        yield return ("all", [.. all]);
    }
}
