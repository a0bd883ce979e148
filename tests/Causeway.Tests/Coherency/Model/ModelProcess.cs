namespace Causeway.Tests.Coherency.Model;

/// <summary>
/// One thread of control. Each step is one atomic action on what others see, so that all orders of steps are all that can
/// happen: loads of words acquire and additions to them are full barriers in the real code, so that it is sequentially
/// consistent as far as words go, and the host's kernel orders its system calls.
/// </summary>
internal abstract class ModelProcess(int number, Mutation mutation)
{
    protected Mutation Mutation { get; } = mutation;

    /// <summary>Does the next step.</summary>
    /// <param name="state">Where from; changed.</param>
    /// <param name="choice">Which of several things that can happen, counted from zero.</param>
    /// <param name="report">Hears of guarantees that are broken and of what has been reached.</param>
    /// <returns>What was done; null when there is no such choice, or nothing to do now.</returns>
    public abstract string? Step(ModelState state, int choice, ModelReport report);

    /// <summary>Whether it has nothing under way, and will do nothing more by itself.</summary>
    public abstract bool IsAtEnd(ModelState state);

    /// <summary>How often it holds a word in flight, when all are at their ends, for as long as nothing else happens.</summary>
    public virtual int Holds(ModelState state, int word) => 0;

    protected ref byte At(ModelState state) => ref state.Register(number, 0);

    protected ref byte Register(ModelState state, int register) => ref state.Register(number, register);
}

/// <summary>
/// A request that changes an object: finds or makes its slot and pins it, VersionTable.Begin, the system call, VersionTable.End,
/// the reply. It may turn out to have changed nothing (VersionTable.Cancel), and the daemon may die in the middle.
/// </summary>
internal sealed class Writer(int number, int thing, bool mayDie, ModelTable table, Mutation mutation)
    : ModelProcess(number, mutation)
{
    // Places in the program.
    private const byte Start = 0, Pinned = 1, Begun = 2, Changed = 3, Ended = 4, Done = 5, Dead = 6, Cleaning = 7;

    // Registers.
    private const int Word = 1, Made = 2;

    public override bool IsAtEnd(ModelState state) => At(state) == Done;

    public override string? Step(ModelState state, int choice, ModelReport report)
    {
        ref byte at = ref At(state);
        ref byte word = ref Register(state, Word);
        switch (at, choice)
        {
            case (Start, 0):
                word = Mutation == Mutation.UnknownObjectsNotCounted ? state.WordOf(thing) : table.FindOrAllocate(state, thing, report);
                if (word != ModelState.None)
                {
                    state.PinsOf(word)++;
                }

                at = Pinned;
                return $"writer {Name}: word {word} of object {thing}";
            case (Pinned, 0):
                Begin(state, word);
                report.Reach(word != ModelState.None && ModelWord.InFlight(state[word]) == 2, Landmark.TwoChangesUnderWay);
                at = Begun;
                return $"writer {Name}: begin";
            case (Begun, 0):
                Register(state, Made) = ++state.Host(thing);
                at = Changed;
                return $"writer {Name}: object {thing} is {state.Host(thing)} now";
            case (Begun, 1):
                report.Reach(true, Landmark.Cancelled);
                Cancel(state, word);
                Finish(state);
                return $"writer {Name}: cancel, nothing was changed";
            case (Changed, 0):
                End(state, word);
                at = Ended;
                return $"writer {Name}: end";
            case (Ended, 0):
                state.Finished(thing) = Math.Max(state.Finished(thing), Register(state, Made));
                Finish(state);
                return $"writer {Name}: reply";
            case (Begun, 2) when mayDie:
            case (Changed, 1) when mayDie:
                at = Dead;
                return $"writer {Name}: dies";

            // Whoever finds it dead: VersionTable.AdvanceEpoch, and only then what it has left under way is taken away.
            case (Dead, 0):
                report.Reach(true, Landmark.Died);
                Clean(state, word, isFirst: true);
                at = Cleaning;
                return $"after {Name}: first half of cleaning up";
            case (Cleaning, 0):
                Clean(state, word, isFirst: false);
                Finish(state);
                return $"after {Name}: second half of cleaning up";
            default:
                return null;
        }
    }

    private int Name { get; } = number;

    private void Begin(ModelState state, byte word)
    {
        if (word == ModelState.None || Mutation is Mutation.NeitherBeginNorEnd or Mutation.EndOnly)
        {
            return;
        }

        state[word] += Mutation == Mutation.BeginOnly ? ModelWord.Step
            : Mutation == Mutation.InFlightIsOneBit && ModelWord.InFlight(state[word]) != 0 ? (byte)0
            : ModelWord.Beginning;
    }

    private void End(ModelState state, byte word)
    {
        if (word == ModelState.None || Mutation is Mutation.NeitherBeginNorEnd or Mutation.BeginOnly)
        {
            return;
        }

        if (Mutation == Mutation.CancelAfterEffect)
        {
            state[word] -= ModelWord.Beginning;
            return;
        }

        bool isMarked = Mutation != Mutation.EndOnly && ModelWord.InFlight(state[word]) != 0;
        state[word] += isMarked ? ModelWord.Ending : ModelWord.Step;
    }

    private void Cancel(ModelState state, byte word)
    {
        bool isMarked = Mutation is not (Mutation.NeitherBeginNorEnd or Mutation.EndOnly or Mutation.BeginOnly);
        if (word != ModelState.None && isMarked && ModelWord.InFlight(state[word]) != 0)
        {
            state[word] -= ModelWord.Beginning;
        }
    }

    private void Clean(ModelState state, byte word, bool isFirst)
    {
        if (isFirst == (Mutation != Mutation.EpochAfterCleaning))
        {
            state.Epoch += Mutation == Mutation.NoEpochAfterDeath ? (byte)0 : (byte)1;
        }
        else
        {
            Cancel(state, word);
        }
    }

    private void Finish(ModelState state)
    {
        byte word = Register(state, Word);
        if (word != ModelState.None)
        {
            state.PinsOf(word)--;
        }

        Register(state, Word) = 0;
        Register(state, Made) = 0;
        At(state) = Done;
    }
}

/// <summary>
/// A guest with one object in its cache, and the daemon's thread that answers its requests. Asks for the object, checks what it
/// has as often as it likes, and asks again when a check fails, without end. It may change the object itself, once, and keep what
/// it has with its own change in it, when the reply says that nobody else was there.
/// </summary>
internal sealed class Reader(int number, int thing, bool mayChange, ModelTable table, Mutation mutation)
    : ModelProcess(number, mutation)
{
    private const byte Ask = 0, Identify = 1, Find = 2, Load = 3, Look = 4, Reply = 5, CheckFirst = 6, CheckSecond = 7;
    private const byte Pinned = 8, Begun = 9, Changed = 10, Ended = 11;

    // Registers: the epoch of what is kept, what the object was like, its word and version; and while a check runs, what it must
    // not be older than, and whether its first half went well.
    private const int Epoch = 1, Seen = 2, Word = 3, Version = 4, MustFinished = 5, MustHost = 6, IsSame = 7;

    // Of its own change: the word it is counted on, what that was before and is after, what was made, whether it is over.
    private const int ChangedWord = 8, Before = 9, Made = 10, HasChanged = 11, After = IsSame;

    // One that only asks and checks is never in anybody's way.
    public override bool IsAtEnd(ModelState state) => At(state) < Pinned;

    public override string? Step(ModelState state, int choice, ModelReport report)
    {
        ref byte at = ref At(state);
        ref byte word = ref Register(state, Word);
        if (choice != 0)
        {
            return choice == 1 && at == CheckFirst && mayChange && Register(state, HasChanged) == 0
                ? Change(state, report)
                : null;
        }

        if (at >= Pinned)
        {
            return Change(state, report);
        }

        switch (at)
        {
            case Ask:
                Register(state, Epoch) = Mutation == Mutation.EpochReadAfterReply ? (byte)0 : state.Epoch;
                at = Identify;
                return $"reader {Name}: epoch {state.Epoch}, asks";
            case Identify:
                // LOOKUP: what is opened says which object it is; what it is like is not to be used.
                Register(state, Seen) = Mutation == Mutation.SingleStatx ? state.Host(thing) : (byte)0;
                at = Find;
                return $"reader {Name}: first statx, object {thing} is {state.Host(thing)}";
            case Find:
                word = table.FindOrAllocate(state, thing, report);
                state.PinsOf(word)++;
                at = Load;
                return $"reader {Name}: word {word} of object {thing}";
            case Load:
                // VersionTable.ReadVersion.
                Register(state, Version) = Mutation == Mutation.InFlightIgnored ? state[word] : ModelWord.ToVersion(state[word]);
                at = Look;
                return $"reader {Name}: version {Register(state, Version)}";
            case Look:
                Register(state, Seen) = Mutation == Mutation.SingleStatx ? Register(state, Seen) : state.Host(thing);
                at = Reply;
                return $"reader {Name}: statx, object {thing} is {state.Host(thing)}";
            case Reply:
                state.PinsOf(word)--;
                Register(state, Epoch) = Mutation == Mutation.EpochReadAfterReply ? state.Epoch : Register(state, Epoch);
                at = CheckFirst;
                if (Register(state, Version) == 0)
                {
                    report.Reach(true, Landmark.NotCacheable);
                    Forget(state);
                }

                return $"reader {Name}: has the reply";
            case CheckFirst:
                // Whatever was answered or could be seen by anybody when the check began.
                Register(state, MustFinished) = state.Finished(thing);
                Register(state, MustHost) = state.Host(thing);
                Register(state, IsSame) = Compare(state, isFirst: true) ? (byte)1 : (byte)0;
                at = CheckSecond;
                return $"reader {Name}: check begins";
            default:
                bool isAccepted = Register(state, IsSame) != 0 && Compare(state, isFirst: false);
                Judge(state, isAccepted, report);
                Register(state, MustFinished) = 0;
                Register(state, MustHost) = 0;
                Register(state, IsSame) = 0;
                at = CheckFirst;
                if (!isAccepted)
                {
                    Forget(state);
                }

                return isAccepted ? $"reader {Name}: accepts what it has" : $"reader {Name}: gives up what it has";
        }
    }

    private int Name { get; } = number;

    private string Change(ModelState state, ModelReport report)
    {
        ref byte at = ref At(state);
        ref byte word = ref Register(state, ChangedWord);
        switch (at)
        {
            case CheckFirst:
                word = table.FindOrAllocate(state, thing, report);
                state.PinsOf(word)++;
                at = Pinned;
                return $"reader {Name}: word {word} for a change of its own";
            case Pinned:
                Register(state, Before) = state[word];
                state[word] += ModelWord.Beginning;
                at = Begun;
                return $"reader {Name}: begin";
            case Begun:
                Register(state, Made) = ++state.Host(thing);
                at = Changed;
                return $"reader {Name}: object {thing} is {state.Host(thing)} now";
            case Changed:
                state[word] += ModelWord.Ending;
                Register(state, After) = state[word];
                at = Ended;
                return $"reader {Name}: end";
            default:
                state.Finished(thing) = Math.Max(state.Finished(thing), Register(state, Made));
                state.PinsOf(word)--;
                KeepOrForget(state, report);
                return $"reader {Name}: reply to its own change";
        }
    }

    private void KeepOrForget(ModelState state, ModelReport report)
    {
        byte before = Register(state, Before);
        byte after = Register(state, After);
        bool wasCurrent = Register(state, ChangedWord) == Register(state, Word) && Register(state, Version) == before;
        bool isAlone = after == before + ModelWord.Step;
        Register(state, HasChanged) = 1;
        if ((wasCurrent || Mutation == Mutation.OwnChangeOnAnyVersion)
            && (isAlone || (Mutation == Mutation.OwnChangeBesideOthers && ModelWord.InFlight(after) == 0)))
        {
            // What it knows with its own change in it; nobody has told it what others did.
            report.Reach(true, Landmark.KeptOverOwnChange);
            Register(state, Seen)++;
            Register(state, Version) = after;
            Register(state, ChangedWord) = 0;
            Register(state, Before) = 0;
            Register(state, Made) = 0;
            Register(state, After) = 0;
            At(state) = CheckFirst;
        }
        else
        {
            Forget(state);
        }
    }

    // The word first, then the epoch.
    private bool Compare(ModelState state, bool isFirst) => isFirst == (Mutation != Mutation.EpochCheckedFirst)
        ? state[Register(state, Word)] == Register(state, Version)
        : state.Epoch == Register(state, Epoch);

    private void Judge(ModelState state, bool isAccepted, ModelReport report)
    {
        byte seen = Register(state, Seen);
        report.Reach(isAccepted, Landmark.Accepted);
        report.Reach(isAccepted && seen > 0, Landmark.AcceptedNew);
        report.Reach(!isAccepted, Landmark.Refused);
        Assert.True(seen <= state.Host(thing), "what is kept was never there");
        if (isAccepted && seen < Register(state, MustFinished))
        {
            report.Break(Guarantee.FinishedChangesAreSeen);
        }
        else if (isAccepted && seen < Register(state, MustHost))
        {
            report.Break(Guarantee.WhatWasSeenStaysSeen);
        }
    }

    private void Forget(ModelState state)
    {
        for (int register = 0; register < HasChanged; register++)
        {
            Register(state, register) = 0;
        }
    }
}

/// <summary>
/// Takes an object's slot away once, at any time when no request uses it: the last session has forgotten it. A guest may well go on
/// checking what it kept. Taking away and VersionTable.Advance are one step: they happen under the registry's lock.
/// </summary>
internal sealed class Forgetter(int number, int thing, ModelTable table, Mutation mutation) : ModelProcess(number, mutation)
{
    private const byte Start = 0, Half = 1, Done = 2;
    private const int Word = 1;

    public override bool IsAtEnd(ModelState state) => At(state) != Half;

    public override string? Step(ModelState state, int choice, ModelReport report)
    {
        ref byte at = ref At(state);
        ref byte word = ref Register(state, Word);
        byte current = state.WordOf(thing);
        bool isSplit = Mutation is Mutation.RetireEarly or Mutation.RetireLate;
        if (choice != 0 || at == Done
            || (at == Start && (current == ModelState.None
                || (state.PinsOf(current) != 0 && Mutation != Mutation.PinsIgnored))))
        {
            return null;
        }

        if (at == Start)
        {
            word = current;
            if (Mutation != Mutation.RetireEarly)
            {
                state.WordOf(thing) = ModelState.None;
            }

            if (Mutation != Mutation.RetireLate)
            {
                table.Retire(state, word);
            }
        }
        else if (Mutation == Mutation.RetireEarly)
        {
            state.WordOf(thing) = ModelState.None;
        }
        else
        {
            table.Retire(state, word);
        }

        at = at == Start && isSplit ? Half : Done;
        word = at == Done ? (byte)0 : word;
        return $"object {thing} is forgotten";
    }
}

/// <summary>Which words there are, and who gets them: slots of their own first, then the one that is shared.</summary>
/// <param name="slots">How many slots there are.</param>
/// <param name="mutation">What is wrong with it.</param>
internal sealed class ModelTable(int slots, Mutation mutation)
{
    /// <summary>The word of an object, which it keeps until it is forgotten. One step, under the registry's lock.</summary>
    public byte FindOrAllocate(ModelState state, int thing, ModelReport report)
    {
        ref byte word = ref state.WordOf(thing);
        if (word != ModelState.None)
        {
            return word;
        }

        byte other = state.WordOf(1 - thing);
        byte free = 0;
        while (free < slots && free == other)
        {
            free++;
        }

        word = free;
        report.Reach(word == slots && other == slots, Landmark.WordIsShared);
        report.Reach(word < slots && state[word] != ModelWord.First, Landmark.SlotUsedAgain);
        if (mutation == Mutation.SequenceReset)
        {
            state[word] = ModelWord.First;
        }

        return word;
    }

    /// <summary>What the word covers is another object from now on (VersionTable.Advance). Also of the shared one.</summary>
    public void Retire(ModelState state, byte word) =>
        state[word] += mutation is Mutation.NoRetire or Mutation.SequenceReset ? (byte)0 : ModelWord.Step;
}
