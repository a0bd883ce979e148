namespace Causeway.Fuse;

/// <summary>
/// The value of one word of the version table: how often what it covers has changed, and how many changes of it are under way.
/// </summary>
/// <remarks>
/// <code>
/// 63                               16 15            0
/// +----------------------------------+---------------+
/// |          sequence (48)           | in flight (16)|
/// +----------------------------------+---------------+
/// </code>
/// A value with nothing in flight is a version; zero is none. What was read after a version, and is kept with it, is current as
/// long as the word has that value.
/// </remarks>
public static class VersionWord
{
    /// <summary>Added when a change begins.</summary>
    public const ulong Beginning = 1;

    /// <summary>Added when it has ended.</summary>
    public const ulong Ending = 0x1_0000 - 1;

    /// <summary>Added when what the word covers is another thing from now on, or has changed already.</summary>
    public const ulong Step = 0x1_0000;

    /// <summary>The changes under way.</summary>
    public const ulong InFlightMask = 0xffff;

    /// <summary>From how many changes under way on no further one begins.</summary>
    public const ulong InFlightLimit = 0xfff0;

    /// <summary>Whether a value is a version.</summary>
    /// <param name="value">The word's value.</param>
    public static bool IsVersion(ulong value) => (value & InFlightMask) == 0 && value != 0;

    /// <summary>The value as a version: zero when it is none.</summary>
    /// <param name="value">The word's value.</param>
    public static ulong ToVersion(ulong value) => (value & InFlightMask) == 0 ? value : 0;
}
