using System.Runtime.CompilerServices;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>The name of a descriptor in /proc/self/fd: its number in decimal and a NUL.</summary>
[InlineArray(MaxLength)]
internal struct DescriptorName
{
    private const int MaxLength = 12;

    private byte _first;

    /// <summary>Writes a descriptor's name.</summary>
    /// <param name="descriptor">The descriptor.</param>
    public DescriptorName(int descriptor)
    {
        Span<byte> bytes = this;
        _ = System.Buffers.Text.Utf8Formatter.TryFormat(descriptor, bytes, out int length);
        bytes[length..].Clear();
    }

    /// <summary>Opens what a descriptor means anew, with other flags.</summary>
    /// <param name="processDescriptors">A descriptor of /proc/self/fd.</param>
    /// <param name="descriptor">The descriptor, perhaps one of O_PATH; a regular file or directory.</param>
    /// <param name="flags">Flags of <see cref="OpenFlags"/>, without O_NOFOLLOW.</param>
    public static SyscallResult Open(int processDescriptors, int descriptor, int flags)
    {
        var name = new DescriptorName(descriptor);
        return Files.Openat(processDescriptors, name, flags);
    }
}
