using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>Waiting for descriptors, poll(2).</summary>
public static unsafe class Poll
{
    /// <summary>A timeout that never expires.</summary>
    public const int Forever = -1;

    /// <summary>poll(2). EINTR starts it again with the full timeout.</summary>
    /// <param name="descriptors">What to wait for; receives what happened.</param>
    /// <param name="timeoutMilliseconds">How long to wait; <see cref="Forever"/> without end, 0 not at all.</param>
    /// <returns>How many of <paramref name="descriptors"/> have something to report; 0 after the timeout.</returns>
    public static SyscallResult Wait(Span<PollDescriptor> descriptors, int timeoutMilliseconds)
    {
        fixed (PollDescriptor* first = descriptors)
        {
            while (true)
            {
                SyscallResult result = SyscallResult.From(
                    Libc.poll(first, (nuint)descriptors.Length, timeoutMilliseconds));
                if (result.Error != Errno.EINTR)
                {
                    return result;
                }
            }
        }
    }

    /// <summary>What one descriptor has to report right now.</summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="events">What to ask for.</param>
    public static PollEvents Now(int descriptor, PollEvents events)
    {
        PollDescriptor one = new(descriptor, events);
        SyscallResult result = Wait(new Span<PollDescriptor>(ref one), 0);
        return result.IsError ? PollEvents.Invalid : one.Returned;
    }
}

/// <summary><c>struct pollfd</c> of poll(2).</summary>
/// <param name="descriptor">What to wait for; a negative value is skipped.</param>
/// <param name="events">What to ask for.</param>
[StructLayout(LayoutKind.Sequential)]
public struct PollDescriptor(int descriptor, PollEvents events)
{
    /// <summary><c>fd</c></summary>
    public int Descriptor = descriptor;

    private readonly short _events = (short)events;
    private readonly short _returned;

    /// <summary><c>events</c></summary>
    public readonly PollEvents Events => (PollEvents)(ushort)_events;

    /// <summary><c>revents</c></summary>
    public readonly PollEvents Returned => (PollEvents)(ushort)_returned;
}

/// <summary>Events of poll(2).</summary>
[Flags]
public enum PollEvents
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>POLLIN: reading does not block.</summary>
    Readable = 0x1,

    /// <summary>POLLOUT: writing does not block.</summary>
    Writable = 0x4,

    /// <summary>POLLERR: an error, for example a pipe without reader. Always reported.</summary>
    Error = 0x8,

    /// <summary>POLLHUP: both directions are closed. Always reported.</summary>
    HangUp = 0x10,

    /// <summary>POLLNVAL: not an open descriptor. Always reported.</summary>
    Invalid = 0x20,

    /// <summary>POLLRDHUP: the peer sends no more.</summary>
    PeerClosed = 0x2000,
}
