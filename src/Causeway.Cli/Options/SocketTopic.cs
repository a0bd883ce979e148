using System.CommandLine;

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
        _group = Hidden(Value("--socket-group", "GROUP", string.Empty));
        _descriptor = Value("--fd", "N", "wait for the front end on descriptor N, an inherited listening socket");
    }

    /// <summary>Refuses what excludes each other.</summary>
    public void Check(ParsedOptions parsed)
    {
        if (parsed.IsGiven(_descriptor))
        {
            Exclude(parsed, _descriptor, _path);
            Exclude(parsed, _descriptor, _oldPath);
            Exclude(parsed, _descriptor, _group);
        }
    }

    /// <summary>Reads the topic.</summary>
    public SocketOptions Read(ParsedOptions parsed)
    {
        Check(parsed);
        parsed.RefuseNotYet(_group, harmless: null);
        if (parsed.IsGiven(_oldPath))
        {
            parsed.Warn("'--socket' is deprecated; say '--socket-path' instead");
        }

        var options = new SocketOptions
        {
            Path = parsed.Last(_path) ?? parsed.Last(_oldPath),
            Descriptor = (int?)parsed.Number(_descriptor, 0, int.MaxValue),
        };
        return options.Path is null && options.Descriptor is null
            ? throw new UsageException("where to listen? Give '--socket-path PATH' (or '--fd N')")
            : options;
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
}
