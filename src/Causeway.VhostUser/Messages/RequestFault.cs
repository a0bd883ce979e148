namespace Causeway.VhostUser.Messages;

/// <summary>Why bytes are not a request. All of these end the connection: the two ends no longer mean the same thing.</summary>
public enum RequestFault
{
    /// <summary>Nothing; the request is well-formed.</summary>
    None = 0,

    /// <summary>Fewer bytes than the header, or than the header promises.</summary>
    Incomplete,

    /// <summary>The version is not 1.</summary>
    WrongVersion,

    /// <summary>The REPLY flag stands on a request.</summary>
    IsReply,

    /// <summary>A flag is set that the protocol does not define.</summary>
    UnknownFlags,

    /// <summary>More payload than any message has.</summary>
    TooLong,

    /// <summary>The payload has not the size that this request has, or contradicts itself about it.</summary>
    WrongSize,

    /// <summary>Too few or too many descriptors came with the request.</summary>
    WrongDescriptorCount,

    /// <summary>A request number that the protocol does not define.</summary>
    UnknownRequest,

    /// <summary>The protocol defines the request, but this implementation does not handle it.</summary>
    UnsupportedRequest,
}
