namespace Causeway.Fuse;

/// <summary>
/// Who asks. One per request slot, filled anew for each request: valid until the task that the file system returned
/// completes, and never kept.
/// </summary>
public sealed class RequestContext
{
    private readonly uint[] _groups = new uint[MaxGroups];
    private int _groupCount;

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

    /// <summary>Sets everything anew.</summary>
    internal void Reset(in FuseInHeader header)
    {
        RequestId = header.Unique;
        UserId = header.UserId;
        GroupId = header.GroupId;
        ProcessId = header.ProcessId;
        _groupCount = 0;
        SecurityContextName = default;
        SecurityContext = default;
    }

    /// <summary>Room for the groups of this request.</summary>
    internal Span<uint> SetGroupCount(int count)
    {
        _groupCount = count;
        return _groups.AsSpan(0, count);
    }
}
