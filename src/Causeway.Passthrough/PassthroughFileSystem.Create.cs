using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// Requests that make objects. They run under the ids of the guest's caller, so that the object has the right owner; who may
// create what is the guest kernel's decision.
public sealed unsafe partial class PassthroughFileSystem
{
    private enum NewObject
    {
        Directory,
        Node,
        SymbolicLink,
    }

    /// <inheritdoc/>
    public override ValueTask<Result<NodeEntry>> MkdirAsync(
        NodeId parent, FileName name, FuseMkdirIn arguments, RequestContext context) =>
        new(Make(
            parent,
            name,
            new Making(NewObject.Directory, arguments.Mode & FileMode.PermissionMask, arguments.Umask),
            default,
            context));

    /// <inheritdoc/>
    public override ValueTask<Result<NodeEntry>> MknodAsync(
        NodeId parent, FileName name, FuseMknodIn arguments, RequestContext context)
    {
        uint type = arguments.Mode & FileMode.TypeMask;
        Errno error = type switch
        {
            0 or FileMode.Regular or FileMode.Fifo or FileMode.Socket => Errno.Success,
            // The character device 0:0 is no device but the mark of a removed name (an overlay's whiteout); anybody may make it.
            FileMode.CharacterDevice when arguments.Device == 0 => Errno.Success,
            FileMode.CharacterDevice or FileMode.BlockDevice =>
                MayMakeDevice(type, arguments.Device, context) ? Errno.Success : Errno.EPERM,
            FileMode.Directory => Errno.EPERM,
            _ => Errno.EINVAL,
        };
        uint mode = type | (arguments.Mode & FileMode.PermissionMask);
        return new(error == Errno.Success
            ? Make(
                parent,
                name,
                new Making(NewObject.Node, mode, arguments.Umask) { Device = arguments.Device },
                default,
                context)
            : _options.ReadOnly ? Errno.EROFS : error);
    }

    /// <inheritdoc/>
    public override ValueTask<Result<NodeEntry>> SymlinkAsync(
        NodeId parent, FileName name, ReadOnlyMemory<byte> target, RequestContext context) =>
        new(Make(parent, name, new Making(NewObject.SymbolicLink, 0, 0), target.Span, context));

    /// <inheritdoc/>
    public override ValueTask<Result<FuseCreateOut>> CreateAsync(
        NodeId parent, FileName name, FuseCreateIn arguments, RequestContext context) =>
        new(Create(parent, name, arguments, context));

    /// <inheritdoc/>
    public override ValueTask<Result<FuseCreateOut>> TmpfileAsync(
        NodeId parent, FuseCreateIn arguments, RequestContext context) => new(Tmpfile(parent, arguments, context));

    private Result<NodeEntry> Make(
        NodeId parent, FileName name, in Making making, ReadOnlySpan<byte> target, RequestContext context)
    {
        if (_options.ReadOnly)
        {
            return Errno.EROFS;
        }

        Span<byte> room = stackalloc byte[XattrMap.NameRoom];
        Errno error = FindLabel(context, room, out ReadOnlySpan<byte> labelName);
        if (error != Errno.Success)
        {
            return error;
        }

        if (_nodes.IsFull)
        {
            // Before anything is made that could not be told of.
            return Errno.ENFILE;
        }

        using Operation operation = Begin();
        error = operation.FindDirectory(parent, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        using NodeDescriptor directory = Borrow(node, mount);
        if (directory.IsError)
        {
            return directory.Error;
        }

        var label = new Label(labelName, context.SecurityContext.Span);
        if (!label.IsEmpty && !TryTakeDescriptor())
        {
            return Errno.ENFILE;
        }

        var place = new Parent(node, mount, directory.Value);
        NameChange change = new(this, BeginChange());
        error = BeginNames(ref change, place, name, NameUse.Made);
        error = error == Errno.Success ? MakeName(operation.Thread, place, name, making, target, context) : error;
        change.Settle(error);
        if (error != Errno.Success)
        {
            if (!label.IsEmpty)
            {
                _budget.Return();
            }

            return Answer(error);
        }

        if (context.WantsVersions)
        {
            StampName(ref context.Versions, node, name.Bytes);
        }

        NodeEntry entry;
        error = !label.IsEmpty ? EnterLabelled(place, name, making.Type, label, out entry)
            : mount.UsesHandles && !MayKeepMade(mount) ? LookupName(place, name.Terminated, mayEvict: true, out entry)
            : LookupByDescriptor(place, name.Terminated, NodeTable.NameBit(name.Bytes), Origin.Made, out entry);
        if (error == Errno.Success && context.WantsVersions)
        {
            StampFound(ref context.Versions, ref entry);
        }

        if (error == Errno.Success)
        {
            change.Remember(place, name, new NamedObject(entry.Attributes.Inode, IsDirectory(entry.Attributes.Mode)));
        }

        return error == Errno.Success ? entry : Answer(error);
    }

    private Errno MakeName(
        WorkerThread thread,
        in Parent parent,
        FileName name,
        in Making making,
        ReadOnlySpan<byte> target,
        RequestContext context)
    {
        Errno error = ActAsCaller(thread, context, making.Mode, making.Umask);
        if (error != Errno.Success)
        {
            return error;
        }

        SyscallResult made = making.What switch
        {
            NewObject.Directory => Files.Mkdirat(parent.Descriptor, name.Terminated, making.Mode),
            NewObject.Node => Files.Mknodat(parent.Descriptor, name.Terminated, making.Mode, making.Device),
            _ => Files.Symlinkat(target, parent.Descriptor, name.Terminated),
        };
        thread.Resume(mayStick: !parent.Mount.IsNetwork);
        return made.Error;
    }

    private Result<FuseCreateOut> Create(
        NodeId parent, FileName name, in FuseCreateIn arguments, RequestContext context)
    {
        Errno error = TryConvertFlags(arguments.Flags, out int flags);
        if (error != Errno.Success)
        {
            return error;
        }

        Span<byte> room = stackalloc byte[XattrMap.NameRoom];
        error = FindLabel(context, room, out ReadOnlySpan<byte> labelName);
        if (error != Errno.Success)
        {
            return error;
        }

        var label = new Label(labelName, context.SecurityContext.Span);
        flags &= ~OpenFlags.Directory;
        // Before anything is made: one for the file, and one for its node where that has no handle.
        if (!TryTakeDescriptor())
        {
            return Errno.ENFILE;
        }

        FuseCreateOut reply = default;
        using (Operation operation = Begin())
        {
            error = operation.FindDirectory(parent, out Node* node, out Mount mount);
            if (error == Errno.Success)
            {
                using NodeDescriptor directory = Borrow(node, mount);
                error = directory.IsError ? directory.Error : Create(
                    operation.Thread,
                    new Parent(node, mount, directory.Value),
                    name,
                    flags,
                    arguments,
                    context,
                    label,
                    out reply);
            }
        }

        if (error != Errno.Success)
        {
            _budget.Return();
            return Answer(error);
        }

        return reply;
    }

    // Owns one unit of the budget, which goes to the open file on success and stays the caller's otherwise.
    private Errno Create(
        WorkerThread thread,
        in Parent parent,
        FileName name,
        int flags,
        in FuseCreateIn arguments,
        RequestContext context,
        in Label label,
        out FuseCreateOut reply)
    {
        reply = default;
        bool isExclusive = (arguments.Flags & OpenFlags.Exclusive) != 0;
        bool keepsSetgid = KeepsSetgid(arguments.OpenFlags, context);
        if (_options.ReadOnly)
        {
            Errno existing = isExclusive ? Errno.EROFS : OpenExisting(thread, parent, name, flags, keepsSetgid, context, out reply);
            return existing == Errno.ENOENT ? Errno.EROFS : existing;
        }

        if (_nodes.IsFull)
        {
            // What the guest knows already can still be opened.
            Errno existing = isExclusive ? Errno.ENFILE : OpenExisting(thread, parent, name, flags, keepsSetgid, context, out reply);
            return existing == Errno.ESTALE ? Errno.ENFILE : existing;
        }

        bool needsDescriptor = !parent.Mount.UsesHandles;
        if (needsDescriptor && !TryTakeDescriptor())
        {
            return Errno.ENFILE;
        }

        uint mode = arguments.Mode & FileMode.PermissionMask;
        Errno error = ActAsCaller(thread, context, mode, arguments.Umask);
        if (error == Errno.Success)
        {
            int exclusive = (flags & ~OpenFlags.Truncate) |
                OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.NoFollow | OpenFlags.CloseOnExec;
            NameChange change = new(this, BeginChange());
            error = BeginNames(ref change, parent, name, NameUse.Made);
            SyscallResult opened = error == Errno.Success
                ? Files.Openat2(parent.Descriptor, name.Terminated, exclusive, mode, OneComponent)
                : SyscallResult.Failed(error);
            change.Settle(opened.Error);
            thread.Resume(mayStick: !parent.Mount.IsNetwork);
            error = opened.Error;
            if (error == Errno.Success)
            {
                error = label.IsEmpty ? error : LabelCreated(parent, name, opened.Descriptor, label);
                if (error == Errno.Success)
                {
                    StampChangedName(context, change.Change, parent, name.Bytes);
                    error = FinishCreate(
                        parent, NodeTable.NameBit(name.Bytes), opened.Descriptor, flags, needsDescriptor, context, out reply);
                    if (error == Errno.Success)
                    {
                        change.Remember(parent, name, new NamedObject(reply.Entry.Attributes.Inode, IsDirectory: false));
                    }

                    return error;
                }

                isExclusive = true;
            }
        }

        if (needsDescriptor)
        {
            _budget.Return();
        }

        return error == Errno.EEXIST && !isExclusive
            ? OpenExisting(thread, parent, name, flags, keepsSetgid, context, out reply)
            : error;
    }

    // Owns the descriptor when it fails.
    private Errno LabelCreated(in Parent parent, FileName name, int descriptor, in Label label)
    {
        Errno error = Files.Statx(descriptor, StatxMask.Basic, out StatxBuffer status).Error;
        error = error == Errno.Success ? SetLabel(parent, name, descriptor, status, label) : error;
        if (error != Errno.Success)
        {
            _ = FileIO.Close(descriptor);
        }

        return error;
    }

    // The node comes from the descriptor just opened, never from the name again, which may mean something else by now.
    // Owns the descriptor, and a second unit of the budget if told so.
    private Errno FinishCreate(
        in Parent parent,
        ulong bit,
        int descriptor,
        int flags,
        bool hasSecondUnit,
        RequestContext context,
        out FuseCreateOut reply)
    {
        reply = default;
        Errno error = AddOpened(parent, bit, descriptor, hasSecondUnit, out reply.Entry);
        if (error != Errno.Success)
        {
            _ = FileIO.Close(descriptor);
            return error;
        }

        Node* node = _nodes.Resolve(reply.Entry.NodeId);
        if (node == null)
        {
            // A guest that guessed the id has forgotten it before it was told.
            _ = FileIO.Close(descriptor);
            return Errno.ESTALE;
        }

        node->Word = OpenedOnce;
        if (context.WantsVersions)
        {
            StampFound(ref context.Versions, ref reply.Entry);
        }

        return AddFile(node, reply.Entry.NodeId, parent.Mount, descriptor, flags, isCreated: true, out reply.Open)
            ? Errno.Success
            : UndoLookup(node, Errno.ENFILE);
    }

    private Errno AddOpened(in Parent parent, ulong bit, int descriptor, bool hasUnit, out NodeEntry entry)
    {
        entry = default;
        Errno error = Files.Statx(descriptor, LookupMask, out StatxBuffer status).Error;
        Mount? mount = error != Errno.Success ? null : _mounts.Find(status, parent.Mount) ??
            _mounts.FindOrAdd(status, descriptor, WorkerThread.ProcessDescriptors);
        if (mount is not null && MayKeepMade(mount) && (hasUnit || _budget.TryTake()))
        {
            hasUnit = true;
            SyscallResult kept = OpenPath(descriptor);
            if (!kept.IsError && TryAddMade(mount, status, kept.Descriptor, out Node* made))
            {
                FillEntry(parent, made, mount, status, bit, out entry);
                return Errno.Success;
            }

            if (!kept.IsError)
            {
                _ = FileIO.Close(kept.Descriptor);
            }
        }

        KernelFileHandle handle = default;
        if (mount is { UsesHandles: true } &&
            !Files.NameToHandleAt(descriptor, "\0"u8, out handle, AtFlags.EmptyPath).IsError)
        {
            if (hasUnit)
            {
                _budget.Return();
            }

            return AddByHandle(parent, bit, mount, status, ref handle, out entry);
        }

        hasUnit = hasUnit || (mount is not null && TryTakeDescriptor());
        if (mount is null || !hasUnit)
        {
            if (hasUnit)
            {
                _budget.Return();
            }

            return error == Errno.Success ? Errno.ENFILE : error;
        }

        SyscallResult path = OpenPath(descriptor);
        if (path.IsError)
        {
            _budget.Return();
            return path.Error;
        }

        handle = default;
        Node* node = _nodes.FindOrAdd(KeyOf(status, mount), status.Mode, ref handle, path.Descriptor, out bool isNew);
        if (!isNew)
        {
            ReturnDescriptor(path.Descriptor, wasPinned: false);
            if (node == null)
            {
                return Errno.ENFILE;
            }
        }

        FillEntry(parent, node, mount, status, bit, out entry);
        return Errno.Success;
    }

    // Not the file's own descriptor: one that may write would keep host programs from executing the file.
    private SyscallResult OpenPath(int descriptor)
    {
        if (!_lacksOpenTree)
        {
            SyscallResult opened = Files.OpenTree(descriptor);
            if (opened.Error is not (Errno.ENOSYS or Errno.EPERM))
            {
                return opened;
            }

            _lacksOpenTree = true;
        }

        return DescriptorName.Open(WorkerThread.ProcessDescriptors, descriptor, OpenFlags.Path | OpenFlags.CloseOnExec);
    }

    // CREATE without O_EXCL of a name that exists: only a regular file is opened.
    private Errno OpenExisting(
        WorkerThread thread,
        in Parent parent,
        FileName name,
        int flags,
        bool keepsSetgid,
        RequestContext context,
        out FuseCreateOut reply)
    {
        reply = default;
        if (context.WantsVersions)
        {
            Cover(parent.Node, parent.Descriptor);
            StampName(ref context.Versions, parent.Node, name.Bytes);
        }

        Errno error = LookupName(parent, name.Terminated, mayEvict: true, out reply.Entry);
        if (error != Errno.Success)
        {
            // Gone again: the guest's kernel looks once more after ESTALE.
            return error == Errno.ENOENT && !_options.ReadOnly ? Errno.ESTALE : error;
        }

        Node* node = _nodes.Resolve(reply.Entry.NodeId);
        if (node == null)
        {
            return Errno.ESTALE;
        }

        if (!node->IsRegular)
        {
            return UndoLookup(node, node->IsDirectory ? Errno.EISDIR
                : node->IsSymbolicLink ? Errno.ELOOP
                : Errno.EEXIST);
        }

        using SizeChange change = (flags & OpenFlags.Truncate) != 0
            ? BeginSizeChange(node, _mounts[node->Mount])
            : default;
        thread.KeepSetgid(keepsSetgid || (flags & OpenFlags.Truncate) == 0);
        using VersionChange versions = BeginTruncation(node, flags);
        error = change.Resize(0);
        if (error == Errno.Success)
        {
            error = OpenNode(node, reply.Entry.NodeId, _mounts[node->Mount], flags, out reply.Open);
        }

        versions.Settle(Errno.Success);
        if (error == Errno.Success && context.WantsVersions)
        {
            StampFound(ref context.Versions, ref reply.Entry);
        }

        return error == Errno.Success ? error : UndoLookup(node, error);
    }

    private Errno UndoLookup(Node* node, Errno error)
    {
        if (node != _nodes.Root && _nodes.RemoveLookups(node, 1))
        {
            Retire(_nodes.IndexOf(node));
        }

        return error;
    }

    private Result<FuseCreateOut> Tmpfile(NodeId parent, in FuseCreateIn arguments, RequestContext context)
    {
        if (_options.ReadOnly)
        {
            return Errno.EROFS;
        }

        Errno error = TryConvertFlags(arguments.Flags, out int flags);
        if (error != Errno.Success)
        {
            return error;
        }

        Span<byte> room = stackalloc byte[XattrMap.NameRoom];
        error = FindLabel(context, room, out ReadOnlySpan<byte> labelName);
        if (error != Errno.Success)
        {
            return error;
        }

        var label = new Label(labelName, context.SecurityContext.Span);
        if (!TryTakeDescriptor())
        {
            return Errno.ENFILE;
        }

        FuseCreateOut reply = default;
        using (Operation operation = Begin())
        {
            error = operation.FindDirectory(parent, out Node* node, out Mount mount);
            if (error == Errno.Success)
            {
                using NodeDescriptor directory = Borrow(node, mount);
                error = directory.IsError ? directory.Error : Tmpfile(
                    operation.Thread,
                    new Parent(node, mount, directory.Value),
                    flags,
                    arguments,
                    context,
                    label,
                    out reply);
            }
        }

        if (error != Errno.Success)
        {
            _budget.Return();
            return Answer(error);
        }

        return reply;
    }

    // Owns one unit of the budget, as Create does.
    private Errno Tmpfile(
        WorkerThread thread,
        in Parent parent,
        int flags,
        in FuseCreateIn arguments,
        RequestContext context,
        in Label label,
        out FuseCreateOut reply)
    {
        reply = default;
        uint mode = arguments.Mode & FileMode.PermissionMask;
        Errno error = ActAsCaller(thread, context, mode, arguments.Umask);
        if (error != Errno.Success)
        {
            return error;
        }

        // Without O_EXCL: the guest may give the file a name later.
        int temporary = (flags & ~OpenFlags.Truncate) | OpenFlags.TemporaryFile | OpenFlags.CloseOnExec;
        SyscallResult opened = Files.Openat(parent.Descriptor, ".\0"u8, temporary, mode);
        thread.Resume(mayStick: !parent.Mount.IsNetwork);
        if (opened.IsError)
        {
            return opened.Error;
        }

        var path = new DescriptorName(opened.Descriptor);
        error = label.IsEmpty ? error : Xattrs.Setxattr(path, label.Name, label.Value, 0).Error;
        if (error != Errno.Success)
        {
            _ = FileIO.Close(opened.Descriptor);
            return error;
        }

        return FinishCreate(parent, bit: 0, opened.Descriptor, flags, hasSecondUnit: false, context, out reply);
    }

    /// <summary>What MKDIR, MKNOD and SYMLINK make.</summary>
    private readonly record struct Making(NewObject What, uint Mode, uint Umask)
    {
        public uint Device { get; init; }

        public uint Type => What switch
        {
            NewObject.Directory => FileMode.Directory,
            NewObject.SymbolicLink => FileMode.SymbolicLink,
            _ => (Mode & FileMode.TypeMask) == 0 ? FileMode.Regular : Mode & FileMode.TypeMask,
        };
    }
}
