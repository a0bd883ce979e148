using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using Causeway.Fuse;
using Causeway.VhostUser.Frontend;

namespace Causeway.Driver;

/// <summary>
/// The version table as a guest sees it (docs/coherency.md): says by a look at memory whether what is kept with a version is still
/// true. The memory is the daemon's, and may say anything at any time; nothing here depends on it.
/// </summary>
/// <remarks>
/// <para>A check is a load of each word that vouches for something, then of the epoch, and then <see cref="IsAlive"/>, in this
/// order: what is loaded before was true when the epoch was what it is, and the daemon was there afterwards or just before.
/// </para>
/// <para>The daemon lives as long as its heartbeat moves. When a sample finds that it has, it did so after the sample before; so
/// words are believed for <see cref="VersionTableLayout.HeartbeatLimit"/> from that one on, compared with the clock at each
/// check. A process that was stopped, or whose sampler was, believes nothing until the heartbeat has been seen to move
/// again.</para>
/// <para>All members may be used by any thread, also after disposing, which is when nothing is believed any more: the addresses
/// are given back by the finalizer, once nobody can be in the middle of a check.</para>
/// </remarks>
internal sealed unsafe class VersionTableReader : IDisposable
{
    private static readonly long s_limit = (long)VersionTableLayout.HeartbeatLimit.TotalMilliseconds;

    private readonly SharedMemoryRegion _region;
    private readonly ulong* _words;
    private readonly VersionTableLayout _layout;
    private readonly Func<long>? _clock;
    private long _believedUntil = long.MinValue;
    private ulong _lastBeat;
    private long _lastSample = long.MinValue;
    private volatile bool _isDead;

    /// <param name="region">The region, owned from here on.</param>
    /// <param name="layout">Its layout.</param>
    /// <param name="clock">Milliseconds; null for those of <see cref="Environment.TickCount64"/>.</param>
    private VersionTableReader(SharedMemoryRegion region, VersionTableLayout layout, Func<long>? clock)
    {
        _region = region;
        _words = (ulong*)region.Address;
        _layout = layout;
        _clock = clock;
    }

    /// <summary>Gives the addresses back.</summary>
    ~VersionTableReader() => _region.Dispose();

    /// <summary>How the table is laid out; it was checked.</summary>
    internal VersionTableLayout Layout => _layout;

    /// <summary>The value of the epoch's word, to be read before a request is sent; see <see cref="VersionWord"/>.</summary>
    internal ulong Epoch => Load(VersionTableLayout.EpochWord);

    /// <summary>
    /// Whether what was loaded before can be believed: the daemon was there within the last second. To be asked last.
    /// </summary>
    internal bool IsAlive => !_isDead && Now <= Volatile.Read(ref _believedUntil);

    /// <summary>Looks at a region that a device has filled, and starts nothing.</summary>
    /// <param name="region">The region, owned by the reader unless there is none.</param>
    /// <param name="clock">Milliseconds; for tests. Default: the system's.</param>
    /// <returns>The reader; null when it is no table, one of another version, or not in use.</returns>
    internal static VersionTableReader? TryOpen(SharedMemoryRegion region, Func<long>? clock = null)
    {
        if (region.Size < VersionTableLayout.HeaderSize)
        {
            return null;
        }

        // Copied once; only the copy is checked, and used.
        Span<byte> header = stackalloc byte[VersionTableLayout.HeaderSize];
        new ReadOnlySpan<byte>(region.Address, VersionTableLayout.HeaderSize).CopyTo(header);
        if (!VersionTableLayout.TryRead(header, region.Size, out VersionTableLayout layout))
        {
            return null;
        }

        var reader = new VersionTableReader(region, layout, clock);
        if (reader.IsInUse)
        {
            return reader;
        }

        // The region stays the caller's.
        GC.SuppressFinalize(reader);
        return null;
    }

    /// <summary>Whether a word of the device's is the first of a pair, so that it and the next can be looked at.</summary>
    internal bool IsPair(uint word) => _layout.IsPair(word);

    /// <summary>Whether a word of the device's is one of a name.</summary>
    internal bool IsName(uint word) => _layout.IsName(word);

    /// <summary>Whether a word still has a version.</summary>
    /// <param name="word">One that was checked, by <see cref="IsPair"/> or <see cref="IsName"/>.</param>
    /// <param name="version">A version, not zero.</param>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool IsCurrent(uint word, ulong version) => Load(word) == version;

    /// <summary>The value of a word that was checked.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal ulong Load(uint word)
    {
        // SAFETY: words are checked against the layout when they come in, and the layout against the region. The addresses stay
        // until the finalizer runs, which is not before this has ended. An acquire load: it pairs with the daemon's additions.
        ulong value = Volatile.Read(ref _words[word]);
        GC.KeepAlive(this);
        return value;
    }

    /// <summary>Says that a word will be loaded soon. A hint; the word may be any number.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Prefetch(uint word)
    {
        if (Sse.IsSupported)
        {
            // SAFETY: fetching into the cache reads nothing that anybody sees, and never faults, wherever the address leads.
            Sse.Prefetch0(_words + word);
        }
    }

    /// <summary>The end of a check: whether the epoch is the one that all kept things were fetched in, and the daemon there.</summary>
    internal bool IsCurrent(ulong epoch) => Load(VersionTableLayout.EpochWord) == epoch && IsAlive;

    /// <summary>Looks at the heartbeat; to be called every <see cref="VersionSampler.Interval"/> or so, by one thread at a time.</summary>
    internal void Sample()
    {
        // The clock first: the heartbeat moves after it, if it has moved at the next sample.
        long now = Now;
        if (!IsInUse)
        {
            Kill();
            return;
        }

        ulong beat = Load(VersionTableLayout.HeartbeatWord);
        if (beat != _lastBeat && _lastSample != long.MinValue)
        {
            Volatile.Write(ref _believedUntil, _lastSample + s_limit);
        }

        (_lastBeat, _lastSample) = (beat, now);
    }

    /// <summary>The device has answered a request that was sent then: it was there.</summary>
    /// <param name="since">The clock before it was sent.</param>
    internal void Believe(long since)
    {
        if (!_isDead)
        {
            Volatile.Write(ref _believedUntil, since + s_limit);
        }
    }

    /// <summary>The device is lost, or the session: nothing is believed any more.</summary>
    internal void Kill()
    {
        _isDead = true;
        Volatile.Write(ref _believedUntil, long.MinValue);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Kill();

        // The daemon's memory goes; who is in the middle of a check finds zeros, which are no version.
        _region.Clear();
    }

    private long Now => _clock is null ? Environment.TickCount64 : _clock();

    private bool IsInUse => (VersionTableState)(uint)Load(VersionTableLayout.StateWord) == VersionTableState.Live;
}
