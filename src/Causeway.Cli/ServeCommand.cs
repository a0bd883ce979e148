using System.CommandLine;
using System.Runtime.InteropServices;
using Causeway.Cli.Options;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Server;
using Microsoft.Extensions.Logging;

namespace Causeway.Cli;

/// <summary><c>causeway serve</c>: opens the share, listens, and serves until the front end leaves.</summary>
internal static partial class ServeCommand
{
    // What a shell reports for a program ended by SIGINT.
    private const int Interrupted = 128 + 2;

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

    /// <summary>Serves.</summary>
    /// <returns>The exit status.</returns>
    private static int Run(ServeOptions options)
    {
        using var log = new StandardErrorLog(options.Process.LogLevel);
        ILogger logger = log.CreateLogger("causeway");
        foreach (string warning in options.Warnings)
        {
            Warning(logger, warning);
        }

        ThrowIfUnusable(options.Passthrough.SharedDirectory);
        options.Migration.Check();
        Processes.IgnoreFileSizeSignal();
        DescriptorLimit.Apply(options.Process.DescriptorLimit, logger);
        using Share share = Share.Open(options.Passthrough);
        using var fileSystem = new PassthroughFileSystem(share, logger);
        using var server = new VirtioFsServer(
            fileSystem,
            new VirtioFsServerOptions
            {
                SocketPath = options.Socket.Path,
                ListeningDescriptor = options.Socket.Descriptor,
                Tag = options.Device.Tag,
                RequestQueues = options.Device.RequestQueues,
                IsPersistent = options.Device.IsPersistent,
            },
            log);
        using PosixSignalRegistration onTerminate = EndOn(PosixSignal.SIGTERM, ExitStatus.Failure, server);
        using PosixSignalRegistration onHangUp = EndOn(PosixSignal.SIGHUP, ExitStatus.Failure, server);
        using PosixSignalRegistration onInterrupt = EndOn(PosixSignal.SIGINT, Interrupted, server);
        server.Run();
        return ExitStatus.Success;
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

    // At once, as virtiofsd does: a guest may be in the middle of something that takes for ever. Only the socket is
    // removed first, so that the next start finds the path free.
    private static PosixSignalRegistration EndOn(PosixSignal signal, int status, VirtioFsServer server) =>
        PosixSignalRegistration.Create(signal, _ =>
        {
            server.RemoveSocket();
            Processes.ExitNow(status);
        });

    [LoggerMessage(20, LogLevel.Warning, "{Text}")]
    private static partial void Warning(ILogger logger, string text);
}
