namespace Causeway.Cli;

/// <summary>The exit statuses of virtiofsd, which launchers know.</summary>
internal static class ExitStatus
{
    /// <summary>The front end disconnected, or the question was answered.</summary>
    public const int Success = 0;

    /// <summary>Starting or serving failed.</summary>
    public const int Failure = 1;

    /// <summary>The command line is wrong.</summary>
    public const int Usage = 2;
}
