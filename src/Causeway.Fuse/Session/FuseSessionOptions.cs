namespace Causeway.Fuse;

/// <summary>How a session behaves. Nothing changes after construction.</summary>
public sealed record FuseSessionOptions
{
    /// <summary>What log messages call the session, for example the tag of the share. Default empty.</summary>
    public string Name { get; init; } = "";

    /// <summary>The DAX window of the device the session is on. Default: it has none.</summary>
    public IDaxWindow? Window { get; init; }

    /// <summary>How the guest gets to see the file system's version table. Default: not at all.</summary>
    public IVersionRegion? Versions { get; init; }
}
