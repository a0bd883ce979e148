using Causeway.VhostUser.Messages;

namespace Causeway.VhostUser.Frontend;

/// <summary>The back end answered a request with an error acknowledgement. The connection goes on.</summary>
public sealed class VhostUserRefusedException : IOException
{
    /// <summary>Makes an exception for a request.</summary>
    /// <param name="request">What was asked.</param>
    /// <param name="code">The word of the acknowledgement, not zero; its value has no defined meaning.</param>
    public VhostUserRefusedException(VhostUserRequest request, ulong code)
        : base($"the back end refused {VhostUserRequestNames.Of(request)} (0x{code:x})")
    {
        Request = request;
    }

    /// <summary>Makes an exception; the framework's conventions ask for it.</summary>
    /// <param name="message">The message.</param>
    public VhostUserRefusedException(string message)
        : base(message)
    {
    }

    /// <summary>Makes an exception; the framework's conventions ask for it.</summary>
    /// <param name="message">The message.</param>
    /// <param name="innerException">The cause.</param>
    public VhostUserRefusedException(string message, Exception innerException)
        : base(message, innerException)
    {
    }

    /// <summary>Makes an exception; the framework's conventions ask for it.</summary>
    public VhostUserRefusedException()
    {
    }

    /// <summary>What was asked.</summary>
    public VhostUserRequest Request { get; }
}
