using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;

namespace Causeway.Fuse;

/// <summary>
/// A request on its way through a session: one per slot of a transport, used again and again, so that nothing is
/// allocated for a request.
/// </summary>
/// <remarks>
/// Guest memory is hostile and changes while it is read. Every byte that decides anything is copied out of
/// <see cref="Readable"/> exactly once, into the buffer of this object, and only the copy is looked at. The payload of
/// WRITE stays where it is and is handed on as pieces.
/// <code>
/// bytes of the stream   0          40           80                    header.Length
///                       | header   | arguments, names, extensions ...  |  ignored
/// copied by             | TryCopyHeader         | CopyArguments        |
/// </code>
/// </remarks>
public sealed unsafe partial class FuseRequest
{
    // Names of up to 4095 bytes, twice (RENAME2), fit: only SETXATTR needs more, and the unusual extension block.
    private const int InitialBufferSize = 8448;

    private readonly byte[] _initialBuffer;
    private byte[] _buffer;
    private byte[]? _replyBuffer;

    /// <summary>Makes a request slot with counters of its own.</summary>
    public FuseRequest()
        : this(new FuseCounters())
    {
    }

    /// <summary>Makes a request slot.</summary>
    /// <param name="counters">Counters shared by the slots of one queue; only its thread dispatches.</param>
    public FuseRequest(FuseCounters counters)
        : this(counters, new QueueWaits())
    {
    }

    /// <summary>Makes a request slot.</summary>
    /// <param name="counters">Counters shared by the slots of one queue; only its thread dispatches.</param>
    /// <param name="waits">The requests of the queue that wait; shared by its slots.</param>
    public FuseRequest(FuseCounters counters, QueueWaits waits)
    {
        ArgumentNullException.ThrowIfNull(counters);
        ArgumentNullException.ThrowIfNull(waits);
        Counters = counters;
        Waits = waits;
        Context = new RequestContext(waits);
        _initialBuffer = GC.AllocateUninitializedArray<byte>(InitialBufferSize, pinned: true);
        _buffer = _initialBuffer;
    }

    /// <summary>Where the requests of this slot are counted.</summary>
    public FuseCounters Counters { get; }

    /// <summary>
    /// Whether the slot has memory that only long requests need: what was allocated for one is kept for the next.
    /// </summary>
    public bool HasLongBuffers { get; private set; }

    /// <summary>What the guest sent. A session narrows it to the payload of WRITE while the request runs.</summary>
    public IoVectorList Readable { get; private set; }

    /// <summary>Where the reply goes. A session narrows it to the destination of READ while the request runs.</summary>
    public IoVectorList Writable { get; private set; }

    /// <summary>What the request starts with. Valid once the header is copied.</summary>
    internal ref readonly FuseInHeader Header => ref Unsafe.As<byte, FuseInHeader>(ref MemoryMarshal.GetArrayDataReference(_buffer));

    /// <summary>The requests of the same queue that wait.</summary>
    internal QueueWaits Waits { get; }

    /// <summary>The next waiting request of the session. Under its lock.</summary>
    internal FuseRequest? NextWaiting { get; set; }

    /// <summary>The waiting request before. Under the session's lock.</summary>
    internal FuseRequest? PreviousWaiting { get; set; }

    internal RequestContext Context { get; }

    internal DirectoryWriter Entries { get; } = new();

    /// <summary>The reply to a READ that completes later.</summary>
    internal LateRead LateRead => field ??= new LateRead(this);

    /// <summary>What was settled by INIT when the request arrived. Null only in INIT itself.</summary>
    internal NegotiatedFeatures? Negotiated { get; set; }

    /// <summary>What INIT negotiates. Null in all other requests.</summary>
    internal FuseNegotiation? Negotiation { get; set; }

    /// <summary>How many bytes the file system may return at most: the size of a READ, WRITE or reply buffer.</summary>
    internal int PayloadLength { get; set; }

    /// <summary>Gives up the memory that only long requests need. Between two requests.</summary>
    public void ShedLongBuffers()
    {
        _buffer = _initialBuffer;
        _replyBuffer = null;
        // They point there.
        Entries.Reset(default, isPlus: false);
        Context.SecurityContextName = default;
        Context.SecurityContext = default;
        HasLongBuffers = false;
    }

    /// <summary>Starts a request.</summary>
    /// <param name="readable">What the guest sent. The array of pieces is the caller's, and may be changed.</param>
    /// <param name="writable">Where the reply goes. The array of pieces is the caller's, and may be changed.</param>
    public void Reset(IoVectorList readable, IoVectorList writable)
    {
        Readable = readable;
        Writable = writable;
        Negotiated = null;
        Negotiation = null;
        PayloadLength = 0;
        PlaceBody(hasTags: false);
        RememberReplyHeader();
    }
}
