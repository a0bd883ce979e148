using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// The guest's DAX window: which files it may use it for, what is mapped, and that a mapped file changes its size only after
// its mappings have (MappedFile). Locks are taken in this order: the gate of a file, the window, the table of mapped files.
// None of them is taken for a file while no file of the share is mapped.
public sealed unsafe partial class PassthroughFileSystem
{
    // Below, a read costs less than what a range costs the guest: 32 KiB of page structures and two messages
    // (performance.md, part 5).
    private const ulong SmallestMappedFile = 128 << 10;

    private const ulong PageSize = 4096;

    // In Node.DaxSlots.
    private const uint NeverMapped = uint.MaxValue;

    private IDaxWindow? _window;
    private bool _choosesFiles;
    private long _grantedSlots;

    /// <inheritdoc/>
    public override ValueTask<Errno> SetupMappingAsync(
        NodeId node, FuseSetupMappingIn arguments, RequestContext context) => new(SetupMapping(node, arguments));

    // At INIT. What is not writable is nothing for QEMU: it maps everything for writing.
    private FuseFeatures BeginMappings(FuseNegotiation negotiation)
    {
        _window = negotiation.Window is { NeedsWholePages: true } && _options.ReadOnly ? null : negotiation.Window;
        if (_window is not null)
        {
            _share.MappedFiles.Expect();
        }

        _choosesFiles = _window is not null && negotiation.Offers(FuseFeatures.HasInodeDax);
        Volatile.Write(ref _grantedSlots, 0);
        return _choosesFiles ? FuseFeatures.HasInodeDax : FuseFeatures.None;
    }

    private Errno SetupMapping(NodeId id, in FuseSetupMappingIn arguments)
    {
        if (_window is not { } window)
        {
            return Errno.EOPNOTSUPP;
        }

        bool isWrite = (arguments.Flags & FuseMappingFlags.Write) != 0;
        if (isWrite && _options.ReadOnly)
        {
            return Errno.EROFS;
        }

        // Linux names no handle. Who does is held to it.
        Errno error = arguments.Handle.Value == ulong.MaxValue ? Errno.Success : CheckHandle(id, arguments.Handle, isWrite);
        if (error != Errno.Success)
        {
            return error;
        }

        error = TakeMappedFile(id, window, isWrite, out MappedFile? file, out bool wasGranted);
        if (error != Errno.Success)
        {
            return Answer(error);
        }

        // Whoever writes from now on finds the file among the mapped ones; who wrote before has left the gate.
        lock (file!.Gate)
        {
            error = file.Map(window, arguments, mayResize: wasGranted);
        }

        file.Release();
        return Answer(error);
    }

    private Errno CheckHandle(NodeId id, HandleId handle, bool isWrite)
    {
        OpenFile* file = _files.Use(handle, id);
        if (file == null)
        {
            return Errno.EBADF;
        }

        bool isAllowed = !isWrite || (file->Flags & OpenFileFlags.Writable) != 0;
        _files.EndUse(file);
        return isAllowed ? Errno.Success : Errno.EACCES;
    }

    // Finds the file behind a node, with a reference, and opens it if it is not mapped yet.
    private Errno TakeMappedFile(NodeId id, IDaxWindow window, bool isWrite, out MappedFile? file, out bool wasGranted)
    {
        file = null;
        wasGranted = false;
        using Operation operation = Begin();
        Errno error = operation.Find(id, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        if (!node->IsRegular)
        {
            return node->IsDirectory ? Errno.EISDIR : Errno.EINVAL;
        }

        // A server elsewhere changes sizes as it likes.
        if (mount.IsNetwork)
        {
            return Errno.EOPNOTSUPP;
        }

        wasGranted = Volatile.Read(ref node->DaxSlots) is not (0 or NeverMapped);
        file = _share.MappedFiles.Find(mount.Device, node->Inode);
        if (file is null)
        {
            operation.Thread.ResumeOwn();
            bool isWritable = !_options.ReadOnly;
            SyscallResult opened = OpenForMapping(node, mount, isWritable);
            if (opened.IsError && isWritable && !window.NeedsWholePages && !isWrite)
            {
                isWritable = false;
                opened = OpenForMapping(node, mount, isWritable);
            }

            if (opened.IsError)
            {
                return opened.Error;
            }

            file = _share.MappedFiles.Add(mount.Device, node->Inode, opened.Descriptor, isWritable);
        }

        if (file.IsWritable || (!isWrite && !window.NeedsWholePages))
        {
            return Errno.Success;
        }

        file.Release();
        file = null;
        return Errno.EACCES;
    }

    private SyscallResult OpenForMapping(Node* node, Mount mount, bool isWritable)
    {
        int flags = (isWritable ? OpenFlags.ReadWrite : OpenFlags.ReadOnly) | OpenFlags.CloseOnExec | OpenFlags.NonBlocking;
        return Reopen(node, mount, flags);
    }

    // What a guest is told of a file beside its attributes: whether it is to use the window. Decided when the node is new
    // and then kept, for a guest that changes its mind drops the file from its caches. A file of which QEMU cannot map the end
    // is given up that way, once the guest lets go of it.
    private FuseAttributeFlags MappingFlags(Node* node, Mount mount, ulong size)
    {
        if (!_choosesFiles || !node->IsRegular)
        {
            return FuseAttributeFlags.None;
        }

        uint slots = Volatile.Read(ref node->DaxSlots);
        if (slots == 0)
        {
            slots = Decide(node, mount, size);
        }

        bool isMappable = slots != NeverMapped && (!_window!.NeedsWholePages || size % PageSize == 0);
        return isMappable ? FuseAttributeFlags.Dax : FuseAttributeFlags.None;
    }

    // A guest whose files do not fit into its window would map and unmap for every few pages that it reads, several times
    // slower than without (performance.md, part 5). So files are admitted as long as there is room, with the fifth to spare
    // below which Linux begins to reclaim.
    private uint Decide(Node* node, Mount mount, ulong size)
    {
        ulong needed = (size + IDaxWindow.SlotSize - 1) / IDaxWindow.SlotSize;
        ulong available = Math.Max(1, _window!.Size / IDaxWindow.SlotSize * 4 / 5);
        bool isFit = size >= SmallestMappedFile && needed <= available && !mount.IsNetwork
            && (!_window.NeedsWholePages || size % PageSize == 0);
        uint decision = NeverMapped;
        if (isFit && Interlocked.Add(ref _grantedSlots, (long)needed) <= (long)available && CanMap(node, mount))
        {
            decision = (uint)needed;
        }
        else if (isFit)
        {
            Interlocked.Add(ref _grantedSlots, -(long)needed);
        }

        uint seen = Interlocked.CompareExchange(ref node->DaxSlots, decision, 0);
        if (seen != 0 && decision != NeverMapped)
        {
            Interlocked.Add(ref _grantedSlots, -(long)needed);
        }

        return seen == 0 ? decision : seen;
    }

    // A guest that was told to map a file and then may not fails its program.
    private bool CanMap(Node* node, Mount mount)
    {
        WorkerThread.Current.ResumeOwn();
        SyscallResult opened = OpenForMapping(node, mount, isWritable: !_options.ReadOnly);
        if (!opened.IsError)
        {
            _ = FileIO.Close(opened.Descriptor);
        }

        return !opened.IsError;
    }

    // The node is gone: its place in the window is another's.
    private void EndGrant(Node* node)
    {
        if (!node->IsRegular)
        {
            return;
        }

        uint slots = Interlocked.Exchange(ref node->DaxSlots, 0);
        if (slots is not (0 or NeverMapped))
        {
            Interlocked.Add(ref _grantedSlots, -(long)slots);
        }
    }

    // Attributes on their way to the guest. If the file is mapped, what it has grown by is mapped before the guest knows; and
    // a size that was only passing is not told.
    private void PrepareToTell(Node* node, Mount mount, ref StatxBuffer status)
    {
        if (_share.MappedFiles.IsEmpty || !node->IsRegular
            || _share.MappedFiles.Find(mount.Device, node->Inode) is not { } file)
        {
            return;
        }

        if (file.MayBePassing(status.Size) || file.IsMissing(status.Size))
        {
            lock (file.Gate)
            {
                Result<ulong> size = file.Size();
                if (!size.IsError)
                {
                    status.Size = size.Value;
                    _ = file.Grow(size.Value, size.Value);
                }
            }
        }

        file.Release();
    }

    // The time in which the size of the file behind a node may change. Costs one read where no guest has a window.
    private SizeChange BeginSizeChange(NodeId id)
    {
        if (!_share.MappedFiles.AreExpected)
        {
            return default;
        }

        (ulong Device, ulong Inode) identity;
        using (Operation operation = Begin())
        {
            if (operation.Find(id, out Node* node, out Mount mount) != Errno.Success || !node->IsRegular)
            {
                return default;
            }

            identity = (mount.Device, node->Inode);
        }

        return new SizeChange(_share.MappedFiles, identity);
    }

    // The same, inside an operation.
    private SizeChange BeginSizeChange(Node* node, Mount mount) => _share.MappedFiles.AreExpected
        ? new SizeChange(_share.MappedFiles, (mount.Device, node->Inode))
        : default;

    /// <summary>The time in which a file's size may change: nobody else's turn, and nobody maps it.</summary>
    private readonly ref struct SizeChange
    {
        private readonly Lock? _gate;
        private readonly MappedFile? _file;

        public SizeChange(MappedFiles files, (ulong Device, ulong Inode) identity)
        {
            _gate = files.GateOf(identity.Device, identity.Inode);
            _gate.Enter();
            _file = files.IsEmpty ? null : files.Find(identity.Device, identity.Inode);
        }

        /// <summary>To be called before the file is written up to an end, or from its own end on.</summary>
        public Errno Write(ulong offset, ulong length, bool appends)
        {
            if (_file is null)
            {
                return Errno.Success;
            }

            Result<ulong> size = _file.Size();
            if (size.IsError)
            {
                return size.Error;
            }

            ulong end = (appends ? size.Value : offset) + length;
            return end > size.Value ? _file.Grow(end, size.Value) : Errno.Success;
        }

        /// <summary>To be called before the file is given a size.</summary>
        public Errno Resize(ulong end)
        {
            if (_file is null)
            {
                return Errno.Success;
            }

            Result<ulong> size = _file.Size();
            return size.IsError ? size.Error
                : end >= size.Value ? _file.Grow(end, size.Value)
                : _file.Shrink(end, size.Value);
        }

        public void Dispose()
        {
            if (_file is null)
            {
                _gate?.Exit();
                return;
            }

            // If it has not become smaller after all, what was taken away comes back.
            Result<ulong> size = _file.Size();
            if (!size.IsError)
            {
                _ = _file.Grow(size.Value, size.Value);
            }

            _gate!.Exit();
            _file.Release();
        }
    }
}
