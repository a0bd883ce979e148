namespace Causeway.Tests.Coherency.Model;

/// <summary>
/// What changes of one name have in common. The name means object 0 at first, and object 1 waits under another; an object that
/// loses its name is changed by that. Word 0 is the NAME word, word 1 + object is its META word.
/// </summary>
/// <param name="number">Which process it is.</param>
/// <param name="shared">The process whose registers hold what the name means and how many guests look at the table.</param>
/// <param name="mutation">What is wrong.</param>
internal abstract class NameProcess(int number, int shared, Mutation mutation) : ModelProcess(number, mutation)
{
    protected const byte NameWord = 0;

    /// <summary>None of them has a choice.</summary>
    public sealed override string? Step(ModelState state, int choice, ModelReport report) =>
        choice == 0 ? Step(state, ref At(state), report) : null;

    protected abstract string? Step(ModelState state, ref byte at, ModelReport report);

    // The object that the name means, one more; zero for none.
    protected ref byte Meaning(ModelState state) => ref state.Register(shared, 1);

    // How far whoever lets guests come and go is.
    protected bool HasLastComeIn(ModelState state) => state.Register(shared, 0) == 3;

    protected ref byte Watchers(ModelState state) => ref state.Register(shared, 2);

    protected static byte MetaWord(int thing) => (byte)(1 + thing);

    /// <summary>VersionChange.TryAlone. One step where the real code has two: it adds, and takes it back if others were there.</summary>
    protected bool TryAlone(ModelState state)
    {
        if (Mutation != Mutation.NamesAreNotAlone && ModelWord.InFlight(state[NameWord]) != 0)
        {
            return false;
        }

        state[NameWord] += ModelWord.Beginning;
        return true;
    }
}

/// <summary>
/// UNLINK in a session, as in PassthroughFileSystem.Remove, when somebody looks at the table; it looks first what it takes, or recalls
/// that the name meant object 0 at the word's first version (RememberedNames).
/// </summary>
internal sealed class Unlinker(int number, int shared, Mutation mutation) : NameProcess(number, shared, mutation)
{
    private const byte Start = 0, Alone = 1, Found = 2, Begun = 3, Changed = 4, MetaEnded = 5, Done = 6;

    // Registers: the object found, one more; the object that lost the name, one more.
    private const int Victim = 1, Taken = 2;

    public override bool IsAtEnd(ModelState state) => At(state) is Start or Done;

    protected override string? Step(ModelState state, ref byte at, ModelReport report)
    {
        switch (at)
        {
            case Start when Watchers(state) > 0 && TryAlone(state):
                at = Alone;
                return "unlink: has the name to itself";
            case Alone:
                bool isRecalled = Mutation == Mutation.RemembersForGood || state[NameWord] == ModelWord.First + ModelWord.Beginning;
                report.Reach(isRecalled, Landmark.Recalled);
                Register(state, Victim) = isRecalled ? (byte)1 : Meaning(state);
                at = Found;
                return $"unlink: the name means {Meaning(state)}, it {(isRecalled ? "recalls" : "finds")} {Register(state, Victim)}";
            case Found:
                Add(state, Victim, ModelWord.Beginning);
                at = Begun;
                return "unlink: begin on what was found";
            case Begun:
                byte taken = Meaning(state);
                Register(state, Taken) = taken;
                Meaning(state) = 0;
                if (taken != 0)
                {
                    state.Host(taken - 1)++;
                }

                report.Reach(taken == 2, Landmark.TookTheOther);
                at = Changed;
                return $"unlink: {taken} has lost its name";
            case Changed:
                Add(state, Victim, ModelWord.Ending);
                at = MetaEnded;
                return "unlink: end on what was found";
            case MetaEnded:
                state[NameWord] += ModelWord.Ending;
                byte lost = Register(state, Taken);
                if (lost != 0)
                {
                    state.Finished(lost - 1) = state.Host(lost - 1);
                }

                Register(state, Victim) = 0;
                Register(state, Taken) = 0;
                at = Done;
                return "unlink: reply";
            default:
                return null;
        }
    }

    private void Add(ModelState state, int register, byte what)
    {
        byte thing = Register(state, register);
        if (thing != 0)
        {
            state[MetaWord(thing - 1)] += what;
        }
    }
}

/// <summary>
/// RENAME of object 1 over the name, as in PassthroughFileSystem.Rename, when nobody looks at the table: a change of everything,
/// with the name to itself.
/// </summary>
internal sealed class RenamerOfEverything(int number, int shared, Mutation mutation) : NameProcess(number, shared, mutation)
{
    private const byte Start = 0, EpochBegun = 1, Ready = 2, Changed = 3, NameEnded = 4, Done = 5;

    private const int Replaced = 1, HasName = 2;

    public override bool IsAtEnd(ModelState state) => At(state) is Start or Done;

    protected override string? Step(ModelState state, ref byte at, ModelReport report)
    {
        switch (at)
        {
            case Start when Watchers(state) == 0:
                state.Epoch += ModelWord.Beginning;
                at = EpochBegun;
                return "rename: begin on the epoch";
            case EpochBegun:
                bool isWithoutName = Mutation == Mutation.NamesOfEverythingNotAlone;
                if (!isWithoutName && !TryAlone(state))
                {
                    return null;
                }

                Register(state, HasName) = isWithoutName ? (byte)0 : (byte)1;
                at = Ready;
                return "rename: has the name to itself";
            case Ready:
                byte replaced = Meaning(state);
                Register(state, Replaced) = replaced;
                if (replaced != 0)
                {
                    state.Host(replaced - 1)++;
                }

                Meaning(state) = 2;
                state.Host(1)++;
                at = Changed;
                return $"rename: the name means 2 instead of {replaced}";
            case Changed:
                state[NameWord] += Register(state, HasName) != 0 ? ModelWord.Ending : (byte)0;
                at = NameEnded;
                return "rename: end on the name";
            case NameEnded:
                state.Epoch += ModelWord.Ending;
                Register(state, Replaced) = 0;
                Register(state, HasName) = 0;
                at = Done;
                return "rename: end on the epoch";
            default:
                return null;
        }
    }
}

/// <summary>A guest that looks at the table, goes, and another that comes: VersionTable.AddWatcher and RemoveWatcher.</summary>
internal sealed class Comings(int number, int shared, Mutation mutation) : NameProcess(number, shared, mutation)
{
    public override bool IsAtEnd(ModelState state) => true;

    protected override string? Step(ModelState state, ref byte at, ModelReport report)
    {
        if (at == 3)
        {
            return null;
        }

        at++;
        Watchers(state) = at == 2 ? (byte)0 : (byte)1;
        return at == 2 ? "the guest goes" : "a guest comes";
    }
}

/// <summary>The guest that came last asks for object 1 by its node and checks what it keeps, as <see cref="Reader"/> does.</summary>
internal sealed class LateReader(int number, int shared, Mutation mutation) : NameProcess(number, shared, mutation)
{
    private const byte Start = 0, HasEpoch = 1, HasVersion = 2, HasReply = 3, CheckFirst = 4, CheckSecond = 5, Done = 6;

    private const int Epoch = 1, Version = 2, Seen = 3, MustFinished = 4, IsSame = 5;

    public override bool IsAtEnd(ModelState state) => At(state) is Start or CheckFirst or Done;

    protected override string? Step(ModelState state, ref byte at, ModelReport report)
    {
        byte word = MetaWord(1);
        switch (at)
        {
            case Start when HasLastComeIn(state):
                Register(state, Epoch) = ModelWord.ToVersion(state.Epoch);
                at = HasEpoch;
                return $"reader: epoch {state.Epoch}";
            case HasEpoch:
                Register(state, Version) = ModelWord.ToVersion(state[word]);
                at = HasVersion;
                return $"reader: version {state[word]}";
            case HasVersion:
                Register(state, Seen) = state.Host(1);
                at = HasReply;
                return $"reader: object 1 is {state.Host(1)}";
            case HasReply:
                bool isKept = Register(state, Epoch) != 0 && Register(state, Version) != 0;
                report.Reach(!isKept, Landmark.NotCacheable);
                at = isKept ? CheckFirst : Done;
                return "reader: has the reply";
            case CheckFirst:
                Register(state, MustFinished) = state.Finished(1);
                Register(state, IsSame) = state[word] == Register(state, Version) ? (byte)1 : (byte)0;
                at = CheckSecond;
                return "reader: check begins";
            case CheckSecond:
                bool isAccepted = Register(state, IsSame) != 0 && state.Epoch == Register(state, Epoch);
                report.Reach(isAccepted, Landmark.Accepted);
                report.Reach(!isAccepted, Landmark.Refused);
                if (isAccepted && Register(state, Seen) < Register(state, MustFinished))
                {
                    report.Break(Guarantee.FinishedChangesAreSeen);
                }

                Register(state, MustFinished) = 0;
                Register(state, IsSame) = 0;
                at = isAccepted ? CheckFirst : Done;
                return $"reader: check, {(isAccepted ? "accepts" : "gives up")} what it has";
            default:
                return null;
        }
    }
}
