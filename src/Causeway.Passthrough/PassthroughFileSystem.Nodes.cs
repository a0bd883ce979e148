using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// Attributes of nodes.
public sealed unsafe partial class PassthroughFileSystem
{
    /// <inheritdoc/>
    public override ValueTask<Result<FuseAttrOut>> GetAttrAsync(
        NodeId node, FuseGetAttrIn arguments, RequestContext context)
    {
        Errno error = Look(node, (arguments.Flags & FuseGetAttrFlags.Handle) != 0, arguments.Handle, StatxMask.Basic,
            context, out StatxBuffer status);
        if (error != Errno.Success)
        {
            return new(Answer(error));
        }

        FillReply(FlagsToTell(node, ref status), status, out FuseAttrOut reply);
        return new(reply);
    }

    /// <inheritdoc/>
    public override ValueTask<Result<FuseStatxOut>> StatxAsync(
        NodeId node, FuseStatxIn arguments, RequestContext context)
    {
        Errno error = Look(node, (arguments.Flags & FuseGetAttrFlags.Handle) != 0, arguments.Handle,
            StatxMask.Basic | StatxMask.BirthTime, context, out StatxBuffer status);
        if (error != Errno.Success)
        {
            return new(Answer(error));
        }

        _ = FlagsToTell(node, ref status);
        var reply = new FuseStatxOut
        {
            AttributeLifetimeSeconds = _attributeLifetime.Seconds,
            AttributeLifetimeNanoseconds = _attributeLifetime.Nanoseconds,
        };
        Attributes.Fill(status, out reply.Statx);
        reply.Statx.UserId = _options.UserIds.ToGuest(status.UserId);
        reply.Statx.GroupId = _options.GroupIds.ToGuest(status.GroupId);
        return new(reply);
    }

    /// <inheritdoc/>
    public override ValueTask<Result<FuseAttrOut>> SetAttrAsync(
        NodeId node, FuseSetAttrIn arguments, RequestContext context) => new(SetAttr(node, arguments, context));

    /// <inheritdoc/>
    public override ValueTask<Result<int>> ReadLinkAsync(
        NodeId node, Memory<byte> destination, RequestContext context) => new(ReadLink(node, destination.Span, context));

    /// <inheritdoc/>
    public override ValueTask<Result<FuseStatfsOut>> StatfsAsync(NodeId node, RequestContext context) =>
        new(Statfs(node));

    /// <inheritdoc/>
    public override ValueTask<Errno> SyncFsAsync(NodeId node, RequestContext context) => new(SyncFs(node));

    /// <inheritdoc/>
    public override ValueTask<Errno> AccessAsync(NodeId node, uint mask, RequestContext context) =>
        new(Access(node, mask, context));

    // In place: results of this size are copied at each step that hands them on by value.
    private void FillReply(FuseAttributeFlags flags, in StatxBuffer status, out FuseAttrOut reply)
    {
        reply.AttributeLifetimeSeconds = _attributeLifetime.Seconds;
        reply.AttributeLifetimeNanoseconds = _attributeLifetime.Nanoseconds;
        reply.Reserved = 0;
        Tell(status, out reply.Attributes);
        reply.Attributes.Flags = flags;
    }

    // Only where there are windows does it matter which node it is.
    private FuseAttributeFlags FlagsToTell(NodeId id, ref StatxBuffer status)
    {
        if (!_choosesFiles && _share.MappedFiles.IsEmpty)
        {
            return FuseAttributeFlags.None;
        }

        using Operation operation = Begin();
        if (operation.Find(id, out Node* node, out Mount mount) != Errno.Success)
        {
            return FuseAttributeFlags.None;
        }

        PrepareToTell(node, mount, ref status);
        return MappingFlags(node, mount, status.Size);
    }

    private static bool IsDirectory(uint mode) => (mode & FileMode.TypeMask) == FileMode.Directory;

    // All that the guest hears of an object goes through here, or through STATX above.
    private void Tell(in StatxBuffer status, out FuseAttributes attributes)
    {
        Attributes.Fill(status, out attributes);
        attributes.UserId = _options.UserIds.ToGuest(status.UserId);
        attributes.GroupId = _options.GroupIds.ToGuest(status.GroupId);
    }

    // The attributes of a node, or of the open file the guest names.
    private Errno Look(
        NodeId id, bool hasHandle, HandleId handle, StatxMask mask, RequestContext context, out StatxBuffer status)
    {
        if (hasHandle)
        {
            OpenFile* file = _files.Use(handle, id);
            if (file == null)
            {
                status = default;
                return Errno.EBADF;
            }

            StampFile(context, file);
            Errno error = Files.Statx(file->Descriptor, mask, out status).Error;
            _files.EndUse(file);
            return error;
        }

        using Operation operation = Begin();
        Errno found = operation.Find(id, out Node* node, out Mount mount);
        if (found == Errno.Success)
        {
            using NodeDescriptor descriptor = Borrow(node, mount);
            if (!descriptor.IsError)
            {
                StampNode(context, node, descriptor);
                return Files.Statx(descriptor.Value, mask, out status).Error;
            }

            found = descriptor.Error;
        }

        status = default;
        return found;
    }

    private Result<FuseAttrOut> SetAttr(NodeId id, in FuseSetAttrIn arguments, RequestContext context)
    {
        if (_options.ReadOnly)
        {
            return Errno.EROFS;
        }

        if (!TryTranslateOwner(arguments, out uint user, out uint group))
        {
            return Errno.EPERM;
        }

        using SizeChange change = (arguments.Valid & SetAttrValid.Size) != 0 ? BeginSizeChange(id) : default;
        using Operation operation = Begin();
        Errno error = operation.Find(id, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        OpenFile* file = null;
        if ((arguments.Valid & SetAttrValid.Handle) != 0)
        {
            file = _files.Use(arguments.Handle, id);
            if (file == null)
            {
                return Errno.EBADF;
            }
        }

        using NodeDescriptor borrowed = file == null ? Borrow(node, mount) : new NodeDescriptor(file->Descriptor, false);
        if (borrowed.IsError)
        {
            return borrowed.Error;
        }

        using VersionChange versions = BeginChange();
        uint word = WordOf(node, versions);
        bool isResized = (arguments.Valid & SetAttrValid.Size) != 0;
        versions.On(word).On(isResized && word != 0 ? word + 1 : 0);
        error = change.Resize(arguments.Size);
        if (error == Errno.Success)
        {
            var target = new ChangeTarget(node, borrowed.Value, file != null, user, group);
            error = Change(operation.Thread, target, arguments);
        }

        StatxBuffer status = default;
        if (error == Errno.Success)
        {
            error = Files.Statx(borrowed.Value, StatxMask.Basic, out status).Error;
        }

        if (file != null)
        {
            _files.EndUse(file);
        }

        if (error != Errno.Success)
        {
            return Answer(error);
        }

        PrepareToTell(node, mount, ref status);
        versions.Settle(Errno.Success);
        StampChanged(context, versions, word);
        FillReply(MappingFlags(node, mount, status.Size), status, out FuseAttrOut reply);
        return reply;
    }

    // The ids that a chown would set on the host; one that stays is KeepId. False: the guest may not use one of them.
    private bool TryTranslateOwner(in FuseSetAttrIn arguments, out uint user, out uint group)
    {
        user = Credentials.KeepId;
        group = Credentials.KeepId;
        return ((arguments.Valid & SetAttrValid.UserId) == 0 || _options.UserIds.TryToHost(arguments.UserId, out user)) &
            ((arguments.Valid & SetAttrValid.GroupId) == 0 || _options.GroupIds.TryToHost(arguments.GroupId, out group));
    }

    // Each step in the order of chmod, chown, truncate, utimensat; the first that fails ends it, and earlier ones stay done.
    private Errno Change(WorkerThread thread, in ChangeTarget target, in FuseSetAttrIn arguments)
    {
        SetAttrValid valid = arguments.Valid;
        var name = new DescriptorName(target.Descriptor);
        Errno error = Errno.Success;
        bool clears = _killPriv && (valid & SetAttrValid.KillSuidGid) != 0;
        thread.KeepSetgid(!clears || (valid & SetAttrValid.Size) == 0);
        if ((valid & SetAttrValid.Mode) != 0)
        {
            uint mode = arguments.Mode & FileMode.PermissionMask;
            error = target.IsOpen
                ? Files.Fchmod(target.Descriptor, mode).Error
                : ChangeMode(target.Descriptor, name, mode);
        }

        const SetAttrValid times = SetAttrValid.AccessTime | SetAttrValid.ModificationTime |
            SetAttrValid.AccessTimeNow | SetAttrValid.ModificationTimeNow;
        // A request to set nothing is what Linux makes of a chown that changes neither id. That, too, ends set-id bits, which
        // the guest may have left to the host, and moves the time of change.
        bool changesOwner = (valid & (SetAttrValid.UserId | SetAttrValid.GroupId)) != 0 ||
            (valid & (SetAttrValid.Mode | SetAttrValid.Size | times)) == 0;
        if (error == Errno.Success && changesOwner)
        {
            error = ClearPrivileges(target.Node, target.Descriptor, name);
            error = error != Errno.Success ? error
                : Files.Fchown(target.Descriptor, target.User, target.Group).Error;
        }

        if (error == Errno.Success && (valid & SetAttrValid.Size) != 0)
        {
            error = Resize(target, name, arguments.Size);
        }

        if (error == Errno.Success && (valid & times) != 0)
        {
            error = ChangeTimes(target.Descriptor, target.IsOpen, arguments);
        }

        return error;
    }

    // The name in /proc costs twice as much, and is for kernels before Linux 6.6.
    private Errno ChangeMode(int descriptor, in DescriptorName name, uint mode)
    {
        if (!_lacksFchmodat2)
        {
            Errno error = Files.Fchmodat2(descriptor, mode).Error;
            if (error != Errno.ENOSYS)
            {
                return error;
            }

            _lacksFchmodat2 = true;
        }

        return Files.Fchmodat(Files.WorkingDirectory, name, mode).Error;
    }

    private Errno Resize(in ChangeTarget target, in DescriptorName name, ulong size)
    {
        if (size > long.MaxValue)
        {
            return Errno.EINVAL;
        }

        // By name only what cannot be a device or a pipe.
        if (!target.IsOpen && !target.Node->IsRegular)
        {
            return target.Node->IsDirectory ? Errno.EISDIR : Errno.EBADF;
        }

        Errno error = ClearPrivileges(target.Node, target.Descriptor, name);
        return error != Errno.Success ? error
            : target.IsOpen ? Files.Ftruncate(target.Descriptor, (long)size).Error
            : Files.Truncate(name, (long)size).Error;
    }

    private static Errno ChangeTimes(int descriptor, bool isOpen, in FuseSetAttrIn arguments)
    {
        TimeSpecification access = TimeOf(arguments.Valid, SetAttrValid.AccessTime, SetAttrValid.AccessTimeNow,
            arguments.AccessTime, arguments.AccessTimeNanoseconds);
        TimeSpecification modification = TimeOf(arguments.Valid, SetAttrValid.ModificationTime,
            SetAttrValid.ModificationTimeNow, arguments.ModificationTime, arguments.ModificationTimeNanoseconds);
        if (access.Nanoseconds < 0 || modification.Nanoseconds < 0)
        {
            return Errno.EINVAL;
        }

        return (isOpen
            ? Files.Futimens(descriptor, access, modification)
            : Files.Utimensat(descriptor, access, modification)).Error;
    }

    // Minus one nanosecond where the guest's number is none: the kernel's own marks for "now" and "leave" are not the guest's.
    private static TimeSpecification TimeOf(
        SetAttrValid valid, SetAttrValid given, SetAttrValid now, ulong seconds, uint nanoseconds)
    {
        if ((valid & now) != 0)
        {
            return new TimeSpecification { Nanoseconds = TimeSpecification.Now };
        }

        return (valid & given) == 0 ? new TimeSpecification { Nanoseconds = TimeSpecification.Omit }
            : new TimeSpecification
            {
                Seconds = (long)seconds,
                Nanoseconds = nanoseconds < 1_000_000_000 ? nanoseconds : -1,
            };
    }

    private Result<int> ReadLink(NodeId id, Span<byte> destination, RequestContext context)
    {
        using Operation operation = Begin();
        Errno error = operation.Find(id, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        if (!node->IsSymbolicLink)
        {
            return Errno.EINVAL;
        }

        using NodeDescriptor descriptor = Borrow(node, mount);
        if (descriptor.IsError)
        {
            return descriptor.Error;
        }

        StampNode(context, node, descriptor);
        SyscallResult read = Files.Readlinkat(descriptor.Value, "\0"u8, destination);
        return read.IsError ? Answer(read.Error) : read.Count;
    }

    private Result<FuseStatfsOut> Statfs(NodeId id)
    {
        using Operation operation = Begin();
        Errno error = operation.Find(id, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        using NodeDescriptor descriptor = Borrow(node, mount);
        if (descriptor.IsError)
        {
            return descriptor.Error;
        }

        SyscallResult looked = Files.Fstatfs(descriptor.Value, out StatfsBuffer status);
        if (looked.IsError)
        {
            return Answer(looked.Error);
        }

        return new FuseStatfsOut
        {
            Blocks = status.Blocks,
            BlocksFree = status.BlocksFree,
            BlocksAvailable = status.BlocksAvailable,
            Files = status.Files,
            FilesFree = status.FilesFree,
            BlockSize = (uint)status.BlockSize,
            NameLength = (uint)status.NameLength,
            FragmentSize = (uint)status.FragmentSize,
        };
    }

    private Errno SyncFs(NodeId id)
    {
        int descriptor;
        using (Operation operation = Begin())
        {
            Errno error = operation.Find(id, out Node* node, out Mount mount);
            if (error != Errno.Success)
            {
                return error;
            }

            if (!node->IsDirectory && !node->IsRegular)
            {
                return Errno.EBADF;
            }

            descriptor = mount.Descriptor;
        }

        // Outside the operation, because it may take long; mounts stay open for the session.
        return descriptor < 0 ? Errno.EOPNOTSUPP : Answer(Files.Syncfs(descriptor).Error);
    }

    // As the guest's kernel does it from mode, owner and group; access control lists are not looked at.
    private Errno Access(NodeId id, uint mask, RequestContext context)
    {
        const uint write = 2;
        const uint execute = 1;
        if (mask > 7)
        {
            return Errno.EINVAL;
        }

        if (_options.ReadOnly && (mask & write) != 0)
        {
            return Errno.EROFS;
        }

        Errno error = Look(id, hasHandle: false, default, StatxMask.Basic, context, out StatxBuffer status);
        if (error != Errno.Success || mask == 0)
        {
            return Answer(error);
        }

        uint mode = status.Mode;
        if (context.UserId == 0)
        {
            bool isRefused = (mask & execute) != 0 && (mode & 0x49) == 0 &&
                (mode & FileMode.TypeMask) != FileMode.Directory;
            return isRefused ? Errno.EACCES : Errno.Success;
        }

        uint owner = _options.UserIds.ToGuest(status.UserId);
        uint group = _options.GroupIds.ToGuest(status.GroupId);
        int shift = context.UserId == owner ? 6
            : context.GroupId == group || context.Groups.Contains(group) ? 3
            : 0;
        return ((mode >> shift) & mask) == mask ? Errno.Success : Errno.EACCES;
    }

    /// <summary>What SETATTR changes, and the owner it gets on the host.</summary>
    private readonly ref struct ChangeTarget(Node* node, int descriptor, bool isOpen, uint user, uint group)
    {
        public readonly Node* Node = node;
        public readonly int Descriptor = descriptor;
        public readonly bool IsOpen = isOpen;
        public readonly uint User = user;
        public readonly uint Group = group;
    }
}
