using System.Buffers.Binary;
using System.Text;

namespace Causeway.Server;

/// <summary>
/// The configuration space, <c>struct virtio_fs_config</c> (virtio 1.4, 5.11.4): the tag, padded with NUL to 36 bytes, and
/// the number of request queues, little-endian; behind them, with VIRTIO_FS_F_NOTIFICATION, how long the buffers for
/// notifications have to be. Read-only for the driver.
/// </summary>
internal static class DeviceConfiguration
{
    /// <summary>
    /// Bytes of a buffer for notifications: the longest of ours has 296, the rest is room for later ones (arbitrary).
    /// </summary>
    public const uint NotificationBytes = 512;

    private const int Size = VirtioFsServerOptions.MaxTagLength + sizeof(uint);

    /// <summary>Lays the configuration space out.</summary>
    public static byte[] Create(string tag, int requestQueues, bool hasNotifications)
    {
        byte[] space = new byte[Size + (hasNotifications ? sizeof(uint) : 0)];
        Encoding.UTF8.GetBytes(tag, space);
        BinaryPrimitives.WriteUInt32LittleEndian(
            space.AsSpan(VirtioFsServerOptions.MaxTagLength), (uint)requestQueues);
        if (hasNotifications)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(space.AsSpan(Size), NotificationBytes);
        }

        return space;
    }
}
