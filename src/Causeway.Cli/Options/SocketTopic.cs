using System.CommandLine;
using System.Globalization;
using Causeway.Linux;
using Causeway.Server;

namespace Causeway.Cli.Options;

/// <summary>Where the daemon waits for its front ends, and for how many.</summary>
internal sealed class SocketTopic : OptionTopic
{
    private readonly Option<string[]> _path;
    private readonly Option<string[]> _oldPath;
    private readonly Option<string[]> _descriptor;
    private readonly Option<string[]> _group;
    private readonly Option<string[]> _maxGuests;

    public SocketTopic()
    {
        _path = Value(
            "--socket-path", "PATH", "create a socket at PATH and wait for the front end (QEMU) there; repeat it for more guests");
        _oldPath = Hidden(Value("--socket", "PATH", string.Empty));
        _group = Value("--socket-group", "GROUP", "let the members of GROUP use the socket, too");
        _descriptor = Value("--fd", "N", "wait for the front end on descriptor N, an inherited listening socket");
        _maxGuests = Value("--max-guests", "N", "how many front ends a socket has at a time, 1 to 64 for all sockets together [1]");
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
            Paths = ReadPaths(parsed),
            Descriptor = (int?)parsed.Number(_descriptor, 0, int.MaxValue),
            Group = parsed.Last(_group),
            MaxGuests = (int)(parsed.Number(_maxGuests, 1, VirtioFsServerOptions.MostGuests) ?? 1),
        };
        if (options.Paths.Count == 0 && options.Descriptor is null)
        {
            throw new UsageException("where to listen? Give '--socket-path PATH' (or '--fd N')");
        }

        return options.GuestCount <= VirtioFsServerOptions.MostGuests
            ? options
            : throw new UsageException(
                $"{options.Paths.Count} sockets with '--max-guests {options.MaxGuests}' each are too many: one daemon has at most "
                + $"{VirtioFsServerOptions.MostGuests} guests; start another one for the others");
    }

    private IReadOnlyList<string> ReadPaths(ParsedOptions parsed)
    {
        IReadOnlyList<string> paths = parsed.All(_path);
        if (paths.Count == 0)
        {
            return parsed.Last(_oldPath) is { } old ? [old] : [];
        }

        return paths.Distinct(StringComparer.Ordinal).Count() == paths.Count
            ? paths
            : throw new UsageException("two '--socket-path' are the same; '--max-guests N' lets a socket have several guests");
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

/// <summary>Where to wait for front ends.</summary>
internal sealed record SocketOptions
{
    /// <summary>Where to create sockets; empty when <see cref="Descriptor"/> is given.</summary>
    public IReadOnlyList<string> Paths { get; init; } = [];

    /// <summary>A listening socket inherited from the parent; null when <see cref="Paths"/> are given.</summary>
    public int? Descriptor { get; init; }

    /// <summary>The group that may connect, by name or number; null for none.</summary>
    public string? Group { get; init; }

    /// <summary>How many front ends each socket has at a time. Default 1.</summary>
    public int MaxGuests { get; init; } = 1;

    /// <summary>How many front ends there are at most.</summary>
    public int GuestCount => Math.Max(1, Paths.Count) * MaxGuests;

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
