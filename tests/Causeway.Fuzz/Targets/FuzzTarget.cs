namespace Causeway.Fuzz.Targets;

internal delegate void FuzzMethod(ReadOnlySpan<byte> input);

/// <summary>Something that takes any bytes, and throws only if we have a defect.</summary>
internal sealed record FuzzTarget(string Name, FuzzMethod Run, Func<IEnumerable<(string Name, byte[] Input)>> Seeds)
{
    public const int MaxInput = 1 << 16;

    public static IReadOnlyList<FuzzTarget> All { get; } =
    [
        new("session", SessionTarget.Run, SessionTarget.Seeds),
        new("chains", ChainTarget.Run, ChainTarget.Seeds),
        new("packed-chains", PackedChainTarget.Run, PackedChainTarget.Seeds),
        new("vhost-user", VhostUserTarget.Run, VhostUserTarget.Seeds),
    ];

    public static FuzzTarget Find(string name) =>
        All.SingleOrDefault(target => target.Name == name)
        ?? throw new ArgumentException($"no target '{name}': there are {string.Join(", ", All.Select(target => target.Name))}");
}
