using System.CommandLine;
using System.Globalization;
using Causeway.Linux;

namespace Causeway.Cli.Options;

/// <summary>Where the daemon waits for its front end.</summary>
internal sealed class SocketTopic : OptionTopic
{
    private readonly Option<string[]> _path;
    private readonly Option<string[]> _oldPath;
    private readonly Option<string[]> _descriptor;
    private readonly Option<string[]> _group;

    public SocketTopic()
    {
        _path = Value("--socket-path", "PATH", "create a socket at PATH and wait for the front end (QEMU) there");
        _oldPath = Hidden(Value("--socket", "PATH", string.Empty));
        _group = Value("--socket-group", "GROUP", "let the members of GROUP use the socket, too");
        _descriptor = Value("--fd", "N", "wait for the front end on descriptor N, an inherited listening socket");
    }

    /// <summary>Refuses to mix <c>--print-capabilities</c> with what virtiofsd does not let it be mixed with.</summary>
    public void CheckBeside(Option printCapabilities, ParsedOptions parsed)
    {
        Check(parsed);
        Exclude(parsed, printCapabilities, _group);
    }

    /// <summary>Reads the topic.</summary>
    public SocketOptions Read(ParsedOptions parsed)
    {
        Check(parsed);
        if (parsed.IsGiven(_oldPath))
        {
            parsed.Warn("'--socket' is deprecated; say '--socket-path' instead");
        }

        var options = new SocketOptions
        {
            Path = parsed.Last(_path) ?? parsed.Last(_oldPath),
            Descriptor = (int?)parsed.Number(_descriptor, 0, int.MaxValue),
            Group = parsed.Last(_group),
        };
        return options.Path is null && options.Descriptor is null
            ? throw new UsageException("where to listen? Give '--socket-path PATH' (or '--fd N')")
            : options;
    }

    private void Check(ParsedOptions parsed)
    {
        if (parsed.IsGiven(_descriptor))
        {
            Exclude(parsed, _descriptor, _path);
            Exclude(parsed, _descriptor, _oldPath);
            Exclude(parsed, _descriptor, _group);
        }
    }

    private static void Exclude(ParsedOptions parsed, Option one, Option other)
    {
        if (parsed.IsGiven(other))
        {
            throw new UsageException($"'{one.Name}' and '{other.Name}' exclude each other; leave one out");
        }
    }
}

/// <summary>Where to wait for the front end.</summary>
internal sealed record SocketOptions
{
    /// <summary>Where to create a socket; null when <see cref="Descriptor"/> is given.</summary>
    public string? Path { get; init; }

    /// <summary>A listening socket inherited from the parent; null when <see cref="Path"/> is given.</summary>
    public int? Descriptor { get; init; }

    /// <summary>The group that may connect, by name or number; null for none.</summary>
    public string? Group { get; init; }

    /// <summary>Looks the group up on this machine.</summary>
    /// <exception cref="StartupException">There is no such group.</exception>
    public uint? FindGroup()
    {
        if (Group is null)
        {
            return null;
        }

        SyscallResult found = Accounts.FindGroup(Group, out uint group);
        if (!found.IsError || uint.TryParse(Group, NumberStyles.None, CultureInfo.InvariantCulture, out group))
        {
            return group;
        }

        throw new StartupException(
            $"'--socket-group {Group}': there is no such group on this host ({found.Error}); 'getent group' lists them");
    }
}
