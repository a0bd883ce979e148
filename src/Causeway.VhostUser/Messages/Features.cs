namespace Causeway.VhostUser.Messages;

/// <summary>Virtio feature bits as GET_FEATURES and SET_FEATURES carry them (VIRTIO 1.4 section 6, and two of vhost).</summary>
[Flags]
public enum VirtioFeatures : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>VIRTIO_FS_F_NOTIFICATION: the device has a notification queue.</summary>
    FsNotification = 1UL << 0,

    /// <summary>VHOST_F_LOG_ALL: writes to guest memory are recorded in the dirty log. Never shown to the guest.</summary>
    LogAll = 1UL << 26,

    /// <summary>VIRTIO_F_INDIRECT_DESC: descriptors may refer to tables of descriptors.</summary>
    IndirectDescriptors = 1UL << 28,

    /// <summary>VIRTIO_F_EVENT_IDX: kicks and calls are suppressed by index.</summary>
    EventIndex = 1UL << 29,

    /// <summary>VHOST_USER_F_PROTOCOL_FEATURES: there are protocol features. Never shown to the guest.</summary>
    ProtocolFeatures = 1UL << 30,

    /// <summary>VIRTIO_F_VERSION_1: the device follows VIRTIO 1.0 or later.</summary>
    Version1 = 1UL << 32,

    /// <summary>VIRTIO_F_RING_PACKED: the packed ring layout.</summary>
    PackedRing = 1UL << 34,

    /// <summary>VIRTIO_F_IN_ORDER: buffers are used in the order they were made available.</summary>
    InOrder = 1UL << 35,

    /// <summary>VIRTIO_F_RING_RESET: single rings can be reset.</summary>
    RingReset = 1UL << 40,
}

/// <summary>Protocol features of vhost-user (<c>VHOST_USER_PROTOCOL_F_*</c>); the numbers are those of QEMU 11.1.</summary>
[Flags]
public enum VhostUserProtocolFeatures : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>MQ: GET_QUEUE_NUM.</summary>
    MultipleQueues = 1UL << 0,

    /// <summary>LOG_SHMFD: the dirty log comes as a descriptor, and SET_LOG_BASE has a reply.</summary>
    LogSharedMemory = 1UL << 1,

    /// <summary>REPLY_ACK: NEED_REPLY asks for an acknowledgement.</summary>
    ReplyAcknowledge = 1UL << 3,

    /// <summary>BACKEND_REQ: the back end may send requests on a channel of its own.</summary>
    BackendRequests = 1UL << 5,

    /// <summary>CONFIG: GET_CONFIG and SET_CONFIG.</summary>
    Config = 1UL << 9,

    /// <summary>BACKEND_SEND_FD: requests of the back end may carry descriptors.</summary>
    BackendSendsDescriptors = 1UL << 10,

    /// <summary>RESET_DEVICE.</summary>
    ResetDevice = 1UL << 13,

    /// <summary>CONFIGURE_MEM_SLOTS: memory regions are added and removed one by one.</summary>
    ConfigureMemorySlots = 1UL << 15,

    /// <summary>STATUS: the virtio device status is passed on.</summary>
    Status = 1UL << 16,

    /// <summary>DEVICE_STATE: the state of the device can be saved and loaded.</summary>
    DeviceState = 1UL << 19,

    /// <summary>SHMEM: shared memory regions; bit 22 since QEMU 11, others used 20 or 21 before.</summary>
    SharedMemory = 1UL << 22,

    /// <summary>
    /// Causeway's own and in no document, far from the numbers that are given out in order: the back end serves FUSE connections of
    /// the host's kernel by itself (<see cref="VhostUserRequest.AddFuseDevice"/>).
    /// </summary>
    FuseDevices = 1UL << 62,
}
