using System.CommandLine;
using Microsoft.Extensions.Logging;

namespace Causeway.Cli.Options;

/// <summary>The process: what it logs and where, and its limits.</summary>
internal sealed class ProcessTopic : OptionTopic
{
    private readonly Option<string[]> _logLevel;
    private readonly Option<bool> _syslog;
    private readonly Option<bool> _debug;
    private readonly Option<bool> _foreground;
    private readonly Option<string[]> _descriptorLimit;

    public ProcessTopic()
    {
        _logLevel = Value("--log-level", "LEVEL", "error, warn, info, debug, trace, off [info]");
        _syslog = Switch("--syslog", "send messages to the system's log instead of standard error");
        _debug = Hidden(Switch("-d", string.Empty));
        _foreground = Hidden(Switch("-f", string.Empty));
        _descriptorLimit = Value(
            "--rlimit-nofile", "N", "the limit of open files; 0 keeps the current one [1000000 or fs.nr_open]");
    }

    /// <summary>Reads the topic.</summary>
    public ProcessOptions Read(ParsedOptions parsed)
    {
        if (parsed.IsOn(_foreground))
        {
            parsed.Warn("'-f' is deprecated and changes nothing; leave it out");
        }

        LogLevel level = parsed.OneOf(
            _logLevel,
            LogLevel.Information,
            ("error", LogLevel.Error),
            ("warn", LogLevel.Warning),
            ("info", LogLevel.Information),
            ("debug", LogLevel.Debug),
            ("trace", LogLevel.Trace),
            ("off", LogLevel.None));
        if (parsed.IsOn(_debug))
        {
            parsed.Warn("'-d' is deprecated; say '--log-level debug' instead");
            level = LogLevel.Debug;
        }

        return new ProcessOptions
        {
            LogLevel = level,
            LogsToSystem = parsed.IsOn(_syslog),
            DescriptorLimit = parsed.Number(_descriptorLimit, 0, ulong.MaxValue),
        };
    }
}

/// <summary>What the process logs, and its limits.</summary>
internal sealed record ProcessOptions
{
    /// <summary>The least important messages that are written.</summary>
    public LogLevel LogLevel { get; init; } = LogLevel.Information;

    /// <summary>Whether messages go to the system's log. Default: to standard error.</summary>
    public bool LogsToSystem { get; init; }

    /// <summary>The descriptor limit to set: null chooses one, zero keeps the current one.</summary>
    public ulong? DescriptorLimit { get; init; }
}
