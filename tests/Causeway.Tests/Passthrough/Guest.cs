using System.Runtime.InteropServices;
using System.Text;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.Passthrough;
using Microsoft.Extensions.Logging;

namespace Causeway.Tests.Passthrough;

/// <summary>
/// A guest on a share of its own: calls the file system as a session does, with names given as Latin-1 so that every byte
/// can be written. Not to be used outside <see cref="Worker.Run"/>.
/// </summary>
internal sealed unsafe class Guest : IDisposable
{
    public const FuseFeatures Everything = (FuseFeatures)ulong.MaxValue;

    private readonly Share _share;
    private readonly bool _ownsShare = true;
    private readonly byte* _memory;

    public Guest(PassthroughOptions options, FuseFeatures offered = Everything, ILogger? logger = null)
        : this(Share.Open(options), offered, logger)
    {
    }

    /// <summary>One of several guests on a share, which stays the caller's.</summary>
    public static Guest On(Share share) => new(share, ownsShare: false);

    private Guest(Share share, bool ownsShare)
        : this(share, Everything, logger: null) => _ownsShare = ownsShare;

    private Guest(Share share, FuseFeatures offered, ILogger? logger)
    {
        _share = share;
        LooksAtTable = true;
        FileSystem = new PassthroughFileSystem(_share, logger);
        Negotiation = new FuseNegotiation(46, offered);
        Assert.Equal(Errno.Success, Done(FileSystem.InitializeAsync(Negotiation)));
        AwaitWatch();
        _memory = (byte*)NativeMemory.AlignedAlloc((nuint)BufferSize, 4096);
    }

    public static int BufferSize => 2 << 20;

    public PassthroughFileSystem FileSystem { get; }

    public FuseNegotiation Negotiation { get; }

    /// <summary>Whether it is one for which changes are counted precisely, if there is a version table. Default true.</summary>
    public bool LooksAtTable
    {
        get;
        set
        {
            if (value != field && value)
            {
                _share.Versions?.Table.AddWatcher();
                AwaitWatch();
            }
            else if (value != field)
            {
                _share.Versions?.Table.RemoveWatcher();
            }

            field = value;
        }
    }

    public RequestContext Context { get; } = new();

    public Span<byte> Buffer => new(_memory, BufferSize);

    // Before that, changes by the host void everything, and not only what they change.
    private void AwaitWatch() => Assert.True(
        _share is not { Versions: not null, Watch: { } watch } || SpinWait.SpinUntil(() => watch.IsWatching, 60_000),
        "the host is not watched");

    public static FileName Name(string name)
    {
        Assert.Equal(Errno.Success, FileName.TryCreate(Terminated(name), out FileName checkedName));
        return checkedName;
    }

    public static byte[] Terminated(string text) => [.. Encoding.Latin1.GetBytes(text), 0];

    public Guest As(uint user, uint group, params uint[] groups)
    {
        Context.Reset(new FuseInHeader { UserId = user, GroupId = group });
        groups.CopyTo(Context.SetGroupCount(groups.Length));
        return this;
    }

    /// <summary>Adds a security context to the requests until the next <see cref="As"/>.</summary>
    public Guest Labelled(string name, string value)
    {
        Context.SecurityContextName = Terminated(name);
        Context.SecurityContext = Encoding.Latin1.GetBytes(value);
        return this;
    }

    /// <summary>The next request wants versions; they are in the context's tags after it.</summary>
    public Guest Versioned()
    {
        Context.WantsVersions = true;
        Context.Versions = default;
        return this;
    }

    public Result<NodeEntry> Lookup(NodeId parent, string name) =>
        Done(FileSystem.LookupAsync(parent, Name(name), Context));

    /// <summary>Walks a path from the root.</summary>
    public NodeEntry Walk(string path)
    {
        NodeEntry entry = new() { NodeId = NodeId.Root };
        foreach (string name in path.Split('/'))
        {
            entry = Good(Lookup(entry.NodeId, name));
        }

        return entry;
    }

    public void Forget(NodeId node, ulong count = 1) => FileSystem.Forget(node, count);

    public Result<FuseAttrOut> GetAttr(NodeId node, HandleId? handle = null) => Done(FileSystem.GetAttrAsync(
        node,
        new FuseGetAttrIn
        {
            Flags = handle is null ? FuseGetAttrFlags.None : FuseGetAttrFlags.Handle,
            Handle = handle ?? default,
        },
        Context));

    public Result<FuseAttrOut> SetAttr(NodeId node, FuseSetAttrIn arguments) =>
        Done(FileSystem.SetAttrAsync(node, arguments, Context));

    public Result<NodeEntry> Mkdir(NodeId parent, string name, uint mode = 0x1ed, uint umask = 0) =>
        Done(FileSystem.MkdirAsync(parent, Name(name), new FuseMkdirIn { Mode = mode, Umask = umask }, Context));

    public Result<NodeEntry> Mknod(NodeId parent, string name, uint mode, uint device = 0, uint umask = 0) =>
        Done(FileSystem.MknodAsync(
            parent, Name(name), new FuseMknodIn { Mode = mode, Device = device, Umask = umask }, Context));

    public Result<NodeEntry> Symlink(NodeId parent, string name, string target) =>
        Done(FileSystem.SymlinkAsync(parent, Name(name), Terminated(target), Context));

    public Result<NodeEntry> Link(NodeId node, NodeId parent, string name) =>
        Done(FileSystem.LinkAsync(node, parent, Name(name), Context));

    public Errno Unlink(NodeId parent, string name) => Done(FileSystem.UnlinkAsync(parent, Name(name), Context));

    public Errno Rmdir(NodeId parent, string name) => Done(FileSystem.RmdirAsync(parent, Name(name), Context));

    public Errno Rename(
        NodeId parent, string name, NodeId newParent, string newName, RenameFlags flags = RenameFlags.None) =>
        Done(FileSystem.RenameAsync(
            parent, Name(name), new FuseRename2In { NewParent = newParent, Flags = flags }, Name(newName), Context));

    public Result<FuseCreateOut> Create(
        NodeId parent,
        string name,
        int flags = OpenFlags.ReadWrite,
        uint mode = 0x1a4,
        uint umask = 0,
        FuseOpenInFlags openFlags = FuseOpenInFlags.None) => Done(FileSystem.CreateAsync(
            parent,
            Name(name),
            new FuseCreateIn { Flags = (uint)flags, Mode = mode, Umask = umask, OpenFlags = openFlags },
            Context));

    public Result<FuseCreateOut> Tmpfile(NodeId parent, int flags = OpenFlags.ReadWrite, uint mode = 0x1a4) =>
        Done(FileSystem.TmpfileAsync(parent, new FuseCreateIn { Flags = (uint)flags, Mode = mode }, Context));

    public Errno SetXattr(
        NodeId node, string name, ReadOnlySpan<byte> value, uint flags = 0, SetXattrFlags more = SetXattrFlags.None) =>
        Done(FileSystem.SetXattrAsync(
            node,
            Terminated(name),
            value.ToArray(),
            new FuseSetXattrIn { Size = (uint)value.Length, Flags = flags, SetXattrFlags = more },
            Context));

    /// <summary>GETXATTR of a value of up to 64 KiB.</summary>
    public Result<string> GetXattr(NodeId node, string name)
    {
        byte[] value = new byte[1 << 16];
        Result<int> got = Done(FileSystem.GetXattrAsync(node, Terminated(name), value, Context));
        return got.IsError ? got.Error : Encoding.Latin1.GetString(value, 0, got.Value);
    }

    /// <summary>LISTXATTR, after a look at how long the list is, which has to be exact.</summary>
    public string[] ListXattr(NodeId node)
    {
        byte[] names = new byte[Good(Done(FileSystem.ListXattrAsync(node, Memory<byte>.Empty, Context)))];
        if (names.Length == 0)
        {
            return [];
        }

        Assert.Equal(names.Length, Good(Done(FileSystem.ListXattrAsync(node, names, Context))));
        Assert.Equal(0, names[^1]);
        Assert.Equal(
            Errno.ERANGE, Done(FileSystem.ListXattrAsync(node, new byte[names.Length - 1], Context)).Error);
        return Encoding.Latin1.GetString(names, 0, names.Length - 1).Split('\0');
    }

    public Errno RemoveXattr(NodeId node, string name) =>
        Done(FileSystem.RemoveXattrAsync(node, Terminated(name), Context));

    public Result<FuseOpenOut> Open(
        NodeId node, int flags = OpenFlags.ReadOnly, FuseOpenInFlags openFlags = FuseOpenInFlags.None) =>
        Done(FileSystem.OpenAsync(node, new FuseOpenIn { Flags = (uint)flags, OpenFlags = openFlags }, Context));

    public Result<FuseOpenOut> OpenDir(NodeId node, int flags = OpenFlags.ReadOnly) =>
        Done(FileSystem.OpenDirAsync(node, new FuseOpenIn { Flags = (uint)flags }, Context));

    public Errno Release(NodeId node, HandleId handle) =>
        Done(FileSystem.ReleaseAsync(node, new FuseReleaseIn { Handle = handle }, Context));

    public Errno ReleaseDir(NodeId node, HandleId handle) =>
        Done(FileSystem.ReleaseDirAsync(node, new FuseReleaseIn { Handle = handle }, Context));

    public Errno Flush(NodeId node, HandleId handle) =>
        Done(FileSystem.FlushAsync(node, new FuseFlushIn { Handle = handle }, Context));

    public Errno Fsync(NodeId node, HandleId handle, FuseFsyncFlags flags = FuseFsyncFlags.None) =>
        Done(FileSystem.FsyncAsync(node, new FuseFsyncIn { Handle = handle, Flags = flags }, Context));

    /// <summary>READ into <see cref="Buffer"/>.</summary>
    public Result<int> Read(NodeId node, HandleId handle, ulong offset, int size)
    {
        IoVector piece = new(_memory, (nuint)size);
        return Done(FileSystem.ReadAsync(
            node,
            new FuseReadIn { Handle = handle, Offset = offset, Size = (uint)size },
            new IoVectorList(&piece, 1, size),
            Context));
    }

    public Result<int> Write(
        NodeId node,
        HandleId handle,
        ulong offset,
        ReadOnlySpan<byte> data,
        int fileFlags = 0,
        FuseWriteFlags writeFlags = FuseWriteFlags.None)
    {
        data.CopyTo(Buffer);
        IoVector piece = new(_memory, (nuint)data.Length);
        return Done(FileSystem.WriteAsync(
            node,
            new FuseWriteIn
            {
                Handle = handle,
                Offset = offset,
                Size = (uint)data.Length,
                Flags = (uint)fileFlags,
                WriteFlags = writeFlags,
            },
            new IoVectorList(&piece, 1, data.Length),
            Context));
    }

    /// <summary>READDIR or READDIRPLUS, decoded.</summary>
    public Result<List<Listed>> ReadDir(
        NodeId node, HandleId handle, ulong offset = 0, int size = 1 << 20, bool isPlus = false)
    {
        byte[] reply = new byte[size];
        var writer = new DirectoryWriter();
        writer.Reset(reply, isPlus);
        Errno error = Done(FileSystem.ReadDirAsync(
            node, new FuseReadIn { Handle = handle, Offset = offset, Size = (uint)size }, writer, Context));
        return error == Errno.Success ? Listed.Decode(reply.AsSpan(0, writer.Length), isPlus) : error;
    }

    /// <summary>
    /// A whole listing. One request may bring less than fits: a signal cuts getdents64(2) short, and the runtime sends signals
    /// when it collects garbage.
    /// </summary>
    public List<Listed> ReadAll(NodeId node, HandleId handle, int size = 1 << 20, bool isPlus = false)
    {
        var all = new List<Listed>();
        while (true)
        {
            List<Listed> some = Good(ReadDir(node, handle, all.Count == 0 ? 0 : all[^1].Offset, size, isPlus));
            if (some.Count == 0)
            {
                return all;
            }

            all.AddRange(some);
        }
    }

    public static T Good<T>(Result<T> result)
    {
        Assert.Equal(Errno.Success, result.Error);
        return result.Value;
    }

    /// <summary>The result of an operation that must have completed.</summary>
    public static T Done<T>(ValueTask<T> task)
    {
        Assert.True(task.IsCompleted);
#pragma warning disable CA2012 // It has completed.
        return task.Result;
#pragma warning restore CA2012
    }

    public void Dispose()
    {
        FileSystem.Dispose();
        LooksAtTable = false;
        if (_ownsShare)
        {
            _share.Dispose();
        }

        NativeMemory.AlignedFree(_memory);
    }
}

/// <summary>An entry of a listing.</summary>
internal sealed record Listed(string Name, ulong Inode, ulong Offset, uint Type, NodeEntry Entry)
{
    public static List<Listed> Decode(ReadOnlySpan<byte> reply, bool isPlus)
    {
        var entries = new List<Listed>();
        while (reply.Length != 0)
        {
            NodeEntry entry = default;
            if (isPlus)
            {
                entry = MemoryMarshal.Read<NodeEntry>(reply);
                reply = reply[128..];
            }

            int length = MemoryMarshal.Read<int>(reply[16..]);
            entries.Add(new Listed(
                Encoding.Latin1.GetString(reply.Slice(24, length)),
                MemoryMarshal.Read<ulong>(reply),
                MemoryMarshal.Read<ulong>(reply[8..]),
                MemoryMarshal.Read<uint>(reply[20..]),
                entry));
            int size = (24 + length + 7) & ~7;
            Assert.All(reply[(24 + length)..size].ToArray(), padding => Assert.Equal(0, padding));
            reply = reply[size..];
        }

        return entries;
    }
}
