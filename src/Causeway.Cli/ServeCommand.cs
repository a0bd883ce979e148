using System.CommandLine;
using System.Runtime.InteropServices;
using Causeway.Cli.Logs;
using Causeway.Cli.Options;
using Causeway.Cli.Sandbox;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Server;
using Causeway.VhostUser.Backend;
using Microsoft.Extensions.Logging;

namespace Causeway.Cli;

/// <summary><c>causeway serve</c>: opens the share, listens, and serves until the front end leaves, or for ever.</summary>
internal static partial class ServeCommand
{
    /// <summary>SIGUSR1, on every architecture that .NET has: has the counters logged.</summary>
    public const PosixSignal UserSignal = (PosixSignal)10;

    /// <summary>Gives a command the options of this one, and has it do what this one does.</summary>
    public static void Define(Command command)
    {
        var syntax = new ServeSyntax();
        syntax.AddAllTo(command);
        command.SetAction(parsed =>
        {
            if (!syntax.AsksForCapabilities(parsed))
            {
                return Run(syntax.Read(parsed));
            }

            parsed.InvocationConfiguration.Output.WriteLine(Capabilities.Json);
            return ExitStatus.Success;
        });
    }

    // In stage one of the sandbox, and again in stage two, which is the same program with the same command line.
    private static int Run(ServeOptions options)
    {
        Handover? handover = Handover.Take();
        if (handover is null)
        {
            InheritedDescriptors.Close(except: options.Socket.Descriptor);
        }

        using DaemonLog log = OpenLog(options.Process, out Errno noSystemLog);
        ILogger logger = log.CreateLogger("causeway");
        Processes.IgnoreFileSizeSignal();
        try
        {
            if (handover is not null)
            {
                return Serve(options, SandboxedProcess.Enter(handover, options), cleanUp: () => { }, log, logger);
            }

            if (noSystemLog != Errno.Success)
            {
                NoSystemLog(logger, noSystemLog);
            }

            foreach (string warning in options.Warnings)
            {
                Warning(logger, warning);
            }

            return Listen(options, log, logger);
        }
        catch (Exception exception)
            when (log is SystemLog && exception is StartupException or IOException or ArgumentException)
        {
            // Standard error gets it as well; but who asked for the system's log may not look there.
            Failed(logger, exception.Message);
            throw;
        }
    }

    private static int Listen(ServeOptions options, DaemonLog log, ILogger logger)
    {
        ThrowIfUnusable(options.Passthrough.SharedDirectory);
        options.Migration.Check();
        Launcher.Check(options.Sandbox);
        uint? group = options.Socket.FindGroup();
        using var sockets = new DaemonSockets();
        sockets.Reserve(options.Socket.Paths);
        DescriptorLimit.Apply(options.Process.DescriptorLimit, logger);
        // Inherited by every thread and process that starts from here on.
        ProcessorAffinity.Apply(options.Process.Affinity);
        IReadOnlyList<VhostUserListener> listeners = sockets.Listen(options.Socket, group);
        return options.Sandbox.Mode != SandboxMode.None
            ? Launcher.Run(options.Sandbox, options.Passthrough, listeners)
            : Serve(options, SandboxedProcess.EnterHere(listeners, options), sockets.Remove, log, logger);
    }

    private static int Serve(
        ServeOptions options, SandboxedProcess process, Action cleanUp, DaemonLog log, ILogger logger)
    {
        process.Report(options, logger);
        using Share share = Share.Open(options.Passthrough, process.Location, process.Ring);
        using var server = new VirtioFsServer(
            () => new PassthroughFileSystem(share, logger),
            new VirtioFsServerOptions
            {
                Listeners = process.Listeners,
                MaxGuests = options.Socket.MaxGuests,
                Tag = options.Device.Tag,
                RequestQueues = options.Device.RequestQueues,
                DaxWindowSize = options.Device.DaxWindowSize,
                MaxInFlightBytes = options.Device.MaxInFlightBytes,
                IsPersistent = options.Device.IsPersistent,
                Polls = options.Device.Polls,
                Notifications = options.Passthrough.HostWatching != HostWatching.Off,
            },
            log);
        using PosixSignalRegistration onUser = PosixSignalRegistration.Create(UserSignal, signal =>
        {
            signal.Cancel = true;
            server.LogCounters();
        });
        using var signals = new EndingSignals(cleanUp);
        server.Run();
        return ExitStatus.Success;
    }

    private static DaemonLog OpenLog(ProcessOptions options, out Errno noSystemLog)
    {
        SystemLog? log = null;
        noSystemLog = options.LogsToSystem ? SystemLog.TryOpen(options.LogLevel, out log) : Errno.Success;
        return log is not null ? log : new StandardErrorLog(options.LogLevel);
    }

    private static void ThrowIfUnusable(string path)
    {
        if (File.Exists(path))
        {
            throw new StartupException($"'{path}' is not a directory; share the directory it is in");
        }

        if (!Directory.Exists(path))
        {
            throw new StartupException(
                $"the shared directory '{path}' does not exist or cannot be reached; create it, or check the path and the "
                + "permissions of the directories above");
        }

        try
        {
            _ = Directory.EnumerateFileSystemEntries(path).Any();
        }
        catch (UnauthorizedAccessException exception)
        {
            throw new StartupException(
                $"the shared directory '{path}' cannot be read by user '{Environment.UserName}'; run the daemon as another "
                + "user, or change the permissions",
                exception);
        }
    }

    [LoggerMessage(20, LogLevel.Warning, "{Text}")]
    private static partial void Warning(ILogger logger, string text);

    [LoggerMessage(21, LogLevel.Warning, "The system's log at /dev/log cannot be used ({Error}); messages go to standard error")]
    private static partial void NoSystemLog(ILogger logger, Errno error);

    [LoggerMessage(22, LogLevel.Error, "{Text}")]
    private static partial void Failed(ILogger logger, string text);
}
