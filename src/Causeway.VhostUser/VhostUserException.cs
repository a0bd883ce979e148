namespace Causeway.VhostUser;

/// <summary>The other end broke the vhost-user protocol, or went away in the middle of an exchange.</summary>
/// <remarks>The connection cannot be used any more; the process and other connections are not affected.</remarks>
public sealed class VhostUserException : IOException
{
    /// <summary>Makes an exception.</summary>
    /// <param name="message">What the other end did.</param>
    public VhostUserException(string message)
        : base(message)
    {
    }

    /// <summary>Makes an exception with a cause.</summary>
    /// <param name="message">What the other end did.</param>
    /// <param name="innerException">The cause.</param>
    public VhostUserException(string message, Exception innerException)
        : base(message, innerException)
    {
    }

    /// <summary>Makes an exception without a message; the framework's conventions ask for it.</summary>
    public VhostUserException()
    {
    }
}
