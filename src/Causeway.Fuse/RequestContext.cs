namespace Causeway.Fuse;

/// <summary>
/// Who asks. One per request slot, filled anew for each request: valid until the task that the file system returned
/// completes, and never kept.
/// </summary>
public sealed class RequestContext
{
    private readonly uint[] _groups = new uint[MaxGroups];
    private readonly QueueWaits? _waits;
    private readonly Lock _cancellationLock = new();
    private CancellationTokenSource? _cancellation;
    private int _groupCount;
    private bool _isCancelled;
    private FuseVersionTags _versions;

    /// <summary>Makes a context on its own, for tests of file systems.</summary>
    public RequestContext()
    {
    }

    internal RequestContext(QueueWaits waits) => _waits = waits;

    /// <summary>Most supplementary groups a request may carry (arbitrary; Linux guests send one).</summary>
    public const int MaxGroups = 64;

    /// <summary>What stands for "not told" in <see cref="UserId"/> and <see cref="GroupId"/> (FUSE_INVALID_UIDGID).</summary>
    public const uint InvalidId = uint.MaxValue;

    /// <summary>The request's number.</summary>
    public RequestId RequestId { get; internal set; }

    /// <summary>The caller's user id in the guest; <see cref="InvalidId"/> when the guest does not say.</summary>
    public uint UserId { get; internal set; }

    /// <summary>The caller's group id in the guest; <see cref="InvalidId"/> when the guest does not say.</summary>
    public uint GroupId { get; internal set; }

    /// <summary>The caller's process id in the guest. Informational only.</summary>
    public uint ProcessId { get; internal set; }

    /// <summary>
    /// Supplementary groups the caller has in the guest, as far as the request says (FUSE_EXT_GROUPS, creating requests
    /// only).
    /// </summary>
    public ReadOnlySpan<uint> Groups => _groups.AsSpan(0, _groupCount);

    /// <summary>
    /// Whether the request comes with a security context for what it makes (<c>fuse_secctx</c>, creating requests only). A
    /// guest that negotiated them may still send none.
    /// </summary>
    public bool HasSecurityContext => !SecurityContextName.IsEmpty;

    /// <summary>The attribute the security context is kept in, followed by a NUL; empty when there is none.</summary>
    public ReadOnlyMemory<byte> SecurityContextName { get; internal set; }

    /// <summary>The security context; empty when there is none.</summary>
    public ReadOnlyMemory<byte> SecurityContext { get; internal set; }

    /// <summary>
    /// Fires when the request should complete soon: the guest has interrupted it, its session has ended, or its queue has to
    /// come to rest. To be asked for only by requests that wait: it is made when it is first asked for.
    /// </summary>
    public CancellationToken CancellationToken
    {
        get
        {
            lock (_cancellationLock)
            {
                return _isCancelled ? new CancellationToken(canceled: true) : (_cancellation ??= new()).Token;
            }
        }
    }

    /// <summary>
    /// Whether it was the guest that has interrupted the request. Only then may it be answered EINTR: a Linux guest does not
    /// expect that without a signal of its own.
    /// </summary>
    public bool IsInterrupted { get; private set; }

    /// <summary>Whether the reply carries versions of the version table: see <see cref="Versions"/>.</summary>
    public bool WantsVersions { get; internal set; }

    /// <summary>
    /// What the reply vouches for; all zero, which is nothing, at first. To be filled in when <see cref="WantsVersions"/>: with
    /// versions that were read from the table before what the reply says was.
    /// </summary>
    public ref FuseVersionTags Versions => ref _versions;

    /// <summary>
    /// Whether the request may wait for something that may never come: it keeps its place in the queue, and most of those are
    /// for requests that end such waits.
    /// </summary>
    public bool MayWait => _waits is null || _waits.HasRoom;

    /// <summary>
    /// How many further requests of the same queue are there, which wait for this one unless it completes later; two stand for some where
    /// they cannot be counted, and zero where nobody can say. A look at memory, or a system call.
    /// </summary>
    public int Company => _waits?.Source?.Waiting ?? 0;

    /// <summary>
    /// To be set by a file system that completes a READ later, but soon, whatever others do: it waits for a disk and not for a lock. Then
    /// nothing ends its wait, it does not count as one of those that may, and nothing is allocated for it.
    /// </summary>
    public bool EndsSoon { get; set; }

    /// <summary>Whether <see cref="CancellationToken"/> has fired, or would.</summary>
    internal bool IsCancelled => Volatile.Read(ref _isCancelled);

    /// <summary>Has <see cref="CancellationToken"/> fire, once.</summary>
    /// <param name="isInterrupted">Whether the guest wants it.</param>
    /// <returns>What to cancel, outside of any lock; null when nobody has asked for the token, or it was done before.</returns>
    internal CancellationTokenSource? Cancel(bool isInterrupted)
    {
        lock (_cancellationLock)
        {
            if (_isCancelled)
            {
                return null;
            }

            // Not used for another request after this: whoever cancels may be late.
            CancellationTokenSource? cancellation = _cancellation;
            _cancellation = null;
            IsInterrupted = isInterrupted;
            Volatile.Write(ref _isCancelled, true);
            return cancellation;
        }
    }

    /// <summary>Sets everything anew.</summary>
    internal void Reset(in FuseInHeader header)
    {
        RequestId = header.Unique;
        UserId = header.UserId;
        GroupId = header.GroupId;
        ProcessId = header.ProcessId;
        _groupCount = 0;
        WantsVersions = false;
        EndsSoon = false;
        _versions = default;
        SecurityContextName = default;
        SecurityContext = default;
        _isCancelled = false;
        IsInterrupted = false;
        if (_cancellation is { } cancellation && !cancellation.TryReset())
        {
            _cancellation = null;
        }
    }

    /// <summary>Room for the groups of this request.</summary>
    internal Span<uint> SetGroupCount(int count)
    {
        _groupCount = count;
        return _groups.AsSpan(0, count);
    }
}
