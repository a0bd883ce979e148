using System.Runtime.CompilerServices;
using Causeway.Fuse;

namespace Causeway.Driver;

/// <summary>
/// What vouches for something that is kept: it was true when a word had a version, and so it is as long as the word has it and
/// the epoch is the one from before the request. One without a version vouches for nothing.
/// </summary>
/// <param name="Word">The word, checked; zero for none.</param>
/// <param name="Version">Its version; zero for none.</param>
/// <param name="Epoch">The epoch, read before the request was sent.</param>
internal readonly record struct VersionProof(uint Word, ulong Version, ulong Epoch)
{
    /// <summary>Whether it vouches for anything.</summary>
    internal bool IsAny => Version != 0;

    /// <summary>
    /// Whether this is known to be older than something else, because both are of one word. Where that cannot be said the answer is
    /// no: what is not current fails its next check, whichever is kept.
    /// </summary>
    internal bool IsOlderThan(in VersionProof other) =>
        Word == other.Word && Epoch == other.Epoch && IsAny && other.IsAny && (long)(Version - other.Version) < 0;

    /// <summary>What a reply says of a word, if it can be used: sound, and a version.</summary>
    internal static VersionProof Of(bool isSound, uint word, ulong version, ulong epoch) =>
        isSound && VersionWord.IsVersion(version) && VersionWord.IsVersion(epoch)
            ? new VersionProof(word, version, epoch)
            : default;
}

/// <summary>
/// One check of everything that an answer is made of: each word is loaded as it is come to, and the epoch and the clock at the
/// end. No lock, no store, no allocation.
/// </summary>
internal struct VersionCheck(VersionTableReader table)
{
    private ulong _epoch;

    /// <summary>Whether a proof holds, as far as its word goes; and its epoch is that of the others.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal bool Passes(in VersionProof proof)
    {
        if (!proof.IsAny || !table.IsCurrent(proof.Word, proof.Version) || (_epoch != 0 && proof.Epoch != _epoch))
        {
            return false;
        }

        _epoch = proof.Epoch;
        return true;
    }

    /// <summary>
    /// The same for the binding of a name that the word of all entries of the directory does not vouch for any more: its own may.
    /// </summary>
    /// <param name="directory">By the directory's word; has not passed.</param>
    /// <param name="name">By its own.</param>
    /// <param name="renewed">
    /// A proof by the directory's word that holds again, where the name's has shown that only other names have changed; else none.
    /// </param>
    internal bool PassesInstead(in VersionProof directory, in VersionProof name, out VersionProof renewed)
    {
        renewed = default;

        // In this order: what the name's word proves was true when the directory's had this value.
        ulong value = directory.Word == 0 ? 0 : table.Load(directory.Word);
        if (!Passes(name))
        {
            return false;
        }

        renewed = VersionProof.Of(directory.Word != 0, directory.Word, value, name.Epoch);
        return true;
    }

    /// <summary>The end: whether all that has passed was true at one time after the check began, and can be believed.</summary>
    internal readonly bool Ends() => _epoch == 0 ? table.IsAlive : table.IsCurrent(_epoch);
}
