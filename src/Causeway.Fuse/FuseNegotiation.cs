namespace Causeway.Fuse;

/// <summary>
/// What a guest offers in INIT and what it is granted. The session fills in the offer and its own defaults, the file
/// system adjusts the grant, and the session sends it (<c>fuse_init_in</c>, <c>fuse_init_out</c>).
/// </summary>
public sealed class FuseNegotiation
{
    /// <summary>Makes a negotiation.</summary>
    /// <param name="minor">The minor version that both sides speak.</param>
    /// <param name="offered">The features the guest offers.</param>
    public FuseNegotiation(uint minor, FuseFeatures offered)
    {
        Minor = minor;
        Offered = offered;
    }

    /// <summary>The minor version of protocol 7 that both sides speak.</summary>
    public uint Minor { get; }

    /// <summary>The features the guest offers.</summary>
    public FuseFeatures Offered { get; }

    /// <summary>
    /// The features granted. What was not offered is left out when the reply is made, so a file system may simply add what
    /// it supports.
    /// </summary>
    public FuseFeatures Granted { get; set; }

    /// <summary>
    /// The window into which files may be mapped until the session ends; null when there is none. Whether a guest that
    /// offers <see cref="FuseFeatures.HasInodeDax"/> uses it is decided per file, with <see cref="FuseAttributeFlags.Dax"/>;
    /// one that does not (dax=always) uses it for all.
    /// </summary>
    public IDaxWindow? Window { get; init; }

    /// <summary>Longest read-ahead the guest intends, in bytes. It is granted as it is.</summary>
    internal uint MaxReadahead { get; init; }

    /// <summary>Longest WRITE in bytes. Default 1 MiB, which is also the most.</summary>
    public uint MaxWrite { get; set; } = 1 << 20;

    /// <summary>Granularity of times in nanoseconds. Default 1.</summary>
    public uint TimeGranularity { get; set; } = 1;

    /// <summary>How many background requests (read-ahead, write-back, direct I/O) may be in flight. Default 128.</summary>
    public ushort MaxBackground { get; set; } = 128;

    /// <summary>From how many background requests on the guest holds back. Default 96.</summary>
    public ushort CongestionThreshold { get; set; } = 96;

    /// <summary>Whether the guest offers a feature.</summary>
    /// <param name="feature">The feature.</param>
    public bool Offers(FuseFeatures feature) => (Offered & feature) == feature;
}
