using Microsoft.Extensions.Logging;

namespace Causeway.Fuse;

/// <summary>What this project logs. Event ids 300 to 399, each for ever.</summary>
internal static partial class Log
{
    [LoggerMessage(300, LogLevel.Debug, "{Session}: session opened, protocol 7.{Minor}, features {Features:x}")]
    internal static partial void SessionOpened(ILogger logger, string session, uint minor, ulong features);

    [LoggerMessage(
        301,
        LogLevel.Warning,
        "{Session}: the guest broke the FUSE protocol ({Violation}), and is answered with an error; not reported again"
        + " for this kind. The request began with {Request}")]
    internal static partial void GuestBrokeProtocol(
        ILogger logger, string session, FuseViolation violation, string request);

    [LoggerMessage(
        302, LogLevel.Error, "{Session}: the file system threw in {Opcode}; not reported again for this opcode")]
    internal static partial void FileSystemFailed(
        ILogger logger, Exception exception, string session, FuseOpcode opcode);

    [LoggerMessage(
        303,
        LogLevel.Error,
        "{Session}: the file system returned {Value} for {Opcode}, where {Maximum} is the most; not reported again")]
    internal static partial void FileSystemBrokeContract(
        ILogger logger, string session, FuseOpcode opcode, long value, int maximum);

    [LoggerMessage(
        304,
        LogLevel.Error,
        "{Session}: the file system failed between requests; what it put off may stay undone")]
    internal static partial void SettleFailed(ILogger logger, Exception exception, string session);
}
