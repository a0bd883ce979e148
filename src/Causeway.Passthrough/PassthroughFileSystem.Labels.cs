using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// Security labels (fuse_secctx): an extended attribute that comes with the request that makes an object. It is set on a
// descriptor of the new object before the guest hears of it; where that fails the object is removed again.
public sealed unsafe partial class PassthroughFileSystem
{
    private static ReadOnlySpan<byte> SecurityNames => "security."u8;

    // The host's name of the label that comes with a request; empty when there is none. Before anything is made.
    private Errno FindLabel(RequestContext context, Span<byte> room, out ReadOnlySpan<byte> name)
    {
        name = [];
        if (!context.HasSecurityContext)
        {
            return Errno.Success;
        }

        // Labels are set with the daemon's rights and not the caller's, so no other attribute may pass for one.
        return context.SecurityContextName.Span.StartsWith(SecurityNames)
            ? MapName(context.SecurityContextName.Span, Errno.EPERM, room, out name)
            : Errno.EPERM;
    }

    // Labels what was just made by name, and finds its node. Owns one unit of the budget.
    private Errno EnterLabelled(
        in Parent parent, FileName name, uint type, in Label label, out NodeEntry entry)
    {
        entry = default;
        SyscallResult opened = Files.Openat2(parent.Descriptor, name.Terminated, s_pathFlags, 0, OneComponent);
        if (opened.IsError)
        {
            _budget.Return();
            return opened.Error;
        }

        Errno error = Files.Statx(opened.Descriptor, LookupMask, out StatxBuffer status).Error;
        if (error == Errno.Success && (status.Mode & FileMode.TypeMask) != type)
        {
            // Somebody on the host was quicker. The guest's kernel looks once more after ESTALE.
            error = Errno.ESTALE;
        }
        else if (error == Errno.Success)
        {
            error = SetLabel(parent, name, opened.Descriptor, status, label);
        }

        if (error != Errno.Success)
        {
            ReturnDescriptor(opened.Descriptor, wasPinned: false);
            return error;
        }

        return AddByDescriptor(parent, NodeTable.NameBit(name.Bytes), opened.Descriptor, Origin.Made, out entry);
    }

    // Labels what a descriptor means; removes the name it was made under when that fails.
    private Errno SetLabel(
        in Parent parent, FileName name, int descriptor, in StatxBuffer status, in Label label)
    {
        uint word = _versions?.Acquire(status.Inode) ?? 0;
        VersionChange labelling = BeginChange().On(word);
        var path = new DescriptorName(descriptor);
        Errno error = Xattrs.Setxattr(path, label.Name, label.Value, 0).Error;
        labelling.Settle(Errno.Success);
        if (word != 0)
        {
            _versions!.Release(status.Inode);
        }

        if (error == Errno.Success)
        {
            return error;
        }

        bool isStillThere = !Files.Statx(
            parent.Descriptor, name.Terminated, NotFollowed, StatxMask.Basic, out StatxBuffer named).IsError &&
            named.Inode == status.Inode && named.DeviceMajor == status.DeviceMajor &&
            named.DeviceMinor == status.DeviceMinor;
        if (isStillThere)
        {
            bool isDirectory = IsDirectory(status.Mode);
            NameChange removal = new(this, BeginChange());
            if (BeginNames(ref removal, parent, name, NameUse.Taken) == Errno.Success)
            {
                _ = Files.Unlinkat(
                    parent.Descriptor, name.Terminated, isDirectory ? AtFlags.RemoveDirectory : AtFlags.None);
            }

            removal.Settle(Errno.Success);
        }

        return error;
    }

    /// <summary>A label: the attribute's name on the host with its NUL, and its value. No name: no label.</summary>
    private readonly ref struct Label(ReadOnlySpan<byte> name, ReadOnlySpan<byte> value)
    {
        public readonly ReadOnlySpan<byte> Name = name;
        public readonly ReadOnlySpan<byte> Value = value;

        public bool IsEmpty => Name.IsEmpty;
    }
}
