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
        new(Make(parent, name, NewObject.Directory, arguments.Mode & FileMode.PermissionMask, 0, default, context));

    /// <inheritdoc/>
    public override ValueTask<Result<NodeEntry>> MknodAsync(
        NodeId parent, FileName name, FuseMknodIn arguments, RequestContext context)
    {
        uint type = arguments.Mode & FileMode.TypeMask;
        Errno error = type switch
        {
            0 or FileMode.Regular or FileMode.Fifo or FileMode.Socket => Errno.Success,
            FileMode.CharacterDevice or FileMode.BlockDevice =>
                context.UserId == 0 ? Errno.Success : Errno.EPERM,
            FileMode.Directory => Errno.EPERM,
            _ => Errno.EINVAL,
        };
        uint mode = type | (arguments.Mode & FileMode.PermissionMask);
        return new(error == Errno.Success
            ? Make(parent, name, NewObject.Node, mode, arguments.Device, default, context)
            : _options.ReadOnly ? Errno.EROFS : error);
    }

    /// <inheritdoc/>
    public override ValueTask<Result<NodeEntry>> SymlinkAsync(
        NodeId parent, FileName name, ReadOnlyMemory<byte> target, RequestContext context) =>
        new(Make(parent, name, NewObject.SymbolicLink, 0, 0, target.Span, context));

    /// <inheritdoc/>
    public override ValueTask<Result<FuseCreateOut>> CreateAsync(
        NodeId parent, FileName name, FuseCreateIn arguments, RequestContext context) =>
        new(Create(parent, name, arguments, context));

    /// <inheritdoc/>
    public override ValueTask<Result<FuseCreateOut>> TmpfileAsync(
        NodeId parent, FuseCreateIn arguments, RequestContext context) => new(Tmpfile(parent, arguments, context));

    private Result<NodeEntry> Make(
        NodeId parent,
        FileName name,
        NewObject what,
        uint mode,
        uint device,
        ReadOnlySpan<byte> target,
        RequestContext context)
    {
        if (_options.ReadOnly)
        {
            return Errno.EROFS;
        }

        using Operation operation = Begin();
        Errno error = operation.FindDirectory(parent, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        using NodeDescriptor directory = Borrow(node, mount);
        if (directory.IsError)
        {
            return directory.Error;
        }

        error = ActAsCaller(operation.Thread, context, mode);
        if (error != Errno.Success)
        {
            return Answer(error);
        }

        SyscallResult made = what switch
        {
            NewObject.Directory => Files.Mkdirat(directory.Value, name.Terminated, mode),
            NewObject.Node => Files.Mknodat(directory.Value, name.Terminated, mode, device),
            _ => Files.Symlinkat(target, directory.Value, name.Terminated),
        };
        operation.Thread.Resume(mayStick: !mount.IsNetwork);
        error = made.Error;
        NodeEntry entry = default;
        if (error == Errno.Success)
        {
            var place = new Parent(node, mount, directory.Value);
            error = mount.UsesHandles
                ? LookupName(place, name.Terminated, mayEvict: true, out entry)
                : LookupByDescriptor(place, name.Terminated, NodeTable.NameBit(name.Bytes), out entry);
        }

        return error == Errno.Success ? entry : Answer(error);
    }

    // Takes on the ids of a request's caller for the one call that makes an object.
    private static Errno ActAsCaller(WorkerThread thread, RequestContext context, uint mode)
    {
        // The setgid bit of a user who is not in the directory's group is for the host to strip; with CAP_FSETID it would
        // not.
        thread.KeepSetgid(context.UserId == 0 || (mode & FileMode.SetGroupId) == 0);
        return thread.Assume(context);
    }

    private Result<FuseCreateOut> Create(
        NodeId parent, FileName name, in FuseCreateIn arguments, RequestContext context)
    {
        Errno error = TryConvertFlags(arguments.Flags, out int flags);
        if (error != Errno.Success)
        {
            return error;
        }

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
                    operation.Thread, new Parent(node, mount, directory.Value), name, flags, arguments, context, out reply);
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
        out FuseCreateOut reply)
    {
        reply = default;
        bool isExclusive = (arguments.Flags & OpenFlags.Exclusive) != 0;
        if (_options.ReadOnly)
        {
            Errno existing = OpenExisting(parent, name, flags, out reply);
            return existing == Errno.ENOENT || (existing == Errno.Success && isExclusive) ? Errno.EROFS : existing;
        }

        bool needsDescriptor = !parent.Mount.UsesHandles;
        if (needsDescriptor && !TryTakeDescriptor())
        {
            return Errno.ENFILE;
        }

        uint mode = arguments.Mode & FileMode.PermissionMask;
        Errno error = ActAsCaller(thread, context, mode);
        if (error == Errno.Success)
        {
            int exclusive = (flags & ~OpenFlags.Truncate) |
                OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.NoFollow | OpenFlags.CloseOnExec;
            SyscallResult opened =
                Files.Openat2(parent.Descriptor, name.Terminated, exclusive, mode, OneComponent);
            thread.Resume(mayStick: !parent.Mount.IsNetwork);
            error = opened.Error;
            if (error == Errno.Success)
            {
                return FinishCreate(
                    parent, NodeTable.NameBit(name.Bytes), opened.Descriptor, flags, needsDescriptor, out reply);
            }
        }

        if (needsDescriptor)
        {
            _budget.Return();
        }

        return error == Errno.EEXIST && !isExclusive ? OpenExisting(parent, name, flags, out reply) : error;
    }

    // The node comes from the descriptor just opened, never from the name again, which may mean something else by now.
    // Owns the descriptor, and a second unit of the budget if told so.
    private Errno FinishCreate(
        in Parent parent, ulong bit, int descriptor, int flags, bool hasSecondUnit, out FuseCreateOut reply)
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

        // Not the file's own descriptor: one that may write would keep host programs from executing the file.
        SyscallResult path = DescriptorName.Open(
            WorkerThread.ProcessDescriptors, descriptor, OpenFlags.Path | OpenFlags.CloseOnExec);
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

    // CREATE without O_EXCL of a name that exists: only a regular file is opened.
    private Errno OpenExisting(in Parent parent, FileName name, int flags, out FuseCreateOut reply)
    {
        reply = default;
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

        error = OpenNode(node, reply.Entry.NodeId, _mounts[node->Mount], flags, out reply.Open);
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
                    operation.Thread, new Parent(node, mount, directory.Value), flags, arguments.Mode, context, out reply);
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
        WorkerThread thread, in Parent parent, int flags, uint mode, RequestContext context, out FuseCreateOut reply)
    {
        reply = default;
        mode &= FileMode.PermissionMask;
        Errno error = ActAsCaller(thread, context, mode);
        if (error != Errno.Success)
        {
            return error;
        }

        // Without O_EXCL: the guest may give the file a name later.
        int temporary = (flags & ~OpenFlags.Truncate) | OpenFlags.TemporaryFile | OpenFlags.CloseOnExec;
        SyscallResult opened = Files.Openat(parent.Descriptor, ".\0"u8, temporary, mode);
        thread.Resume(mayStick: !parent.Mount.IsNetwork);
        return opened.IsError
            ? opened.Error
            : FinishCreate(parent, bit: 0, opened.Descriptor, flags, hasSecondUnit: false, out reply);
    }
}
