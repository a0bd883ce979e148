using System.Buffers.Binary;
using System.Text;

namespace Causeway.Server;

/// <summary>
/// The configuration space, <c>struct virtio_fs_config</c> (virtio 1.4, 5.11.4): the tag, padded with NUL to 36 bytes, and
/// the number of request queues, little-endian. Read-only for the driver.
/// </summary>
internal static class DeviceConfiguration
{
    /// <summary>Size in bytes.</summary>
    public const int Size = VirtioFsServerOptions.MaxTagLength + sizeof(uint);

    /// <summary>Lays the configuration space out.</summary>
    public static byte[] Create(string tag, int requestQueues)
    {
        byte[] space = new byte[Size];
        Encoding.UTF8.GetBytes(tag, space);
        BinaryPrimitives.WriteUInt32LittleEndian(
            space.AsSpan(VirtioFsServerOptions.MaxTagLength), (uint)requestQueues);
        return space;
    }
}
