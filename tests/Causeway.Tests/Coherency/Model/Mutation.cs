namespace Causeway.Tests.Coherency.Model;

/// <summary>The protocol, or one way to get it wrong.</summary>
public enum Mutation
{
    /// <summary>The protocol as it is.</summary>
    None,

    /// <summary>A change counts nothing at all.</summary>
    NeitherBeginNorEnd,

    /// <summary>A change is counted when it has happened, as in the table of 2018.</summary>
    EndOnly,

    /// <summary>A change is counted before it happens.</summary>
    BeginOnly,

    /// <summary>A change is marked as under way, and the count is as before when it has happened.</summary>
    CancelAfterEffect,

    /// <summary>That a change is under way is not looked at: any value of a word is a version.</summary>
    InFlightIgnored,

    /// <summary>Two changes under way are one mark, which the first that ends takes away.</summary>
    InFlightIsOneBit,

    /// <summary>The version is read after what it stands for: only the statx that identified the object is done.</summary>
    SingleStatx,

    /// <summary>An object without a slot is changed without giving it one.</summary>
    UnknownObjectsNotCounted,

    /// <summary>A slot is freed and given to another object as it is.</summary>
    NoRetire,

    /// <summary>A slot begins at the first version with every new owner.</summary>
    SequenceReset,

    /// <summary>A slot is taken from its object in one step and retired in a later one.</summary>
    RetireLate,

    /// <summary>A slot is retired in one step and taken from its object in a later one.</summary>
    RetireEarly,

    /// <summary>A slot is freed although requests are using it.</summary>
    PinsIgnored,

    /// <summary>A guest keeps what it has beyond a change of its own, whatever version it had.</summary>
    OwnChangeOnAnyVersion,

    /// <summary>A guest keeps what it has beyond a change of its own, though others have changed it meanwhile.</summary>
    OwnChangeBesideOthers,

    /// <summary>The guest reads the epoch when it has the reply, and not before it sends the request.</summary>
    EpochReadAfterReply,

    /// <summary>A check reads the epoch before the word.</summary>
    EpochCheckedFirst,

    /// <summary>After a death inside a change nothing but the mark is taken away.</summary>
    NoEpochAfterDeath,

    /// <summary>After a death inside a change the mark is taken away before the epoch is advanced.</summary>
    EpochAfterCleaning,

    /// <summary>A change of a name begins whether another is under way or not.</summary>
    NamesAreNotAlone,

    /// <summary>A change of everything holds no name, since the epoch covers it.</summary>
    NamesOfEverythingNotAlone,

    /// <summary>What a name meant once is believed whatever has happened to its word since.</summary>
    RemembersForGood,

    /// <summary>A delegation is given back before the words are in flight.</summary>
    GivenBackFirst,

    /// <summary>A word is no longer in flight before the delegation is there.</summary>
    CoveredBeforeTaken,

    /// <summary>A delegation that is asked for while it is being taken is given back, and whoever takes it does not hear of it.</summary>
    AskedForWhileTakingIsForgotten,

    /// <summary>The word of a directory's names moves before the directory's own is in flight.</summary>
    NamesMoveFirst,

    /// <summary>The word of a directory's names is loaded after the directory's own.</summary>
    NamesLoadedLast,
}
