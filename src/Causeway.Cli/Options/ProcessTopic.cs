using System.CommandLine;
using Causeway.Linux;
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
    private readonly Option<string[]> _affinity;
    private readonly Option<string[]> _memory;

    public ProcessTopic()
    {
        _logLevel = Value("--log-level", "LEVEL", "error, warn, info, debug, trace, off [info]");
        _syslog = Switch("--syslog", "send messages to the system's log instead of standard error");
        _debug = Hidden(Switch("-d", string.Empty));
        _foreground = Hidden(Switch("-f", string.Empty));
        _descriptorLimit = Value(
            "--rlimit-nofile", "N", "the limit of open files; 0 keeps the current one [1000000 or fs.nr_open]");
        _affinity = Value(
            "--cpu-affinity", "LIST", "run on these processors only, in taskset's syntax: 0,2-5,8-14:2 [all]");
        _memory = Value(
            "--memory-max", "SIZE", "keep the daemon's memory below SIZE, 48M at least, by what guests may know and have in work [off]");
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
            Affinity = ReadAffinity(parsed),
            Memory = ReadMemory(parsed),
        };
    }

    private IReadOnlyList<int>? ReadAffinity(ParsedOptions parsed)
    {
        if (parsed.Last(_affinity) is not { } text)
        {
            return null;
        }

        return Processors.TryParse(text, out IReadOnlyList<int> processors)
            ? processors
            : throw new UsageException(
                $"'--cpu-affinity' takes numbers and ranges of processors, for example 0,2-5 or 0-6:2, not '{text}'");
    }

    private MemoryBudget? ReadMemory(ParsedOptions parsed)
    {
        if (parsed.Last(_memory) is not { } text)
        {
            return null;
        }

        return ParsedOptions.TryReadSize(text, out ulong size) && size is >= (ulong)MemoryBudget.Least and <= long.MaxValue
            ? new MemoryBudget((long)size)
            : throw new UsageException($"'--memory-max' takes a size of 48M or more, for example 256M, not '{text}'");
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

    /// <summary>The processors to run on. Default null: those of whoever starts it.</summary>
    public IReadOnlyList<int>? Affinity { get; init; }

    /// <summary>What the daemon may have of memory. Default null: no limit.</summary>
    public MemoryBudget? Memory { get; init; }
}
