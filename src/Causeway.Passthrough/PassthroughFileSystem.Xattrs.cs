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
        RequestContext context) => new(SetXattr(node, name.Span, value.Span, (int)arguments.Flags));

    /// <inheritdoc/>
    public override ValueTask<Result<int>> GetXattrAsync(
        NodeId node, ReadOnlyMemory<byte> name, Memory<byte> destination, RequestContext context) =>
        new(GetXattr(node, name.Span, destination.Span));

    /// <inheritdoc/>
    public override ValueTask<Result<int>> ListXattrAsync(
        NodeId node, Memory<byte> destination, RequestContext context) => new(ListXattr(node, destination.Span));

    /// <inheritdoc/>
    public override ValueTask<Errno> RemoveXattrAsync(
        NodeId node, ReadOnlyMemory<byte> name, RequestContext context) => new(RemoveXattr(node, name.Span));

    private Errno SetXattr(NodeId id, ReadOnlySpan<byte> name, ReadOnlySpan<byte> value, int flags)
    {
        Errno error = CheckXattr(name, isChange: true);
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
        var path = new DescriptorName(descriptor.Value);
        return descriptor.IsError ? descriptor.Error : Answer(Xattrs.Setxattr(path, name, value, flags).Error);
    }

    private Result<int> GetXattr(NodeId id, ReadOnlySpan<byte> name, Span<byte> destination)
    {
        Errno error = CheckXattr(name, isChange: false);
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

        var path = new DescriptorName(descriptor.Value);
        SyscallResult got = Xattrs.Getxattr(path, name, destination);
        return got.IsError ? Answer(got.Error) : got.Count;
    }

    private Result<int> ListXattr(NodeId id, Span<byte> destination)
    {
        if (!_options.Xattr)
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

        var path = new DescriptorName(descriptor.Value);
        SyscallResult listed = Xattrs.Listxattr(path, destination);
        return listed.IsError ? Answer(listed.Error)
            : destination.IsEmpty ? listed.Count
            : HideAcls(destination[..listed.Count]);
    }

    private Errno RemoveXattr(NodeId id, ReadOnlySpan<byte> name)
    {
        Errno error = CheckXattr(name, isChange: true);
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
        var path = new DescriptorName(descriptor.Value);
        return descriptor.IsError ? descriptor.Error : Answer(Xattrs.Removexattr(path, name).Error);
    }

    // ENOSYS makes the guest stop asking. Access control lists are not negotiated: a guest that does not enforce them must
    // not see or set them.
    private Errno CheckXattr(ReadOnlySpan<byte> name, bool isChange) =>
        !_options.Xattr ? Errno.ENOSYS
        : _options.ReadOnly && isChange ? Errno.EROFS
        : name.IsEmpty || name[^1] != 0 ? Errno.EINVAL
        : IsAcl(name) ? Errno.EOPNOTSUPP
        : Errno.Success;

    private static bool IsAcl(ReadOnlySpan<byte> name) =>
        name.SequenceEqual(AccessAcl) || name.SequenceEqual(DefaultAcl);

    private static int HideAcls(Span<byte> names)
    {
        int kept = 0;
        for (int start = 0; start < names.Length;)
        {
            int length = names[start..].IndexOf((byte)0) + 1;
            Span<byte> name = names.Slice(start, length == 0 ? names.Length - start : length);
            start += name.Length;
            if (!IsAcl(name))
            {
                name.CopyTo(names[kept..]);
                kept += name.Length;
            }
        }

        return kept;
    }
}
