using System.Text;
using Causeway.Linux;

namespace Causeway.Cli.Client;

/// <summary>A place in a share, written SOCK:PATH, or one on this machine.</summary>
/// <param name="Socket">The daemon's socket; null for a place on this machine.</param>
/// <param name="Path">The path.</param>
internal readonly record struct SharePath(string? Socket, string Path)
{
    private const int FileTypeMask = 0xF000;
    private const int FileTypeSocket = 0xC000;

    /// <summary>Where the place is, for messages.</summary>
    public override string ToString() => Socket is null ? Path : $"{Socket}:{Path}";

    /// <summary>Reads SOCK:PATH. What stands before the colon has to be a socket.</summary>
    /// <exception cref="UsageException">It is none.</exception>
    public static SharePath Parse(string text)
    {
        SharePath place = ParseAny(text);
        if (place.Socket is not null)
        {
            return place;
        }

        int colon = text.IndexOf(':', StringComparison.Ordinal);
        string socket = colon < 0 ? text : text[..colon];
        throw new UsageException(
            File.Exists(socket)
                ? $"'{socket}' is not a socket; write SOCK:PATH, with the socket of a virtio-fs daemon in the place of SOCK"
                : $"there is no socket '{socket}'; write SOCK:PATH, and start the daemon first: "
                    + $"causeway serve --persistent --socket-path {socket} ...");
    }

    /// <summary>Reads SOCK:PATH, or the path of something on this machine, as <c>scp</c> does.</summary>
    public static SharePath ParseAny(string text)
    {
        // A colon may be part of either path: the first prefix that is a socket counts.
        for (int colon = text.IndexOf(':', StringComparison.Ordinal); colon > 0; colon = text.IndexOf(':', colon + 1))
        {
            if (IsSocket(text[..colon]))
            {
                return new SharePath(text[..colon], text[(colon + 1)..]);
            }
        }

        return IsSocket(text) ? new SharePath(text, "/") : new SharePath(null, text);
    }

    /// <summary>A path below this one.</summary>
    public SharePath Below(string name) => this with
    {
        Path = Path.Length == 0 || Path.EndsWith('/') ? Path + name : $"{Path}/{name}",
    };

    private static bool IsSocket(string path) =>
        !path.Contains('\0', StringComparison.Ordinal)
        && !Files.Statx(
            Files.WorkingDirectory, Encoding.UTF8.GetBytes(path + "\0"), AtFlags.None, StatxMask.Basic, out StatxBuffer status)
            .IsError
        && (status.Mode & FileTypeMask) == FileTypeSocket;
}
