using Causeway.Linux;

namespace Causeway.Driver;

/// <summary>In what way a device failed.</summary>
public enum DeviceFailure
{
    /// <summary>Not said.</summary>
    Unknown,

    /// <summary>What answers is no virtio-fs device.</summary>
    NotVirtioFs,

    /// <summary>The daemon went away. Requests that were pending may or may not have been carried out.</summary>
    Disconnected,

    /// <summary>The device contradicts the virtio specification. It is not used any more.</summary>
    BrokenQueue,

    /// <summary>The device took longer than the reply timeout.</summary>
    NotAnswering,

    /// <summary>A reply breaks the FUSE protocol. Other requests are not affected.</summary>
    MalformedReply,

    /// <summary>This side has closed the connection.</summary>
    Closed,

    /// <summary>The device works, and cannot do what was asked for.</summary>
    NotSupported,
}

/// <summary>The device failed, as opposed to the file system on it saying no.</summary>
public sealed class VirtioFsDeviceException : IOException
{
    /// <summary>Makes an exception.</summary>
    /// <param name="failure">In what way.</param>
    /// <param name="message">What happened.</param>
    /// <param name="innerException">The cause, if there is one.</param>
    public VirtioFsDeviceException(DeviceFailure failure, string message, Exception? innerException = null)
        : base(message, innerException) => Failure = failure;

    /// <summary>Makes an exception; the framework's conventions ask for it.</summary>
    /// <param name="message">The message.</param>
    public VirtioFsDeviceException(string message)
        : base(message)
    {
    }

    /// <summary>Makes an exception; the framework's conventions ask for it.</summary>
    /// <param name="message">The message.</param>
    /// <param name="innerException">The cause.</param>
    public VirtioFsDeviceException(string message, Exception innerException)
        : base(message, innerException)
    {
    }

    /// <summary>Makes an exception; the framework's conventions ask for it.</summary>
    public VirtioFsDeviceException()
    {
    }

    /// <summary>In what way the device failed.</summary>
    public DeviceFailure Failure { get; }

    /// <summary>What a system call would report: EIO for a malformed reply, ENOTCONN for a device that is gone.</summary>
    public Errno Error => Failure == DeviceFailure.MalformedReply ? Errno.EIO : Errno.ENOTCONN;
}
