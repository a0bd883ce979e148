using System.Globalization;
using System.Text;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Tests.Fuse;

/// <summary>
/// Writes down every call in one line and answers with values that can be told apart on the wire. Errors and delays are
/// chosen by the test.
/// </summary>
internal sealed class RecordingFileSystem : FuseFileSystem
{
    /// <summary>The calls so far.</summary>
    public List<string> Calls { get; } = [];

    /// <summary>What every method returns instead of its value, if set.</summary>
    public Errno Error { get; set; }

    /// <summary>Features the file system grants besides the session's.</summary>
    public FuseFeatures Features { get; set; }

    /// <summary>Lets a test adjust the grant.</summary>
    public Action<FuseNegotiation>? OnInitialize { get; set; }

    /// <summary>Runs in every call, before anything else.</summary>
    public Action? OnCall { get; set; }

    /// <summary>What READ, WRITE and the xattr calls return; by default all that was asked for.</summary>
    public int? Count { get; set; }

    /// <summary>What READLINK returns.</summary>
    public byte[] Target { get; set; } = "to/somewhere"u8.ToArray();

    /// <summary>The value of every extended attribute, and the list of names.</summary>
    public byte[] Xattr { get; set; } = "user.a\0user.b\0"u8.ToArray();

    /// <summary>What READDIR lists: name, inode and type.</summary>
    public List<(byte[] Name, ulong Inode, uint Type)> Directory { get; } =
        [(".."u8.ToArray(), 1, 4), ("file"u8.ToArray(), 77, 8)];

    public override ValueTask<Errno> InitializeAsync(FuseNegotiation negotiation)
    {
        OnCall?.Invoke();
        Calls.Add($"INIT minor={negotiation.Minor} offered={(ulong)negotiation.Offered:x}");
        negotiation.Granted |= Features;
        OnInitialize?.Invoke(negotiation);
        return new(Error);
    }

    public override void Destroy()
    {
        OnCall?.Invoke();
        Calls.Add("DESTROY");
    }

    public override ValueTask<Result<NodeEntry>> LookupAsync(NodeId parent, FileName name, RequestContext context)
    {
        ValueTask<Result<NodeEntry>> found = Entry($"LOOKUP parent={parent.Value} name={name}", context);
        return name.Bytes.SequenceEqual("missing"u8) ? new((Result<NodeEntry>)Errno.ENOENT) : found;
    }

    public override void Forget(NodeId node, ulong lookupCount)
    {
        OnCall?.Invoke();
        Calls.Add($"FORGET node={node.Value} count={lookupCount}");
    }

    public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(
        NodeId node, FuseGetAttrIn arguments, RequestContext context) =>
        Attributes($"GETATTR node={node.Value} flags={arguments.Flags} fh={arguments.Handle.Value:x}", context);

    public override ValueTask<Result<FuseStatxOut>> StatxAsync(
        NodeId node, FuseStatxIn arguments, RequestContext context)
    {
        Record(
            $"STATX node={node.Value} flags={arguments.Flags} fh={arguments.Handle.Value:x}"
            + $" sync={arguments.SyncFlags:x} mask={arguments.Mask:x}",
            context);
        return Value(new FuseStatxOut
        {
            AttributeLifetimeSeconds = 0x1111,
            AttributeLifetimeNanoseconds = 0x2222,
            Statx = new FuseStatx
            {
                Mask = 0xfff,
                BlockSize = 4096,
                LinkCount = 2,
                Mode = 0x81a4,
                Inode = 0x3333,
                Size = 0x4444,
                BirthTime = new FuseStatxTime { Seconds = 0x5555, Nanoseconds = 0x6666 },
                ModificationTime = new FuseStatxTime { Seconds = 0x7777 },
                FileSystemMinor = 0x88,
            },
        });
    }

    public override ValueTask<Result<FuseAttrOut>> SetAttrAsync(
        NodeId node, FuseSetAttrIn arguments, RequestContext context) => Attributes(
        $"SETATTR node={node.Value} valid={(uint)arguments.Valid:x} fh={arguments.Handle.Value:x} size={arguments.Size}"
        + $" owner={arguments.LockOwner:x} atime={arguments.AccessTime}.{arguments.AccessTimeNanoseconds}"
        + $" mtime={arguments.ModificationTime}.{arguments.ModificationTimeNanoseconds}"
        + $" ctime={arguments.ChangeTime}.{arguments.ChangeTimeNanoseconds}"
        + $" mode={Octal(arguments.Mode)} uid={arguments.UserId} gid={arguments.GroupId}",
        context);

    public override ValueTask<Result<int>> ReadLinkAsync(
        NodeId node, Memory<byte> destination, RequestContext context)
    {
        Record($"READLINK node={node.Value} room={destination.Length}", context);
        Target.AsSpan(0, Math.Min(Target.Length, destination.Length)).CopyTo(destination.Span);
        return Value(Count ?? Target.Length);
    }

    public override ValueTask<Result<NodeEntry>> SymlinkAsync(
        NodeId parent, FileName name, ReadOnlyMemory<byte> target, RequestContext context) =>
        Entry($"SYMLINK parent={parent.Value} name={name} target={Text(target.Span)}", context);

    public override ValueTask<Result<NodeEntry>> MknodAsync(
        NodeId parent, FileName name, FuseMknodIn arguments, RequestContext context) => Entry(
        $"MKNOD parent={parent.Value} name={name} mode={Octal(arguments.Mode)} rdev={arguments.Device:x}"
        + $" umask={Octal(arguments.Umask)}",
        context);

    public override ValueTask<Result<NodeEntry>> MkdirAsync(
        NodeId parent, FileName name, FuseMkdirIn arguments, RequestContext context) => Entry(
        $"MKDIR parent={parent.Value} name={name} mode={Octal(arguments.Mode)} umask={Octal(arguments.Umask)}", context);

    public override ValueTask<Errno> UnlinkAsync(NodeId parent, FileName name, RequestContext context) =>
        Status($"UNLINK parent={parent.Value} name={name}", context);

    public override ValueTask<Errno> RmdirAsync(NodeId parent, FileName name, RequestContext context) =>
        Status($"RMDIR parent={parent.Value} name={name}", context);

    public override ValueTask<Errno> RenameAsync(
        NodeId parent, FileName name, FuseRename2In arguments, FileName newName, RequestContext context) => Status(
        $"RENAME parent={parent.Value} name={name} newparent={arguments.NewParent.Value} newname={newName}"
        + $" flags={(uint)arguments.Flags}",
        context);

    public override ValueTask<Result<NodeEntry>> LinkAsync(
        NodeId node, NodeId newParent, FileName newName, RequestContext context) =>
        Entry($"LINK node={node.Value} newparent={newParent.Value} newname={newName}", context);

    public override ValueTask<Result<FuseOpenOut>> OpenAsync(
        NodeId node, FuseOpenIn arguments, RequestContext context) =>
        Opened($"OPEN node={node.Value} flags={arguments.Flags:x} open={(uint)arguments.OpenFlags}", context);

    public override ValueTask<Result<FuseCreateOut>> CreateAsync(
        NodeId parent, FileName name, FuseCreateIn arguments, RequestContext context) =>
        Created($"CREATE parent={parent.Value} name={name}", arguments, context);

    public override ValueTask<Result<FuseCreateOut>> TmpfileAsync(
        NodeId parent, FuseCreateIn arguments, RequestContext context) =>
        Created($"TMPFILE parent={parent.Value}", arguments, context);

    public override ValueTask<Result<int>> ReadAsync(
        NodeId node, FuseReadIn arguments, IoVectorList destination, RequestContext context)
    {
        Record(
            $"READ node={node.Value} fh={arguments.Handle.Value:x} offset={arguments.Offset} size={arguments.Size}"
            + $" flags={arguments.ReadFlags} owner={arguments.LockOwner:x} open={arguments.Flags:x}",
            context);
        Assert.Equal(arguments.Size, destination.Length);
        byte[] content = new byte[destination.Length];
        for (int i = 0; i < content.Length; i++)
        {
            content[i] = (byte)((long)arguments.Offset + i);
        }

        destination.CopyFrom(0, content);
        return Value(Count ?? content.Length);
    }

    public override ValueTask<Result<int>> WriteAsync(
        NodeId node, FuseWriteIn arguments, IoVectorList source, RequestContext context)
    {
        byte[] content = new byte[source.Length];
        source.CopyTo(0, content);
        Record(
            $"WRITE node={node.Value} fh={arguments.Handle.Value:x} offset={arguments.Offset} size={arguments.Size}"
            + $" flags={(uint)arguments.WriteFlags} owner={arguments.LockOwner:x} open={arguments.Flags:x}"
            + $" data={(content.Length <= 64 ? Text(content) : "...")}",
            context);
        Assert.Equal(arguments.Size, source.Length);
        return Value(Count ?? content.Length);
    }

    public override ValueTask<Result<FuseStatfsOut>> StatfsAsync(NodeId node, RequestContext context)
    {
        Record($"STATFS node={node.Value}", context);
        return Value(new FuseStatfsOut
        {
            Blocks = 0x1111,
            BlocksFree = 0x2222,
            BlocksAvailable = 0x3333,
            Files = 0x4444,
            FilesFree = 0x5555,
            BlockSize = 0x1000,
            NameLength = 255,
            FragmentSize = 0x200,
        });
    }

    public override ValueTask<Errno> ReleaseAsync(NodeId node, FuseReleaseIn arguments, RequestContext context) =>
        Status(Release("RELEASE", node, arguments), context);

    public override ValueTask<Errno> FlushAsync(NodeId node, FuseFlushIn arguments, RequestContext context) => Status(
        $"FLUSH node={node.Value} fh={arguments.Handle.Value:x} owner={arguments.LockOwner:x}", context);

    public override ValueTask<Errno> FsyncAsync(NodeId node, FuseFsyncIn arguments, RequestContext context) =>
        Status($"FSYNC node={node.Value} fh={arguments.Handle.Value:x} flags={arguments.Flags}", context);

    public override ValueTask<Errno> SetXattrAsync(
        NodeId node,
        ReadOnlyMemory<byte> name,
        ReadOnlyMemory<byte> value,
        FuseSetXattrIn arguments,
        RequestContext context) => Status(
        $"SETXATTR node={node.Value} name={Text(name.Span)} value={(value.Length <= 64 ? Text(value.Span) : "...")}"
        + $" size={arguments.Size} flags={arguments.Flags} set={(uint)arguments.SetXattrFlags}",
        context);

    public override ValueTask<Result<int>> GetXattrAsync(
        NodeId node, ReadOnlyMemory<byte> name, Memory<byte> destination, RequestContext context)
    {
        Record($"GETXATTR node={node.Value} name={Text(name.Span)} room={destination.Length}", context);
        return XattrTo(destination);
    }

    public override ValueTask<Result<int>> ListXattrAsync(
        NodeId node, Memory<byte> destination, RequestContext context)
    {
        Record($"LISTXATTR node={node.Value} room={destination.Length}", context);
        return XattrTo(destination);
    }

    public override ValueTask<Errno> RemoveXattrAsync(
        NodeId node, ReadOnlyMemory<byte> name, RequestContext context) =>
        Status($"REMOVEXATTR node={node.Value} name={Text(name.Span)}", context);

    public override ValueTask<Result<FuseOpenOut>> OpenDirAsync(
        NodeId node, FuseOpenIn arguments, RequestContext context) =>
        Opened($"OPENDIR node={node.Value} flags={arguments.Flags:x} open={(uint)arguments.OpenFlags}", context);

    public override ValueTask<Errno> ReadDirAsync(
        NodeId node, FuseReadIn arguments, DirectoryWriter entries, RequestContext context)
    {
        Record(
            $"READDIR{(entries.IsPlus ? "PLUS" : "")} node={node.Value} fh={arguments.Handle.Value:x}"
            + $" offset={arguments.Offset} size={arguments.Size}",
            context);
        for (int i = (int)Math.Min(arguments.Offset, 1000); i < Directory.Count; i++)
        {
            (byte[] name, ulong inode, uint type) = Directory[i];
            bool added = entries.IsPlus && name[0] != '.'
                ? entries.TryAdd(SampleEntry(inode, type << 12), name, (ulong)i + 1)
                : entries.TryAdd(name, inode, (ulong)i + 1, type);
            if (!added)
            {
                return new(entries.Length == 0 ? Errno.EINVAL : Error);
            }
        }

        return new(Error);
    }

    public override ValueTask<Errno> ReleaseDirAsync(NodeId node, FuseReleaseIn arguments, RequestContext context) =>
        Status(Release("RELEASEDIR", node, arguments), context);

    public override ValueTask<Errno> FsyncDirAsync(NodeId node, FuseFsyncIn arguments, RequestContext context) =>
        Status($"FSYNCDIR node={node.Value} fh={arguments.Handle.Value:x} flags={arguments.Flags}", context);

    public override ValueTask<Errno> AccessAsync(NodeId node, uint mask, RequestContext context) =>
        Status($"ACCESS node={node.Value} mask={mask}", context);

    public override ValueTask<Errno> FallocateAsync(
        NodeId node, FuseFallocateIn arguments, RequestContext context) => Status(
        $"FALLOCATE node={node.Value} fh={arguments.Handle.Value:x} offset={arguments.Offset}"
        + $" length={arguments.Length} mode={arguments.Mode:x}",
        context);

    public override ValueTask<Result<ulong>> LseekAsync(
        NodeId node, FuseLseekIn arguments, RequestContext context)
    {
        Record(
            $"LSEEK node={node.Value} fh={arguments.Handle.Value:x} offset={arguments.Offset} whence={arguments.Whence}",
            context);
        return Value(arguments.Offset + 0x1000);
    }

    public override ValueTask<Result<ulong>> CopyFileRangeAsync(
        NodeId node, FuseCopyFileRangeIn arguments, RequestContext context)
    {
        Record(
            $"COPY node={node.Value} fh={arguments.SourceHandle.Value:x} offset={arguments.SourceOffset}"
            + $" to={arguments.DestinationNode.Value} fh={arguments.DestinationHandle.Value:x}"
            + $" offset={arguments.DestinationOffset} length={arguments.Length}",
            context);
        return Value(arguments.Length);
    }

    public override ValueTask<Errno> SyncFsAsync(NodeId node, RequestContext context) =>
        Status($"SYNCFS node={node.Value}", context);

    /// <summary>An entry whose every field can be told apart.</summary>
    public static NodeEntry SampleEntry(ulong node, uint mode) => new()
    {
        NodeId = new NodeId(node),
        Generation = 0x0101,
        EntryLifetimeSeconds = 0x0202,
        AttributeLifetimeSeconds = 0x0303,
        EntryLifetimeNanoseconds = 0x0404,
        AttributeLifetimeNanoseconds = 0x0505,
        Attributes = SampleAttributes(mode),
    };

    private static FuseAttributes SampleAttributes(uint mode) => new()
    {
        Inode = 0x1111,
        Size = 0x2222,
        Blocks = 0x3333,
        AccessTime = 0x4444,
        ModificationTime = 0x5555,
        ChangeTime = 0x6666,
        AccessTimeNanoseconds = 0x7777,
        ModificationTimeNanoseconds = 0x8888,
        ChangeTimeNanoseconds = 0x9999,
        Mode = mode,
        LinkCount = 0xaa,
        UserId = 0xbb,
        GroupId = 0xcc,
        Device = 0xdd,
        BlockSize = 0x1000,
        Flags = FuseAttributeFlags.Submount,
    };

    private static string Octal(uint value) => Convert.ToString(value, 8);

    private static string Text(ReadOnlySpan<byte> bytes) =>
        Encoding.Latin1.GetString(bytes).Replace("\0", "\\0", StringComparison.Ordinal);

    private static string Release(string what, NodeId node, FuseReleaseIn arguments) =>
        $"{what} node={node.Value} fh={arguments.Handle.Value:x} flags={arguments.Flags:x}"
        + $" release={(uint)arguments.ReleaseFlags} owner={arguments.LockOwner:x}";

    private void Record(string call, RequestContext context)
    {
        OnCall?.Invoke();
        string groups = context.Groups.Length == 0
            ? ""
            : $" groups={string.Join(',', context.Groups.ToArray().Select(id => id.ToString(CultureInfo.InvariantCulture)))}";
        string label = context.HasSecurityContext
            ? $" label={Text(context.SecurityContextName.Span)}:{Text(context.SecurityContext.Span)}"
            : "";
        Calls.Add($"{call} by={context.UserId}:{context.GroupId}:{context.ProcessId}{groups}{label}");
    }

    private ValueTask<Errno> Status(string call, RequestContext context)
    {
        Record(call, context);
        return new(Error);
    }

    private ValueTask<Result<T>> Value<T>(T value) =>
        Error == Errno.Success ? new(value) : new((Result<T>)Error);

    private ValueTask<Result<NodeEntry>> Entry(string call, RequestContext context)
    {
        Record(call, context);
        return Value(SampleEntry(42, 0x81a4));
    }

    private ValueTask<Result<FuseAttrOut>> Attributes(string call, RequestContext context)
    {
        Record(call, context);
        return Value(new FuseAttrOut
        {
            AttributeLifetimeSeconds = 0x0303,
            AttributeLifetimeNanoseconds = 0x0505,
            Attributes = SampleAttributes(0x81a4),
        });
    }

    private ValueTask<Result<FuseOpenOut>> Opened(string call, RequestContext context)
    {
        Record(call, context);
        return Value(new FuseOpenOut { Handle = new HandleId(0xfeed), Flags = OpenReplyFlags.KeepCache });
    }

    private ValueTask<Result<FuseCreateOut>> Created(string call, FuseCreateIn arguments, RequestContext context)
    {
        Record(
            $"{call} flags={arguments.Flags:x} mode={Octal(arguments.Mode)} umask={Octal(arguments.Umask)}"
            + $" open={(uint)arguments.OpenFlags}",
            context);
        return Value(new FuseCreateOut
        {
            Entry = SampleEntry(42, 0x81a4),
            Open = new FuseOpenOut { Handle = new HandleId(0xfeed), Flags = OpenReplyFlags.KeepCache },
        });
    }

    private ValueTask<Result<int>> XattrTo(Memory<byte> destination)
    {
        if (destination.IsEmpty)
        {
            return Value(Count ?? Xattr.Length);
        }

        if (destination.Length < Xattr.Length)
        {
            return new((Result<int>)Errno.ERANGE);
        }

        Xattr.CopyTo(destination);
        return Value(Count ?? Xattr.Length);
    }
}
