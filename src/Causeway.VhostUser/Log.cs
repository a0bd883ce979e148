using Causeway.VhostUser.Messages;
using Microsoft.Extensions.Logging;

namespace Causeway.VhostUser;

/// <summary>What this project logs.</summary>
internal static partial class Log
{
    [LoggerMessage(100, LogLevel.Debug, "The front end chose the virtio features {Features}")]
    internal static partial void FeaturesNegotiated(ILogger logger, VirtioFeatures features);

    [LoggerMessage(101, LogLevel.Debug, "The front end chose the protocol features {Features}")]
    internal static partial void ProtocolFeaturesNegotiated(ILogger logger, VhostUserProtocolFeatures features);

    [LoggerMessage(102, LogLevel.Debug, "Ring {Index} starts: {Size} descriptors, base {Next:x}")]
    internal static partial void RingStarted(ILogger logger, int index, int size, uint next);

    [LoggerMessage(103, LogLevel.Debug, "Ring {Index} stopped at {Next:x}")]
    internal static partial void RingStopped(ILogger logger, int index, uint next);

    [LoggerMessage(104, LogLevel.Warning, "Ring {Index} cannot run: its addresses are not in the guest's memory")]
    internal static partial void RingUnmapped(ILogger logger, int index);

    [LoggerMessage(105, LogLevel.Warning, "The front end's {Request} was refused: {Reason}")]
    internal static partial void RequestRefused(ILogger logger, string request, string reason);

    [LoggerMessage(106, LogLevel.Debug, "The front end's {Request} is not supported and was ignored")]
    internal static partial void RequestIgnored(ILogger logger, string request);

    [LoggerMessage(107, LogLevel.Debug, "Guest memory now has {Count} regions")]
    internal static partial void MemoryChanged(ILogger logger, int count);

    [LoggerMessage(108, LogLevel.Debug, "The front end disconnected")]
    internal static partial void Disconnected(ILogger logger);
}
