namespace Causeway.Driver;

/// <summary>What a client may remember of a share, and for how long.</summary>
public enum CacheMode
{
    /// <summary>
    /// Nothing: names, attributes and data are fetched each time, and writes are pushed at once. What another guest or the
    /// host has changed is seen by the next call.
    /// </summary>
    None,

    /// <summary>
    /// Names and attributes for <see cref="VirtioFsClientOptions.Lifetime"/>; data while a file is open, and each opening
    /// starts afresh (close-to-open consistency). The default.
    /// </summary>
    Auto,

    /// <summary>
    /// Everything until it is displaced, changed by this client, or the device says that it has changed. Only for shares
    /// that nobody else changes, or devices that send notifications.
    /// </summary>
    Always,

    /// <summary>
    /// Everything, names that do not exist included, until it is displaced or has changed: each use looks into the daemon's
    /// version table, which is shared memory, and asks again for what is not true any more. What another client of the daemon has
    /// changed is seen by the next call, and while nothing changes nothing is sent. Needs a daemon of Causeway with
    /// <c>--version-table</c>; with another one connecting fails. See docs/coherency.md for what of the host's own changes is seen.
    /// </summary>
    Coherent,
}

/// <summary>When written data goes to the device.</summary>
public enum WriteMode
{
    /// <summary>With each write (<c>no_writeback</c>). The default.</summary>
    Through,

    /// <summary>
    /// At close or fsync, or earlier when memory is needed (<c>writeback</c>). Not with <see cref="CacheMode.None"/> and
    /// <see cref="CacheMode.Coherent"/>. What was not flushed is lost with the client.
    /// </summary>
    Back,
}

/// <summary>How a <see cref="VirtioFsClient"/> uses a share.</summary>
public sealed record VirtioFsClientOptions
{
    /// <summary>What to remember. Default: <see cref="CacheMode.Auto"/>.</summary>
    public CacheMode Cache { get; init; } = CacheMode.Auto;

    /// <summary>When to send written data. Default: at once.</summary>
    public WriteMode Writes { get; init; } = WriteMode.Through;

    /// <summary>How long names and attributes are believed with <see cref="CacheMode.Auto"/>. Default one second.</summary>
    public TimeSpan Lifetime { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>
    /// Most bytes of file data to remember. Default 32 MiB; at least 1 MiB. This much guest memory is set aside, and used
    /// as it fills.
    /// </summary>
    public long MaxCachedBytes { get; init; } = 32L << 20;

    /// <summary>
    /// Most names to remember, each with the node it stands for: some 500 bytes here and 100 in the daemon. Default 65,536.
    /// </summary>
    public int MaxCachedNames { get; init; } = 65_536;

    /// <summary>
    /// Which files to read and write as memory, if the device has a window for that. Default: those that the device chooses. The
    /// length of such a file is believed while nothing says otherwise, see docs/dax.md.
    /// </summary>
    public DaxMode Dax { get; init; } = DaxMode.Inode;

    /// <summary>The user that requests are made for. Default: the effective user of this process.</summary>
    public uint? UserId { get; init; }

    /// <summary>The group that requests are made for. Default: the effective group of this process.</summary>
    public uint? GroupId { get; init; }

    /// <summary>How to use the device. <see cref="VirtioFsTransportOptions.OnNotification"/> is called as well.</summary>
    public VirtioFsTransportOptions Transport { get; init; } = new();

    /// <summary>The clock that lifetimes are measured by; tests have their own.</summary>
    internal TimeProvider Clock { get; init; } = TimeProvider.System;

    internal void Validate()
    {
        if (Cache == CacheMode.None && Writes == WriteMode.Back)
        {
            throw new ArgumentException(
                $"{nameof(WriteMode)}.{nameof(WriteMode.Back)} needs {nameof(CacheMode)}.{nameof(CacheMode.Auto)} or "
                + $"{nameof(CacheMode.Always)}: without a cache there is nowhere to keep what was written.");
        }

        if (Cache == CacheMode.Coherent && Writes == WriteMode.Back)
        {
            throw new ArgumentException(
                $"{nameof(CacheMode)}.{nameof(CacheMode.Coherent)} needs {nameof(WriteMode)}.{nameof(WriteMode.Through)}: what one "
                + "client keeps back the others would miss.");
        }

        ArgumentOutOfRangeException.ThrowIfLessThan(MaxCachedBytes, 1 << 20);
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxCachedNames, 16);
    }
}

/// <summary>What a client remembers right now.</summary>
/// <param name="Names">Names, each with the node it stands for.</param>
/// <param name="Nodes">Nodes: those with names, and those in use.</param>
/// <param name="DataBytes">File data in bytes, in units of 128 KiB.</param>
/// <param name="DirtyBytes">How much of it has not been written to the device yet.</param>
/// <param name="MaxDataBytes">The bound of <paramref name="DataBytes"/>.</param>
public readonly record struct CacheUsage(int Names, int Nodes, long DataBytes, long DirtyBytes, long MaxDataBytes)
{
    /// <summary>Entries of listings that are kept, with <see cref="CacheMode.Coherent"/>; at most as many as names.</summary>
    public int ListedNames { get; init; }
}
