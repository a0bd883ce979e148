using Microsoft.Extensions.Logging;

namespace Causeway.Passthrough;

/// <summary>What this project logs. Event ids 500 to 599, each for ever.</summary>
internal static partial class Log
{
    [LoggerMessage(
        500,
        LogLevel.Error,
        "The guest's mount of '{Directory}' is refused: {Feature} must be used and its kernel does not support it; use a"
        + " newer guest kernel, or allow guests without by the mode 'auto'")]
    internal static partial void FeatureRequired(ILogger logger, string directory, string feature);

    [LoggerMessage(
        501,
        LogLevel.Warning,
        "The guest's kernel does not support {Feature}; '{Directory}' is served to it without")]
    internal static partial void FeatureMissing(ILogger logger, string directory, string feature);

    [LoggerMessage(
        502,
        LogLevel.Warning,
        "Setuid bits of '{Directory}' are the guest's to clear: it has a DAX window, into which it writes without the host")]
    internal static partial void KillPrivLeftOut(ILogger logger, string directory);
}
