using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Backend;

/// <summary>
/// The device behind a <see cref="VhostUserBackend"/>: what the front end configures through the control socket comes
/// here, already checked.
/// </summary>
/// <remarks>
/// <para>All methods are called on the thread that runs <see cref="VhostUserBackend.Run"/>, one after the other, and must
/// not throw. An exception ends the connection and leaves <see cref="VhostUserBackend.Run"/>. They may wait for the
/// device's own threads, but never for anything from the front end, which is waiting for the answer meanwhile.</para>
/// <para>Descriptors and mappings belong to the back end. The device borrows them for the time that each member states;
/// the back end closes and unmaps them when that time is over.</para>
/// <para>In the life of a connection the calls come in this order: <see cref="OnFeaturesNegotiated"/> and
/// <see cref="UpdateMemory"/> (any number of times, in any order), then <see cref="StartRing"/> and
/// <see cref="StopRing"/> in pairs per ring with any of the others in between, at last a <see cref="StopRing"/> for each
/// running ring, <see cref="UpdateMemory"/> with nothing in it, and <see cref="Disconnected"/>.</para>
/// </remarks>
public interface IVhostUserDevice
{
    /// <summary>
    /// The virtio features to offer. The back end adds the two that are its own business: <see cref="VirtioFeatures.LogAll"/>
    /// and <see cref="VirtioFeatures.ProtocolFeatures"/>. Constant.
    /// </summary>
    VirtioFeatures DeviceFeatures { get; }

    /// <summary>How many rings there are, 1 to 256. Constant.</summary>
    int QueueCount { get; }

    /// <summary>The most descriptors a ring may have, a power of two up to 32768. Constant.</summary>
    int MaxQueueSize { get; }

    /// <summary>How many bytes the configuration space has; 0 when the front end knows everything itself. Constant.</summary>
    int ConfigSize { get; }

    /// <summary>Reads the configuration space. Called often while a driver starts: answer from memory.</summary>
    /// <param name="offset">Where to start.</param>
    /// <param name="destination">Filled completely; ends within <see cref="ConfigSize"/>.</param>
    void ReadConfig(int offset, Span<byte> destination);

    /// <summary>
    /// How large the device's shared memory regions are, by number; each a multiple of the page size, and for QEMU a power of
    /// two. Zero where there is no region of that number, and none by default. Constant.
    /// </summary>
    IReadOnlyList<ulong> SharedMemorySizes => [];

    /// <summary>
    /// Files can be mapped into the shared memory regions from now on, as long as a ring runs: the front end has asked for
    /// their sizes, which is the only proof that it has such regions, has given a channel, and answers requests.
    /// </summary>
    /// <param name="channel">
    /// The channel; it stays the back end's. Null when it is gone: it must not be used any more on return.
    /// </param>
    void UpdateSharedMemory(BackendChannel? channel)
    {
        // Nothing, for devices without shared memory.
    }

    /// <summary>
    /// Whether a region that the front end gives as guest memory is a mapping that the device has made in a shared memory
    /// region: QEMU shows those to all its back ends. Such a region is not mapped here.
    /// </summary>
    /// <param name="file">The region's file; it stays the back end's.</param>
    /// <param name="offset">Where the region starts in it.</param>
    bool IsSharedMemory(SafeFileHandle file, ulong offset) => false;

    /// <summary>Whether the device serves FUSE connections of the host's kernel by itself. Constant.</summary>
    bool TakesFuseDevices => false;

    /// <summary>
    /// A FUSE connection of the host's kernel is to be served, besides what comes through the rings, until the next
    /// <see cref="Reset"/> or <see cref="Disconnected"/>.
    /// </summary>
    /// <param name="setup">The connection; the device's from here on, also when it refuses.</param>
    /// <returns>Null, or why the device refuses.</returns>
    string? AddFuseDevice(FuseDeviceSetup setup)
    {
        setup.Dispose();
        return "the device serves none";
    }

    /// <summary>
    /// The front end has chosen features. Called for each SET_FEATURES; while a ring runs, only
    /// <see cref="VirtioFeatures.LogAll"/> changes, which <see cref="UpdateMemory"/> then puts into effect.
    /// </summary>
    /// <param name="features">A subset of what was offered.</param>
    void OnFeaturesNegotiated(VirtioFeatures features);

    /// <summary>
    /// A ring can run. The device looks at it at once, without waiting for a kick: requests may have been waiting in it for
    /// long. The first call after the start is unconditional.
    /// </summary>
    /// <param name="setup">
    /// Everything about the ring. Its three events are valid, and its places mapped, until <see cref="StopRing"/> for this
    /// ring has returned, save that <see cref="UpdateMemory"/> may move the places.
    /// </param>
    void StartRing(in RingSetup setup);

    /// <summary>
    /// A ring must stop. On return no request taken from the ring is in flight, their used entries are written, and nothing
    /// will be written to the ring, to guest memory on its behalf, or to its events any more. Requests that could wait for
    /// long are interrupted or answered.
    /// </summary>
    /// <param name="index">The ring; it is running.</param>
    /// <returns>Where the ring continues: <see cref="Causeway.Virtio.DeviceQueue.Base"/>.</returns>
    uint StopRing(int index);

    /// <summary>
    /// Guest memory, the places of running rings, or the dirty log have changed. On return all that runs uses the new ones.
    /// </summary>
    /// <param name="update">
    /// The new state as a whole. When <see cref="MemoryUpdate.MustDrain"/> is set, the previous mappings vanish on return:
    /// no request in flight may refer to them any more.
    /// </param>
    void UpdateMemory(in MemoryUpdate update);

    /// <summary>
    /// RESET_DEVICE: the device returns to its first state and drops everything it remembers of the guest. All rings are
    /// stopped before. Memory and features stay.
    /// </summary>
    void Reset();

    /// <summary>
    /// The connection is over; all rings are stopped. The device drops everything it remembers of the guest. The last call.
    /// </summary>
    void Disconnected();
}
