using System.Diagnostics;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Virtio;

/// <summary>How the front end describes a region of guest memory (vhost-user "memory region description").</summary>
/// <param name="GuestBase">Where it starts for the guest.</param>
/// <param name="FrontendBase">Where it starts for the front end.</param>
/// <param name="Size">Its size in bytes.</param>
/// <param name="FileOffset">Where it starts in the file that backs it, in bytes.</param>
public readonly record struct GuestMemoryRange(
    GuestAddress GuestBase, FrontendAddress FrontendBase, ulong Size, ulong FileOffset)
{
    /// <inheritdoc/>
    public override string ToString() => $"{Size} bytes at guest address {GuestBase}";
}

/// <summary>
/// A region of guest memory and its mapping. Successive tables share the regions that did not change; the mapping ends
/// when the last <see cref="GuestMemory"/> that holds the region is released.
/// </summary>
public sealed unsafe class GuestMemoryRegion
{
    private readonly MemoryMapping _mapping;
    private int _references = 1;

    private GuestMemoryRegion(GuestMemoryRange range, MemoryMapping mapping)
    {
        Range = range;
        _mapping = mapping;
        Address = mapping.Address;
    }

    /// <summary>What the front end said.</summary>
    public GuestMemoryRange Range { get; }

    /// <summary>Where the region starts in this process.</summary>
    public byte* Address { get; }

    /// <summary>
    /// Checks a description and maps the region. The caller gets the only reference.
    /// </summary>
    /// <param name="range">The description; hostile.</param>
    /// <param name="file">The file that backs the region. It is not needed any more afterwards.</param>
    /// <exception cref="GuestMemoryException">The description is wrong, or the file cannot be mapped.</exception>
    internal static GuestMemoryRegion Map(GuestMemoryRange range, SafeFileHandle file)
    {
        Check(range);
        try
        {
            var mapping = MemoryMapping.MapShared(
                file, range.FileOffset, range.Size, MemoryProtection.Read | MemoryProtection.Write);
            return new GuestMemoryRegion(range, mapping);
        }
        catch (Exception exception) when (exception is ErrnoException or ArgumentException)
        {
            throw new GuestMemoryException($"memory region of {range}: {exception.Message}", exception);
        }
    }

    /// <summary>Checks what can be checked of a description by itself.</summary>
    /// <param name="range">The description; hostile.</param>
    /// <exception cref="GuestMemoryException">The description is wrong.</exception>
    internal static void Check(GuestMemoryRange range)
    {
        if (range.Size == 0)
        {
            throw new GuestMemoryException($"memory region at guest address {range.GuestBase} has size 0");
        }

        if (range.GuestBase.Value > ulong.MaxValue - range.Size ||
            range.FrontendBase.Value > ulong.MaxValue - range.Size ||
            range.FileOffset > long.MaxValue || range.Size > long.MaxValue - range.FileOffset)
        {
            throw new GuestMemoryException(
                $"memory region of {range}, front-end address {range.FrontendBase}, file offset {range.FileOffset} wraps");
        }
    }

    /// <summary>Takes a reference for a further table.</summary>
    internal void AddReference()
    {
        int references = Interlocked.Increment(ref _references);
        Debug.Assert(references > 1, "a released region was used");
    }

    /// <summary>Gives a reference back; the last one ends the mapping.</summary>
    internal void Release()
    {
        int references = Interlocked.Decrement(ref _references);
        Debug.Assert(references >= 0, "a region was released more often than referenced");
        if (references == 0)
        {
            _mapping.Dispose();
        }
    }
}
