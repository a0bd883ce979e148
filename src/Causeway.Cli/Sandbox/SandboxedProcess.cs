using Causeway.Cli.Options;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.VhostUser.Backend;
using Microsoft.Extensions.Logging;

namespace Causeway.Cli.Sandbox;

/// <summary>The process that serves, after it has locked itself in: what it may do, and where it finds the share.</summary>
internal sealed partial class SandboxedProcess
{
    private readonly ulong _capabilities;
    private readonly bool _mapsIds;

    private SandboxedProcess(
        IReadOnlyList<VhostUserListener> listeners, ShareLocation? location, IoUring? ring, ulong capabilities, bool mapsIds)
    {
        Listeners = listeners;
        Location = location;
        Ring = ring;
        _capabilities = capabilities;
        _mapsIds = mapsIds;
    }

    /// <summary>The sockets.</summary>
    public IReadOnlyList<VhostUserListener> Listeners { get; }

    /// <summary>Where the share is.</summary>
    public ShareLocation? Location { get; }

    /// <summary>The ring by which reads wait for the disk; null for none. The process cannot make another.</summary>
    public IoUring? Ring { get; }

    /// <summary>Stage two: locks the process in.</summary>
    /// <param name="handover">What stage one left.</param>
    /// <param name="options">The options, which are those of stage one.</param>
    /// <exception cref="StartupException">A step cannot be done.</exception>
    public static SandboxedProcess Enter(Handover handover, ServeOptions options)
    {
        DieWithStageOne(handover.Lifeline);
        VhostUserListener[] listeners = [.. handover.Listeners.Select(VhostUserListener.Adopt)];
        LoadedCode.Complete();
        IReadOnlyList<int> threads = Confinement.OpenThreads();
        ShareLocation location = handover.Mode == SandboxMode.Namespace
            ? Inside.EnterNamespaceRoot(options.Passthrough)
            : Inside.EnterChroot(options.Passthrough);
        bool usesHandles = !handover.MapsIds && options.Passthrough.FileHandles != InodeFileHandles.Never
            && (handover.Capabilities & (1UL << (int)Capability.DacReadSearch)) != 0;
        int ruleset = LandlockRules.Write(location.Directory, usesHandles);
        IoUring? ring = CreateRing(options.Passthrough);
        ulong kept = Confinement.Enter(
            options.Sandbox, options.Passthrough.TakesDelegations, ring is not null, handover.Capabilities, ruleset, threads);
        return new SandboxedProcess(listeners, location, ring, kept, handover.MapsIds);
    }

    /// <summary>Without a sandbox: only gives up rights.</summary>
    /// <param name="listeners">The sockets.</param>
    /// <param name="options">The options.</param>
    /// <exception cref="StartupException">A step cannot be done.</exception>
    public static SandboxedProcess EnterHere(IReadOnlyList<VhostUserListener> listeners, ServeOptions options)
    {
        if (Credentials.Geteuid() == 0)
        {
            // May fail where root is not allowed to; then there are none that matter.
            _ = Credentials.Setgroups([]);
        }

        ulong wanted = CapabilitySelection.For(options.Passthrough, options.Sandbox.CapabilityChanges);
        IoUring? ring = CreateRing(options.Passthrough);
        ulong kept = Confinement.Enter(
            options.Sandbox,
            options.Passthrough.TakesDelegations,
            ring is not null,
            wanted,
            ruleset: -1,
            Confinement.OpenThreads());
        return new SandboxedProcess(listeners, location: null, ring, kept, mapsIds: false);
    }

    /// <summary>Says what a daemon without privileges cannot do.</summary>
    /// <param name="options">The options.</param>
    /// <param name="logger">Hears it.</param>
    public void Report(ServeOptions options, ILogger logger)
    {
        if (options.Sandbox.Seccomp == SeccompAction.Log)
        {
            OnlyLogs(logger);
        }

        if (LoadedCode.IsCompiledHere)
        {
            Development(logger);
        }

        bool isRootOutside = Credentials.Geteuid() == 0 && !_mapsIds;
        if (isRootOutside || options.Passthrough.ReadOnly)
        {
            return;
        }

        if ((_capabilities & (1UL << (int)Capability.SetUid)) == 0)
        {
            OneUserOnly(logger);
        }
        else
        {
            MappedUsers(logger);
        }
    }

    // Administrators and container engines forbid io_uring; reads then wait one at a time, as they do in other daemons.
    private static IoUring? CreateRing(PassthroughOptions options)
    {
        _ = Share.TryCreateRing(options, out IoUring? ring);
        return ring;
    }

    private static void DieWithStageOne(int lifeline)
    {
        Privileges.DieWithParent().ThrowIfError("die with the process that waits");
        if ((Poll.Now(lifeline, PollEvents.None) & PollEvents.HangUp) != 0)
        {
            Processes.ExitNow(ExitStatus.Failure);
        }

        _ = FileIO.Close(lifeline);
    }

    [LoggerMessage(30, LogLevel.Warning, "System calls that are not on the list are only logged, not stopped (--seccomp log)")]
    private static partial void OnlyLogs(ILogger logger);

    [LoggerMessage(33, LogLevel.Information,
        "This is the program for development: threads of the runtime keep their capabilities; use the one that ./build makes")]
    private static partial void Development(ILogger logger);

    [LoggerMessage(31, LogLevel.Information,
        "Serving without privileges: guests get the files of the user who started this with that user's rights, and what they make "
        + "belongs to that user; other owners, device nodes and nodes by file handle are not possible")]
    private static partial void OneUserOnly(ILogger logger);

    [LoggerMessage(32, LogLevel.Information,
        "Serving without privileges: what other users of the guest own belongs to mapped ids on the host; device nodes and nodes by "
        + "file handle are not possible")]
    private static partial void MappedUsers(ILogger logger);
}
