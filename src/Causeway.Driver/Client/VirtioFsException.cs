using Causeway.Linux;

namespace Causeway.Driver;

/// <summary>The file system on the device said no.</summary>
public sealed class VirtioFsException : IOException
{
    /// <summary>Makes an exception for an operation.</summary>
    /// <param name="error">What the file system said.</param>
    /// <param name="operation">What was attempted, for example <c>open</c>.</param>
    /// <param name="path">On what, in the share.</param>
    public VirtioFsException(Errno error, string operation, string path)
        : base($"{operation} '{path}': {ErrnoException.Describe(error)}")
    {
        Error = error;
        Path = path;
    }

    /// <summary>Makes an exception; the framework's conventions ask for it.</summary>
    /// <param name="message">The message.</param>
    public VirtioFsException(string message)
        : base(message)
    {
    }

    /// <summary>Makes an exception; the framework's conventions ask for it.</summary>
    /// <param name="message">The message.</param>
    /// <param name="innerException">The cause.</param>
    public VirtioFsException(string message, Exception innerException)
        : base(message, innerException)
    {
    }

    /// <summary>Makes an exception; the framework's conventions ask for it.</summary>
    public VirtioFsException()
    {
    }

    /// <summary>The error number, as the system call of the same name would set errno.</summary>
    public Errno Error { get; }

    /// <summary>The path in the share.</summary>
    public string Path { get; } = "";
}
