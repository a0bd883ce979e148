namespace Causeway.Tests.Coherency.Model;

/// <summary>
/// What takes part in keeping a directory's entries by a delegation, as DelegationTable does. Word 0 is the directory's CONTENT word,
/// word 1 that of all names in it; object 0 is what is in it.
/// </summary>
/// <param name="number">Which process it is.</param>
/// <param name="server">The thread that hears of what is asked for, whose registers hold what the kernel and the table know.</param>
/// <param name="mutation">What is wrong.</param>
internal abstract class DelegatedProcess(int number, int server, Mutation mutation) : ModelProcess(number, mutation)
{
    protected const byte Content = 0, Names = 1;

    // What the kernel knows: nothing, a delegation that is held, and one that somebody is waiting for.
    protected const byte NotHeld = 0, Held = 1, AskedFor = 2;

    // What the table knows: DelegatedState.
    protected const byte None = 0, Taking = 1, TakingAskedFor = 2, Taken = 3;

    protected bool HasBegun(ModelState state) => state.Register(server, 0) != 0;

    protected ref byte Kernel(ModelState state) => ref state.Register(server, 1);

    protected ref byte Table(ModelState state) => ref state.Register(server, 2);

    // How often it was taken: whoever waits may wait for ever in the model, where the pauses of the real code are missing.
    protected ref byte Takes(ModelState state) => ref state.Register(server, 3);

    /// <summary>The kernel's part of a change: it waits as long as there is a delegation.</summary>
    /// <returns>Whether it has happened.</returns>
    protected bool TryChange(ModelState state)
    {
        if (Kernel(state) != NotHeld)
        {
            Kernel(state) = AskedFor;
            return false;
        }

        state.Host(0)++;
        return true;
    }

    /// <summary>DelegationTable.Uncover, in two steps.</summary>
    /// <returns>Whether there is another step.</returns>
    protected bool Uncover(ModelState state, bool isFirst)
    {
        if (isFirst == (Mutation != Mutation.NamesMoveFirst))
        {
            state[Content] += ModelWord.Beginning;
        }
        else
        {
            state[Names] += ModelWord.Step;
        }

        return isFirst;
    }
}

/// <summary>DelegationTable.Serve.</summary>
internal sealed class DelegationServer(int number, Mutation mutation) : DelegatedProcess(number, number, mutation)
{
    private const byte Start = 0, Waiting = 1, Uncovering = 2, GivingBack = 3, Late = 4, LateStill = 5;

    public override bool IsAtEnd(ModelState state) => At(state) == Waiting && Kernel(state) != AskedFor;

    // Once, as long as the kernel asks nobody.
    public override int Holds(ModelState state, int word) => word == Content && Kernel(state) == NotHeld ? 1 : 0;

    public override string? Step(ModelState state, int choice, ModelReport report)
    {
        ref byte at = ref At(state);
        if (choice != 0)
        {
            return null;
        }

        switch (at)
        {
            case Start:
                state[Content] += ModelWord.Beginning;
                at = Waiting;
                return "table: the directory gets a word, in flight";
            case Waiting when Kernel(state) == AskedFor && Table(state) == Taking:
                report.Reach(true, Landmark.AskedForWhileTaking);
                if (Mutation == Mutation.AskedForWhileTakingIsForgotten)
                {
                    Kernel(state) = NotHeld;
                    return "table: gives back what is being taken";
                }

                Table(state) = TakingAskedFor;
                return "table: asked for while it is being taken";
            case Waiting when Kernel(state) == AskedFor && Table(state) == Taken && Mutation == Mutation.GivenBackFirst:
                Kernel(state) = NotHeld;
                Table(state) = None;
                at = Late;
                return "table: gives back";
            case Waiting when Kernel(state) == AskedFor && Table(state) == Taken:
                Uncover(state, isFirst: true);
                Table(state) = None;
                at = Uncovering;
                return "table: asked for, begin";
            case Uncovering:
                Uncover(state, isFirst: false);
                at = GivingBack;
                return "table: names move";
            case GivingBack:
                Kernel(state) = NotHeld;
                at = Waiting;
                return "table: gives back";
            case Late or LateStill:
                at = Uncover(state, isFirst: at == Late) ? LateStill : Waiting;
                return "table: begin, late";
            default:
                return null;
        }
    }
}

/// <summary>A process of the host, which changes the directory.</summary>
internal sealed class HostChanger(int number, int server, Mutation mutation) : DelegatedProcess(number, server, mutation)
{
    private const int Changes = 1;

    public override bool IsAtEnd(ModelState state) => At(state) == Changes;

    public override string? Step(ModelState state, int choice, ModelReport report)
    {
        ref byte at = ref At(state);
        if (choice != 0 || at == Changes || !HasBegun(state))
        {
            return null;
        }

        if (!TryChange(state))
        {
            return "host: waits for the delegation";
        }

        state.Finished(0) = state.Host(0);
        at++;
        return $"host: the directory is {state.Host(0)} now";
    }
}

/// <summary>A change by a guest: VersionChange.Add, with DelegationTable.GiveBack, the system call, VersionTable.End, the reply.</summary>
internal sealed class DelegatedWriter(int number, int server, Mutation mutation) : DelegatedProcess(number, server, mutation)
{
    private const byte Start = 0, Uncovering = 1, GivingBack = 2, Free = 3, Begun = 4, Changed = 5, Ended = 6, Done = 7;

    private const int Made = 1;

    public override bool IsAtEnd(ModelState state) => At(state) == Done;

    public override string? Step(ModelState state, int choice, ModelReport report)
    {
        ref byte at = ref At(state);
        if (choice != 0 || !HasBegun(state))
        {
            return null;
        }

        switch (at)
        {
            case Start when Table(state) == Taken:
                Uncover(state, isFirst: true);
                Table(state) = None;
                at = Uncovering;
                return "guest's change: uncovers";
            case Start:
                Table(state) = Table(state) == Taking ? TakingAskedFor : Table(state);
                at = Free;
                return "guest's change: nothing to give back";
            case Uncovering:
                Uncover(state, isFirst: false);
                at = GivingBack;
                return "guest's change: names move";
            case GivingBack:
                Kernel(state) = NotHeld;
                at = Free;
                return "guest's change: gives back";
            case Free:
                state[Content] += ModelWord.Beginning;
                at = Begun;
                return "guest's change: begin";
            case Begun when !TryChange(state):
                return "guest's change: waits for the delegation";
            case Begun:
                Register(state, Made) = state.Host(0);
                at = Changed;
                return $"guest's change: the directory is {state.Host(0)} now";
            case Changed:
                state[Content] += ModelWord.Ending;
                at = Ended;
                return "guest's change: end";
            case Ended:
                state.Finished(0) = Math.Max(state.Finished(0), Register(state, Made));
                Register(state, Made) = 0;
                at = Done;
                return "guest's change: reply";
            default:
                return null;
        }
    }
}

/// <summary>
/// A guest that keeps what is in the directory and checks it, by the directory's word or by that of its names, and asks again when a
/// check fails; and the daemon's thread that answers it, with DelegationTable.Cover before each look.
/// </summary>
internal sealed class DelegatedReader(int number, int server, Mutation mutation) : DelegatedProcess(number, server, mutation)
{
    private const byte Ask = 0, Asking = 1, HasDelegation = 2, Covered = 3, HasOne = 4, HasBoth = 5, Check = 6, Checking = 7;

    private const int MostTakes = 2;

    private const int Content0 = 1, Names0 = 2, Seen = 3, MustFinished = 4, MustHost = 5, IsSame = 6;

    public override bool IsAtEnd(ModelState state) => At(state) is Ask or Check;

    public override string? Step(ModelState state, int choice, ModelReport report)
    {
        ref byte at = ref At(state);
        if (choice > 1 || (choice == 1 && at != Check) || !HasBegun(state))
        {
            return null;
        }

        switch (at)
        {
            case Ask when Table(state) == None && Takes(state) < MostTakes:
                Table(state) = Taking;
                Takes(state)++;
                state[Content] += Mutation == Mutation.CoveredBeforeTaken ? ModelWord.Ending : (byte)0;
                at = Asking;
                return "reader: takes the delegation";
            case Ask:
                at = Covered;
                return "reader: looks as it is";
            case Asking when Kernel(state) == NotHeld:
                Kernel(state) = Held;
                report.Reach(true, Landmark.Delegated);
                at = HasDelegation;
                return "reader: the kernel gives it";
            case Asking:
                state[Content] += Mutation == Mutation.CoveredBeforeTaken ? ModelWord.Beginning : (byte)0;
                Table(state) = None;
                at = Covered;
                return "reader: the kernel does not give it";
            case HasDelegation when Table(state) == TakingAskedFor:
                state[Content] += Mutation == Mutation.CoveredBeforeTaken ? ModelWord.Beginning : (byte)0;
                Table(state) = None;
                Kernel(state) = NotHeld;
                at = Covered;
                return "reader: gives it back, it was asked for";
            case HasDelegation:
                Table(state) = Taken;
                state[Content] += Mutation == Mutation.CoveredBeforeTaken ? (byte)0 : ModelWord.Ending;
                at = Covered;
                return "reader: end";
            case Covered:
                Load(state, isFirst: true);
                at = HasOne;
                return "reader: loads one word";
            case HasOne:
                Load(state, isFirst: false);
                if (Register(state, Content0) == 0)
                {
                    Register(state, Names0) = 0;
                    report.Reach(true, Landmark.NotCacheable);
                }

                at = HasBoth;
                return $"reader: versions {Register(state, Content0)} and {Register(state, Names0)}";
            case HasBoth:
                Register(state, Seen) = state.Host(0);
                at = Register(state, Content0) == 0 ? Ask : Check;
                if (at == Ask)
                {
                    Forget(state);
                }

                return $"reader: the directory is {state.Host(0)}";
            case Check:
                Register(state, MustFinished) = state.Finished(0);
                Register(state, MustHost) = state.Host(0);
                bool isSame = choice == 0
                    ? state[Content] == Register(state, Content0)
                    : state[Names] == Register(state, Names0);
                Register(state, IsSame) = isSame ? (byte)1 : (byte)0;
                at = Checking;
                return $"reader: check by {(choice == 0 ? "the directory" : "its names")}, {isSame}";
            case Checking:
                bool isAccepted = Register(state, IsSame) != 0;
                report.Reach(isAccepted, Landmark.Accepted);
                report.Reach(!isAccepted, Landmark.Refused);
                if (isAccepted && Register(state, Seen) < Register(state, MustFinished))
                {
                    report.Break(Guarantee.FinishedChangesAreSeen);
                }

                if (isAccepted && Register(state, Seen) < Register(state, MustHost))
                {
                    report.Break(Guarantee.WhatWasSeenStaysSeen);
                }

                (Register(state, MustFinished), Register(state, MustHost), Register(state, IsSame)) = (0, 0, 0);
                at = isAccepted ? Check : Ask;
                if (!isAccepted)
                {
                    Forget(state);
                }

                return $"reader: {(isAccepted ? "accepts" : "drops")} what it has";
            default:
                return null;
        }
    }

    private void Load(ModelState state, bool isFirst)
    {
        if (isFirst == (Mutation != Mutation.NamesLoadedLast))
        {
            Register(state, Names0) = ModelWord.ToVersion(state[Names]);
        }
        else
        {
            Register(state, Content0) = ModelWord.ToVersion(state[Content]);
        }
    }

    private void Forget(ModelState state) =>
        (Register(state, Content0), Register(state, Names0), Register(state, Seen)) = (0, 0, 0);
}
