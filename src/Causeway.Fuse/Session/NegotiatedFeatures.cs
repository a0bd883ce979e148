namespace Causeway.Fuse;

/// <summary>What INIT settled. Immutable: a session swaps the whole object, and a request looks at one only.</summary>
/// <param name="minor">The minor version both sides speak.</param>
/// <param name="features">The features granted.</param>
/// <param name="maxWrite">Longest WRITE in bytes.</param>
internal sealed class NegotiatedFeatures(uint minor, FuseFeatures features, uint maxWrite)
{
    // Where fuse_in_header.total_extlen appeared; it was padding before.
    private const uint ExtensionsSince = 38;

    internal IDaxWindow? Window { get; init; }

    internal uint MaxWrite { get; } = maxWrite;

    internal FuseFeatures Features { get; } = features;

    internal bool HasExtensions { get; } = minor >= ExtensionsSince;

    internal bool HasGroups { get; } =
        minor >= ExtensionsSince && (features & FuseFeatures.CreateSuppGroup) != 0;

    internal bool HasSecurityContexts { get; } = (features & FuseFeatures.SecurityContext) != 0;

    internal bool HasLongSetXattr { get; } = (features & FuseFeatures.SetXattrExt) != 0;

    internal bool HasVersions { get; } = (features & FuseFeatures.VersionTable) != 0;

    internal bool HasKillPrivileges { get; } = (features & FuseFeatures.HandleKillPrivV2) != 0;
}
