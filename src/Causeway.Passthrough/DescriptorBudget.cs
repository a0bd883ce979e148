namespace Causeway.Passthrough;

/// <summary>
/// How many descriptors the nodes and open files of one session may hold, so that the process never runs out of them.
/// </summary>
/// <param name="maximum">The most.</param>
internal sealed class DescriptorBudget(int maximum)
{
    private int _used;

    /// <summary>The most.</summary>
    public int Maximum { get; } = maximum;

    /// <summary>How many are in use.</summary>
    public int Used => Volatile.Read(ref _used);

    /// <summary>Whether it is time to close what is only waiting to be closed.</summary>
    public bool IsNearlyUsedUp => Used >= Maximum - (Maximum / 8);

    /// <summary>Takes one, if there is one left.</summary>
    public bool TryTake()
    {
        if (Interlocked.Increment(ref _used) <= Maximum)
        {
            return true;
        }

        Interlocked.Decrement(ref _used);
        return false;
    }

    /// <summary>Gives one back.</summary>
    public void Return() => Interlocked.Decrement(ref _used);
}
