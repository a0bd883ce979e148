using System.Globalization;
using Microsoft.Extensions.Logging;

namespace Causeway.Cli;

/// <summary>
/// Writes log messages to standard error, one line each, in virtiofsd's format: launchers wait for some of them.
/// </summary>
internal sealed class StandardErrorLog(LogLevel least) : ILoggerFactory
{
    private readonly Lock _gate = new();

    /// <inheritdoc/>
    public ILogger CreateLogger(string categoryName) => new CategoryLogger(this, categoryName);

    /// <inheritdoc/>
    public void AddProvider(ILoggerProvider provider) =>
        throw new NotSupportedException("messages go to standard error and nowhere else");

    /// <inheritdoc/>
    public void Dispose()
    {
    }

    private void Write(LogLevel level, string category, string message)
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
            Console.Error.WriteLine($"[{time} {name} {category}] {message}");
        }
    }

    private sealed class CategoryLogger(StandardErrorLog log, string category) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= log.Least && logLevel != LogLevel.None;

        public void Log<TState>(
            LogLevel logLevel,
            EventId eventId,
            TState state,
            Exception? exception,
            Func<TState, Exception?, string> formatter)
        {
            if (!IsEnabled(logLevel))
            {
                return;
            }

            string message = formatter(state, exception);
            log.Write(logLevel, category, exception is null ? message : $"{message} {exception}");
        }
    }

    private LogLevel Least { get; } = least;
}
