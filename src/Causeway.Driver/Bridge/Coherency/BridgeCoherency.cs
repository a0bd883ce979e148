using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver.Bridge;

/// <summary>
/// What a mount keeps and believes with <see cref="BridgeCache.Coherent"/> and <see cref="BridgeCache.Strict"/>: replies are learned
/// from on their way to the kernel, with the versions that came with them, and what the log of the version table says has changed
/// is taken back from the kernel.
/// </summary>
/// <remarks>
/// <para>A reply and an invalidation of what it says cannot pass each other: the worker that delivers a reply looks at the table
/// after the node is known here and before the kernel has the reply, and who invalidates waits for deliveries that have begun
/// before. So either the reply is seen to be old and gets no lifetime, or the kernel has it first and is then told.</para>
/// <para>The lock is held for no system call. What is remembered is what the kernel remembers: it ends with FORGET.</para>
/// </remarks>
internal sealed unsafe partial class BridgeCoherency : IDisposable
{
    // A day: what is kept that long is kept until it is invalidated.
    private const ulong Long = 24 * 60 * 60;

    private readonly VersionTableReader _reader;
    private readonly VersionSampler _sampler;
    private readonly FuseNotificationHandler _tell;
    private readonly bool _isStrict;
    private readonly Lock _gate = new();
    private readonly KnownNodes _known = new();
    private readonly Queue<Invalidation> _due = new();
    private readonly ManualResetEventSlim _isStopped = new();
    private Thread? _follower;

    /// <summary>Begins to believe; <see cref="Follow"/> begins to follow the log.</summary>
    /// <param name="reader">The table; owned from here on.</param>
    /// <param name="isStrict">Whether the kernel keeps names and attributes for no time, and is answered from here.</param>
    /// <param name="tell">Tells the kernel of an invalidation, after all deliveries that have begun.</param>
    public BridgeCoherency(VersionTableReader reader, bool isStrict, FuseNotificationHandler tell)
    {
        _reader = reader;
        _isStrict = isStrict;
        _tell = tell;
        _sampler = new VersionSampler(reader);
    }

    /// <summary>The epoch, to be read before a request is sent.</summary>
    public ulong Epoch => _reader.Epoch;

    /// <summary>What is open for the kernel and not at the device.</summary>
    public LazyHandles Handles { get; } = new();

    /// <summary>How many nodes and names are remembered. For tests.</summary>
    public (int Nodes, int Names) Counts
    {
        get
        {
            lock (_gate)
            {
                return (_known.Count, _known.NameCount);
            }
        }
    }

    /// <summary>Starts to follow the log.</summary>
    public void Follow()
    {
        _follower = new Thread(Run) { IsBackground = true, Name = "bridge-versions" };
        _follower.Start();
    }

    /// <summary>Ends following. The thread must not be waiting for a request that nobody answers any more.</summary>
    public void Stop()
    {
        _isStopped.Set();
        _follower?.Join();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Stop();
        _sampler.Dispose();
        _reader.Dispose();
        _isStopped.Dispose();
    }

    /// <summary>Answers a request without the device, if what is known is current. On the way of its delivery.</summary>
    /// <param name="request">The request.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <param name="body">Room for the body of the reply.</param>
    /// <param name="length">How long the body is.</param>
    /// <param name="error">The error to answer, or success.</param>
    /// <returns>Whether it is answered.</returns>
    public bool TryAnswer(
        in SentRequest request, ReadOnlySpan<byte> arguments, Span<byte> body, out int length, out Errno error)
    {
        length = 0;
        error = Errno.Success;
        switch (request.Opcode)
        {
            case FuseOpcode.Open or FuseOpcode.OpenDir when arguments.Length >= sizeof(uint):
                return TryOpen(request, MemoryMarshal.Read<uint>(arguments), body, out length);

            case FuseOpcode.Lookup:
                return TryLookup(request.Node, NameIn(arguments), body, out length, out error);

            // Also with Coherent: the kernel asks again for the time of the last access after each listing.
            case FuseOpcode.GetAttr:
                return TryGetAttributes(request.Node, body, out length);

            default:
                return false;
        }
    }

    /// <summary>A request goes to the device.</summary>
    public void HasSent(in SentRequest request)
    {
        if (request.IsOwnChange)
        {
            lock (_gate)
            {
                if (_known.Find(request.Node) is { } node)
                {
                    node.OwnChanges++;
                }
            }
        }
    }

    /// <summary>A request has come back, whatever has become of it. After what it says was learned.</summary>
    public void HasReturned(in SentRequest request)
    {
        if (request.IsOwnChange)
        {
            lock (_gate)
            {
                if (_known.Find(request.Node) is { OwnChanges: > 0 } node)
                {
                    node.OwnChanges--;
                }
            }
        }
    }

    /// <summary>The kernel gives lookups back.</summary>
    /// <param name="id">Of which node.</param>
    /// <param name="count">How many.</param>
    /// <returns>How many of them the device has to be told of.</returns>
    public ulong Forget(NodeId id, ulong count)
    {
        lock (_gate)
        {
            if (_known.Find(id) is not { } node || id == NodeId.Root)
            {
                return count;
            }

            ulong own = Math.Min(node.OwnLookups, count);
            node.OwnLookups -= own;
            node.Lookups -= Math.Min(node.Lookups, count);
            if (node.Lookups == 0)
            {
                _known.Remove(node);
            }

            return count - own;
        }
    }

    /// <summary>
    /// Learns from a successful reply, and says in it how long the kernel may keep what it says. On the way of its delivery.
    /// </summary>
    /// <param name="request">What was asked.</param>
    /// <param name="arguments">Its arguments. The device may have changed them, to nobody's harm but its own mount's.</param>
    /// <param name="tags">A copy of the versions that came with the reply.</param>
    /// <param name="body">The body.</param>
    /// <param name="length">Its length in bytes, which was checked for the opcode.</param>
    /// <returns>The length of the body for the kernel.</returns>
    public int Learn(in SentRequest request, ReadOnlySpan<byte> arguments, FuseVersionTags tags, byte* body, int length)
    {
        Check(ref tags);
        switch (request.Opcode)
        {
            case FuseOpcode.Lookup or FuseOpcode.Mknod or FuseOpcode.Mkdir or FuseOpcode.Symlink or FuseOpcode.Link
                or FuseOpcode.Create:
                LearnEntry(request, NameIn(arguments, request.NameOffset), tags, (NodeEntry*)body);
                if (request.Opcode == FuseOpcode.Create)
                {
                    LearnOpen(((NodeEntry*)body)->NodeId, request, tags, &((FuseCreateOut*)body)->Open, isDirectory: false);
                }

                return length;

            case FuseOpcode.Tmpfile:
                LearnEntry(request, [], tags, (NodeEntry*)body);
                return length;

            case FuseOpcode.GetAttr or FuseOpcode.SetAttr:
                LearnAttributes(request, arguments, tags, ref *(FuseAttrOut*)body);
                return length;

            // Its times and flags are not among the attributes that are kept.
            case FuseOpcode.Statx:
                ((FuseStatxOut*)body)->AttributeLifetimeSeconds = 0;
                ((FuseStatxOut*)body)->AttributeLifetimeNanoseconds = 0;
                return length;

            case FuseOpcode.Open or FuseOpcode.OpenDir:
                LearnOpen(request.Node, request, tags, (FuseOpenOut*)body, request.Opcode == FuseOpcode.OpenDir);
                return length;

            case FuseOpcode.Read or FuseOpcode.ReadDir:
                LearnContent(request, tags);
                return length;

            case FuseOpcode.ReadDirPlus:
                LearnContent(request, tags);
                return LearnListing(request, body, length);

            case FuseOpcode.Write or FuseOpcode.Fallocate or FuseOpcode.SetXattr or FuseOpcode.RemoveXattr:
                LearnChange(request, tags);
                return length;

            case FuseOpcode.Unlink or FuseOpcode.Rmdir:
                ForgetName(request.Node, NameIn(arguments), isTold: false);
                return length;

            case FuseOpcode.Rename or FuseOpcode.Rename2:
                LearnRename(request, arguments, tags);
                return length;

            default:
                return length;
        }
    }

    // Versions whose words are none of the table's are none.
    private void Check(ref FuseVersionTags tags)
    {
        if (!_reader.IsPair(tags.InodeWord))
        {
            (tags.InodeWord, tags.Metadata, tags.Content, tags.MetadataBefore, tags.ContentBefore) = (0, 0, 0, 0, 0);
        }

        if (!_reader.IsName(tags.NameWord) || !_reader.IsPair(tags.DirectoryWord))
        {
            (tags.NameWord, tags.Name, tags.DirectoryWord, tags.DirectoryContent) = (0, 0, 0, 0);
        }
    }

    private static ReadOnlySpan<byte> NameIn(ReadOnlySpan<byte> arguments, int offset = 0)
    {
        if (offset >= arguments.Length)
        {
            return [];
        }

        ReadOnlySpan<byte> name = arguments[offset..];
        int end = name.IndexOf((byte)0);
        return end < 0 ? [] : name[..end];
    }

    private bool IsCurrent(uint word, ulong version, ulong epoch) =>
        version != 0 && _reader.IsCurrent(word, version) && _reader.IsCurrent(epoch);

    private bool IsCurrent(KnownName name)
    {
        if (IsCurrent(name.Word, name.Version, name.Epoch))
        {
            return true;
        }

        // Another name on the same word may have changed: if nothing in the directory has, this one has not. The version that it is
        // kept with from now on has to be loaded before that is found out.
        ulong version = VersionWord.ToVersion(_reader.Load(name.Word));
        if (version == 0 || name.Parent.Word == 0
            || !IsCurrent(name.Parent.Word + 1, name.DirectoryContent, name.Epoch))
        {
            return false;
        }

        name.Version = version;
        return true;
    }

    private bool TryOpen(in SentRequest request, uint flags, Span<byte> body, out int length)
    {
        int special = OpenFlags.AccessMode | OpenFlags.Truncate | OpenFlags.Direct;
        length = Unsafe.SizeOf<FuseOpenOut>();
        if (((int)flags & special) != OpenFlags.ReadOnly)
        {
            return false;
        }

        bool isDirectory = request.Opcode == FuseOpcode.OpenDir;
        lock (_gate)
        {
            if (_known.Find(request.Node) is not { } node || !IsCurrent(node.Word + 1, node.Content, node.Epoch))
            {
                return false;
            }
        }

        var reply = new FuseOpenOut
        {
            Handle = new HandleId(Handles.Add(flags, isDirectory)),
            Flags = OpenReplyFlags.KeepCache | (isDirectory ? OpenReplyFlags.CacheDir : OpenReplyFlags.NoFlush),
        };
        MemoryMarshal.Write(body, in reply);
        return true;
    }

    private bool TryLookup(NodeId parent, ReadOnlySpan<byte> text, Span<byte> body, out int length, out Errno error)
    {
        length = 0;
        error = Errno.Success;
        lock (_gate)
        {
            if (_known.Find(parent, text) is not { } name || !IsCurrent(name))
            {
                return false;
            }

            if (name.Child is not { } child)
            {
                error = Errno.ENOENT;
                return true;
            }

            if (!IsCurrent(child.Word, child.AttributesVersion, child.Epoch))
            {
                return false;
            }

            // What the kernel has from now on is of these versions.
            child.Metadata = child.AttributesVersion;
            child.Lookups++;
            child.OwnLookups++;
            var reply = new NodeEntry
            {
                NodeId = child.Id,
                Generation = child.Generation,
                EntryLifetimeSeconds = Lifetime(isCurrent: true),
                AttributeLifetimeSeconds = Lifetime(isCurrent: true),
                Attributes = child.Attributes,
            };
            MemoryMarshal.Write(body, in reply);
            length = Unsafe.SizeOf<NodeEntry>();
            return true;
        }
    }

    private bool TryGetAttributes(NodeId id, Span<byte> body, out int length)
    {
        length = Unsafe.SizeOf<FuseAttrOut>();
        lock (_gate)
        {
            if (_known.Find(id) is not { } node || !IsCurrent(node.Word, node.AttributesVersion, node.Epoch))
            {
                return false;
            }

            node.Metadata = node.AttributesVersion;
            var reply = new FuseAttrOut
            {
                AttributeLifetimeSeconds = Lifetime(isCurrent: true),
                Attributes = node.Attributes,
            };
            MemoryMarshal.Write(body, in reply);
            return true;
        }
    }

    private void LearnEntry(in SentRequest request, ReadOnlySpan<byte> text, in FuseVersionTags tags, NodeEntry* entry)
    {
        NodeEntry copy = *entry;
        bool isNameCurrent = false;
        bool isNodeCurrent = false;
        lock (_gate)
        {
            KnownNode? child = null;
            if (copy.NodeId != NodeId.None)
            {
                child = _known.Add(copy.NodeId);
                child.Generation = copy.Generation;
                child.Lookups += copy.NodeId == NodeId.Root ? 0U : 1U;
                _known.SetWord(child, tags.InodeWord);
                isNodeCurrent = TrySetAttributes(child, copy.Attributes, tags.Metadata, request.Epoch);
            }

            if (!text.IsEmpty && _known.Find(request.Node) is { } parent)
            {
                isNameCurrent = TrySetName(parent, text, child, tags, request.Epoch);
            }
        }

        (entry->EntryLifetimeSeconds, entry->EntryLifetimeNanoseconds) = (Lifetime(isNameCurrent), 0);
        (entry->AttributeLifetimeSeconds, entry->AttributeLifetimeNanoseconds) = (Lifetime(isNodeCurrent), 0);
    }

    private ulong Lifetime(bool isCurrent) => isCurrent && !_isStrict ? Long : 0;

    // First it is known here, then it is looked at once more: who invalidates looks the other way round.
    private bool TrySetAttributes(KnownNode node, in FuseAttributes attributes, ulong version, ulong epoch)
    {
        (node.Metadata, node.AttributesVersion, node.Attributes) = (version, version, attributes);
        if (node.Epoch != epoch)
        {
            (node.Epoch, node.Content) = (epoch, 0);
        }

        if (IsCurrent(node.Word, version, epoch))
        {
            return true;
        }

        (node.Metadata, node.AttributesVersion) = (0, 0);
        return false;
    }

    private bool TrySetName(
        KnownNode parent, ReadOnlySpan<byte> text, KnownNode? child, in FuseVersionTags tags, ulong epoch)
    {
        if (tags.Name == 0 || _known.Add(parent, text, child, tags.NameWord) is not { } name)
        {
            if (_known.Find(parent.Id, text) is { } old)
            {
                _known.Remove(old);
            }

            return false;
        }

        (name.Version, name.Epoch) = (tags.Name, epoch);
        name.DirectoryContent = tags.DirectoryWord == parent.Word || parent.Word == 0 ? tags.DirectoryContent : 0;
        if (parent.Word == 0)
        {
            _known.SetWord(parent, tags.DirectoryWord);
        }

        if (IsCurrent(name.Word, name.Version, epoch))
        {
            return true;
        }

        _known.Remove(name);
        return false;
    }

    private void LearnAttributes(
        in SentRequest request, ReadOnlySpan<byte> arguments, in FuseVersionTags tags, ref FuseAttrOut reply)
    {
        bool isResized = request.Opcode == FuseOpcode.SetAttr && arguments.Length >= sizeof(uint)
            && (MemoryMarshal.Read<SetAttrValid>(arguments) & SetAttrValid.Size) != 0;
        bool isCurrent = false;
        FuseAttributes attributes = reply.Attributes;
        lock (_gate)
        {
            if (_known.Find(request.Node) is { } node)
            {
                ulong content = node.Content;
                _known.SetWord(node, tags.InodeWord);
                if (isResized)
                {
                    SetChangedContent(node, content, tags);
                }

                isCurrent = TrySetAttributes(node, attributes, tags.Metadata, request.Epoch);
            }
        }

        (reply.AttributeLifetimeSeconds, reply.AttributeLifetimeNanoseconds) = (Lifetime(isCurrent), 0);
    }

    private int LearnListing(in SentRequest request, byte* body, int length)
    {
        // Tags, then fuse_direntplus: the entry, then ino 8, off 8, namelen 4, type 4, name, padded to 8.
        const int direntSize = 24;
        int from = 0;
        int to = 0;
        while (length - from >= FuseVersionTags.Size + sizeof(NodeEntry) + direntSize)
        {
            FuseVersionTags tags = *(FuseVersionTags*)(body + from);
            byte* entry = body + from + FuseVersionTags.Size;
            uint nameLength = Volatile.Read(ref Unsafe.AsRef<uint>(entry + sizeof(NodeEntry) + 16));
            int size = (sizeof(NodeEntry) + direntSize + (int)Math.Min(nameLength, 4096) + 7) & ~7;
            if (nameLength is 0 or > 4096 || size > length - from - FuseVersionTags.Size)
            {
                // The kernel takes what comes before.
                break;
            }

            Check(ref tags);
            if (((NodeEntry*)entry)->NodeId != NodeId.None)
            {
                LearnEntry(
                    request,
                    new ReadOnlySpan<byte>(entry + sizeof(NodeEntry) + direntSize, (int)nameLength),
                    tags,
                    (NodeEntry*)entry);
            }

            Buffer.MemoryCopy(entry, body + to, length - to, size);
            from += FuseVersionTags.Size + size;
            to += size;
        }

        return to;
    }

    private void LearnOpen(NodeId id, in SentRequest request, in FuseVersionTags tags, FuseOpenOut* open, bool isDirectory)
    {
        bool isKept = false;
        lock (_gate)
        {
            if (_known.Find(id) is { } node)
            {
                _known.SetWord(node, tags.InodeWord);
                isKept = node.Content != 0 && node.Content == tags.Content && node.Epoch == request.Epoch;
                if (node.Epoch != request.Epoch)
                {
                    (node.Epoch, node.Metadata, node.AttributesVersion) = (request.Epoch, 0, 0);
                }

                node.Content = tags.Content;
                node.Content = IsCurrent(node.Word + 1, tags.Content, request.Epoch) ? tags.Content : 0;
                isKept &= node.Content != 0;
            }
        }

        OpenReplyFlags flags = open->Flags & ~(OpenReplyFlags.DirectIo | OpenReplyFlags.KeepCache);
        open->Flags = flags | (isKept ? OpenReplyFlags.KeepCache : OpenReplyFlags.None)
            | (isDirectory ? OpenReplyFlags.CacheDir : OpenReplyFlags.None);
    }

    // What the kernel is about to put into its cache is taken out again if it is older than what is told by now.
    private void LearnContent(in SentRequest request, in FuseVersionTags tags)
    {
        if (!IsCurrent(tags.InodeWord + 1, tags.Content, request.Epoch))
        {
            lock (_gate)
            {
                if (_known.Find(request.Node) is { } node)
                {
                    node.Content = 0;
                }

                _due.Enqueue(new Invalidation(request.Node, IsData: true));
            }
        }
    }

    private void LearnChange(in SentRequest request, in FuseVersionTags tags)
    {
        lock (_gate)
        {
            if (_known.Find(request.Node) is not { } node)
            {
                return;
            }

            node.AttributesVersion = 0;
            if (tags.MetadataBefore != 0 && tags.MetadataBefore == node.Metadata)
            {
                node.Metadata = tags.Metadata;
            }
            else if (node.Metadata != 0)
            {
                node.Metadata = 0;
                _due.Enqueue(new Invalidation(node.Id, IsData: false));
            }

            if (request.Opcode is FuseOpcode.Write or FuseOpcode.Fallocate)
            {
                SetChangedContent(node, node.Content, tags);
            }
        }
    }

    // The kernel has what it wrote in its cache. The rest is of the version before, if nobody else has written.
    private void SetChangedContent(KnownNode node, ulong content, in FuseVersionTags tags)
    {
        if (content == 0)
        {
            return;
        }

        node.Content = tags.ContentBefore == content ? tags.Content : 0;
        if (node.Content == 0)
        {
            _due.Enqueue(new Invalidation(node.Id, IsData: true));
        }
    }

    private void ForgetName(NodeId parent, ReadOnlySpan<byte> text, bool isTold)
    {
        lock (_gate)
        {
            if (_known.Find(parent, text) is { } name)
            {
                _known.Remove(name);
            }

            if (isTold)
            {
                _due.Enqueue(new Invalidation(parent, text.ToArray()));
            }
        }
    }

    // The kernel moves its entry with the lifetime it had. Where it is not known of what version that is, the kernel looks the name
    // up once more.
    private void LearnRename(in SentRequest request, ReadOnlySpan<byte> arguments, in FuseVersionTags tags)
    {
        ReadOnlySpan<byte> oldName = NameIn(arguments, request.NameOffset);
        ReadOnlySpan<byte> newName = NameIn(arguments, request.NameOffset + oldName.Length + 1);
        if (arguments.Length < request.NameOffset)
        {
            return;
        }

        var newParent = new NodeId(MemoryMarshal.Read<ulong>(arguments));
        bool isExchange = request.Opcode == FuseOpcode.Rename2
            && (MemoryMarshal.Read<uint>(arguments[8..]) & (uint)RenameFlags.Exchange) != 0;
        lock (_gate)
        {
            KnownNode? moved = _known.Find(request.Node, oldName)?.Child;
            KnownNode? parent = _known.Find(newParent);
            ForgetName(request.Node, oldName, isTold: isExchange);
            ForgetName(newParent, newName, isTold: false);
            bool isKnown = !isExchange && moved is not null && parent is not null
                && TrySetName(parent, newName, moved, tags, request.Epoch);
            if (!isKnown)
            {
                ForgetName(newParent, newName, isTold: true);
            }
        }
    }

    /// <summary>What the kernel is to be told.</summary>
    private readonly record struct Invalidation(NodeId Node, byte[]? Name, bool IsData)
    {
        public Invalidation(NodeId parent, byte[] name)
            : this(parent, name, IsData: false)
        {
        }

        public Invalidation(NodeId node, bool IsData)
            : this(node, null, IsData)
        {
        }
    }
}
