namespace Causeway.Cli.Bench;

/// <summary>A daemon gave a wrong answer, so that its speed means nothing. The message says which and why.</summary>
internal sealed class BadReplyException(string message) : Exception(message);

/// <summary>A daemon cannot do what an operation measures; its row stays empty. The message says why.</summary>
internal sealed class NotSupportedByDaemonException(string message) : Exception(message);
