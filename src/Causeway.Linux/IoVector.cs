using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>One piece of memory, <c>struct iovec</c> of readv(2).</summary>
/// <param name="address">Where the piece starts in this process.</param>
/// <param name="length">Its length in bytes.</param>
[StructLayout(LayoutKind.Sequential)]
public unsafe struct IoVector(byte* address, nuint length)
{
    /// <summary>Where the piece starts in this process (<c>iov_base</c>).</summary>
    public byte* Address = address;

    /// <summary>Its length in bytes (<c>iov_len</c>).</summary>
    public nuint Length = length;
}
