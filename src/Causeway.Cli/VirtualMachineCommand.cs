using System.CommandLine;
using System.ComponentModel;
using System.Diagnostics;
using System.Runtime.InteropServices;
using Causeway.Linux;

namespace Causeway.Cli;

/// <summary><c>causeway vm</c>: QEMU and a daemon for it, with the options that both need to understand each other.</summary>
internal static class VirtualMachineCommand
{
    private const string DefaultWindow = "256M";
    private const int Terminate = 15;

    // How long the daemon may take until it listens.
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    /// <summary>The command <c>vm</c>.</summary>
    public static Command Create()
    {
        var directory = new Argument<string>("DIR") { Description = "the directory to share" };
        var more = new Argument<string[]>("QEMU-OPTION")
        {
            Arity = ArgumentArity.ZeroOrMore,
            Description = "after '--': what the guest boots from, and any other option of QEMU",
        };
        // Not one option with an optional value: '--dax DIR' would take the directory for it.
        var dax = new Option<bool>("--dax") { Description = "map files into the guest; takes QEMU 11.1, see docs/dax.md" };
        var window = new Option<string?>("--window")
        {
            Description = $"the size of the window for them, which implies --dax [default: {DefaultWindow}]",
            HelpName = "SIZE",
        };
        var tag = new Option<string>("--tag") { Description = "what the guest mounts", DefaultValueFactory = _ => "causeway" };
        var queues = new Option<int>("--num-request-queues") { Description = "request queues", DefaultValueFactory = _ => 1 };
        var memory = new Option<string>("--memory") { Description = "the guest's memory", DefaultValueFactory = _ => "1G" };
        var cpus = new Option<int>("--cpus") { Description = "the guest's processors", DefaultValueFactory = _ => 2 };
        var qemu = new Option<string?>("--qemu") { Description = "QEMU's program, instead of the one on PATH", HelpName = "PROGRAM" };
        var print = new Option<bool>("--print") { Description = "print both command lines and start nothing" };
        var command = new Command("vm", "start QEMU with a directory shared; exit status is QEMU's")
        {
            directory, more, dax, window, tag, queues, memory, cpus, qemu, print,
        };
        command.SetAction(parsed =>
        {
            var options = new VirtualMachineOptions
            {
                Directory = Path.GetFullPath(parsed.GetRequiredValue(directory)),
                Dax = parsed.GetValue(window) ?? (parsed.GetValue(dax) ? DefaultWindow : null),
                Tag = parsed.GetRequiredValue(tag),
                Queues = parsed.GetValue(queues),
                Memory = parsed.GetRequiredValue(memory),
                Processors = parsed.GetValue(cpus),
                Qemu = FindQemu(parsed.GetValue(qemu)),
                More = parsed.GetValue(more) ?? [],
            };
            return Run(options, parsed.GetValue(print));
        });
        return command;
    }

    private static string FindQemu(string? given)
    {
        string machine = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? "x86_64" : "aarch64";
        string name = given ?? $"qemu-system-{machine}";
        return VirtualMachine.Find(name)
            ?? throw new StartupException($"there is no '{name}' on PATH; install QEMU, or name its program by '--qemu'");
    }

    private static int Run(VirtualMachineOptions options, bool isPrinting)
    {
        if (!Directory.Exists(options.Directory))
        {
            throw new StartupException($"'{options.Directory}' is not a directory; create it, or name another one");
        }

        string program = Environment.ProcessPath ?? "causeway";
        string folder = isPrinting ? "/tmp/causeway-vm" : Directory.CreateTempSubdirectory("causeway-vm-").FullName;
        string socket = Path.Combine(folder, "share.sock");
        string[] daemonArguments = VirtualMachine.DaemonArguments(options, socket);
        string[] qemuArguments = VirtualMachine.QemuArguments(options, socket);
        if (isPrinting)
        {
            Console.Out.WriteLine(VirtualMachine.Quote(program, daemonArguments));
            Console.Out.WriteLine(VirtualMachine.Quote(options.Qemu, qemuArguments));
            return ExitStatus.Success;
        }

        try
        {
            CheckWindow(options);
            return Run(options, (program, daemonArguments), (options.Qemu, qemuArguments), socket);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static int Run(
        VirtualMachineOptions options, (string Program, string[] Arguments) daemonLine, (string Program, string[] Arguments) qemuLine, string socket)
    {
        Say(VirtualMachine.Quote(daemonLine.Program, daemonLine.Arguments));
        if (options.Dax is not null)
        {
            Say($"until the end, nobody else may shorten a file below '{options.Directory}': that would end the guest");
        }

        // QEMU decides what a signal means: one from a terminal it gets as well, and one to this process is passed on. The daemon
        // ends with QEMU. What comes before QEMU runs ends all of it, in order.
        Process? qemu = null;
        bool isEnded = false;
        using PosixSignalRegistration onInterrupt = On(PosixSignal.SIGINT, isPassedOn: false);
        using PosixSignalRegistration onTerminate = On(PosixSignal.SIGTERM, isPassedOn: true);
        using PosixSignalRegistration onHangUp = On(PosixSignal.SIGHUP, isPassedOn: true);
        using Process daemon = Start(new ProcessStartInfo(daemonLine.Program, daemonLine.Arguments));
        try
        {
            long begun = Stopwatch.GetTimestamp();
            while (!File.Exists(socket))
            {
                if (Volatile.Read(ref isEnded))
                {
                    return ExitStatus.Failure;
                }

                if (daemon.WaitForExit(20))
                {
                    throw new StartupException($"the daemon has ended with status {daemon.ExitCode}; it has said why");
                }

                if (Stopwatch.GetElapsedTime(begun) > s_patience)
                {
                    throw new StartupException($"the daemon does not listen after {s_patience.TotalSeconds:0} seconds");
                }
            }

            Say(VirtualMachine.Quote(qemuLine.Program, qemuLine.Arguments));
            Say($"in the guest: mount -t virtiofs {options.Tag} /mnt");
            using Process started = Start(new ProcessStartInfo(qemuLine.Program, qemuLine.Arguments));
            Volatile.Write(ref qemu, started);
            if (Volatile.Read(ref isEnded))
            {
                _ = Children.Signal(started.Id, Terminate);
            }

            started.WaitForExit();
            return started.ExitCode;
        }
        finally
        {
            // It ends by itself when QEMU was connected; one that never was would wait.
            if (!daemon.WaitForExit(2000))
            {
                daemon.Kill(entireProcessTree: true);
                daemon.WaitForExit();
            }
        }

        PosixSignalRegistration On(PosixSignal signal, bool isPassedOn) => PosixSignalRegistration.Create(signal, context =>
        {
            context.Cancel = true;
            Volatile.Write(ref isEnded, true);
            if (isPassedOn && Volatile.Read(ref qemu) is { HasExited: false } running)
            {
                // Not SIGKILL: QEMU has disks to close.
                _ = Children.Signal(running.Id, Terminate);
            }
        });
    }

    // Without the device QEMU would end with a message that explains nothing. Asked for its options, it says so and ends with status 0.
    private static void CheckWindow(VirtualMachineOptions options)
    {
        if (options.Dax is null)
        {
            return;
        }

        var start = new ProcessStartInfo(options.Qemu, ["-device", $"{VirtualMachine.WindowDevice},help"])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process probe = Start(start);
        _ = probe.StandardError.ReadToEndAsync();
        string said = probe.StandardOutput.ReadToEnd();
        probe.WaitForExit();
        if (!said.Contains(VirtualMachine.WindowDevice, StringComparison.Ordinal))
        {
            throw new StartupException(
                $"'{options.Qemu}' has no {VirtualMachine.WindowDevice}, so no window; DAX takes QEMU 11.1: name such a program by '--qemu'");
        }
    }

    private static Process Start(ProcessStartInfo start)
    {
        try
        {
            return Process.Start(start)!;
        }
        catch (Win32Exception exception)
        {
            throw new StartupException($"'{start.FileName}' does not start: {exception.Message}");
        }
    }

    private static void Say(string what) => Console.Error.WriteLine($"causeway: {what}");
}
