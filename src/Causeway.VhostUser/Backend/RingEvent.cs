using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.VhostUser.Backend;

/// <summary>
/// The call or error event of a ring behind a descriptor number that stays the same while the front end exchanges what is
/// behind it, so that a device thread that signals it needs neither a lock nor a message.
/// </summary>
internal sealed class RingEvent : IDisposable
{
    private SafeFileHandle? _handle;

    /// <summary>The descriptor. As long as the front end has given none, an eventfd of ours that nobody reads.</summary>
    /// <exception cref="ErrnoException">No descriptor could be made.</exception>
    internal SafeFileHandle Handle => _handle ??= Events.CreateEvent();

    /// <summary>Puts another eventfd behind the descriptor.</summary>
    /// <param name="fresh">The eventfd, owned from here on; null for "do not signal".</param>
    /// <exception cref="ErrnoException">No descriptor could be made.</exception>
    internal void Connect(SafeFileHandle? fresh)
    {
        if (_handle is null)
        {
            _handle = fresh;
            return;
        }

        using SafeFileHandle source = fresh ?? Events.CreateEvent();
        Descriptors.Dup3(Number(source), Number(_handle)).ThrowIfError("exchange the event of a ring");
    }

    /// <summary>Signals, unless that would have to wait because the counter is full.</summary>
    internal void Signal()
    {
        int descriptor = Number(Handle);
        if ((Poll.Now(descriptor, PollEvents.Writable) & PollEvents.Writable) != 0)
        {
            Events.Signal(descriptor);
        }
    }

    /// <summary>
    /// Frees a device thread that waits because the front end gave a blocking eventfd and filled it: otherwise the ring
    /// could never be stopped.
    /// </summary>
    internal unsafe void Unblock()
    {
        if (_handle is not null && (Poll.Now(Number(_handle), PollEvents.Writable) & PollEvents.Writable) == 0)
        {
            // RWF_NOWAIT because somebody else may read first.
            ulong counter;
            ReadOnlySpan<IoVector> destination = [new IoVector((byte*)&counter, sizeof(ulong))];
            FileIO.Preadv2(Number(_handle), destination, offset: -1, ReadWriteFlags.NoWait);
        }
    }

    /// <summary>Closes what the front end gave.</summary>
    public void Dispose()
    {
        _handle?.Dispose();
        _handle = null;
    }

    private static int Number(SafeFileHandle handle) => (int)handle.DangerousGetHandle();
}
