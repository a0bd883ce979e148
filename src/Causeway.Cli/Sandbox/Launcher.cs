using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.VhostUser.Backend;

namespace Causeway.Cli.Sandbox;

/// <summary>
/// Stage one: starts this program once more, with the same command line, where stage two locks itself in; then waits for its
/// end with no rights left, and cleans up what only it can reach.
/// </summary>
/// <remarks>
/// Two processes, because namespaces have to exist before a program's threads do, and a runtime has threads before its first
/// line runs. The second process cannot outlive the first, and is the only one that a guest talks to.
/// </remarks>
internal sealed class Launcher
{
    // What a shell reports for a program ended by SIGINT.
    private const int Interrupted = 128 + 2;

    // A wait status has 8 bits, and virtiofsd's parent ends with minus the signal.
    private const int SignalBase = 256;

    private readonly SandboxOptions _options;
    private readonly PassthroughOptions _passthrough;
    private readonly uint _user = Credentials.Geteuid();
    private readonly uint _group = Credentials.Getegid();
    private volatile int _endStatus = -1;
    private int _child;

    private Launcher(SandboxOptions options, PassthroughOptions passthrough)
    {
        _options = options;
        _passthrough = passthrough;
    }

    private bool IsRoot => _user == 0;

    /// <summary>Checks what can be checked before anything is opened.</summary>
    /// <param name="options">The sandbox.</param>
    /// <exception cref="StartupException">It cannot be.</exception>
    public static void Check(SandboxOptions options)
    {
        bool isRoot = Credentials.Geteuid() == 0;
        if (options.Mode == SandboxMode.Chroot && !isRoot)
        {
            throw new StartupException(
                "'--sandbox chroot' needs root; say '--sandbox namespace', which works for every user, or '--sandbox none'");
        }

        if (options.UserMap.Count + options.GroupMap.Count > 0 && (isRoot || options.Mode != SandboxMode.Namespace))
        {
            throw new StartupException(
                "'--uid-map' and '--gid-map' go only with '--sandbox namespace' and a daemon that does not run as root");
        }

        Credentials.Capget(out CapabilitySets own).ThrowIfError("read the capabilities");
        if (isRoot && options.Mode != SandboxMode.None)
        {
            Require(own, options.Mode == SandboxMode.Namespace ? Capability.SysAdmin : Capability.SysChroot, options.Mode);
            Require(own, Capability.SetPcap, options.Mode);
        }
    }

    /// <summary>Runs stage two to its end.</summary>
    /// <param name="options">The sandbox.</param>
    /// <param name="passthrough">What is shared.</param>
    /// <param name="listeners">The sockets; closed here once stage two has them, and removed in the end by their owner.</param>
    /// <returns>The exit status.</returns>
    /// <exception cref="StartupException">Stage two cannot be started.</exception>
    public static int Run(
        SandboxOptions options, PassthroughOptions passthrough, IReadOnlyList<VhostUserListener> listeners) =>
        new Launcher(options, passthrough).Run(listeners);

    private static void Require(in CapabilitySets own, Capability capability, SandboxMode mode)
    {
        if (!own.Has(capability))
        {
            string wanted = capability switch
            {
                Capability.SysAdmin => "CAP_SYS_ADMIN",
                Capability.SysChroot => "CAP_SYS_CHROOT",
                _ => "CAP_SETPCAP",
            };
            string other = mode == SandboxMode.Namespace ? "'--sandbox chroot' or '--sandbox none'" : "'--sandbox none'";
            throw new StartupException(
                $"'--sandbox {mode.ToString().ToLowerInvariant()}' needs {wanted}, which this root does not have (a container?); "
                + $"give it the capability, or say {other}");
        }
    }

    private int Run(IReadOnlyList<VhostUserListener> listeners)
    {
        Pipes.Pipe2(out int lifeline, out int otherEnd).ThrowIfError("create a pipe");
        int program = Files.Openat(
            Files.WorkingDirectory, "/proc/self/exe\0"u8, OpenFlags.Path | OpenFlags.CloseOnExec)
            .ThrowIfError("open '/proc/self/exe' (is /proc mounted?)").Descriptor;
        bool mapsIds = !IsRoot;
        (IReadOnlyList<IdentityRange> users, IReadOnlyList<IdentityRange> groups) = ChooseMaps();
        ulong kept = Keep(users, groups);
        int[] sockets = [.. listeners.Select(listener => listener.Descriptor)];
        var handover = new Handover(_options.Mode, sockets, lifeline, mapsIds, kept);
        SyscallResult started = Children.Start(
            new ProgramLaunch
            {
                Program = program,
                Arguments = Split(File.ReadAllBytes("/proc/self/cmdline")),
                Environment = ReadEnvironment(handover),
                Namespaces = Namespaces(mapsIds),
                KeptDescriptors = [.. sockets, lifeline],
                Gate = lifeline,
                OtherEndOfGate = otherEnd,
                DropsGroups = IsRoot && HasOwn(Capability.SetGid),
                BecomesRoot = _options.UserMap.Any(range => range.Inside == 0) && groups.Any(range => range.Inside == 0),
                Capabilities = kept | EnteringCapabilities(),
            },
            out int failure);
        if (started.IsError)
        {
            throw new StartupException(DescribeNoNamespaces(started.Error, mapsIds));
        }

        _child = started.Count;
        _ = FileIO.Close(program);
        _ = FileIO.Close(lifeline);
        try
        {
            if (mapsIds)
            {
                WriteMaps(users, groups);
            }

            Pipes.Write(otherEnd, [1]).ThrowIfError("start the sandboxed process");
            if (Children.ReadFailure(failure) is var (step, error))
            {
                throw new StartupException(Describe(step, error));
            }

            foreach (VhostUserListener listener in listeners)
            {
                listener.CloseSocket();
            }

            Confinement.Disarm();
        }
        catch
        {
            _ = Children.Kill(_child);
            _ = Children.Wait(_child, out _);
            throw;
        }

        using PosixSignalRegistration onTerminate = EndOn(PosixSignal.SIGTERM, ExitStatus.Failure);
        using PosixSignalRegistration onHangUp = EndOn(PosixSignal.SIGHUP, ExitStatus.Failure);
        using PosixSignalRegistration onInterrupt = EndOn(PosixSignal.SIGINT, Interrupted);
        using PosixSignalRegistration onUser = PosixSignalRegistration.Create(ServeCommand.UserSignal, PassOn);
        Children.Wait(_child, out ChildEnd end).ThrowIfError("wait for the sandboxed process");
        GC.KeepAlive(this);
        return _endStatus >= 0 ? _endStatus : end.Signal != 0 ? SignalBase - end.Signal : end.Status;
    }

    // Stage two is the first process of its namespace, which a signal without a handler does not reach.
    private PosixSignalRegistration EndOn(PosixSignal signal, int status) =>
        PosixSignalRegistration.Create(signal, context =>
        {
            context.Cancel = true;
            _endStatus = status;
            _ = Children.Kill(_child);
        });

    // This is the process whose number the operator knows.
    private void PassOn(PosixSignalContext context)
    {
        context.Cancel = true;
        _ = Children.Signal(_child, (int)context.Signal);
    }

    private NamespaceFlags Namespaces(bool mapsIds) => _options.Mode != SandboxMode.Namespace
        ? NamespaceFlags.None
        : NamespaceFlags.Mounts | NamespaceFlags.Processes | NamespaceFlags.Network | NamespaceFlags.Ipc
            | (mapsIds ? NamespaceFlags.Users : NamespaceFlags.None);

    private ulong Keep(IReadOnlyList<IdentityRange> users, IReadOnlyList<IdentityRange> groups)
    {
        ulong kept = CapabilitySelection.For(_passthrough, _options.CapabilityChanges);
        if (IsRoot)
        {
            Credentials.Capget(out CapabilitySets own).ThrowIfError("read the capabilities");
            return kept & own.Permitted;
        }

        // With one id there is nobody else to become, and the daemon should know.
        kept &= IdentityMap.IsOwnOnly(users, _user) ? ~(1UL << (int)Capability.SetUid) : ulong.MaxValue;
        return kept & (IdentityMap.IsOwnOnly(groups, _group) ? ~(1UL << (int)Capability.SetGid) : ulong.MaxValue);
    }

    private ulong EnteringCapabilities()
    {
        if (!IsRoot)
        {
            return CapabilitySelection.ForEntering;
        }

        Credentials.Capget(out CapabilitySets own).ThrowIfError("read the capabilities");
        return CapabilitySelection.ForEntering & own.Permitted;
    }

    private static bool HasOwn(Capability capability)
    {
        Credentials.Capget(out CapabilitySets own).ThrowIfError("read the capabilities");
        return own.Has(capability);
    }

    private (IReadOnlyList<IdentityRange> Users, IReadOnlyList<IdentityRange> Groups) ChooseMaps()
    {
        if (IsRoot)
        {
            return ([], []);
        }

        (uint First, uint Count)? users = null;
        (uint First, uint Count)? groups = null;
        if (_options.UserMap.Count + _options.GroupMap.Count == 0
            && FindProgram("newuidmap") is not null && FindProgram("newgidmap") is not null)
        {
            string? name = IdentityMap.FindName(ReadLines("/etc/passwd"), _user);
            users = IdentityMap.FindSubordinate(ReadLines("/etc/subuid"), _user, name);
            groups = IdentityMap.FindSubordinate(ReadLines("/etc/subgid"), _user, name);
        }

        if (users is null || groups is null)
        {
            (users, groups) = (null, null);
        }

        return (
            _options.UserMap.Count > 0 ? _options.UserMap : IdentityMap.Around(_user, users),
            _options.GroupMap.Count > 0 ? _options.GroupMap : IdentityMap.Around(_group, groups));
    }

    private void WriteMaps(IReadOnlyList<IdentityRange> users, IReadOnlyList<IdentityRange> groups)
    {
        if (IdentityMap.IsOwnOnly(groups, _group))
        {
            // The kernel's condition for writing the map without privilege.
            WriteProcessFile("setgroups", "deny");
        }

        WriteMap("gid_map", "newgidmap", groups, IdentityMap.IsOwnOnly(groups, _group));
        WriteMap("uid_map", "newuidmap", users, IdentityMap.IsOwnOnly(users, _user));
    }

    private void WriteMap(string file, string helper, IReadOnlyList<IdentityRange> map, bool isOwnOnly)
    {
        if (isOwnOnly)
        {
            WriteProcessFile(file, string.Create(
                CultureInfo.InvariantCulture, $"{map[0].Inside} {map[0].Outside} {map[0].Count}\n"));
            return;
        }

        string path = FindProgram(helper) ?? throw new StartupException(
            $"mapping more than one's own id needs the program '{helper}'; install it (package uidmap or shadow), or leave out "
            + "'--uid-map' and '--gid-map'");
        int program = Files.Openat(
            Files.WorkingDirectory, Encoding.UTF8.GetBytes(path + '\0'), OpenFlags.Path | OpenFlags.CloseOnExec)
            .ThrowIfError($"open '{path}'").Descriptor;
        IEnumerable<string> numbers = map.SelectMany(
            range => (uint[])[range.Inside, range.Outside, range.Count]).Prepend((uint)_child)
            .Select(number => number.ToString(CultureInfo.InvariantCulture));
        SyscallResult started = Children.Start(
            new ProgramLaunch
            {
                Program = program,
                Arguments = [.. numbers.Prepend(path).Select(Encoding.UTF8.GetBytes)],
                Environment = [],
            },
            out int failure).ThrowIfError($"start '{path}'");
        _ = FileIO.Close(program);
        bool hasFailed = Children.ReadFailure(failure) is not null;
        _ = FileIO.Close(failure);
        Children.Wait(started.Count, out ChildEnd end).ThrowIfError($"wait for '{path}'");
        if (hasFailed || end != default)
        {
            throw new StartupException(
                $"'{path}' did not map the ids {Describe(map)}; /etc/sub{helper[3]}id must give them to user {_user}, or leave out "
                + "'--uid-map' and '--gid-map'");
        }
    }

    private void WriteProcessFile(string name, string text)
    {
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/{_child}/{name}");
        try
        {
            File.WriteAllText(path, text);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new StartupException(
                $"'{path}' cannot be written, so that the sandbox has no user ids: {exception.Message}; "
                + "say '--sandbox none' to serve without one",
                exception);
        }
    }

    private static string Describe(IReadOnlyList<IdentityRange> map) => string.Join(
        ", ", map.Select(range => string.Create(
            CultureInfo.InvariantCulture, $"{range.Outside} to {(ulong)range.Outside + range.Count - 1}")));

    private static string DescribeNoNamespaces(Errno error, bool mapsIds)
    {
        string fix = (error, mapsIds) switch
        {
            (Errno.EPERM or Errno.ENOSPC or Errno.EINVAL, true) =>
                "user namespaces are switched off or used up here (sysctl user.max_user_namespaces, "
                + "kernel.unprivileged_userns_clone); allow them, run the daemon as root",
            (Errno.EPERM, false) => "something around this process forbids it (a container?); give it CAP_SYS_ADMIN",
            _ => "use a kernel that has namespaces",
        };
        return $"the sandbox's namespaces cannot be made: {ErrnoException.Describe(error)}; {fix}, or say '--sandbox none'";
    }

    private static string Describe(LaunchStep step, Errno error)
    {
        string what = step switch
        {
            LaunchStep.WaitForMaps => "wait for its user ids",
            LaunchStep.DropGroups => "drop supplementary groups",
            LaunchStep.BecomeRoot => "become root of its user namespace; '--uid-map' and '--gid-map' must let it",
            LaunchStep.RestrictCapabilities => "restrict its capabilities",
            LaunchStep.CloseDescriptors => "close inherited descriptors (close_range, which needs Linux 5.11)",
            _ => "execute the daemon's own program file, which its user must be allowed to",
        };
        return $"the sandboxed process cannot {what}: {ErrnoException.Describe(error)}; '--sandbox none' serves without a sandbox";
    }

    private static List<byte[]> ReadEnvironment(Handover handover)
    {
        List<byte[]> environment = Split(File.ReadAllBytes("/proc/self/environ"));
        environment.RemoveAll(entry => Handover.IsEntry(entry));
        environment.Add(Encoding.UTF8.GetBytes(handover.Entry));
        if (LoadedCode.IsCompiledHere)
        {
            // Under 'dotnet run': no debugger's socket, which would be in a directory that the sandbox does not have.
            environment.Add([.. "DOTNET_EnableDiagnostics=0"u8]);
        }

        return environment;
    }

    private static List<byte[]> Split(byte[] strings)
    {
        var parts = new List<byte[]>();
        ReadOnlySpan<byte> rest = strings;
        while (rest.IndexOf((byte)0) is >= 0 and var end)
        {
            parts.Add(rest[..end].ToArray());
            rest = rest[(end + 1)..];
        }

        return parts;
    }

    private static string? FindProgram(string name) => (Environment.GetEnvironmentVariable("PATH") ?? "/usr/bin:/bin")
        .Split(':', StringSplitOptions.RemoveEmptyEntries)
        .Select(directory => Path.Combine(directory, name))
        .FirstOrDefault(File.Exists);

    private static string[] ReadLines(string path) => File.Exists(path) ? File.ReadAllLines(path) : [];
}
