namespace Causeway.Cli;

/// <summary>The command line is wrong: the message names the option and what to write instead. Exit status 2.</summary>
internal sealed class UsageException(string message) : Exception(message);
