namespace Causeway.Virtio;

/// <summary>
/// A memory table or a dirty log cannot be used as the front end describes it. Only control code meets it; translation of
/// addresses reports failure by its result.
/// </summary>
public sealed class GuestMemoryException : Exception
{
    /// <summary>Makes an exception without a message; the framework's conventions ask for it.</summary>
    public GuestMemoryException()
    {
    }

    /// <summary>Makes an exception.</summary>
    /// <param name="message">What is wrong with which region.</param>
    public GuestMemoryException(string message)
        : base(message)
    {
    }

    /// <summary>Makes an exception.</summary>
    /// <param name="message">What is wrong with which region.</param>
    /// <param name="innerException">The cause.</param>
    public GuestMemoryException(string message, Exception innerException)
        : base(message, innerException)
    {
    }
}
