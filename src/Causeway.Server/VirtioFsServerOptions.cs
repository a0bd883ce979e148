using System.Text;
using Causeway.Fuse;
using Causeway.VhostUser.Backend;

namespace Causeway.Server;

/// <summary>How a share is offered to a front end.</summary>
public sealed record VirtioFsServerOptions
{
    /// <summary>The longest tag, in bytes of UTF-8 (virtio 1.4, 5.11.4).</summary>
    public const int MaxTagLength = 36;

    /// <summary>Most request queues a device has here (arbitrary).</summary>
    public const int MaxRequestQueues = 64;

    /// <summary>
    /// Where to create the socket and listen. Null when <see cref="ListeningDescriptor"/> is given. The socket is removed
    /// when the server ends.
    /// </summary>
    public string? SocketPath { get; init; }

    /// <summary>
    /// The number of a group whose members may connect to <see cref="SocketPath"/>, too. Default: only the daemon's user may.
    /// </summary>
    public uint? SocketGroup { get; init; }

    /// <summary>An inherited socket that listens already. Null when <see cref="SocketPath"/> is given.</summary>
    public int? ListeningDescriptor { get; init; }

    /// <summary>
    /// One or more listeners that were made before: for several sockets, and for programs that give up the right to make one.
    /// The server disposes them. Null when one of the others is given.
    /// </summary>
    public IReadOnlyList<VhostUserListener>? Listeners { get; init; }

    /// <summary>Most guests that a server has at a time, at all its sockets together (arbitrary).</summary>
    public const int MostGuests = 64;

    /// <summary>
    /// How many front ends each socket serves at the same time; further ones wait until one disconnects. Default 1. With more
    /// than one, or with several sockets, the server needs a function that makes file systems, and is persistent.
    /// </summary>
    public int MaxGuests { get; init; } = 1;

    /// <summary>
    /// The mount tag for front ends that ask the device for it: 1 to 36 bytes of UTF-8. Default: none, the front end names
    /// the tag itself.
    /// </summary>
    public string? Tag { get; init; }

    /// <summary>
    /// How many request queues the configuration space announces, 1 to 64. Front ends that do not ask for it may use more.
    /// Default: one per processor, at most 8.
    /// </summary>
    public int RequestQueues { get; init; } = DefaultRequestQueues(Environment.ProcessorCount);

    /// <summary>How many there are unless somebody says so: one per processor, at most 8 (arbitrary).</summary>
    /// <param name="processors">How many processors the process may use.</param>
    public static int DefaultRequestQueues(int processors) => Math.Min(processors, 8);

    /// <summary>The smallest DAX window in bytes.</summary>
    public const ulong MinDaxWindow = IDaxWindow.SlotSize;

    /// <summary>The largest DAX window in bytes (arbitrary; a guest spends a 64th of it on page structures).</summary>
    public const ulong MaxDaxWindow = 64UL << 30;

    /// <summary>
    /// Size in bytes of the DAX window, through which guests use files without requests: a power of two from 2 MiB to
    /// 64 GiB. Default zero: none. Whoever shortens a mapped file on the host, other than through a guest, ends the virtual
    /// machine that touches the missing part.
    /// </summary>
    public ulong DaxWindowSize { get; init; }

    /// <summary>The least that <see cref="MaxInFlightBytes"/> can be: with <c>Causeway.Passthrough</c> more than all that may wait for locks.</summary>
    public const long LeastInFlightBytes = 16 << 20;

    /// <summary>The most that <see cref="MaxInFlightBytes"/> can be (arbitrary).</summary>
    public const long MostInFlightBytes = 64L << 30;

    /// <summary>The default of <see cref="MaxInFlightBytes"/>.</summary>
    public const long DefaultInFlightBytes = 256 << 20;

    /// <summary>
    /// Most bytes of the requests that a guest has in work, 16 MiB to 64 GiB: what they carry, what their replies may have, and
    /// 32 KiB for each. Further ones stay in their queues until some are done; one of each queue is always taken, whatever the
    /// others have. Default 256 MiB, which takes a guest with dozens of queues that are all full.
    /// </summary>
    public long MaxInFlightBytes { get; init; } = DefaultInFlightBytes;

    /// <summary>
    /// Whether to wait for the next front end after one disconnects. Default: the server ends; one for several guests does not.
    /// </summary>
    public bool IsPersistent { get; init; }

    /// <summary>
    /// Whether to offer a notification queue (VIRTIO_FS_F_NOTIFICATION), by which a guest that asks for it learns of changes
    /// on the host. Default: no. Linux guests know nothing of it, and are served as without.
    /// </summary>
    public bool Notifications { get; init; }

    /// <summary>
    /// Whether a thread that has nothing to do looks at its queue for up to 50 microseconds before it sleeps, where that has
    /// paid: requests that follow each other closely then wake nobody up. It stops by itself when it does not pay, when no
    /// requests come, and when others need the processor. Default: no.
    /// </summary>
    public bool Polls { get; init; }

    /// <summary>How many guests there are at most.</summary>
    internal int GuestCount => MaxGuests * (Listeners?.Count ?? 1);

    /// <summary>Checks the options.</summary>
    /// <exception cref="ArgumentException">Something is wrong; the message says what to write instead.</exception>
    internal void Validate()
    {
        object?[] places = [SocketPath, ListeningDescriptor, Listeners];
        if (places.Count(place => place is not null) != 1)
        {
            throw new ArgumentException(
                $"Set one of {nameof(SocketPath)}, {nameof(ListeningDescriptor)} and {nameof(Listeners)}.");
        }

        if (MaxGuests is < 1 or > MostGuests || Listeners is [] || GuestCount > MostGuests)
        {
            throw new ArgumentException(
                $"{nameof(MaxGuests)} has to be at least 1, and all sockets together have at most {MostGuests} guests.");
        }

        if (Tag is not null && Encoding.UTF8.GetByteCount(Tag) is 0 or > MaxTagLength)
        {
            throw new ArgumentException($"{nameof(Tag)} has to have 1 to {MaxTagLength} bytes of UTF-8.");
        }

        if (DaxWindowSize != 0
            && (DaxWindowSize is < MinDaxWindow or > MaxDaxWindow || !ulong.IsPow2(DaxWindowSize)))
        {
            throw new ArgumentException($"{nameof(DaxWindowSize)} has to be a power of two from 2 MiB to 64 GiB, or 0.");
        }

        if (MaxInFlightBytes is < LeastInFlightBytes or > MostInFlightBytes)
        {
            throw new ArgumentException($"{nameof(MaxInFlightBytes)} has to be 16 MiB to 64 GiB.");
        }

        if (RequestQueues is < 1 or > MaxRequestQueues)
        {
            throw new ArgumentException($"{nameof(RequestQueues)} has to be 1 to {MaxRequestQueues}.");
        }
    }
}
