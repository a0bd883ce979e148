using System.Text;

namespace Causeway.Tests.Coherency.Model;

/// <summary>What a table promises (docs/coherency.md).</summary>
[Flags]
public enum Guarantee
{
    None = 0,

    /// <summary>G1: a check accepts nothing older than a change that was answered before it began.</summary>
    FinishedChangesAreSeen = 1,

    /// <summary>G2: a check accepts nothing older than what anybody could see before it began.</summary>
    WhatWasSeenStaysSeen = 2,
}

/// <summary>What has to happen in some order of steps, or else the model shows nothing.</summary>
[Flags]
internal enum Landmark
{
    None = 0,
    Accepted = 1,
    AcceptedNew = 2,
    Refused = 4,
    NotCacheable = 8,
    TwoChangesUnderWay = 16,
    Cancelled = 32,
    Died = 64,
    SlotUsedAgain = 128,
    WordIsShared = 256,
    KeptOverOwnChange = 512,
    TookTheOther = 1024,
    Recalled = 2048,
    Delegated = 4096,
    AskedForWhileTaking = 8192,
}

/// <summary>What was found out.</summary>
internal sealed class ModelReport
{
    public Guarantee Broken { get; private set; }

    public Landmark Reached { get; private set; }

    public int States { get; set; }

    /// <summary>The shortest way to the first broken guarantee, step by step.</summary>
    public string Example { get; set; } = string.Empty;

    public void Break(Guarantee guarantee) => Broken |= guarantee;

    public void Reach(bool isReached, Landmark landmark) => Reached |= isReached ? landmark : Landmark.None;
}

/// <summary>Goes through all orders in which processes can do their steps, each state once, the shortest ways first.</summary>
internal static class ModelChecker
{
    private const int MaxChoices = 3;

    /// <summary>Explores.</summary>
    /// <param name="processes">The processes; the position of each is its number.</param>
    /// <param name="until">Stop when this is broken; none to go through everything.</param>
    public static ModelReport Explore(IReadOnlyList<ModelProcess> processes, Guarantee until)
    {
        var report = new ModelReport();
        var start = new ModelState(processes.Count);
        var cameFrom = new Dictionary<ModelState, (ModelState? State, string Step)> { [start] = (null, "start") };
        var waiting = new Queue<ModelState>([start]);
        while ((until == Guarantee.None || !report.Broken.HasFlag(until)) && waiting.TryDequeue(out ModelState? state))
        {
            Assert.True(HasNothingLeftOver(state, processes), $"something stays under way for ever:\n{Describe(cameFrom, state)}");
            foreach (ModelProcess process in processes)
            {
                for (int choice = 0; choice < MaxChoices; choice++)
                {
                    ModelState next = state.Copy();
                    Guarantee before = report.Broken;
                    if (process.Step(next, choice, report) is not { } step)
                    {
                        continue;
                    }

                    if (cameFrom.TryAdd(next, (state, step)))
                    {
                        waiting.Enqueue(next);
                    }

                    if (before == Guarantee.None && report.Broken != Guarantee.None)
                    {
                        report.Example = $"{Describe(cameFrom, state)}{step}\n";
                    }
                }
            }
        }

        report.States = cameFrom.Count;
        return report;
    }

    // When all changes are over, every word is a version again, but for those that are held on purpose: nothing is lost to caching for
    // ever, and nothing that is not to be kept becomes a version.
    private static bool HasNothingLeftOver(ModelState state, IReadOnlyList<ModelProcess> processes) =>
        !processes.All(process => process.IsAtEnd(state))
        || Enumerable.Range(0, ModelState.MaxWords).All(
            word => ModelWord.InFlight(state[word]) == processes.Sum(process => process.Holds(state, word)));

    private static string Describe(Dictionary<ModelState, (ModelState? State, string Step)> cameFrom, ModelState state)
    {
        var steps = new Stack<string>();
        for (ModelState? at = state; at is not null; at = cameFrom[at].State)
        {
            steps.Push(cameFrom[at].Step);
        }

        return steps.Aggregate(new StringBuilder(), (text, step) => text.Append(step).Append('\n')).ToString();
    }
}
