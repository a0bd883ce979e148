using Microsoft.Extensions.Logging;

namespace Causeway.Cli.Logs;

/// <summary>Where the daemon's messages go.</summary>
/// <param name="least">The least important messages that are written.</param>
internal abstract class DaemonLog(LogLevel least) : ILoggerFactory
{
    private readonly LogLevel _least = least;

    /// <inheritdoc/>
    public ILogger CreateLogger(string categoryName) => new CategoryLogger(this, categoryName);

    /// <inheritdoc/>
    public void AddProvider(ILoggerProvider provider) =>
        throw new NotSupportedException("messages go to one place and nowhere else");

    /// <inheritdoc/>
    public abstract void Dispose();

    /// <summary>Writes one message. Threads may do so at the same time.</summary>
    protected abstract void Write(LogLevel level, string category, string message);

    private sealed class CategoryLogger(DaemonLog log, string category) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= log._least && logLevel != LogLevel.None;

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
}
