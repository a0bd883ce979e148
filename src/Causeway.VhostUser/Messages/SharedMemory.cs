using System.Runtime.InteropServices;

namespace Causeway.VhostUser.Messages;

/// <summary>Requests of the back end to the front end, on the channel of their own (<c>VHOST_USER_BACKEND_*</c>).</summary>
public enum BackendRequest : uint
{
    /// <summary>Not a request.</summary>
    None = 0,

    /// <summary>SHMEM_MAP: maps a file, which comes with the message, into a shared memory region.</summary>
    SharedMemoryMap = 9,

    /// <summary>SHMEM_UNMAP: takes back exactly one earlier mapping.</summary>
    SharedMemoryUnmap = 10,
}

/// <summary>The payload of <see cref="BackendRequest.SharedMemoryMap"/> and <see cref="BackendRequest.SharedMemoryUnmap"/>.</summary>
/// <param name="Region">Which region (shmid), in the lowest byte; the rest is padding.</param>
/// <param name="FileOffset">Where the mapping starts in the file. For mapping only.</param>
/// <param name="RegionOffset">Where it starts in the region.</param>
/// <param name="Length">How many bytes.</param>
/// <param name="Flags">Whether it may be written through.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct SharedMemoryMapping(
    ulong Region, ulong FileOffset, ulong RegionOffset, ulong Length, SharedMemoryFlags Flags)
{
    /// <summary>The region's number.</summary>
    public byte RegionId => (byte)Region;
}

/// <summary>Flags of <see cref="SharedMemoryMapping"/>.</summary>
[Flags]
public enum SharedMemoryFlags : ulong
{
    /// <summary>The mapping is read-only. Not every front end keeps to that.</summary>
    None = 0,

    /// <summary>VHOST_USER_FLAG_MAP_RW: the mapping may be written through.</summary>
    Writable = 1,
}

/// <summary>
/// The reply to GET_SHMEM_CONFIG: how large each of the 256 possible regions is, zero for those that do not exist. The place
/// in the list is the region's number.
/// </summary>
public static class SharedMemoryConfiguration
{
    /// <summary>How many regions there can be.</summary>
    public const int MaxRegions = 256;

    /// <summary>The size of the reply's payload, in bytes.</summary>
    public const int Length = 8 + (MaxRegions * sizeof(ulong));

    /// <summary>Writes the reply.</summary>
    /// <param name="payload">Room for <see cref="Length"/> bytes.</param>
    /// <param name="sizes">The sizes of the regions by number, zero for those that do not exist; the rest does not either.</param>
    public static void Write(Span<byte> payload, IReadOnlyList<ulong> sizes)
    {
        payload[..Length].Clear();
        uint count = 0;
        for (int i = 0; i < sizes.Count; i++)
        {
            ulong size = sizes[i];
            MemoryMarshal.Write(payload[(8 + (i * sizeof(ulong)))..], size);
            count += size == 0 ? 0U : 1U;
        }

        MemoryMarshal.Write(payload, count);
    }

    /// <summary>Reads the size of one region.</summary>
    /// <param name="payload">The reply's payload, <see cref="Length"/> bytes.</param>
    /// <param name="region">The region's number.</param>
    public static ulong SizeOf(ReadOnlySpan<byte> payload, byte region) =>
        MemoryMarshal.Read<ulong>(payload[(8 + (region * sizeof(ulong)))..Length]);
}
