namespace Causeway.Passthrough;

/// <summary>Whether a feature is used that the guest has to support as well.</summary>
public enum NegotiationMode
{
    /// <summary>It is not used.</summary>
    Never,

    /// <summary>It is used if the guest supports it; a warning is logged if not.</summary>
    Auto,

    /// <summary>A guest that does not support it cannot mount.</summary>
    Always,
}
