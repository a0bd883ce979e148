using Causeway.VhostUser.Messages;

namespace Causeway.VhostUser.Frontend;

/// <summary>Shared memory regions.</summary>
public sealed partial class VhostUserFrontend
{
    /// <summary>GET_SHMEM_CONFIG.</summary>
    /// <param name="region">A region's number (shmid).</param>
    /// <returns>How large that region is; 0 when there is none.</returns>
    public ulong GetSharedMemorySize(byte region)
    {
        Send(VhostUserRequest.GetSharedMemoryConfig, 0, []);
        int length = ReceiveReply(VhostUserRequest.GetSharedMemoryConfig);
        return length == SharedMemoryConfiguration.Length
            ? SharedMemoryConfiguration.SizeOf(Payload[..length], region)
            : throw Broken($"answered GET_SHMEM_CONFIG with {length} bytes");
    }

    /// <summary>
    /// Sets up the device's shared memory region 0, if it has one: from now on the back end can map files into it. To be
    /// called before rings are started.
    /// </summary>
    /// <returns>
    /// The region, which the caller owns; null when the back end has none, or does not do without what was not negotiated.
    /// </returns>
    public SharedMemoryRegion? OpenSharedMemory()
    {
        const VhostUserProtocolFeatures Needed = VhostUserProtocolFeatures.SharedMemory
            | VhostUserProtocolFeatures.BackendRequests | VhostUserProtocolFeatures.ReplyAcknowledge;
        if ((NegotiatedProtocolFeatures & Needed) != Needed || BackendRequests is null)
        {
            return null;
        }

        ulong size = GetSharedMemorySize(region: 0);
        if (size == 0)
        {
            return null;
        }

        if (size % (ulong)Environment.SystemPageSize != 0 || size > SharedMemoryRegion.MaxSize)
        {
            throw Broken($"has a shared memory region of {size} bytes");
        }

        SharedMemoryRegion region = new(BackendRequests, size);
        BackendRequests = null;
        return region;
    }
}
