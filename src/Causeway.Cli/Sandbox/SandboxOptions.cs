using Causeway.Linux;

namespace Causeway.Cli.Sandbox;

/// <summary>How the daemon is confined.</summary>
internal sealed record SandboxOptions
{
    /// <summary>Where it runs.</summary>
    public SandboxMode Mode { get; init; } = SandboxMode.Namespace;

    /// <summary>What a system call ends in that the daemon has no need for.</summary>
    public SeccompAction Seccomp { get; init; } = SeccompAction.Kill;

    /// <summary>Capabilities to keep or to drop beyond what the other options need, in order.</summary>
    public IReadOnlyList<CapabilityChange> CapabilityChanges { get; init; } = [];

    /// <summary>User ids inside and outside; empty chooses them.</summary>
    public IReadOnlyList<IdentityRange> UserMap { get; init; } = [];

    /// <summary>Group ids inside and outside; empty chooses them.</summary>
    public IReadOnlyList<IdentityRange> GroupMap { get; init; } = [];

    /// <summary>Whether a capability is among those to keep, after all changes.</summary>
    public bool Adds(Capability capability) =>
        CapabilityChanges.LastOrDefault(change => change.Capability == capability).IsKept;
}

/// <summary>Where the daemon runs.</summary>
internal enum SandboxMode
{
    /// <summary>In namespaces of its own, in which nothing exists but the share.</summary>
    Namespace,

    /// <summary>With the share as its root directory.</summary>
    Chroot,

    /// <summary>Where it was started.</summary>
    None,
}

/// <summary>What a system call ends in that the daemon has no need for.</summary>
internal enum SeccompAction
{
    /// <summary>The end of the daemon.</summary>
    Kill,

    /// <summary>A line in the kernel's log; the call is executed.</summary>
    Log,

    /// <summary>The signal SIGSYS, which ends the daemon and leaves a core file where there are such.</summary>
    Trap,

    /// <summary>Nothing: there is no filter.</summary>
    None,
}

/// <summary>A change to the capabilities that the daemon keeps.</summary>
/// <param name="Capability">The capability.</param>
/// <param name="IsKept">Whether it is kept.</param>
internal readonly record struct CapabilityChange(Capability Capability, bool IsKept);

/// <summary>A range of ids that a user namespace maps.</summary>
/// <param name="Inside">The first id in the namespace.</param>
/// <param name="Outside">The first id outside.</param>
/// <param name="Count">How many there are.</param>
internal readonly record struct IdentityRange(uint Inside, uint Outside, uint Count);
