namespace Causeway.Tests.Coherency.Model;

/// <summary>
/// The protocol of the version table in all orders of its steps: it keeps its promises, and without any one of its parts it
/// does not.
/// </summary>
/// <remarks>
/// The programs are in ModelProcess.cs, beside the methods of VersionTable and the requests that they stand for. What the model
/// leaves out: names as something to keep, for they are words like others, and the weak order of memory, which the barriers of the
/// real code take away.
/// </remarks>
public sealed class VersionProtocolTests(ITestOutputHelper output)
{
    [Fact]
    public void The_protocol_keeps_its_promises_in_every_order_of_steps()
    {
        Landmark reached = Landmark.None;
        foreach (Scenario scenario in Enum.GetValues<Scenario>())
        {
            ModelReport report = Explore(scenario, Mutation.None, Guarantee.None);
            Assert.True(report.Broken == Guarantee.None, $"{scenario}: {report.Broken}\n{report.Example}");
            output.WriteLine($"{scenario}: {report.States} states");
            reached |= report.Reached;
        }

        Assert.Equal(Enum.GetValues<Landmark>().Aggregate((all, one) => all | one), reached);
    }

    [Theory]
    [InlineData(Mutation.NeitherBeginNorEnd, Scenario.TwoChanges, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.BeginOnly, Scenario.TwoChanges, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.EndOnly, Scenario.TwoChanges, Guarantee.WhatWasSeenStaysSeen)]
    [InlineData(Mutation.CancelAfterEffect, Scenario.TwoChanges, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.InFlightIgnored, Scenario.TwoChanges, Guarantee.WhatWasSeenStaysSeen)]
    [InlineData(Mutation.InFlightIsOneBit, Scenario.TwoChanges, Guarantee.WhatWasSeenStaysSeen)]
    [InlineData(Mutation.SingleStatx, Scenario.TwoChanges, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.UnknownObjectsNotCounted, Scenario.TwoChanges, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.NoRetire, Scenario.SlotsAreUsedAgain, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.NoRetire, Scenario.OneSlotTooFew, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.SequenceReset, Scenario.SlotsAreUsedAgain, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.RetireLate, Scenario.SlotsAreUsedAgain, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.RetireEarly, Scenario.SlotsAreUsedAgain, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.PinsIgnored, Scenario.SlotsAreUsedAgain, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.OwnChangeOnAnyVersion, Scenario.OwnChange, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.OwnChangeBesideOthers, Scenario.OwnChange, Guarantee.FinishedChangesAreSeen)]
    [InlineData(Mutation.EpochReadAfterReply, Scenario.Death, Guarantee.WhatWasSeenStaysSeen)]
    [InlineData(Mutation.EpochCheckedFirst, Scenario.Death, Guarantee.WhatWasSeenStaysSeen)]
    [InlineData(Mutation.NoEpochAfterDeath, Scenario.Death, Guarantee.WhatWasSeenStaysSeen)]
    [InlineData(Mutation.EpochAfterCleaning, Scenario.Death, Guarantee.WhatWasSeenStaysSeen)]
    public void Without_one_of_its_parts_it_breaks_its_promises(Mutation mutation, Scenario scenario, Guarantee guarantee)
    {
        // What is counted once it has happened is late, but not lost: that was the table of 2018.
        bool isLateOnly = mutation == Mutation.EndOnly;
        ModelReport report = Explore(scenario, mutation, isLateOnly ? Guarantee.None : guarantee);

        output.WriteLine($"{report.States} states, {report.Broken}\n{report.Example}");
        Assert.Equal(guarantee, isLateOnly ? report.Broken : report.Broken & guarantee);
    }

    [Theory]
    [InlineData(Mutation.NamesAreNotAlone)]
    [InlineData(Mutation.NamesOfEverythingNotAlone)]
    [InlineData(Mutation.RemembersForGood)]
    public void Without_names_to_themselves_changes_count_the_wrong_objects(Mutation mutation)
    {
        ModelReport report = Explore(Scenario.Names, mutation, Guarantee.FinishedChangesAreSeen);

        output.WriteLine($"{report.States} states, {report.Broken}\n{report.Example}");
        Assert.Equal(Guarantee.FinishedChangesAreSeen, report.Broken);
    }

    [Theory]
    [InlineData(Mutation.GivenBackFirst)]
    [InlineData(Mutation.CoveredBeforeTaken)]
    [InlineData(Mutation.AskedForWhileTakingIsForgotten)]
    [InlineData(Mutation.NamesMoveFirst)]
    [InlineData(Mutation.NamesLoadedLast)]
    public void Without_one_of_their_parts_delegations_miss_changes(Mutation mutation)
    {
        ModelReport report = Explore(Scenario.Delegations, mutation, Guarantee.FinishedChangesAreSeen);

        output.WriteLine($"{report.States} states, {report.Broken}\n{report.Example}");
        Assert.True(report.Broken.HasFlag(Guarantee.FinishedChangesAreSeen));
    }

    private static ModelReport Explore(Scenario scenario, Mutation mutation, Guarantee until)
    {
        var table = new ModelTable(
            scenario switch { Scenario.WordIsShared => 0, Scenario.OneSlotTooFew or Scenario.Everything => 1, _ => 2 }, mutation);
        ModelProcess[] processes = scenario switch
        {
            Scenario.TwoChanges =>
            [
                new Writer(0, thing: 0, mayDie: false, table, mutation),
                new Writer(1, thing: 0, mayDie: false, table, mutation),
                new Reader(2, thing: 0, mayChange: false, table, mutation),
            ],
            Scenario.OwnChange =>
            [
                new Writer(0, thing: 0, mayDie: false, table, mutation),
                new Writer(1, thing: 0, mayDie: true, table, mutation),
                new Reader(2, thing: 0, mayChange: true, table, mutation),
            ],
            Scenario.Death =>
            [
                new Writer(0, thing: 0, mayDie: true, table, mutation),
                new Writer(1, thing: 0, mayDie: false, table, mutation),
                new Reader(2, thing: 0, mayChange: false, table, mutation),
            ],
            Scenario.Names =>
            [
                new Comings(0, shared: 0, mutation),
                new Unlinker(1, shared: 0, mutation),
                new RenamerOfEverything(2, shared: 0, mutation),
                new LateReader(3, shared: 0, mutation),
            ],
            Scenario.Delegations =>
            [
                new DelegationServer(0, mutation),
                new HostChanger(1, server: 0, mutation),
                new DelegatedWriter(2, server: 0, mutation),
                new DelegatedReader(3, server: 0, mutation),
                new DelegatedReader(4, server: 0, mutation),
            ],
            Scenario.Everything =>
            [
                new Writer(0, thing: 0, mayDie: false, table, mutation),
                new Writer(1, thing: 1, mayDie: true, table, mutation),
                new Reader(2, thing: 0, mayChange: true, table, mutation),
                new Forgetter(3, thing: 0, table, mutation),
                new Forgetter(4, thing: 1, table, mutation),
            ],
            _ =>
            [
                new Writer(0, thing: 0, mayDie: false, table, mutation),
                new Writer(1, thing: 1, mayDie: false, table, mutation),
                new Reader(2, thing: 0, mayChange: false, table, mutation),
                new Forgetter(3, thing: 0, table, mutation),
                new Forgetter(4, thing: 1, table, mutation),
            ],
        };
        return ModelChecker.Explore(processes, until);
    }
}

/// <summary>Some processes, all on one table. Each shows what it can with few of them, so that all orders can be tried.</summary>
public enum Scenario
{
    /// <summary>One object, two changes of it, one guest.</summary>
    TwoChanges,

    /// <summary>Two objects and two slots that they give back and take over.</summary>
    SlotsAreUsedAgain,

    /// <summary>Two objects and one slot: one of them, or both in turn, has the shared word.</summary>
    OneSlotTooFew,

    /// <summary>Two objects, always on the shared word.</summary>
    WordIsShared,

    /// <summary>One object, and a daemon that dies inside a change.</summary>
    Death,

    /// <summary>One object that the guest changes, too.</summary>
    OwnChange,

    /// <summary>One name that goes to another object and is taken away, while guests come and go; the last keeps that object.</summary>
    Names,

    /// <summary>A directory that host processes and a guest change, and two guests that keep what is in it by a delegation.</summary>
    Delegations,

    /// <summary>Two objects, one slot and the shared word, a guest that makes a change, and a death.</summary>
    Everything,
}
