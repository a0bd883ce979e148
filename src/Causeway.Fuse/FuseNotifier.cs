using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Fuse;

/// <summary>
/// Tells a guest that what it remembers is no longer so. Only guests that asked for notifications have one; a stock Linux
/// guest does not.
/// </summary>
/// <remarks>
/// Messages arrive in the order they were sent. A method waits while the guest takes none, so it is to be called from a
/// thread made for that, never from one that serves requests.
/// </remarks>
public abstract class FuseNotifier
{
    // Header, fuse_notify_delete_out, the longest name, NUL.
    private const int MaxMessage = 16 + 24 + FileName.MaxLength + 1;

    /// <summary>INVAL_INODE: attributes, and data from an offset on, are not valid any more.</summary>
    /// <param name="node">The node; one the guest does not know does no harm.</param>
    /// <param name="offset">From where on data are invalid, in bytes; negative for attributes alone.</param>
    /// <returns>False when the guest is gone.</returns>
    public bool InvalidateNode(NodeId node, long offset) =>
        Send(FuseNotifyCode.InvalInode, new FuseNotifyInvalInodeOut { NodeId = node, Offset = offset }, default);

    /// <summary>INVAL_ENTRY: a name in a directory does not mean what it meant.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name, without NUL.</param>
    /// <returns>False when the guest is gone.</returns>
    public bool InvalidateEntry(NodeId parent, ReadOnlySpan<byte> name) => Send(
        FuseNotifyCode.InvalEntry,
        new FuseNotifyInvalEntryOut { Parent = parent, NameLength = (uint)name.Length },
        name);

    /// <summary>DELETE: a name was removed that meant a node.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="child">The node.</param>
    /// <param name="name">The name, without NUL.</param>
    /// <returns>False when the guest is gone.</returns>
    public bool Delete(NodeId parent, NodeId child, ReadOnlySpan<byte> name) => Send(
        FuseNotifyCode.Delete,
        new FuseNotifyDeleteOut { Parent = parent, Child = child, NameLength = (uint)name.Length },
        name);

    /// <summary>INC_EPOCH: no name the guest knows may be believed.</summary>
    /// <returns>False when the guest is gone.</returns>
    public bool InvalidateAllEntries() => Send(FuseNotifyCode.IncEpoch);

    /// <summary>Sends a message. Waits while the guest has no room for one.</summary>
    /// <param name="message">The whole message.</param>
    /// <returns>False when the guest is gone.</returns>
    protected abstract bool Send(ReadOnlySpan<byte> message);

    private bool Send(FuseNotifyCode code)
    {
        var header = new FuseOutHeader { Length = (uint)Unsafe.SizeOf<FuseOutHeader>(), Error = (int)code };
        return Send(MemoryMarshal.AsBytes(new ReadOnlySpan<FuseOutHeader>(in header)));
    }

    private bool Send<T>(FuseNotifyCode code, in T payload, ReadOnlySpan<byte> name)
        where T : unmanaged
    {
        Span<byte> message = stackalloc byte[MaxMessage];
        int fixedLength = Unsafe.SizeOf<FuseOutHeader>() + Unsafe.SizeOf<T>();
        bool hasName = code != FuseNotifyCode.InvalInode;
        int length = fixedLength + (hasName ? name.Length + 1 : 0);
        var header = new FuseOutHeader { Length = (uint)length, Error = (int)code };
        MemoryMarshal.Write(message, in header);
        MemoryMarshal.Write(message[Unsafe.SizeOf<FuseOutHeader>()..], in payload);
        name.CopyTo(message[fixedLength..]);
        message[length - 1] = hasName ? (byte)0 : message[length - 1];
        return Send(message[..length]);
    }
}
