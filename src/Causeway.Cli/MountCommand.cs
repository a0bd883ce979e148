using System.CommandLine;
using System.Runtime.InteropServices;
using Causeway.Cli.Options;
using Causeway.Driver.Bridge;
using Causeway.Linux;

namespace Causeway.Cli;

/// <summary><c>causeway mount</c> and <c>causeway umount</c>: a share as a directory of this machine, without a VM.</summary>
internal static class MountCommand
{
    /// <summary>What is printed once the mount can be used; scripts wait for it.</summary>
    public const string Ready = "mounted";

    /// <summary>The command <c>mount</c>.</summary>
    public static Command CreateMount()
    {
        var socket = new Argument<string>("SOCK") { Description = "the socket of a vhost-user-fs daemon" };
        var directory = new Argument<string>("DIR") { Description = "the directory to mount on" };
        var options = new Option<string[]>("-o")
        {
            Arity = ArgumentArity.OneOrMore,
            Description = MountOptionsReader.Help,
            HelpName = "LIST",
        };
        var command = new Command(
            "mount", "mount a share here, without a virtual machine; serves until it is unmounted or interrupted")
        {
            socket, directory, options,
        };
        command.SetAction(parsed => Mount(MountOptionsReader.Read(
            parsed.GetRequiredValue(socket), parsed.GetRequiredValue(directory), parsed.GetValue(options) ?? [])));
        return command;
    }

    /// <summary>The command <c>umount</c>.</summary>
    public static Command CreateUmount()
    {
        var directory = new Argument<string>("DIR") { Description = "the directory it is mounted on" };
        var lazy = new Option<bool>("--lazy", "-l") { Description = "unmount even while it is used" };
        var command = new Command("umount", "unmount a share, or what a killed 'causeway mount' has left")
        {
            directory, lazy,
        };
        command.SetAction(parsed => Unmount(parsed.GetRequiredValue(directory), parsed.GetValue(lazy)));
        return command;
    }

    private static int Mount(BridgeOptions options)
    {
        if (!MountPoint.IsOurs(options.MountPoint) && !Directory.Exists(options.MountPoint))
        {
            throw new StartupException(
                $"'{options.MountPoint}' is not a directory, or cannot be reached; create it, or check the path");
        }

        using var bridge = FuseBridge.Mount(options with { Report = line => Console.Error.WriteLine($"causeway: {line}") });
        using PosixSignalRegistration onInterrupt = StopOn(PosixSignal.SIGINT, bridge);
        using PosixSignalRegistration onTerminate = StopOn(PosixSignal.SIGTERM, bridge);
        using PosixSignalRegistration onHangUp = StopOn(PosixSignal.SIGHUP, bridge);
        Console.Error.WriteLine($"causeway: '{options.SocketPath}' is {Ready} on '{options.MountPoint}'"
            + (bridge.UsesIoUring ? ", over io_uring" : bridge.IsHandedOver ? ", served by the daemon" : ""));
        return bridge.Run() == BridgeEnd.Unmounted
            ? ExitStatus.Success
            : throw new StartupException(
                $"{bridge.Loss}; '{options.MountPoint}' is unmounted. Start the daemon again and mount again, or mount with "
                + "'-o lost=wait'");
    }

    private static int Unmount(string path, bool isLazy)
    {
        string directory = MountPoint.Resolve(path);
        if (!MountPoint.IsOurs(directory))
        {
            throw new StartupException($"'{directory}' is not where a share is mounted; see 'findmnt -t {MountPoint.Type}'");
        }

        Errno error = MountPoint.Unmount(directory, isLazy || MountPoint.IsDead(directory));
        return error switch
        {
            Errno.Success => ExitStatus.Success,
            Errno.EBUSY => throw new StartupException(
                $"'{directory}' is in use; end the programs that use it, or say 'causeway umount --lazy {directory}'"),
            _ => throw new StartupException($"cannot unmount '{directory}': {ErrnoException.Describe(error)}"),
        };
    }

    // On a thread of the runtime, while the bridge goes on serving: unmounting may have to write back what is dirty.
    private static PosixSignalRegistration StopOn(PosixSignal signal, FuseBridge bridge) =>
        PosixSignalRegistration.Create(signal, context =>
        {
            context.Cancel = true;
            bridge.Stop();
        });
}
