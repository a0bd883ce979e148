using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;

namespace Causeway.Linux;

/// <summary>A value, or the errno that says why there is none.</summary>
/// <typeparam name="T">The type of the value.</typeparam>
public readonly struct Result<T>
{
    private readonly T _value;

    private Result(in T value, Errno error)
    {
        _value = value;
        Error = error;
    }

    /// <summary>The error number, or <see cref="Errno.Success"/>.</summary>
    public Errno Error { get; }

    /// <summary>Whether there is no value.</summary>
    public bool IsError => Error != Errno.Success;

    /// <summary>The value. Only to be read when <see cref="IsError"/> is false.</summary>
    public T Value
    {
        get
        {
            Debug.Assert(!IsError, "the value of an error was used");
            return _value;
        }
    }

    /// <summary><see cref="Value"/> where it lies, for values that are too long to be copied at every step.</summary>
    [UnscopedRef]
    public ref readonly T ValueInPlace
    {
        get
        {
            Debug.Assert(!IsError, "the value of an error was used");
            return ref _value;
        }
    }

    /// <summary>A success.</summary>
    /// <param name="value">The value.</param>
    public static implicit operator Result<T>(in T value) => new(in value, Errno.Success);

    /// <summary>A failure.</summary>
    /// <param name="error">The error number; not <see cref="Errno.Success"/>.</param>
    public static implicit operator Result<T>(Errno error)
    {
        Debug.Assert(error != Errno.Success, "an error needs a number");
        return new(default!, error);
    }
}
