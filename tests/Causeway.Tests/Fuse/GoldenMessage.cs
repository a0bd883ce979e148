using System.Globalization;
using System.Reflection;
using Causeway.Fuse;

namespace Causeway.Tests.Fuse;

/// <summary>
/// A request and its reply, byte by byte, from <c>Golden/*.hex</c>. A file says what the session has negotiated, which
/// calls the file system gets, and then lists the bytes, each field on a line of its own; '#' begins a comment.
/// </summary>
internal sealed class GoldenMessage
{
    private const string Folder = "Fuse/Golden/";

    public static IReadOnlyList<string> Names { get; } =
    [
        .. Assembly.GetExecutingAssembly().GetManifestResourceNames()
            .Where(name => name.StartsWith(Folder, StringComparison.Ordinal))
            .Select(name => name[Folder.Length..])
            .Order(StringComparer.Ordinal),
    ];

    public List<string> Calls { get; } = [];

    public FuseFeatures Granted { get; private set; }

    public byte[] Request { get; private set; } = [];

    public byte[] Reply { get; private set; } = [];

    /// <summary>Writable bytes: as many as the reply has, unless the file says otherwise.</summary>
    public int Room { get; private set; }

    public static GoldenMessage Read(string name)
    {
        GoldenMessage message = new();
        List<byte> request = [];
        List<byte> reply = [];
        List<byte>? bytes = null;
        using Stream stream = Assembly.GetExecutingAssembly().GetManifestResourceStream(Folder + name)!;
        using StreamReader reader = new(stream);
        while (reader.ReadLine() is { } line)
        {
            string[] words = line.Split('#')[0].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            switch (words)
            {
                case []:
                    break;
                case ["granted", var features]:
                    message.Granted = Enum.Parse<FuseFeatures>(features);
                    break;
                case ["room", var room]:
                    message.Room = int.Parse(room, CultureInfo.InvariantCulture);
                    break;
                case ["call", ..]:
                    message.Calls.Add(line["call ".Length..]);
                    break;
                case ["request"]:
                    bytes = request;
                    break;
                case ["reply"]:
                    bytes = reply;
                    break;
                default:
                    bytes!.AddRange(words.Select(word => byte.Parse(word, NumberStyles.HexNumber)));
                    break;
            }
        }

        message.Request = [.. request];
        message.Reply = [.. reply];
        message.Room = Math.Max(message.Room, reply.Count);
        return message;
    }

    /// <summary>A rig in the state that the message is meant for.</summary>
    public SessionRig Prepare() =>
        (FuseOpcode)BitConverter.ToUInt32(Request, 4) == FuseOpcode.Init ? new SessionRig() : SessionRig.Open(Granted);
}
