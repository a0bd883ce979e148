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
    private readonly Errno _ringError;

    private SandboxedProcess(
        IReadOnlyList<VhostUserListener> listeners, ShareLocation? location, IoUring? ring, Errno ringError, ulong capabilities, bool mapsIds)
    {
        Listeners = listeners;
        Location = location;
        Ring = ring;
        _ringError = ringError;
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
        Errno ringError = Share.TryCreateRing(options.Passthrough, out IoUring? ring).Error;
        ulong kept = Confinement.Enter(
            options.Sandbox, options.Passthrough.TakesDelegations, ring is not null, handover.Capabilities, ruleset, threads);
        return new SandboxedProcess(listeners, location, ring, ringError, kept, handover.MapsIds);
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
        Errno ringError = Share.TryCreateRing(options.Passthrough, out IoUring? ring).Error;
        ulong kept = Confinement.Enter(
            options.Sandbox,
            options.Passthrough.TakesDelegations,
            ring is not null,
            wanted,
            ruleset: -1,
            Confinement.OpenThreads());
        return new SandboxedProcess(listeners, location: null, ring, ringError, kept, mapsIds: false);
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

        if (_ringError != Errno.Success)
        {
            NoRing(logger, ErrnoException.Describe(_ringError));
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

    [LoggerMessage(34, LogLevel.Information,
        "Reads wait for the disk one at a time, because io_uring is not to be had here: {Reason}; '--queued-reads 0' does without")]
    private static partial void NoRing(ILogger logger, string reason);

    [LoggerMessage(31, LogLevel.Information,
        "Serving without privileges: guests get the files of the user who started this with that user's rights, and what they make "
        + "belongs to that user; other owners, device nodes and nodes by file handle are not possible")]
    private static partial void OneUserOnly(ILogger logger);

    [LoggerMessage(32, LogLevel.Information,
        "Serving without privileges: what other users of the guest own belongs to mapped ids on the host; device nodes and nodes by "
        + "file handle are not possible")]
    private static partial void MappedUsers(ILogger logger);
}
