namespace Causeway.Cli;

/// <summary>
/// The command line is right and yet serving cannot start: the message says what failed, on what, why and what to do. Exit
/// status 1.
/// </summary>
internal sealed class StartupException(string message, Exception? cause = null) : Exception(message, cause);
