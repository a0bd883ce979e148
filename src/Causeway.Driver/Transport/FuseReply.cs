using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <summary>How a call ended.</summary>
public enum FuseReplyStatus
{
    /// <summary>The device replied, and the reply's header is as the protocol asks.</summary>
    Answered,

    /// <summary>The device replied, and the reply's header breaks the protocol.</summary>
    Malformed,

    /// <summary>The device is lost; the request may or may not have been carried out.</summary>
    Lost,

    /// <summary>
    /// The caller stopped waiting. The device still has the request and its buffers; the call returns itself when the
    /// device is done, so the caller must not touch it any more.
    /// </summary>
    Abandoned,
}

/// <summary>The end of a call.</summary>
/// <param name="Status">How it ended.</param>
/// <param name="Header">
/// A private copy of the reply's header, checked: what is still in guest memory can be changed by the device. For a call
/// without reply, and unless <paramref name="Status"/> says "answered", all zero.
/// </param>
public readonly record struct FuseReply(FuseReplyStatus Status, FuseOutHeader Header)
{
    /// <summary>The error of the file system; EIO, ENOTCONN or EINTR when there was no proper reply.</summary>
    public Errno Error => Status switch
    {
        FuseReplyStatus.Answered => (Errno)(-Header.Error),
        FuseReplyStatus.Malformed => Errno.EIO,
        FuseReplyStatus.Lost => Errno.ENOTCONN,
        _ => Errno.EINTR,
    };

    /// <summary>Bytes behind the header. Never more than there was room for.</summary>
    public int BodyLength => Header.Length == 0 ? 0 : (int)Header.Length - FuseCall.ReplyHeaderBytes;
}
