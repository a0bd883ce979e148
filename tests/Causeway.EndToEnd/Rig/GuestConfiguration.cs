namespace Causeway.EndToEnd;

/// <summary>How long the guest may trust what it knows; the daemon's --cache, and --writeback.</summary>
public enum CacheMode
{
    Never,
    Auto,
    Always,
    AlwaysWriteback,
}

/// <summary>One guest: the platform it runs on (see eng/guest-platform) and how the share is served to it.</summary>
public sealed record GuestConfiguration(string Platform, CacheMode Cache, int Queues)
{
    /// <summary>Size of the DAX window, as for --dax; null for none.</summary>
    public string? Dax { get; init; }

    /// <summary>Whether queues are packed rings (QEMU's packed=on).</summary>
    public bool PackedRings { get; init; }

    public string Name =>
        $"{Platform}-{Cache.ToString().ToLowerInvariant()}-{Queues}{(Dax is null ? "" : "-dax")}{(PackedRings ? "-packed" : "")}";

    /// <summary>The daemon's --sandbox.</summary>
    public string Sandbox { get; init; } = "namespace";

    /// <summary>
    /// Whether the daemon is told all it needs to have access control lists, set-id bits and flags of inodes work as in a local file
    /// system.
    /// </summary>
    public bool Privileges { get; init; }

    /// <summary>Whether the host clears set-id bits, which is the default with --xattr; or else the guest's kernel.</summary>
    public bool KillPriv { get; init; } = true;

    /// <summary>More options of eng/boot-guest.</summary>
    public IReadOnlyList<string> BootOptions { get; init; } = [];

    /// <summary>A kernel that spreads requests does so by processor, so each queue needs one.</summary>
    public int Processors => Math.Max(2, Queues);

    public IEnumerable<string> GetDaemonOptions() =>
    [
        .. GetCacheOptions(),
        // sys_admin: trusted.* attributes, which are compared with the host's, need it.
        .. Privileges
            ? (string[])["--modcaps=+sys_admin:+linux_immutable", "--posix-acl"]
            : ["--modcaps=+sys_admin"],
        .. KillPriv ? Array.Empty<string>() : ["--no-killpriv-v2"],
        .. Dax is null ? Array.Empty<string>() : ["--tag=causeway", "--exclusive", $"--dax={Dax}"],
    ];

    private string[] GetCacheOptions() => Cache switch
    {
        CacheMode.Never => ["--cache=never"],
        CacheMode.Auto => ["--cache=auto"],
        CacheMode.Always => ["--cache=always"],
        CacheMode.AlwaysWriteback => ["--cache=always", "--writeback"],
        _ => throw new ArgumentOutOfRangeException(Cache.ToString()),
    };
}
