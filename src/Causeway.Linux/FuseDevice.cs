namespace Causeway.Linux;

/// <summary>
/// The kernel's end of a FUSE connection, /dev/fuse (fuse(4)). A read(2) takes one whole request, a writev(2) gives one
/// whole reply or notification.
/// </summary>
public static unsafe class FuseDevice
{
    /// <summary>The shortest buffer that a request may be read into (FUSE_MIN_READ_BUFFER).</summary>
    public const int MinReadBuffer = 8192;

    /// <summary>FUSE_DEV_IOC_CLONE: makes a new descriptor of the device one more of a connection.</summary>
    private const uint CloneCommand = 0x8004e500;

    // Of the device node (admin-guide/devices.txt): the misc devices, and FUSE among them.
    private const uint MajorNumber = 10;
    private const uint MinorNumber = 229;

    private const ushort FileTypeMask = 0xF000;
    private const ushort CharacterDevice = 0x2000;

    private const string IoUringParameter = "/sys/module/fuse/parameters/enable_uring";

    /// <summary>Whether the kernel offers connections that are made now to carry requests over io_uring.</summary>
    public static bool OffersIoUring() =>
        File.Exists(IoUringParameter) && File.ReadAllText(IoUringParameter).StartsWith('Y');

    /// <summary>Opens the device; the descriptor is not inherited.</summary>
    /// <param name="blocks">Whether reading waits for a request.</param>
    /// <returns>The descriptor, owned by the caller. It belongs to no connection yet.</returns>
    public static SyscallResult Open(bool blocks = false) => Files.Openat(
        Files.WorkingDirectory,
        "/dev/fuse\0"u8,
        OpenFlags.ReadWrite | OpenFlags.CloseOnExec | (blocks ? default : OpenFlags.NonBlocking));

    /// <summary>ioctl(2) with FUSE_DEV_IOC_CLONE: has requests of a connection come to another descriptor as well.</summary>
    /// <param name="fresh">A descriptor that was just opened.</param>
    /// <param name="connected">A descriptor of the connection.</param>
    public static SyscallResult Clone(int fresh, int connected)
    {
        uint argument = (uint)connected;
        return SyscallResult.From(Libc.ioctl(fresh, CloneCommand, &argument));
    }

    /// <summary>Whether a descriptor is one of the device, be it of a connection or not.</summary>
    /// <param name="descriptor">The descriptor; any.</param>
    public static bool IsDevice(int descriptor) =>
        !Files.Statx(descriptor, StatxMask.Basic, out StatxBuffer status).IsError
        && (status.Mode & FileTypeMask) == CharacterDevice
        && (status.NodeDeviceMajor, status.NodeDeviceMinor) == (MajorNumber, MinorNumber);

    /// <summary>read(2): takes a request.</summary>
    /// <param name="descriptor">The device.</param>
    /// <param name="buffer">Where it goes.</param>
    /// <param name="capacity">Room: the longest request, and at least <see cref="MinReadBuffer"/>.</param>
    /// <returns>
    /// The length. EAGAIN when there is none, unless the descriptor blocks; ENODEV after the end of the connection; ENOENT or
    /// EINTR for one that was taken back meanwhile; EPERM where there is no connection.
    /// </returns>
    public static SyscallResult Read(int descriptor, byte* buffer, int capacity) =>
        SyscallResult.From(Libc.read(descriptor, buffer, (nuint)capacity));

    /// <summary>writev(2): gives a reply or a notification.</summary>
    /// <param name="descriptor">The device; for a reply the very one that the request was read from.</param>
    /// <param name="message">The pieces of the message.</param>
    /// <returns>The length; ENOENT when the request is no longer waited for.</returns>
    public static SyscallResult Write(int descriptor, ReadOnlySpan<IoVector> message)
    {
        fixed (IoVector* vectors = message)
        {
            while (true)
            {
                SyscallResult result = SyscallResult.From(Libc.writev(descriptor, vectors, message.Length));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }

    /// <summary>write(2): gives a reply that lies in one piece.</summary>
    /// <param name="descriptor">The device, the very one that the request was read from.</param>
    /// <param name="message">The reply.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <returns>The length; ENOENT when the request is no longer waited for.</returns>
    public static SyscallResult Write(int descriptor, byte* message, int length)
    {
        while (true)
        {
            SyscallResult result = SyscallResult.From(Libc.write(descriptor, message, (nuint)length));
            if (result.Error != Errno.EINTR)
            {
                return result;
            }
        }
    }
}
