namespace Causeway.Server.Queues;

/// <summary>
/// Decides for the high-priority queue whether its thread lets requests gather for a while instead of being woken for each.
/// Nearly all of them are FORGET, which nobody waits for, and a wake-up takes several times as much as what it is for.
/// </summary>
/// <remarks>
/// It learns as <see cref="Virtio.RingPolling"/> does: when little has come in the meantime, the time was for nothing, and some of
/// the next ones are left out, four times as many each time; every success takes half of that back. What else the queue
/// carries is INTERRUPT, which comes that much later at worst.
/// </remarks>
internal struct Gathering(bool isOn)
{
    /// <summary>How long: the shortest that epoll_wait(2) knows.</summary>
    public const int Milliseconds = 1;

    // One wake-up that is not asked for against as many that are saved.
    private const long Enough = 3;

    private const int MaxCaution = 10;
    private const int CautionOfVain = 2;

    private readonly bool _isOn = isOn;
    private long _countBefore;
    private int _caution;
    private int _rest;
    private bool _isGathering;

    /// <summary>Asks, with an empty queue, whether to wait for a while rather than for the next request.</summary>
    /// <param name="count">How many requests there have been so far.</param>
    public bool TryBegin(long count)
    {
        if (!_isOn)
        {
            return false;
        }

        if (_isGathering)
        {
            _isGathering = false;
            if (count - _countBefore >= Enough)
            {
                _caution = Math.Max(0, _caution - 1);
            }
            else
            {
                _caution = Math.Min(MaxCaution, _caution + CautionOfVain);
                _rest = 1 << _caution;
            }
        }

        if (count == _countBefore)
        {
            // Nothing came: it may as well wait to be woken.
            return false;
        }

        _countBefore = count;
        if (_rest > 0)
        {
            _rest--;
            return false;
        }

        _isGathering = true;
        return true;
    }
}
