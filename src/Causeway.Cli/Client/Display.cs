using System.Globalization;
using System.Text;
using System.Text.Json;
using Causeway.Driver;

namespace Causeway.Cli.Client;

/// <summary>How attributes look to people and to scripts.</summary>
internal static class Display
{
    private static readonly string[] Units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

    /// <summary>A number of bytes with three digits or a little more: 999 B, 1.50 MiB.</summary>
    public static string Size(double bytes)
    {
        int unit = 0;
        while (bytes >= 1000 && unit < Units.Length - 1)
        {
            bytes /= 1024;
            unit++;
        }

        string format = unit == 0 || bytes >= 100 ? "0" : bytes >= 10 ? "0.0" : "0.00";
        return $"{bytes.ToString(format, CultureInfo.InvariantCulture)} {Units[unit]}";
    }

    /// <summary>
    /// A name for a terminal: whoever fills a share could otherwise write escape sequences. Into a pipe it goes as it is.
    /// </summary>
    public static string Name(string name)
    {
        if (Console.IsOutputRedirected || !name.Any(char.IsControl))
        {
            return name;
        }

        var safe = new StringBuilder(name.Length);
        foreach (char character in name)
        {
            safe.Append(char.IsControl(character) ? '?' : character);
        }

        return safe.ToString();
    }

    /// <summary>Type and permissions as ls(1) writes them.</summary>
    public static string Mode(FileStatus status)
    {
        Span<char> text = stackalloc char[10];
        text[0] = status.Kind switch
        {
            FileKind.Directory => 'd',
            FileKind.SymbolicLink => 'l',
            FileKind.Pipe => 'p',
            FileKind.Socket => 's',
            FileKind.CharacterDevice => 'c',
            FileKind.BlockDevice => 'b',
            _ => '-',
        };
        uint bits = status.Permissions;
        for (int i = 0; i < 9; i++)
        {
            text[1 + i] = (bits & (0x100u >> i)) != 0 ? "rwx"[i % 3] : '-';
        }

        // setuid, setgid and sticky stand where the x of their class does.
        for (int i = 0; i < 3; i++)
        {
            if ((bits & (0x800u >> i)) != 0)
            {
                ref char x = ref text[3 + (3 * i)];
                char letter = i == 2 ? 't' : 's';
                x = x == 'x' ? letter : char.ToUpperInvariant(letter);
            }
        }

        return new string(text);
    }

    /// <summary>The type as a word.</summary>
    public static string Kind(FileKind kind) => kind switch
    {
        FileKind.File => "file",
        FileKind.Directory => "directory",
        FileKind.SymbolicLink => "symlink",
        FileKind.Pipe => "pipe",
        FileKind.Socket => "socket",
        FileKind.CharacterDevice => "character-device",
        FileKind.BlockDevice => "block-device",
        _ => "unknown",
    };

    /// <summary>A time to the nanosecond, in UTC.</summary>
    public static string Time(DateTimeOffset time, uint nanoseconds) =>
        time.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss", CultureInfo.InvariantCulture)
        + nanoseconds.ToString("'.'000000000'Z'", CultureInfo.InvariantCulture);

    /// <summary>One line of a long listing.</summary>
    public static string Line(string name, FileStatus status) => string.Create(
        CultureInfo.InvariantCulture,
        $"{Mode(status)} {status.LinkCount,3} {status.UserId,6} {status.GroupId,6} {Size(status.Length),9} "
            + $"{status.ModificationTime.LocalDateTime:yyyy-MM-dd HH:mm} {Name(name)}");

    /// <summary>Writes one JSON value to standard output, and a line end.</summary>
    public static void Json(Action<Utf8JsonWriter> write)
    {
        using Stream output = Console.OpenStandardOutput();
        using (var writer = new Utf8JsonWriter(output))
        {
            write(writer);
        }

        output.WriteByte((byte)'\n');
    }

    /// <summary>An object with its attributes as JSON; all sizes in bytes.</summary>
    public static void WriteStatus(this Utf8JsonWriter writer, string nameKey, string name, FileStatus status)
    {
        writer.WriteStartObject();
        writer.WriteString(nameKey, name);
        writer.WriteString("type", Kind(status.Kind));
        writer.WriteNumber("size", status.Length);
        writer.WriteNumber("allocated", status.AllocatedBytes);
        writer.WriteString("mode", "0" + Convert.ToString((int)status.Permissions, 8).PadLeft(3, '0'));
        writer.WriteNumber("uid", status.UserId);
        writer.WriteNumber("gid", status.GroupId);
        writer.WriteNumber("links", status.LinkCount);
        writer.WriteNumber("inode", status.Inode);
        writer.WriteString("accessed", Time(status.AccessTime, status.Attributes.AccessTimeNanoseconds));
        writer.WriteString("modified", Time(status.ModificationTime, status.Attributes.ModificationTimeNanoseconds));
        writer.WriteString("changed", Time(status.ChangeTime, status.Attributes.ChangeTimeNanoseconds));
        writer.WriteEndObject();
    }
}
