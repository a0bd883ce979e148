using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Backend;

/// <summary>
/// The socket for requests of the back end to the front end (SET_BACKEND_REQ_FD). The front end may exchange it at any
/// time; the old one is closed then.
/// </summary>
/// <param name="socket">The socket; owned from here on.</param>
/// <remarks>
/// Never wait here on the thread of the control socket: the front end may itself be waiting there for an answer
/// (vhost-user document, "Backend communication").
/// </remarks>
public sealed class BackendChannel(SafeFileHandle socket) : IDisposable
{
    /// <summary>The socket.</summary>
    public SafeFileHandle Socket => socket;

    /// <inheritdoc/>
    public void Dispose() => socket.Dispose();
}
