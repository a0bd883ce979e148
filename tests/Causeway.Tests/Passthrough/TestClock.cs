namespace Causeway.Tests.Passthrough;

/// <summary>A clock that goes ahead of the real one, so that what a test has just made is old.</summary>
internal sealed class TestClock : TimeProvider
{
    private DateTimeOffset? _now;

    /// <summary>A minute ahead.</summary>
    public static TestClock Ahead => new() { Lead = TimeSpan.FromMinutes(1) };

    /// <summary>Always now, so that what is made from now on never gets old.</summary>
    public static TestClock Stopped => new() { Now = System.GetUtcNow() };

    /// <summary>By how much it is ahead.</summary>
    public TimeSpan Lead { get; set; }

    /// <summary>The time, set to one at which it stands still.</summary>
    public DateTimeOffset Now
    {
        get => GetUtcNow();
        set => _now = value;
    }

    public override DateTimeOffset GetUtcNow() => _now ?? (System.GetUtcNow() + Lead);
}
