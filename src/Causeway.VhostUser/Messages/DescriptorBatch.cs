using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Messages;

/// <summary>
/// The descriptors that came with one message. Whoever handles the message takes what belongs to it; disposing closes
/// the rest, so that a descriptor nobody asked for never stays open.
/// </summary>
internal sealed class DescriptorBatch : IDisposable
{
    private readonly SafeFileHandle?[] _handles = new SafeFileHandle?[RequestMessage.MaxDescriptors];

    /// <summary>How many came.</summary>
    internal int Count { get; private set; }

    /// <summary>Adds a descriptor that was just received, which the batch owns from here on.</summary>
    /// <param name="descriptors">The descriptors.</param>
    internal void Add(ReadOnlySpan<int> descriptors)
    {
        foreach (int descriptor in descriptors)
        {
            _handles[Count++] = new SafeFileHandle(descriptor, ownsHandle: true);
        }
    }

    /// <summary>Hands a descriptor to the caller, who owns it from here on.</summary>
    /// <param name="index">Which, below <see cref="Count"/>; each at most once.</param>
    internal SafeFileHandle Take(int index)
    {
        SafeFileHandle handle = _handles[index] ?? throw new InvalidOperationException("the descriptor was taken before");
        _handles[index] = null;
        return handle;
    }

    /// <summary>Closes what was not taken and makes the batch empty.</summary>
    public void Dispose()
    {
        for (int i = 0; i < Count; i++)
        {
            _handles[i]?.Dispose();
            _handles[i] = null;
        }

        Count = 0;
    }
}
