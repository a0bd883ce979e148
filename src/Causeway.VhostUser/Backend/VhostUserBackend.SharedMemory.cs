using Causeway.VhostUser.Messages;

namespace Causeway.VhostUser.Backend;

/// <summary>The shared memory regions: when they exist, and that the front end shows them back to us as guest memory.</summary>
public sealed partial class VhostUserBackend
{
    private bool _hasSharedMemory;
    private bool _isSharedMemoryOffered;

    /// <summary>
    /// Regions one by one, or a shared memory region, and not both: QEMU 11.1 takes every mapping for a region of memory, ends
    /// with an assertion when there are more than 512, and crashes when a device with mappings is reset (vhost-user.md 18.5).
    /// </summary>
    private VhostUserProtocolFeatures MemoryFeatures => _device.SharedMemorySizes.All(size => size == 0)
        ? VhostUserProtocolFeatures.ConfigureMemorySlots
        : VhostUserProtocolFeatures.SharedMemory;

    private bool AnswerSharedMemoryConfig()
    {
        Demand(VhostUserRequest.GetSharedMemoryConfig, VhostUserProtocolFeatures.SharedMemory);
        SharedMemoryConfiguration.Write(_reply.AsSpan(VhostUserHeader.Length), _device.SharedMemorySizes);
        bool isSent = SendReply(VhostUserRequest.GetSharedMemoryConfig, SharedMemoryConfiguration.Length);
        _hasSharedMemory = true;
        OfferSharedMemory();
        return isSent;
    }

    // Without REPLY_ACK no refusal would be heard of.
    private void OfferSharedMemory()
    {
        const VhostUserProtocolFeatures Needed = VhostUserProtocolFeatures.SharedMemory
            | VhostUserProtocolFeatures.BackendRequests | VhostUserProtocolFeatures.ReplyAcknowledge;
        bool isUsable = _hasSharedMemory && Channel is not null && (_protocolFeatures & Needed) == Needed;
        if (isUsable || _isSharedMemoryOffered)
        {
            _device.UpdateSharedMemory(isUsable ? Channel : null);
            _isSharedMemoryOffered = isUsable;
        }
    }
}
