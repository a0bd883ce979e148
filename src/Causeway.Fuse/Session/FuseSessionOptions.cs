namespace Causeway.Fuse;

/// <summary>How a session behaves. Nothing changes after construction.</summary>
public sealed record FuseSessionOptions
{
    /// <summary>What log messages call the session, for example the tag of the share. Default empty.</summary>
    public string Name { get; init; } = "";
}
