using System.Diagnostics;
using Causeway.Driver;

namespace Causeway.Cli.Bench;

/// <summary>
/// One request queue of a daemon with the lanes that share it: keeps a request of each in flight, takes all replies that
/// are there, and kicks once for all that it submits then.
/// </summary>
internal sealed class LaneQueue
{
    // How many looks at the ring there are between two of the clock, about a microsecond each (arbitrary).
    private const int LooksPerClock = 1024;

    private readonly VirtioFsQueue _queue;
    private readonly ForgetQueue _forgets;
    private readonly ClientKind _client;
    private readonly TimeSpan _patience;
    private readonly Lane[] _lanes;
    private readonly Lane?[] _laneOfSlot;
    private int _inFlight;

    /// <summary>Makes a queue of lanes.</summary>
    public LaneQueue(VirtioFsQueue queue, ForgetQueue forgets, ClientKind client, TimeSpan patience, Lane[] lanes)
    {
        _queue = queue;
        _forgets = forgets;
        _client = client;
        _patience = patience;
        _lanes = lanes;
        _laneOfSlot = new Lane?[DaemonSession.SlotsPerQueue];
    }

    /// <summary>Runs all lanes for a time, and then until nothing is in flight.</summary>
    /// <param name="duration">The time.</param>
    /// <returns>How long it was until the first look at the clock after it.</returns>
    public TimeSpan Run(TimeSpan duration)
    {
        foreach (Lane lane in _lanes)
        {
            Submit(lane);
        }

        long began = Stopwatch.GetTimestamp();
        TimeSpan elapsed;
        do
        {
            Kick();
            TakeOne();
            TakeAll();
            elapsed = Stopwatch.GetElapsedTime(began);
        }
        while (elapsed < duration);

        Finish();
        return elapsed;
    }

    /// <summary>Gives up what the lanes were about to do: nothing is in flight.</summary>
    public void GiveUp()
    {
        foreach (Lane lane in _lanes)
        {
            lane.ReleaseReply();
        }
    }

    private void Kick()
    {
        _queue.Kick();
        _forgets.Kick();
    }

    private void Submit(Lane lane)
    {
        _laneOfSlot[lane.Submit(_queue)] = lane;
        _inFlight++;
    }

    private void TakeAll()
    {
        while (_queue.TryTake(out int slot, out int length))
        {
            Submit(Accept(slot, length));
        }
    }

    private void TakeOne()
    {
        if (!_queue.TryTake(out int slot, out int length))
        {
            length = _client == ClientKind.Blocking ? _queue.Take(out slot) : Look(out slot);
        }

        Submit(Accept(slot, length));
    }

    private Lane Accept(int slot, int length)
    {
        _inFlight--;
        Lane lane = _laneOfSlot[slot]!;
        lane.Accept(_queue, slot, length);
        return lane;
    }

    private int Look(out int slot)
    {
        long began = Stopwatch.GetTimestamp();
        for (int looks = 1; ; looks++)
        {
            if (_queue.TryTake(out slot, out int length))
            {
                return length;
            }

            Thread.SpinWait(8);
            Thread.Yield();
            if (looks % LooksPerClock == 0 && Stopwatch.GetElapsedTime(began) > _patience)
            {
                throw new TimeoutException($"the daemon did not answer within {_patience.TotalSeconds:F0} seconds");
            }
        }
    }

    // What was submitted last is answered, and not followed by anything.
    private void Finish()
    {
        Kick();
        while (_inFlight > 0)
        {
            int length = _queue.Take(out int slot);
            _ = Accept(slot, length);
        }
    }
}
