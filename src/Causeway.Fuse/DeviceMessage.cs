namespace Causeway.Fuse;

/// <summary>
/// Where a request that is read from /dev/fuse lies in memory, and where its reply: in a half each, so that what programs write and read
/// begins on a page, and O_DIRECT can be used.
/// </summary>
/// <remarks>
/// <code>
/// first half     [ .... 4016 bytes unused .... | header 40, fuse_write_in 40 || payload, on a page ]
/// second half    [ .... 4080 bytes unused .... | header 16                   || data, on a page    ]
/// </code>
/// </remarks>
public static class DeviceMessage
{
    /// <summary>Bytes of a page.</summary>
    public const int Page = 4096;

    /// <summary>Bytes of each half.</summary>
    public const int HalfBytes = FuseSession.MaxTransfer + Page;

    /// <summary>Where a request begins in its half.</summary>
    public const int RequestStart = Page - 80;

    /// <summary>Bytes that a request may have: the longest WRITE. The kernel refuses to be read with less.</summary>
    public const int RequestBytes = HalfBytes - RequestStart;

    /// <summary>Where a reply begins in its half.</summary>
    public const int ReplyStart = Page - 16;

    /// <summary>Bytes that a reply may have.</summary>
    public const int ReplyBytes = HalfBytes - ReplyStart;
}
