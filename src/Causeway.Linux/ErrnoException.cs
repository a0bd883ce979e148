namespace Causeway.Linux;

/// <summary>A system call failed in start-up or control code. Requests report errors as values, never by exception.</summary>
public sealed class ErrnoException : IOException
{
    /// <summary>Makes an exception for a failed call.</summary>
    /// <param name="error">The error number.</param>
    /// <param name="what">What was attempted and on what.</param>
    public ErrnoException(Errno error, string what)
        : base($"{what}: {Describe(error)}")
    {
        Error = error;
    }

    /// <summary>Makes an exception without an error number; the framework's conventions ask for it.</summary>
    public ErrnoException()
    {
    }

    /// <summary>Makes an exception without an error number; the framework's conventions ask for it.</summary>
    /// <param name="message">The message.</param>
    public ErrnoException(string message)
        : base(message)
    {
    }

    /// <summary>Makes an exception without an error number; the framework's conventions ask for it.</summary>
    /// <param name="message">The message.</param>
    /// <param name="innerException">The cause.</param>
    public ErrnoException(string message, Exception innerException)
        : base(message, innerException)
    {
    }

    /// <summary>The error number.</summary>
    public Errno Error { get; }

    /// <summary>What the C library calls an error, followed by its symbolic name.</summary>
    /// <param name="error">The error number.</param>
    public static string Describe(Errno error) =>
        $"{System.Runtime.InteropServices.Marshal.GetPInvokeErrorMessage((int)error)} ({error})";
}
