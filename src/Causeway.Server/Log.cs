using Microsoft.Extensions.Logging;

namespace Causeway.Server;

/// <summary>The messages of this project.</summary>
internal static partial class Log
{
    [LoggerMessage(1, LogLevel.Information, "Waiting for vhost-user socket connection...")]
    public static partial void Waiting(ILogger logger);

    [LoggerMessage(2, LogLevel.Information, "Client connected, servicing requests")]
    public static partial void Connected(ILogger logger);

    [LoggerMessage(3, LogLevel.Information, "Client disconnected")]
    public static partial void Disconnected(ILogger logger);

    [LoggerMessage(4, LogLevel.Warning, "The front end broke the protocol and was disconnected: {Reason}")]
    public static partial void ProtocolViolation(ILogger logger, string reason);

    [LoggerMessage(5, LogLevel.Warning,
        "Queue {Queue} is broken: the guest's driver wrote an impossible ring; it is not served until it is reset")]
    public static partial void QueueBroken(ILogger logger, string queue);

    [LoggerMessage(6, LogLevel.Critical, "Queue worker {Queue} failed, the daemon ends; please report this")]
    public static partial void WorkerFailed(ILogger logger, Exception exception, string queue);

    [LoggerMessage(7, LogLevel.Critical, "The stall monitor failed, the daemon ends; please report this")]
    public static partial void MonitorFailed(ILogger logger, Exception exception);

    [LoggerMessage(8, LogLevel.Debug,
        "Queue {Queue}: {Requests} requests, {Calls} calls, {Stalls} stalls, looked for more (times, found, disturbed) {Looks}")]
    public static partial void QueueStopped(
        ILogger logger, string queue, long requests, long calls, long stalls, (long, long, long) looks);

    [LoggerMessage(9, LogLevel.Warning,
        "Queue {Queue}: the front end's kick event cannot be watched ({Error}); it has to be an eventfd")]
    public static partial void EventNotWatched(ILogger logger, string queue, Causeway.Linux.Errno error);

    [LoggerMessage(10, LogLevel.Debug, "DAX window of {Megabytes} MiB: the front end maps {Pages}")]
    public static partial void WindowProbed(ILogger logger, ulong megabytes, string pages);

    [LoggerMessage(11, LogLevel.Information, "Requests so far: {Counts}")]
    public static partial void Counters(ILogger logger, string counts);

    [LoggerMessage(12, LogLevel.Information, "Guest {Guest} connected at {Socket}, servicing requests")]
    public static partial void GuestConnected(ILogger logger, int guest, string socket);

    [LoggerMessage(13, LogLevel.Information, "Guest {Guest} disconnected")]
    public static partial void GuestDisconnected(ILogger logger, int guest);

    [LoggerMessage(14, LogLevel.Warning, "The front end of guest {Guest} broke the protocol and was disconnected: {Reason}")]
    public static partial void GuestViolation(ILogger logger, int guest, string reason);

    [LoggerMessage(15, LogLevel.Warning, "The front end of guest {Guest} cannot be served now: {Reason}")]
    public static partial void GuestFailed(ILogger logger, int guest, string reason);

    [LoggerMessage(16, LogLevel.Information, "Requests of guest {Guest} so far: {Counts}")]
    public static partial void GuestCounters(ILogger logger, int guest, string counts);

    [LoggerMessage(17, LogLevel.Critical,
        "Guest {Guest} was disconnected by a defect of this program, and its place is not used any more; please report this")]
    public static partial void SeatLost(ILogger logger, Exception exception, int guest);

    [LoggerMessage(18, LogLevel.Warning,
        "Queue {Queue} gets no further thread: the limit of processes ('ulimit -u', a control group's pids.max) or memory is used up; "
        + "it goes on with what it has, and asks again")]
    public static partial void ThreadRefused(ILogger logger, string queue);

    [LoggerMessage(19, LogLevel.Information, "Memory: {Managed} KiB of managed objects, garbage collections so far: {Count}")]
    public static partial void Memory(ILogger logger, long managed, int count);

    [LoggerMessage(20, LogLevel.Warning,
        "Queue {Queue} has no memory for another request: what is in its ring waits there until a request is done or there is memory")]
    public static partial void SlotRefused(ILogger logger, string queue);

    [LoggerMessage(21, LogLevel.Information, "The host's kernel is served directly ({Connection})")]
    public static partial void ConnectionStarted(ILogger logger, string connection);

    [LoggerMessage(22, LogLevel.Debug,
        "Connection {Connection}: {Requests} requests, {Stalls} stalls, looked for more (times, found, disturbed) {Looks}")]
    public static partial void ConnectionStopped(
        ILogger logger, string connection, long requests, long stalls, (long, long, long) looks);
}
