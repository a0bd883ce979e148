using Causeway.VhostUser.Messages;

namespace Causeway.VhostUser.Frontend;

/// <summary>Shared memory regions.</summary>
public sealed partial class VhostUserFrontend
{
    // GET_SHMEM_CONFIG is asked once: what a device has does not change.
    private ulong[]? _sharedMemorySizes;
    private SharedMemoryChannel? _channel;

    /// <summary>GET_SHMEM_CONFIG, once for all regions.</summary>
    /// <param name="region">A region's number (shmid).</param>
    /// <returns>How large that region is; 0 when there is none.</returns>
    public ulong GetSharedMemorySize(byte region) => (_sharedMemorySizes ??= GetSharedMemorySizes())[region];

    /// <summary>
    /// Sets up one of the device's shared memory regions, if it has it: from now on the back end can map files into it. To be
    /// called before rings are started, once for each region.
    /// </summary>
    /// <param name="region">The region's number (shmid); 0 is the DAX window.</param>
    /// <param name="use">How it is shown to this process.</param>
    /// <returns>
    /// The region, which the caller owns; null when the back end has none, or does not do without what was not negotiated.
    /// </returns>
    public SharedMemoryRegion? OpenSharedMemory(byte region = 0, SharedMemoryUse use = SharedMemoryUse.Window)
    {
        const VhostUserProtocolFeatures Needed = VhostUserProtocolFeatures.SharedMemory
            | VhostUserProtocolFeatures.BackendRequests | VhostUserProtocolFeatures.ReplyAcknowledge;
        if ((NegotiatedProtocolFeatures & Needed) != Needed || (BackendRequests is null && _channel is null))
        {
            return null;
        }

        ulong size = GetSharedMemorySize(region);
        if (size == 0)
        {
            return null;
        }

        if (size % (ulong)Environment.SystemPageSize != 0 || size > SharedMemoryRegion.MaxSize)
        {
            throw Broken($"has a shared memory region of {size} bytes");
        }

        SharedMemoryRegion made = new(size, use);
        if (_channel is null)
        {
            _channel = new SharedMemoryChannel(BackendRequests!);
            BackendRequests = null;
        }

        _channel.Add(region, made);
        return made;
    }

    private ulong[] GetSharedMemorySizes()
    {
        Send(VhostUserRequest.GetSharedMemoryConfig, 0, []);
        int length = ReceiveReply(VhostUserRequest.GetSharedMemoryConfig);
        if (length != SharedMemoryConfiguration.Length)
        {
            throw Broken($"answered GET_SHMEM_CONFIG with {length} bytes");
        }

        var sizes = new ulong[SharedMemoryConfiguration.MaxRegions];
        for (int i = 0; i < sizes.Length; i++)
        {
            sizes[i] = SharedMemoryConfiguration.SizeOf(Payload[..length], (byte)i);
        }

        return sizes;
    }
}
