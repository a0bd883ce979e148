using Causeway.Cli.Sandbox;
using Causeway.Passthrough;

namespace Causeway.Cli.Options;

/// <summary>What <c>causeway serve</c> was told, checked.</summary>
internal sealed record ServeOptions
{
    /// <summary>What to share and how.</summary>
    public required PassthroughOptions Passthrough { get; init; }

    /// <summary>Where to wait for the front end.</summary>
    public required SocketOptions Socket { get; init; }

    /// <summary>What the device is like.</summary>
    public required DeviceOptions Device { get; init; }

    /// <summary>How the daemon is confined.</summary>
    public required SandboxOptions Sandbox { get; init; }

    /// <summary>What the process logs, and its limits.</summary>
    public required ProcessOptions Process { get; init; }

    /// <summary>How a guest moves to another host.</summary>
    public required MigrationOptions Migration { get; init; }

    /// <summary>What the operator should hear, though it is no error.</summary>
    public required IReadOnlyList<string> Warnings { get; init; }
}
