using Causeway.VhostUser.Messages;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Backend;

/// <summary>
/// A FUSE connection of the host's kernel that the front end has made and the device is to serve: what ADD_FUSE_DEVICE gives. The
/// descriptors are what they are said to be; whether the first two are of the same connection, or of any, only shows in use.
/// </summary>
public sealed class FuseDeviceSetup : IDisposable
{
    /// <summary>How many descriptors there are.</summary>
    internal const int Descriptors = 3;

    /// <summary>/dev/fuse, for looking whether there is a request: it does not block, unless the front end lied.</summary>
    public required SafeFileHandle Looking { get; init; }

    /// <summary>/dev/fuse, for waiting for a request: it blocks, unless the front end lied.</summary>
    public required SafeFileHandle Waiting { get; init; }

    /// <summary>An eventfd, to be signalled when the connection has ended.</summary>
    public required SafeFileHandle Ended { get; init; }

    /// <summary>How the connection is to be served; any numbers.</summary>
    public required FuseDeviceDescription Description { get; init; }

    /// <summary>Closes the descriptors.</summary>
    public void Dispose()
    {
        Looking.Dispose();
        Waiting.Dispose();
        Ended.Dispose();
    }
}
