using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <content>One method per opcode. Names are text here: UTF-8 on the wire.</content>
public sealed partial class FuseClient
{
    // What a stock Linux 7.3 guest offers (fs/fuse/inode.c), without DAX and io_uring.
    private const FuseFeatures LinuxFeatures =
        (FuseFeatures)0x1_FFFF_FFFF & ~((FuseFeatures)0x8000_0004 | FuseFeatures.MapAlignment)
        | FuseFeatures.CreateSuppGroup | FuseFeatures.HasExpireOnly | FuseFeatures.DirectIoAllowMmap
        | FuseFeatures.NoExportSupport | FuseFeatures.HasResend | FuseFeatures.AllowIdmap | FuseFeatures.RequestTimeout;

    /// <summary>INIT, offering what a Linux guest offers unless told otherwise.</summary>
    /// <param name="offered">The features to offer.</param>
    /// <param name="minor">The minor version to speak.</param>
    public Result<FuseInitOut> Initialize(FuseFeatures? offered = null, uint minor = 46)
    {
        ulong features = (ulong)(offered ?? LinuxFeatures);
        var arguments = new FuseInitIn
        {
            Major = 7,
            Minor = minor,
            MaxReadahead = 128 << 10,
            Flags = (uint)features,
            Flags2 = (uint)(features >> 32),
        };
        Result<FuseInitOut> result = Call<FuseInitIn, FuseInitOut>(FuseOpcode.Init, NodeId.None, arguments, default);
        if (!result.IsError)
        {
            Features = (FuseFeatures)(result.Value.Flags | ((ulong)result.Value.Flags2 << 32));
        }

        return result;
    }

    /// <summary>DESTROY.</summary>
    public Errno Destroy() => Call(FuseOpcode.Destroy, NodeId.None, default, 0, out _);

    /// <summary>LOOKUP.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name.</param>
    public Result<NodeEntry> Lookup(NodeId parent, string name) =>
        Call<byte, NodeEntry>(FuseOpcode.Lookup, parent, null, Terminated(name));

    /// <summary>Looks up a path from the root, component by component.</summary>
    /// <param name="path">Names separated by slashes.</param>
    public Result<NodeEntry> Walk(string path)
    {
        Result<NodeEntry> entry = Errno.ENOENT;
        NodeId node = NodeId.Root;
        foreach (string name in path.Split('/', StringSplitOptions.RemoveEmptyEntries))
        {
            entry = Lookup(node, name);
            if (entry.IsError)
            {
                return entry;
            }

            node = entry.Value.NodeId;
        }

        return entry;
    }

    /// <summary>FORGET.</summary>
    /// <param name="node">The node.</param>
    /// <param name="count">How many lookups to give back.</param>
    public void Forget(NodeId node, ulong count) => Send(FuseOpcode.Forget, node, Bytes(new FuseForgetIn { LookupCount = count }));

    /// <summary>GETATTR.</summary>
    /// <param name="node">The node.</param>
    public Result<FuseAttrOut> GetAttr(NodeId node) =>
        Call<FuseGetAttrIn, FuseAttrOut>(FuseOpcode.GetAttr, node, default(FuseGetAttrIn), default);

    /// <summary>SETATTR.</summary>
    /// <param name="node">The node.</param>
    /// <param name="arguments">The arguments.</param>
    public Result<FuseAttrOut> SetAttr(NodeId node, FuseSetAttrIn arguments) =>
        Call<FuseSetAttrIn, FuseAttrOut>(FuseOpcode.SetAttr, node, arguments, default);

    /// <summary>MKDIR.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name.</param>
    /// <param name="mode">Permissions (and type).</param>
    public Result<NodeEntry> Mkdir(NodeId parent, string name, uint mode = 0x1ED) =>
        Call<FuseMkdirIn, NodeEntry>(FuseOpcode.Mkdir, parent, new FuseMkdirIn { Mode = mode }, Terminated(name));

    /// <summary>CREATE.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name.</param>
    /// <param name="flags">O_* of open(2).</param>
    /// <param name="mode">Permissions (and type).</param>
    public Result<FuseCreateOut> Create(NodeId parent, string name, uint flags, uint mode = 0x81A4) =>
        Call<FuseCreateIn, FuseCreateOut>(
            FuseOpcode.Create, parent, new FuseCreateIn { Flags = flags, Mode = mode }, Terminated(name));

    /// <summary>UNLINK.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name.</param>
    public Errno Unlink(NodeId parent, string name) =>
        Call(FuseOpcode.Unlink, parent, Terminated(name), 0, out _);

    /// <summary>RMDIR.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="name">The name.</param>
    public Errno Rmdir(NodeId parent, string name) => Call(FuseOpcode.Rmdir, parent, Terminated(name), 0, out _);

    /// <summary>OPEN.</summary>
    /// <param name="node">The node.</param>
    /// <param name="flags">O_* of open(2).</param>
    public Result<FuseOpenOut> Open(NodeId node, uint flags) =>
        Call<FuseOpenIn, FuseOpenOut>(FuseOpcode.Open, node, new FuseOpenIn { Flags = flags }, default);

    /// <summary>OPENDIR.</summary>
    /// <param name="node">The node.</param>
    public Result<FuseOpenOut> OpenDir(NodeId node) =>
        Call<FuseOpenIn, FuseOpenOut>(FuseOpcode.OpenDir, node, default(FuseOpenIn), default);

    /// <summary>RELEASE.</summary>
    /// <param name="node">The node.</param>
    /// <param name="handle">The handle.</param>
    public Errno Release(NodeId node, HandleId handle) =>
        Call(FuseOpcode.Release, node, Bytes(new FuseReleaseIn { Handle = handle }), 0, out _);

    /// <summary>RELEASEDIR.</summary>
    /// <param name="node">The node.</param>
    /// <param name="handle">The handle.</param>
    public Errno ReleaseDir(NodeId node, HandleId handle) =>
        Call(FuseOpcode.ReleaseDir, node, Bytes(new FuseReleaseIn { Handle = handle }), 0, out _);

    /// <summary>READ. The bytes are valid until the next request.</summary>
    /// <param name="node">The node.</param>
    /// <param name="handle">The handle.</param>
    /// <param name="offset">The position in bytes, or the cookie to continue from.</param>
    /// <param name="size">How many bytes at most.</param>
    /// <param name="data">The bytes.</param>
    public Errno Read(NodeId node, HandleId handle, ulong offset, int size, out ReadOnlySpan<byte> data) => Call(
        FuseOpcode.Read,
        node,
        Bytes(new FuseReadIn { Handle = handle, Offset = offset, Size = (uint)size }),
        size,
        out data);

    /// <summary>WRITE.</summary>
    /// <param name="node">The node.</param>
    /// <param name="handle">The handle.</param>
    /// <param name="offset">The position in bytes, or the cookie to continue from.</param>
    /// <param name="data">The bytes.</param>
    public Result<FuseWriteOut> Write(NodeId node, HandleId handle, ulong offset, ReadOnlySpan<byte> data)
    {
        var arguments = new FuseWriteIn { Handle = handle, Offset = offset, Size = (uint)data.Length };
        return Call<FuseWriteIn, FuseWriteOut>(FuseOpcode.Write, node, arguments, data);
    }

    /// <summary>FSYNC.</summary>
    /// <param name="node">The node.</param>
    /// <param name="handle">The handle.</param>
    public Errno Fsync(NodeId node, HandleId handle) =>
        Call(FuseOpcode.Fsync, node, Bytes(new FuseFsyncIn { Handle = handle }), 0, out _);

    /// <summary>STATFS.</summary>
    /// <param name="node">The node.</param>
    public Result<FuseStatfsOut> Statfs(NodeId node) =>
        Call<byte, FuseStatfsOut>(FuseOpcode.Statfs, node, null, default);

    /// <summary>READDIRPLUS: one reply, appended to a list. An empty reply is the end.</summary>
    /// <param name="node">The node.</param>
    /// <param name="handle">The handle.</param>
    /// <param name="offset">The position in bytes, or the cookie to continue from.</param>
    /// <param name="size">How many bytes at most.</param>
    /// <param name="entries">Takes the entries.</param>
    /// <returns>The cookie to continue from, or null at the end.</returns>
    public Result<ulong?> ReadDirPlus(
        NodeId node, HandleId handle, ulong offset, int size, ICollection<(string Name, NodeEntry Entry)> entries)
    {
        Errno error = Call(
            FuseOpcode.ReadDirPlus,
            node,
            Bytes(new FuseReadIn { Handle = handle, Offset = offset, Size = (uint)size }),
            size,
            out ReadOnlySpan<byte> reply);
        if (error != Errno.Success)
        {
            return error;
        }

        // fuse_direntplus: the entry, then ino 8, off 8, namelen 4, type 4, name, padded to 8.
        int entrySize = Unsafe.SizeOf<NodeEntry>();
        ulong? next = null;
        while (!reply.IsEmpty)
        {
            NodeEntry entry = MemoryMarshal.Read<NodeEntry>(reply);
            next = MemoryMarshal.Read<ulong>(reply[(entrySize + 8)..]);
            int nameLength = (int)MemoryMarshal.Read<uint>(reply[(entrySize + 16)..]);
            entries.Add((Encoding.UTF8.GetString(reply.Slice(entrySize + 24, nameLength)), entry));
            reply = reply[((entrySize + 24 + nameLength + 7) & ~7)..];
        }

        return next;
    }

    private Result<TReply> Call<TArguments, TReply>(
        FuseOpcode opcode, NodeId node, TArguments? arguments, ReadOnlySpan<byte> rest)
        where TArguments : unmanaged
        where TReply : unmanaged
    {
        int fixedSize = arguments is null ? 0 : Unsafe.SizeOf<TArguments>();
        byte[] message = new byte[fixedSize + rest.Length];
        if (arguments is { } value)
        {
            MemoryMarshal.Write(message, in value);
        }

        rest.CopyTo(message.AsSpan(fixedSize));
        Errno error = Call(opcode, node, message, Unsafe.SizeOf<TReply>(), out ReadOnlySpan<byte> reply);
        if (error != Errno.Success)
        {
            return error;
        }

        return reply.Length == Unsafe.SizeOf<TReply>()
            ? MemoryMarshal.Read<TReply>(reply)
            : throw new IOException($"the reply to {opcode} has {reply.Length} bytes of content");
    }

    private static byte[] Terminated(string name) => Encoding.UTF8.GetBytes(name + '\0');

    private static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();
}
