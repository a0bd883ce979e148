using System.Numerics;
using Causeway.Fuse;
using Causeway.VhostUser.Backend;
using Causeway.VhostUser.Messages;

namespace Causeway.Server;

/// <summary>
/// The version table as one guest sees it: shared memory region 1 of its device, into which the whole table is mapped when a guest
/// asks for it in INIT, and which stays empty for all others.
/// </summary>
/// <remarks>
/// When the front end may be asked is as for <see cref="DaxWindow"/>, with which it shares the channel: <see cref="Open"/> and
/// <see cref="Close"/> come from the control thread, which waits for nobody who waits for the front end.
/// </remarks>
internal sealed class VersionRegion(VersionTable table) : IVersionRegion
{
    private readonly Lock _asking = new();
    private readonly SharedMemoryMapping _mapping = new(
        VersionTableLayout.RegionId, FileOffset: 0, RegionOffset: 0, table.Layout.RegionSize, SharedMemoryFlags.None);

    private volatile BackendChannel? _channel;

    // What the front end has: a reset takes it from QEMU, and from others not, and nobody tells.
    private volatile bool _isMapped;
    private volatile bool _wasStopped;
    private bool _isWatching;

    /// <summary>
    /// Size of the region in bytes: the table's, and what is missing to a power of two together with the window. QEMU 11.1 puts both into
    /// one bar, and aborts when that is of another size.
    /// </summary>
    /// <param name="window">Size of the DAX window; zero for none.</param>
    public ulong SizeBeside(ulong window) => BitOperations.RoundUpToPowerOf2(window + table.Layout.RegionSize) - window;

    /// <summary>The front end can be asked on this channel while a ring runs; null when it cannot any more.</summary>
    /// <param name="channel">The channel.</param>
    /// <param name="isRunning">Whether a ring runs already.</param>
    public void Connect(BackendChannel? channel, bool isRunning)
    {
        if (!isRunning)
        {
            channel?.Interrupt();
        }

        _channel = channel;
    }

    /// <summary>A ring starts: the front end may be asked.</summary>
    public void Open() => _channel?.Resume();

    /// <summary>A ring is to stop: nobody begins to ask, and who waits for an answer gives up.</summary>
    /// <param name="isLast">Whether it is the last one that runs.</param>
    public void Close(bool isLast)
    {
        _wasStopped |= isLast;
        _channel?.Interrupt();
    }

    /// <summary>The front end has gone; the next one has nothing mapped.</summary>
    public void Disconnect()
    {
        End();
        _isMapped = false;
    }

    /// <inheritdoc/>
    public bool TryBegin()
    {
        lock (_asking)
        {
            if (_channel is not { IsClosed: false } channel || !TryMap(channel))
            {
                StopWatching();
                return false;
            }

            if (!_isWatching)
            {
                _isWatching = true;
                table.AddWatcher();
            }

            return true;
        }
    }

    /// <inheritdoc/>
    public void End()
    {
        lock (_asking)
        {
            // The mapping stays: it is the same for whoever comes next, shows nothing that could not be seen, and a front end that
            // is being reset must not be asked.
            StopWatching();
        }
    }

    private bool TryMap(BackendChannel channel)
    {
        if (_isMapped && !_wasStopped)
        {
            return true;
        }

        ChannelResult result = channel.Map(_mapping, table.Descriptor);
        if (result == ChannelResult.Refused && _isMapped)
        {
            // It was there still, and may be so only once.
            _ = channel.Unmap(_mapping);
            result = channel.Map(_mapping, table.Descriptor);
        }

        // One that was not answered may happen yet.
        _isMapped |= result is ChannelResult.Done or ChannelResult.Unanswered;
        _wasStopped = result != ChannelResult.Done && _wasStopped;
        return result == ChannelResult.Done;
    }

    private void StopWatching()
    {
        if (_isWatching)
        {
            _isWatching = false;
            table.RemoveWatcher();
        }
    }
}
