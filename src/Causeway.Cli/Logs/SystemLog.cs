using System.Globalization;
using System.Text;
using Causeway.Linux;
using Microsoft.Extensions.Logging;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Cli.Logs;

/// <summary>
/// <c>--syslog</c>: sends messages to the system's log, facility "user", one datagram each (RFC 3164, as syslog(3) does). The
/// connection is made once, since the sandbox has no <c>/dev/log</c>. A message that the log has no room for is dropped: the
/// daemon does not wait for it.
/// </summary>
internal sealed class SystemLog : DaemonLog
{
    private const string SocketPath = "/dev/log";

    // RFC 3164, 4.1.1: facility 1 is "user-level messages"; the priority is eight times that, plus the severity.
    private const int Facility = 1;

    private readonly SafeFileHandle _socket;
    private readonly TimeZoneInfo _timeZone = TimeZoneInfo.Local;

    private SystemLog(SafeFileHandle socket, LogLevel least)
        : base(least) => _socket = socket;

    /// <summary>Connects to the system's log.</summary>
    /// <param name="least">The least important messages that are sent.</param>
    /// <param name="log">The log, or null.</param>
    /// <returns>Why there is none; <see cref="Errno.Success"/> when there is.</returns>
    public static Errno TryOpen(LogLevel least, out SystemLog? log)
    {
        log = null;
        SyscallResult made = Sockets.Socket(SocketDomain.Unix, SocketType.Datagram | SocketType.NonBlocking);
        if (made.IsError)
        {
            return made.Error;
        }

        var socket = new SafeFileHandle(made.Descriptor, ownsHandle: true);
        SyscallResult connected = Sockets.Connect(made.Descriptor, UnixAddress.FromPath(SocketPath));
        if (connected.IsError)
        {
            socket.Dispose();
            return connected.Error;
        }

        log = new SystemLog(socket, least);
        return Errno.Success;
    }

    /// <inheritdoc/>
    public override void Dispose() => _socket.Dispose();

    /// <inheritdoc/>
    protected override void Write(LogLevel level, string category, string message)
    {
        int severity = level switch
        {
            LogLevel.Critical => 2,
            LogLevel.Error => 3,
            LogLevel.Warning => 4,
            LogLevel.Information => 6,
            _ => 7,
        };
        DateTime now = TimeZoneInfo.ConvertTimeFromUtc(DateTime.UtcNow, _timeZone);
        string text = string.Create(
            CultureInfo.InvariantCulture,
            $"<{(Facility * 8) + severity}>{now:MMM} {now.Day,2} {now:HH:mm:ss} {Invocation.Name}[{Environment.ProcessId}]: "
            + $"[{category}] {message}");
        byte[] datagram = Encoding.UTF8.GetBytes(text);
        int descriptor = (int)_socket.DangerousGetHandle();
        if (Sockets.Sendmsg(descriptor, datagram, default).Error is Errno.ECONNREFUSED or Errno.ENOTCONN)
        {
            // The system's log has been started anew, and has a new socket at the old place.
            if (!Sockets.Connect(descriptor, UnixAddress.FromPath(SocketPath)).IsError)
            {
                Sockets.Sendmsg(descriptor, datagram, default);
            }
        }
    }
}
