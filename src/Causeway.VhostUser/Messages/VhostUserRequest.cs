namespace Causeway.VhostUser.Messages;

/// <summary>
/// Requests of the front end to the back end (<c>VHOST_USER_*</c>, vhost-user document, "Front-end message types"). The
/// ones that this implementation does not handle are listed by number in <see cref="VhostUserRequestNames"/> only.
/// </summary>
public enum VhostUserRequest : uint
{
    /// <summary>Not a request.</summary>
    None = 0,

    /// <summary>Asks for the virtio feature bits. Reply: a word.</summary>
    GetFeatures = 1,

    /// <summary>Sets the virtio feature bits. A word.</summary>
    SetFeatures = 2,

    /// <summary>Starts the session. No payload.</summary>
    SetOwner = 3,

    /// <summary>Obsolete; has no effect. No payload.</summary>
    ResetOwner = 4,

    /// <summary>Replaces the memory table. One descriptor per region.</summary>
    SetMemoryTable = 5,

    /// <summary>Gives the dirty log, with a descriptor. Reply: a word of zero once the log is in use.</summary>
    SetLogBase = 6,

    /// <summary>Gives an eventfd for "the log has changed".</summary>
    SetLogEvent = 7,

    /// <summary>Sets the size of a ring. A <see cref="VringState"/>.</summary>
    SetVringNum = 8,

    /// <summary>Sets the places of a ring. A <see cref="VringAddresses"/>.</summary>
    SetVringAddress = 9,

    /// <summary>Sets the next available index of a ring. A <see cref="VringState"/>.</summary>
    SetVringBase = 10,

    /// <summary>Stops a ring. A <see cref="VringState"/>; reply: one with the next available index.</summary>
    GetVringBase = 11,

    /// <summary>Gives the kick event and starts the ring. A <see cref="VringEventWord"/>.</summary>
    SetVringKick = 12,

    /// <summary>Gives the call event. A <see cref="VringEventWord"/>.</summary>
    SetVringCall = 13,

    /// <summary>Gives the error event. A <see cref="VringEventWord"/>.</summary>
    SetVringError = 14,

    /// <summary>Asks for the protocol features. Reply: a word.</summary>
    GetProtocolFeatures = 15,

    /// <summary>Sets the protocol features. A word.</summary>
    SetProtocolFeatures = 16,

    /// <summary>Asks for the number of queues. Reply: a word.</summary>
    GetQueueNum = 17,

    /// <summary>Enables or disables a ring. A <see cref="VringState"/> of 0 or 1.</summary>
    SetVringEnable = 18,

    /// <summary>Gives the socket for requests of the back end.</summary>
    SetBackendRequestChannel = 21,

    /// <summary>Reads the configuration space. A <see cref="ConfigHeader"/> and bytes; reply: the same.</summary>
    GetConfig = 24,

    /// <summary>Writes the configuration space. A <see cref="ConfigHeader"/> and bytes.</summary>
    SetConfig = 25,

    /// <summary>Returns the device to its first state, keeping the session.</summary>
    ResetDevice = 34,

    /// <summary>Asks how many memory regions fit. Reply: a word.</summary>
    GetMaxMemorySlots = 36,

    /// <summary>Adds one memory region. A <see cref="SingleMemoryRegion"/> with one descriptor.</summary>
    AddMemoryRegion = 37,

    /// <summary>Removes one memory region. A <see cref="SingleMemoryRegion"/>.</summary>
    RemoveMemoryRegion = 38,

    /// <summary>Asks for the shared memory regions. Reply: <see cref="SharedMemoryConfiguration"/>.</summary>
    GetSharedMemoryConfig = 44,

    /// <summary>
    /// Gives a FUSE connection of the host's kernel to be served (<see cref="VhostUserProtocolFeatures.FuseDevices"/>). A
    /// <see cref="FuseDeviceDescription"/> with three descriptors: /dev/fuse of the connection, which does not block; another one of
    /// the same connection, which does; and an eventfd for the end of the connection. The number is Causeway's own.
    /// </summary>
    AddFuseDevice = 0x4357_0001,
}

/// <summary>Names of requests for messages to people.</summary>
internal static class VhostUserRequestNames
{
    /// <summary>The name the vhost-user document gives a request.</summary>
    /// <param name="request">The request, known or not.</param>
    internal static string Of(VhostUserRequest request) => (uint)request switch
    {
        1 => "GET_FEATURES",
        2 => "SET_FEATURES",
        3 => "SET_OWNER",
        4 => "RESET_OWNER",
        5 => "SET_MEM_TABLE",
        6 => "SET_LOG_BASE",
        7 => "SET_LOG_FD",
        8 => "SET_VRING_NUM",
        9 => "SET_VRING_ADDR",
        10 => "SET_VRING_BASE",
        11 => "GET_VRING_BASE",
        12 => "SET_VRING_KICK",
        13 => "SET_VRING_CALL",
        14 => "SET_VRING_ERR",
        15 => "GET_PROTOCOL_FEATURES",
        16 => "SET_PROTOCOL_FEATURES",
        17 => "GET_QUEUE_NUM",
        18 => "SET_VRING_ENABLE",
        19 => "SEND_RARP",
        20 => "NET_SET_MTU",
        21 => "SET_BACKEND_REQ_FD",
        22 => "IOTLB_MSG",
        23 => "SET_VRING_ENDIAN",
        24 => "GET_CONFIG",
        25 => "SET_CONFIG",
        26 => "CREATE_CRYPTO_SESSION",
        27 => "CLOSE_CRYPTO_SESSION",
        28 => "POSTCOPY_ADVISE",
        29 => "POSTCOPY_LISTEN",
        30 => "POSTCOPY_END",
        31 => "GET_INFLIGHT_FD",
        32 => "SET_INFLIGHT_FD",
        33 => "GPU_SET_SOCKET",
        34 => "RESET_DEVICE",
        35 => "VRING_KICK",
        36 => "GET_MAX_MEM_SLOTS",
        37 => "ADD_MEM_REG",
        38 => "REM_MEM_REG",
        39 => "SET_STATUS",
        40 => "GET_STATUS",
        41 => "GET_SHARED_OBJECT",
        42 => "SET_DEVICE_STATE_FD",
        43 => "CHECK_DEVICE_STATE",
        44 => "GET_SHMEM_CONFIG",
        0x4357_0001 => "ADD_FUSE_DEVICE",
        uint number => $"request {number}",
    };

    /// <summary>Whether a front end waits for an answer to a request even without NEED_REPLY (section "Communication").</summary>
    /// <param name="request">A request that this back end does not handle.</param>
    internal static bool HasReply(VhostUserRequest request) => (uint)request is
        1 or 6 or 11 or 15 or 17 or 22 or 24 or 26 or 28 or 30 or 31 or 36 or 40 or 41 or 42 or 43 or 44;
}
