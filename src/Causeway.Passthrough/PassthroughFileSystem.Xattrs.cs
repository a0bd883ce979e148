using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// Extended attributes, by the magic link of the node's descriptor: that works for every type of file, without opening it.
public sealed unsafe partial class PassthroughFileSystem
{
    private static ReadOnlySpan<byte> AccessAcl => "system.posix_acl_access\0"u8;

    private static ReadOnlySpan<byte> DefaultAcl => "system.posix_acl_default\0"u8;

    /// <inheritdoc/>
    public override ValueTask<Errno> SetXattrAsync(
        NodeId node,
        ReadOnlyMemory<byte> name,
        ReadOnlyMemory<byte> value,
        FuseSetXattrIn arguments,
        RequestContext context) => new(value.Length <= _options.MaxXattrSize
            ? SetXattr(node, name.Span, value.Span, arguments, context)
            : Errno.E2BIG);

    /// <inheritdoc/>
    public override ValueTask<Result<int>> GetXattrAsync(
        NodeId node, ReadOnlyMemory<byte> name, Memory<byte> destination, RequestContext context) =>
        new(GetXattr(node, name.Span, destination.Span, context));

    /// <inheritdoc/>
    public override ValueTask<Result<int>> ListXattrAsync(
        NodeId node, Memory<byte> destination, RequestContext context) => new(ListXattr(node, destination.Span, context));

    /// <inheritdoc/>
    public override ValueTask<Errno> RemoveXattrAsync(
        NodeId node, ReadOnlyMemory<byte> name, RequestContext context) => new(RemoveXattr(node, name.Span, context));

    private Errno SetXattr(
        NodeId id,
        ReadOnlySpan<byte> guestName,
        ReadOnlySpan<byte> value,
        in FuseSetXattrIn arguments,
        RequestContext context)
    {
        Span<byte> room = stackalloc byte[XattrMap.NameRoom];
        Errno error = CheckXattr(guestName, isChange: true, room, out ReadOnlySpan<byte> name);
        if (error != Errno.Success)
        {
            return error;
        }

        using Operation operation = Begin();
        error = operation.Find(id, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        using NodeDescriptor descriptor = Borrow(node, mount);
        if (descriptor.IsError)
        {
            return descriptor.Error;
        }

        using VersionChange versions = BeginChange();
        uint word = WordOf(node, versions);
        versions.On(word);
        var path = new DescriptorName(descriptor.Value);
        bool killsSetgid = _posixAcl && (arguments.SetXattrFlags & SetXattrFlags.AclKillSgid) != 0
            && name.SequenceEqual(AccessAcl);
        if (_posixAcl && name.SequenceEqual(AccessAcl))
        {
            operation.Thread.KeepSetgid(!killsSetgid);
        }

        error = Xattrs.Setxattr(path, name, value, (int)arguments.Flags).Error;
        error = error == Errno.Success && killsSetgid ? ClearSetgid(descriptor.Value, path) : error;
        versions.Settle(Errno.Success);
        StampChanged(context, versions, word);
        return Answer(error);
    }

    // The host's kernel has done it, unless the thread happens to act for a member of the file's group.
    private Errno ClearSetgid(int descriptor, in DescriptorName path)
    {
        Errno error = Files.Statx(descriptor, StatxMask.Basic, out StatxBuffer status).Error;
        return error != Errno.Success || (status.Mode & FileMode.SetGroupId) == 0
            ? error
            : ChangeMode(descriptor, path, status.Mode & FileMode.PermissionMask & ~FileMode.SetGroupId);
    }

    private Result<int> GetXattr(
        NodeId id, ReadOnlySpan<byte> guestName, Span<byte> destination, RequestContext context)
    {
        Span<byte> room = stackalloc byte[XattrMap.NameRoom];
        Errno error = CheckXattr(guestName, isChange: false, room, out ReadOnlySpan<byte> name);
        if (error != Errno.Success)
        {
            return error;
        }

        using Operation operation = Begin();
        error = operation.Find(id, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        using NodeDescriptor descriptor = Borrow(node, mount);
        if (descriptor.IsError)
        {
            return descriptor.Error;
        }

        StampNode(context, node, descriptor);
        var path = new DescriptorName(descriptor.Value);
        SyscallResult got = Xattrs.Getxattr(path, name, destination);
        return got.IsError ? Answer(got.Error) : got.Count;
    }

    private Result<int> ListXattr(NodeId id, Span<byte> destination, RequestContext context)
    {
        if (!_options.HasXattrs)
        {
            return Errno.ENOSYS;
        }

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

        StampNode(context, node, descriptor);

        // Into our own buffer, which has room for any list: what the guest is told is shorter, and its size is exact.
        var path = new DescriptorName(descriptor.Value);
        bool isWhole = _posixAcl && _options.XattrMap is null;
        Span<byte> list = isWhole ? destination : operation.Thread.DirectoryBuffer;
        SyscallResult listed = Xattrs.Listxattr(path, list);
        return listed.IsError ? Answer(listed.Error)
            : isWhole ? listed.Count
            : CopyVisible(list[..listed.Count], destination);
    }

    private Errno RemoveXattr(NodeId id, ReadOnlySpan<byte> guestName, RequestContext context)
    {
        Span<byte> room = stackalloc byte[XattrMap.NameRoom];
        Errno error = CheckXattr(guestName, isChange: true, room, out ReadOnlySpan<byte> name);
        if (error != Errno.Success)
        {
            return error;
        }

        using Operation operation = Begin();
        error = operation.Find(id, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        using NodeDescriptor descriptor = Borrow(node, mount);
        if (descriptor.IsError)
        {
            return descriptor.Error;
        }

        using VersionChange versions = BeginChange();
        uint word = WordOf(node, versions);
        versions.On(word);
        var path = new DescriptorName(descriptor.Value);
        error = Xattrs.Removexattr(path, name).Error;
        versions.Settle(Errno.Success);
        StampChanged(context, versions, word);
        return Answer(error);
    }

    // ENOSYS makes the guest stop asking.
    private Errno CheckXattr(
        ReadOnlySpan<byte> guestName, bool isChange, Span<byte> room, out ReadOnlySpan<byte> name)
    {
        name = [];
        return !_options.HasXattrs ? Errno.ENOSYS
            : _options.ReadOnly && isChange ? Errno.EROFS
            : guestName.Length < 2 || guestName[^1] != 0 ? Errno.EINVAL
            : MapName(guestName, isChange ? Errno.EPERM : Errno.ENODATA, room, out name);
    }

    // The host's name of an attribute. Where access control lists are not negotiated, the guest does not enforce them and
    // must not see or set them, whatever the map says.
    private Errno MapName(
        ReadOnlySpan<byte> guestName, Errno denied, Span<byte> room, out ReadOnlySpan<byte> name)
    {
        name = guestName;
        XattrVerdict verdict = _options.XattrMap?.ToHost(guestName, room, out name) ?? XattrVerdict.Passed;
        return verdict == XattrVerdict.Denied ? denied
            : verdict == XattrVerdict.Unsupported ? Errno.EOPNOTSUPP
            : name.IsEmpty ? Errno.ERANGE
            : !_posixAcl && (IsAcl(guestName) || IsAcl(name)) ? Errno.EOPNOTSUPP
            : Errno.Success;
    }

    private static bool IsAcl(ReadOnlySpan<byte> name) =>
        name.SequenceEqual(AccessAcl) || name.SequenceEqual(DefaultAcl);

    // Copies the names a guest may see, under the names it knows them by. The size of all when there is no destination.
    private Result<int> CopyVisible(ReadOnlySpan<byte> names, Span<byte> destination)
    {
        int size = 0;
        while (!names.IsEmpty)
        {
            int length = names.IndexOf((byte)0);
            ReadOnlySpan<byte> name = length < 0 ? names : names[..length];
            names = length < 0 ? [] : names[(length + 1)..];
            bool isVisible = (_options.XattrMap?.TryToGuest(name, out name) ?? true) && (_posixAcl || !IsAclName(name));
            if (!isVisible)
            {
                continue;
            }

            int end = size + name.Length + 1;
            if (!destination.IsEmpty)
            {
                if (end > destination.Length)
                {
                    return Errno.ERANGE;
                }

                name.CopyTo(destination[size..]);
                destination[end - 1] = 0;
            }

            size = end;
        }

        return size;
    }

    private static bool IsAclName(ReadOnlySpan<byte> name) =>
        name.SequenceEqual(AccessAcl[..^1]) || name.SequenceEqual(DefaultAcl[..^1]);
}
