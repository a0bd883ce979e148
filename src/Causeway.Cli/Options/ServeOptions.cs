using Causeway.Passthrough;
using Microsoft.Extensions.Logging;

namespace Causeway.Cli.Options;

/// <summary>What <c>causeway serve</c> was told, checked.</summary>
internal sealed record ServeOptions
{
    /// <summary>What to share and how.</summary>
    public required PassthroughOptions Passthrough { get; init; }

    /// <summary>Where to listen; null when <see cref="ListeningDescriptor"/> is given.</summary>
    public string? SocketPath { get; init; }

    /// <summary>A listening socket inherited from the parent; null when <see cref="SocketPath"/> is given.</summary>
    public int? ListeningDescriptor { get; init; }

    /// <summary>The tag in the device's config space; null leaves it to the front end.</summary>
    public string? Tag { get; init; }

    /// <summary>How many request queues the config space announces. Default: one per processor, at most 8.</summary>
    public int RequestQueues { get; init; } = Math.Min(Environment.ProcessorCount, 8);

    /// <summary>Whether to wait for the next front end when one disconnects. Default: end, as virtiofsd does.</summary>
    public bool IsPersistent { get; init; }

    /// <summary>The descriptor limit to set: null chooses one, zero keeps the current one.</summary>
    public ulong? DescriptorLimit { get; init; }

    /// <summary>The least important messages that are printed.</summary>
    public LogLevel LogLevel { get; init; } = LogLevel.Information;
}
