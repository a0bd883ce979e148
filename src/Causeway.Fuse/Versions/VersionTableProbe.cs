namespace Causeway.Fuse;

/// <summary>
/// How tests show that each half of the protocol is needed: without it, the tests that otherwise pass fail. With its pauses they
/// meet the moments that matter.
/// </summary>
internal sealed class VersionTableProbe
{
    /// <summary>Changes are counted when they end, and nothing says that they have begun.</summary>
    public bool SkipsBegin { get; init; }

    /// <summary>Changes are counted when they begin, and nothing says that they are under way.</summary>
    public bool SkipsEnd { get; init; }

    /// <summary>Called after a change has begun, and before it ends.</summary>
    public Action Pause { get; init; } = () => { };

    /// <summary>Stands for <see cref="VersionTable.Begin"/>.</summary>
    public ulong Begin(ref ulong word)
    {
        ulong before = SkipsBegin ? Volatile.Read(ref word)
            : SkipsEnd ? Interlocked.Add(ref word, VersionWord.Step) - VersionWord.Step
            : Interlocked.Add(ref word, VersionWord.Beginning) - VersionWord.Beginning;
        Pause();
        return before;
    }

    /// <summary>Stands for <see cref="VersionTable.End"/>.</summary>
    public ulong End(ref ulong word)
    {
        Pause();
        return SkipsBegin ? Interlocked.Add(ref word, VersionWord.Step)
            : SkipsEnd ? Volatile.Read(ref word)
            : Interlocked.Add(ref word, VersionWord.Ending);
    }
}
