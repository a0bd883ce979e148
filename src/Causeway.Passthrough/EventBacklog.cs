using System.Numerics;

namespace Causeway.Passthrough;

/// <summary>
/// Events of the host on their way to one guest, which may take them slowly or not at all: what is too much for it is dropped, and
/// that it was is told instead.
/// </summary>
internal sealed class EventBacklog
{
    // Arbitrary: some ten thousand events, about what the kernel keeps.
    private const int MaxBytes = 1 << 20;

    // Waited on, which a Lock cannot be.
    private readonly object _gate = new();
    private byte[] _waiting = [];
    private byte[] _taken = [];
    private int _length;
    private bool _hasLost;
    private bool _isEnding;

    /// <summary>Adds events. Never waits for the guest.</summary>
    /// <param name="events">As the kernel has written them.</param>
    public void Add(ReadOnlySpan<byte> events)
    {
        lock (_gate)
        {
            if (_length + events.Length > MaxBytes)
            {
                _length = 0;
                _hasLost = true;
            }
            else
            {
                if (_length + events.Length > _waiting.Length)
                {
                    Array.Resize(ref _waiting, (int)BitOperations.RoundUpToPowerOf2((uint)(_length + events.Length)));
                }

                events.CopyTo(_waiting.AsSpan(_length));
                _length += events.Length;
            }

            Monitor.Pulse(_gate);
        }
    }

    /// <summary>Events were lost: those that wait tell no more than that.</summary>
    public void Lose()
    {
        lock (_gate)
        {
            _length = 0;
            _hasLost = true;
            Monitor.Pulse(_gate);
        }
    }

    /// <summary>Waits for events.</summary>
    /// <param name="events">All that have come, valid until the next call; perhaps none.</param>
    /// <param name="hasLost">Whether others were lost before them.</param>
    /// <returns>False when it has ended.</returns>
    public bool Take(out ReadOnlySpan<byte> events, out bool hasLost)
    {
        lock (_gate)
        {
            while (_length == 0 && !_hasLost && !_isEnding)
            {
                _ = Monitor.Wait(_gate);
            }

            (_waiting, _taken) = (_taken, _waiting);
            events = _taken.AsSpan(0, _length);
            hasLost = _hasLost;
            _length = 0;
            _hasLost = false;
            return !_isEnding;
        }
    }

    /// <summary>Nobody takes events any more.</summary>
    public void End()
    {
        lock (_gate)
        {
            _isEnding = true;
            Monitor.Pulse(_gate);
        }
    }
}
