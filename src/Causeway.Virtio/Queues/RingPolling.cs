using System.Diagnostics;

namespace Causeway.Virtio;

/// <summary>
/// How many threads of a device or a driver may look at their rings at the same time instead of sleeping: as many as there
/// are processors. They yield between two looks, so who has work need not wait for them.
/// </summary>
public sealed class PollingSeats
{
    private readonly int _count;
    private int _taken;

    /// <summary>Makes a seat for each processor; with a single one nobody looks, because nothing could come meanwhile.</summary>
    /// <param name="isOn">False for no seats at all.</param>
    public PollingSeats(bool isOn)
        : this(isOn && Environment.ProcessorCount > 1 ? Environment.ProcessorCount : 0)
    {
    }

    /// <summary>Makes a number of seats, for tests.</summary>
    internal PollingSeats(int count) => _count = count;

    internal bool TryTake()
    {
        if (Volatile.Read(ref _taken) >= _count)
        {
            return false;
        }

        if (Interlocked.Increment(ref _taken) <= _count)
        {
            return true;
        }

        Leave();
        return false;
    }

    internal void Leave() => Interlocked.Decrement(ref _taken);
}

/// <summary>
/// Decides for one thread whether it looks at a ring for a while before it sleeps. Waking a thread costs both sides system
/// calls and some 4 to 20 us; while something usually comes within little more than that, looking is faster.
/// </summary>
/// <remarks>
/// <para>It learns. A look in vain is followed by sleeps without a look, four times as many each time, up to some
/// thousand; every success takes half of that back. So it stays only where two looks in three succeed, and a thread without
/// work does not look at all: it sleeps until it is woken.</para>
/// <para>It gives way. Between two looks it yields, and when it then does not get the processor back at once, somebody else
/// needs it: that counts as several looks in vain, whether or not there was something in the end. On a machine with more to
/// do than it has processors it turns itself off that way.</para>
/// <code>
/// bool found = false;
/// if (polling.TryBegin())
/// {
///     while (!(found = ring has something) &amp;&amp; polling.GoOn());
///     polling.End(found);
/// }
/// </code>
/// One thread at a time.
/// </remarks>
/// <param name="seats">Who else looks.</param>
public sealed class RingPolling(PollingSeats seats)
{
    // Waking a thread of a halted virtual processor takes up to 20, and between two requests of one program there are two of
    // that kind that nobody can save: the program's own and that of who brings the next request. With 20 here looking never
    // paid where it is worth most, and with 100 nothing became better than with 50 (benchmarks/bridge).
    private const int BudgetMicroseconds = 50;

    // Giving way to those who work on the same requests takes some tens; to somebody else a slice of the scheduler, some
    // hundreds at least (arbitrary).
    private const int DisturbanceMicroseconds = 300;

    // 1024 sleeps between looks when nothing has come for long.
    private const int MaxCaution = 10;
    private const int CautionOfVain = 2;
    private const int CautionOfDisturbance = 4;

    private static readonly long s_budget = Stopwatch.Frequency * BudgetMicroseconds / 1_000_000;
    private static readonly long s_disturbance = Stopwatch.Frequency * DisturbanceMicroseconds / 1_000_000;

    private long _end;
    private long _last;
    private int _caution;
    private int _rest;
    private bool _isOver;
    private bool _isDisturbed;

    /// <summary>How many times it looked for a while. For whoever asks.</summary>
    public long Polls { get; private set; }

    /// <summary>How many of these found something.</summary>
    public long Successes { get; private set; }

    /// <summary>How many times a look was cut short because somebody else needed the processor.</summary>
    public long Disturbances { get; private set; }

    /// <summary>Asks whether to look for a while; if so, <see cref="End"/> is to be called.</summary>
    public bool TryBegin()
    {
        if (_rest > 0)
        {
            _rest--;
            return false;
        }

        if (!seats.TryTake())
        {
            return false;
        }

        _last = Stopwatch.GetTimestamp();
        _end = _last + s_budget;
        _isOver = false;
        Polls++;
        return true;
    }

    /// <summary>Lets a moment pass between two looks.</summary>
    /// <returns>Whether to look again.</returns>
    public bool GoOn()
    {
        if (_isOver)
        {
            return false;
        }

        Thread.SpinWait(4);
        Thread.Yield();
        long now = Stopwatch.GetTimestamp();
        _isDisturbed = now - _last > s_disturbance;
        _last = now;

        // Once more, for what came while others had the processor.
        _isOver = _isDisturbed || now >= _end;
        return true;
    }

    /// <summary>Ends looking.</summary>
    /// <param name="found">Whether there was something.</param>
    public void End(bool found)
    {
        seats.Leave();
        if (_isDisturbed)
        {
            _isDisturbed = false;
            Disturbances++;
            Rest(CautionOfDisturbance);
        }
        else if (found)
        {
            Successes++;
            _caution = Math.Max(0, _caution - 1);
        }
        else
        {
            Rest(CautionOfVain);
        }
    }

    private void Rest(int more)
    {
        _caution = Math.Min(MaxCaution, _caution + more);
        _rest = 1 << _caution;
    }
}
