namespace Causeway.Fuse;

/// <summary>
/// In which way a guest broke the protocol. Each is counted (<see cref="FuseCounters"/>), and logged once per session.
/// The sections are those of the checklist that the project keeps for hostile input.
/// </summary>
public enum FuseViolation
{
    /// <summary>None: the request is refused for a reason that an honest guest may cause.</summary>
    None,

    /// <summary>Fewer than 40 readable bytes.</summary>
    NoHeader,

    /// <summary>The length in the header is below 40 or above what is readable.</summary>
    WrongLength,

    /// <summary>Longer than any request may be.</summary>
    TooLong,

    /// <summary>No room for a reply of the size that the request asks for.</summary>
    NoReplySpace,

    /// <summary>A request before INIT or after DESTROY.</summary>
    NotInitialized,

    /// <summary>INIT while another INIT is under way.</summary>
    ConcurrentInit,

    /// <summary>The arguments end early.</summary>
    ArgumentsTooShort,

    /// <summary>A name or target without its NUL.</summary>
    MissingTerminator,

    /// <summary>A name that is empty, "." or "..", or contains a slash.</summary>
    InvalidName,

    /// <summary>Bytes after the last argument.</summary>
    TrailingBytes,

    /// <summary>A malformed extension block, or one with a record that was not negotiated.</summary>
    InvalidExtension,

    /// <summary>A number that no guest sends: a flag, an offset beyond 2^63 - 1, a type.</summary>
    InvalidValue,

    /// <summary>A size that does not agree with the bytes that follow.</summary>
    SizeMismatch,
}
