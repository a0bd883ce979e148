using System.Globalization;
using System.Text;
using Causeway.Linux;
using Microsoft.Extensions.Logging;

namespace Causeway.Cli.Logs;

/// <summary>
/// Writes messages to standard error, one line each, in virtiofsd's format: launchers wait for some of them.
/// </summary>
internal sealed class StandardErrorLog(LogLevel least) : DaemonLog(FromEnvironment() ?? least)
{
    private const int StandardError = 2;

    private readonly Lock _gate = new();

    /// <summary>The level that a filter in the syntax of Rust's env_logger sets for the whole program.</summary>
    /// <param name="filter">For example <c>debug</c>, or <c>warn,virtiofsd=trace</c>.</param>
    /// <returns>The level; none when the filter is about other programs only.</returns>
    public static LogLevel ParseFilter(string filter)
    {
        LogLevel everywhere = LogLevel.None;
        LogLevel? here = null;
        foreach (string directive in filter.Split('/')[0].Split(',', StringSplitOptions.TrimEntries))
        {
            int equals = directive.IndexOf('=', StringComparison.Ordinal);
            string name = equals < 0 ? directive : directive[..equals];
            if (equals < 0 && FindLevel(name) is { } level)
            {
                everywhere = level;
            }
            else if (name is "virtiofsd" or "causeway")
            {
                here = equals < 0 ? LogLevel.Trace : FindLevel(directive[(equals + 1)..]) ?? here;
            }
        }

        return here ?? everywhere;
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
    }

    /// <inheritdoc/>
    protected override void Write(LogLevel level, string category, string message)
    {
        string time = DateTime.UtcNow.ToString("yyyy-MM-ddTHH:mm:ssZ", CultureInfo.InvariantCulture);
        string name = level switch
        {
            LogLevel.Critical or LogLevel.Error => "ERROR",
            LogLevel.Warning => "WARN ",
            LogLevel.Information => "INFO ",
            LogLevel.Debug => "DEBUG",
            _ => "TRACE",
        };
        lock (_gate)
        {
            // Not through Console, which starts a thread for signals and looks for a terminal: the sandbox comes before both.
            ReadOnlySpan<byte> line = Encoding.UTF8.GetBytes($"[{time} {name} {category}] {message}\n");
            while (!line.IsEmpty && Pipes.Write(StandardError, line) is { IsError: false } result)
            {
                line = line[result.Count..];
            }
        }
    }

    // virtiofsd obeys this variable, so that launchers which know no other way of having it talk set it.
    private static LogLevel? FromEnvironment() =>
        Environment.GetEnvironmentVariable("RUST_LOG") is { Length: > 0 } filter ? ParseFilter(filter) : null;

    private static LogLevel? FindLevel(string name) => name.ToUpperInvariant() switch
    {
        "ERROR" => LogLevel.Error,
        "WARN" => LogLevel.Warning,
        "INFO" => LogLevel.Information,
        "DEBUG" => LogLevel.Debug,
        "TRACE" => LogLevel.Trace,
        "OFF" => LogLevel.None,
        _ => null,
    };
}
