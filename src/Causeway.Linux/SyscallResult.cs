using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>
/// What a system call returned. Like the kernel's own convention, a negative value is an errno: -ENOENT for
/// <see cref="Errno.ENOENT"/>.
/// </summary>
/// <param name="value">A result of zero or more, or a negated errno.</param>
public readonly struct SyscallResult(nint value)
{
    /// <summary>The raw value: the result, or the negated errno.</summary>
    public nint RawValue { get; } = value;

    /// <summary>Whether the call failed.</summary>
    public bool IsError => RawValue < 0;

    /// <summary>The error number, or <see cref="Errno.Success"/>.</summary>
    public Errno Error => RawValue < 0 ? (Errno)(int)-RawValue : Errno.Success;

    /// <summary>The result of a call that succeeded, as a count.</summary>
    public int Count
    {
        get
        {
            Debug.Assert(RawValue is >= 0 and <= int.MaxValue, "the result of a failed call was used");
            return (int)RawValue;
        }
    }

    /// <summary>The result of a call that succeeded, as a file offset.</summary>
    public long Offset
    {
        get
        {
            Debug.Assert(RawValue >= 0, "the result of a failed call was used");
            return RawValue;
        }
    }

    /// <summary>The result of a call that succeeded, as a new file descriptor. The caller owns it.</summary>
    public int Descriptor => Count;

    /// <summary>Makes the result of a failed call.</summary>
    /// <param name="error">The error number.</param>
    public static SyscallResult Failed(Errno error) => new(-(nint)(int)error);

    /// <summary>Converts what a function of the C library returned: minus one means errno.</summary>
    /// <param name="returned">The returned value.</param>
    /// <remarks>Must follow the call at once: any other call on this thread may overwrite errno.</remarks>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static SyscallResult From(nint returned) =>
        returned >= 0 ? new(returned) : new(-Marshal.GetLastSystemError());

    /// <summary>Throws when the call failed. For start-up and control code; never on a request's path.</summary>
    /// <param name="what">What was attempted and on what, for example <c>bind '/run/x.sock'</c>.</param>
    /// <returns>This result.</returns>
    /// <exception cref="ErrnoException">The call failed.</exception>
    public SyscallResult ThrowIfError(string what) =>
        IsError ? throw new ErrnoException(Error, what) : this;

    /// <inheritdoc/>
    public override string ToString() => IsError ? $"{Error}" : $"{RawValue}";
}
