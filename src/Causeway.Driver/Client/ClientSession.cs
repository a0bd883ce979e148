using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using System.Text;
using Causeway.Fuse;
using Causeway.Linux;
using Causeway.VhostUser.Frontend;

namespace Causeway.Driver;

/// <summary>One FUSE session of a client: connection, what was negotiated, and what is cached.</summary>
internal sealed partial class ClientSession : IDisposable
{
    // Symbolic links on the way of a path (MAXSYMLINKS of Linux).
    private const int MaxLinks = 40;

    private readonly VirtioFsClientOptions _options;
    private ulong _lastLockOwner;

    private ClientSession(VirtioFsTransport transport, VirtioFsClientOptions options)
    {
        _options = options;
        Transport = transport;
        Messages = new FuseMessages(
            transport, options.UserId ?? Credentials.Geteuid(), options.GroupId ?? Credentials.Getegid());
        Nodes = new NodeCache(transport, options, FreeData);
        Data = new DataCache(Messages, Nodes, BlocksOf(options));
    }

    // Samples the heartbeat of the version table; null in sessions without.
    private VersionSampler? _sampler;

    /// <summary>The DAX window; null when files are read and written by requests only.</summary>
    internal ClientWindow? Window { get; private set; }

    internal VirtioFsTransport Transport { get; }

    internal FuseMessages Messages { get; }

    internal NodeCache Nodes { get; }

    internal DataCache Data { get; }

    /// <summary>Open files that may keep back what was written.</summary>
    internal ConcurrentDictionary<VirtioFsFile, byte> Writers { get; } = new();

    internal bool CachesData => _options.Cache != CacheMode.None;

    internal bool WritesBack => _options.Writes == WriteMode.Back;

    internal CacheUsage Usage
    {
        get
        {
            (int names, int nodes, int listed) = Nodes.Count;
            (long bytes, long dirty) = Data.Usage;
            return new CacheUsage(names, nodes, bytes, dirty, CachesData ? Data.MaxBytes : 0) { ListedNames = listed };
        }
    }

    internal static async ValueTask<ClientSession> StartAsync(
        VirtioFsClientOptions options,
        Func<VirtioFsTransportOptions, VirtioFsTransport> connect,
        CancellationToken cancellationToken)
    {
        options.Validate();

        // Notifications can come before the session is made; there is nothing to invalidate then.
        ClientSession? session = null;
        VirtioFsTransport transport = connect(options.Transport with
        {
            CacheBuffers = options.Cache == CacheMode.None ? 0 : BlocksOf(options),
            CacheBufferBytes = DataCache.BlockBytes,
            OpensWindow = options.Dax != DaxMode.Never,
            OpensVersionTable = options.Cache == CacheMode.Coherent,
            OnLost = loss =>
            {
                Volatile.Read(ref session)?.Nodes.Versions?.Kill();
                options.Transport.OnLost?.Invoke(loss);
            },
            OnNotification = (code, payload) =>
            {
                Volatile.Read(ref session)?.Invalidate(code, payload);
                options.Transport.OnNotification?.Invoke(code, payload);
            },
        });
        try
        {
            var made = new ClientSession(transport, options);
            Volatile.Write(ref session, made);

            // A device that takes requests and answers none is no file system, and must not be waited for without end.
            using var timeout = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            timeout.CancelAfter(options.Transport.SetUpTimeout);
            try
            {
                await made.InitializeAsync(timeout.Token).ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
            {
                throw new VirtioFsDeviceException(
                    DeviceFailure.NotVirtioFs,
                    $"the device did not answer INIT within {options.Transport.SetUpTimeout.TotalSeconds:0.###} seconds, so "
                    + "it is no virtio-fs device, or its file system hangs");
            }

            return made;
        }
        catch
        {
            transport.Dispose();
            session?.Dispose();
            throw;
        }
    }

    /// <summary>A number that no other open file of the session has.</summary>
    internal ulong NextLockOwner() => Interlocked.Increment(ref _lastLockOwner);

    /// <summary>Tells the device that the session ends, unless it is lost already.</summary>
    internal async ValueTask EndAsync()
    {
        if (Transport.Loss is not null)
        {
            return;
        }

        Messages.BeginEnd();
        try
        {
            using var timeout = new CancellationTokenSource(_options.Transport.SetUpTimeout);
            await Messages.CallAsync(
                new(FuseOpcode.Destroy, NodeId.None), default(FuseMessages.NoArguments), default, timeout.Token)
                .ConfigureAwait(false);
        }
        catch (Exception exception) when (exception is VirtioFsDeviceException or OperationCanceledException)
        {
            // The device drops the session with the connection as well.
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Transport.Dispose();
        Window?.Dispose();
        Data.Close();
        _sampler?.Dispose();
        Nodes.Versions?.Dispose();
    }

    internal static T Check<T>(Result<T> result, string operation, string path) =>
        result.IsError ? throw new VirtioFsException(result.Error, operation, path) : result.Value;

    internal static void Check(Errno error, string operation, string path)
    {
        if (error != Errno.Success)
        {
            throw new VirtioFsException(error, operation, path);
        }
    }

    /// <summary>
    /// Does something by path, and once more with all names looked up again when it was for an object that is gone and whose
    /// name was believed to be there: as Linux does after ESTALE (LOOKUP_REVAL).
    /// </summary>
    internal async ValueTask<T> ByPathAsync<T>(Func<ValueTask<T>> action)
    {
        try
        {
            return await action().ConfigureAwait(false);
        }
        catch (VirtioFsException exception) when (exception.Error == Errno.ESTALE && _options.Cache != CacheMode.None)
        {
            Nodes.ForgetNames();
        }

        return await action().ConfigureAwait(false);
    }

    /// <summary>Finds the node of a path. It has one more user, which the caller gives back.</summary>
    internal async ValueTask<CachedNode> WalkAsync(
        string operation, string path, LinkHandling links, CancellationToken cancellationToken)
    {
        var pending = new Stack<string>();
        Push(pending, path);
        var way = new List<CachedNode>();
        NodeCache.Use(Nodes.Root);
        CachedNode current = Nodes.Root;
        int followed = 0;
        try
        {
            while (pending.TryPop(out string? name))
            {
                if (name == "..")
                {
                    // Above the root is the root.
                    if (way.Count > 0)
                    {
                        Nodes.Release(current);
                        current = way[^1];
                        way.RemoveAt(way.Count - 1);
                    }

                    continue;
                }

                CachedNode next = await LookupAsync(operation, current, name, path, cancellationToken).ConfigureAwait(false);
                bool isLast = pending.Count == 0;
                if (next.Kind == FileKind.SymbolicLink && !(isLast && links == LinkHandling.NoFollow))
                {
                    string target;
                    try
                    {
                        Check(++followed > MaxLinks ? Errno.ELOOP : Errno.Success, operation, path);
                        target = await ReadLinkAsync(next, path, cancellationToken).ConfigureAwait(false);
                    }
                    finally
                    {
                        Nodes.Release(next);
                    }

                    if (target.StartsWith('/'))
                    {
                        Nodes.Release([.. way]);
                        way.Clear();
                        NodeCache.Use(Nodes.Root);
                        Nodes.Release(current);
                        current = Nodes.Root;
                    }

                    Push(pending, target);
                    continue;
                }

                way.Add(current);
                current = next;
            }

            return current;
        }
        catch
        {
            way.Add(current);
            throw;
        }
        finally
        {
            Nodes.Release([.. way]);
        }
    }

    /// <summary>Finds the directory of a path, and splits off the last name.</summary>
    internal async ValueTask<(CachedNode Parent, string Name)> WalkToParentAsync(
        string operation, string path, CancellationToken cancellationToken)
    {
        string trimmed = path.TrimEnd('/');
        int slash = trimmed.LastIndexOf('/');
        string name = trimmed[(slash + 1)..];

        // As the kernel answers for names that cannot be made, removed or moved.
        Check(name switch { "" => Errno.EBUSY, "." or ".." => Errno.EINVAL, _ => Errno.Success }, operation, path);
        string above = slash < 0 ? "" : trimmed[..slash];
        return (await WalkAsync(operation, above, LinkHandling.Follow, cancellationToken).ConfigureAwait(false), name);
    }

    /// <summary>Finds a name in a directory: in the cache, or by LOOKUP. The node has one more user.</summary>
    internal async ValueTask<CachedNode> LookupAsync(
        string operation, CachedNode parent, string name, string path, CancellationToken cancellationToken)
    {
        if (Nodes.TryFind(parent, name, out CachedNode? cached))
        {
            return cached ?? throw new VirtioFsException(Errno.ENOENT, operation, path);
        }

        var names = new FuseMessages.Names(name);
        Check(names.Check(), operation, path);
        ReplyNote note = Nodes.Note();
        Result<NodeEntry> entry = await Messages.CallEntryAsync(
            new(FuseOpcode.Lookup, parent.Id, note), default(FuseMessages.NoArguments), names, cancellationToken)
            .ConfigureAwait(false);
        if (entry.Error == Errno.ENOENT)
        {
            Nodes.LearnMissing(parent, name, note);
        }

        return Nodes.Learn(Check(entry, operation, path), note.Tags, parent, name, note);
    }

    /// <summary>The attributes: cached, or by GETATTR.</summary>
    internal ValueTask<FileStatus> GetStatusAsync(CachedNode node, string path, CancellationToken cancellationToken) =>
        Nodes.TryGetAttributes(node, out FuseAttributes attributes)
            ? new ValueTask<FileStatus>(WithDirty(node, attributes))
            : FetchStatusAsync(node, path, cancellationToken);

    private async ValueTask<FileStatus> FetchStatusAsync(
        CachedNode node, string path, CancellationToken cancellationToken)
    {
        ReplyNote note = Nodes.Note();
        var target = new FuseMessages.Target(FuseOpcode.GetAttr, node.Id, note);
        FuseAttrOut reply = Check(
            await Messages.CallAsync<FuseGetAttrIn, FuseAttrOut>(target, default, default, null, cancellationToken)
                .ConfigureAwait(false),
            "stat",
            path);
        Accept(target, node, reply, note);
        return WithDirty(node, reply.Attributes);
    }

    private static FileStatus WithDirty(CachedNode node, FuseAttributes attributes)
    {
        // What was written and not flushed is not known to the device.
        if (node.Data is { DirtyLength: > 0 } data)
        {
            attributes.Size = Math.Max(attributes.Size, (ulong)data.DirtyLength);
        }

        return new FileStatus(attributes);
    }

    /// <summary>SETATTR.</summary>
    internal async ValueTask<Errno> SetAttributesAsync(
        CachedNode node, FuseSetAttrIn arguments, CancellationToken cancellationToken)
    {
        Nodes.ForgetAttributes(node);
        ReplyNote note = Nodes.Note();
        var target = new FuseMessages.Target(FuseOpcode.SetAttr, node.Id, note);
        Result<FuseAttrOut> reply = await Messages.CallAsync<FuseSetAttrIn, FuseAttrOut>(
            target, arguments, default, null, cancellationToken).ConfigureAwait(false);
        if (!reply.IsError)
        {
            Accept(target, node, reply.Value, note);
        }

        return reply.Error;
    }

    internal async ValueTask<string> ReadLinkAsync(CachedNode node, string path, CancellationToken cancellationToken)
    {
        if (Nodes.IsCoherent && Nodes.TargetOf(node) is { } known)
        {
            return known;
        }

        ReplyNote note = Nodes.Note();
        var target = new FuseMessages.Target(FuseOpcode.ReadLink, node.Id, note);
        byte[] bytes = Check(
            await Messages.CallBytesAsync(target, default(FuseMessages.NoArguments), default, 4095, cancellationToken)
                .ConfigureAwait(false),
            "readlink",
            path);
        string text = bytes.Length > 0 && !bytes.Contains((byte)0)
            ? Encoding.UTF8.GetString(bytes)
            : throw FuseMessages.Malformed(target);
        NodeCache.LearnTarget(node, text, note);
        return text;
    }

    /// <summary>A name is gone or means something else: we have changed it, or tried to.</summary>
    internal void ForgetNode(CachedNode parent, string name)
    {
        if (Nodes.TryFind(parent, name, out CachedNode? node) && node is not null)
        {
            Nodes.ForgetAttributes(node);
            Nodes.Release(node);
        }

        Nodes.ForgetName(parent, name);
        Nodes.ForgetAttributes(parent);
    }

    /// <summary>The device says that something has changed. What is not known here is ignored.</summary>
    internal void Invalidate(FuseNotifyCode code, ReadOnlySpan<byte> payload)
    {
        if (Nodes.IsCoherent)
        {
            // The version table has said so already.
            return;
        }

        Nodes.CountChange();
        switch (code)
        {
            case FuseNotifyCode.InvalInode when TryRead(payload, out FuseNotifyInvalInodeOut inode, out _):
                if (Nodes.Find(inode.NodeId) is { } node)
                {
                    Nodes.ForgetAttributes(node);
                    if (inode.Offset >= 0 && node.Data is { } data)
                    {
                        long end = inode.Length <= 0 || inode.Length > long.MaxValue - inode.Offset
                            ? long.MaxValue
                            : inode.Offset + inode.Length;
                        Data.Drop(data, inode.Offset, end);
                    }
                }

                break;
            case FuseNotifyCode.InvalEntry when TryRead(payload, out FuseNotifyInvalEntryOut entry, out ReadOnlySpan<byte> rest)
                && TryReadName(rest, entry.NameLength, out string name):
                Nodes.ForgetName(entry.Parent, name);
                break;
            case FuseNotifyCode.Delete when TryRead(payload, out FuseNotifyDeleteOut deleted, out ReadOnlySpan<byte> rest)
                && TryReadName(rest, deleted.NameLength, out string name):
                Nodes.ForgetName(deleted.Parent, name);
                break;
            case FuseNotifyCode.IncEpoch:
                Nodes.ForgetNames();
                break;
            default:
                break;
        }
    }

    private static bool TryRead<T>(ReadOnlySpan<byte> payload, out T value, out ReadOnlySpan<byte> rest)
        where T : unmanaged
    {
        rest = default;
        if (!MemoryMarshal.TryRead(payload, out value))
        {
            return false;
        }

        rest = payload[System.Runtime.CompilerServices.Unsafe.SizeOf<T>()..];
        return true;
    }

    private static bool TryReadName(ReadOnlySpan<byte> rest, uint length, out string name)
    {
        name = "";
        if (length is 0 or > 255 || rest.Length != length + 1)
        {
            return false;
        }

        name = Encoding.UTF8.GetString(rest[..(int)length]);
        return true;
    }

    private async ValueTask InitializeAsync(CancellationToken cancellationToken)
    {
        FuseFeatures more = !Transport.HasWindow ? FuseFeatures.None
            : _options.Dax == DaxMode.Always ? FuseFeatures.MapAlignment
            : FuseFeatures.MapAlignment | FuseFeatures.InitExt | FuseFeatures.HasInodeDax;
        if (Nodes.IsCoherent)
        {
            await InitializeVersionsAsync(more, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            await Messages.InitializeAsync(more, cancellationToken).ConfigureAwait(false);
        }

        bool isUsed = Messages.MapAlignment <= ClientWindow.RangeShift
            && (_options.Dax == DaxMode.Always || Messages.Features.HasFlag(FuseFeatures.HasInodeDax));
        SharedMemoryRegion? region = isUsed ? Transport.TakeWindow() : null;

        // Where a file that becomes shorter would end this process, files are read by requests.
        if (region is { Faults: { } faults, Size: >= ClientWindow.RangeBytes })
        {
            Window = new ClientWindow(region, faults, Messages, Nodes);
        }
        else
        {
            region?.Dispose();
        }
    }

    private async ValueTask InitializeVersionsAsync(FuseFeatures more, CancellationToken cancellationToken)
    {
        const string Need = "CacheMode.Coherent needs a daemon with a version table: start Causeway with --version-table, or use "
            + "another cache mode";
        if (!Transport.HasVersionTable)
        {
            throw new VirtioFsDeviceException(DeviceFailure.NotSupported, $"the device has no version table; {Need}");
        }

        long before = Environment.TickCount64;
        await Messages.InitializeAsync(more | FuseFeatures.InitExt | FuseFeatures.VersionTable, cancellationToken)
            .ConfigureAwait(false);
        if (!Messages.Features.HasFlag(FuseFeatures.VersionTable))
        {
            throw new VirtioFsDeviceException(
                DeviceFailure.NotSupported, $"the device does not let its version table be used; {Need}");
        }

        SharedMemoryRegion region = Transport.TakeVersionTable()!;
        if (VersionTableReader.TryOpen(region) is not { } table)
        {
            region.Dispose();
            throw new VirtioFsDeviceException(
                DeviceFailure.NotSupported, $"what the device shows is no version table that can be read; {Need}");
        }

        table.Believe(before);
        Nodes.Versions = table;
        _sampler = new VersionSampler(table);
        if (Transport.Loss is not null)
        {
            // It was lost before there was anybody to be told.
            table.Kill();
        }
    }

    private static int BlocksOf(VirtioFsClientOptions options) =>
        (int)Math.Min(options.MaxCachedBytes / DataCache.BlockBytes, int.MaxValue);

    /// <summary>The names of a path in the order of their use.</summary>
    private static void Push(Stack<string> pending, string path)
    {
        string[] names = path.Split('/', StringSplitOptions.RemoveEmptyEntries);
        for (int i = names.Length - 1; i >= 0; i--)
        {
            if (names[i] != ".")
            {
                pending.Push(names[i]);
            }
        }
    }

    private void Accept(FuseMessages.Target target, CachedNode node, in FuseAttrOut reply, ReplyNote note)
    {
        // A node does not become something else.
        if (!FuseMessages.IsValid(reply.Attributes) || (FileKind)(reply.Attributes.Mode >> 12) != node.Kind)
        {
            throw FuseMessages.Malformed(target);
        }

        Nodes.LearnAttributes(node, reply.Attributes, note);
    }

    private void FreeData(CachedNode node)
    {
        if (node.Data is { } data)
        {
            Data.DropAll(data);
        }

        if (node.Mapped is { } mapped)
        {
            Window?.Release(mapped);
        }
    }
}
