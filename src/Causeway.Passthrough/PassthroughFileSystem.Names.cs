using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// Names given and taken away.
public sealed unsafe partial class PassthroughFileSystem
{
    // What the new name of the last RENAME meant whose new name had to be known. Any thread may store it: it decides only what is tried
    // first.
    private RenameTarget _renames;

    /// <inheritdoc/>
    public override ValueTask<Result<NodeEntry>> LinkAsync(
        NodeId node, NodeId newParent, FileName newName, RequestContext context) =>
        new(Link(node, newParent, newName, context));

    /// <inheritdoc/>
    public override ValueTask<Errno> UnlinkAsync(NodeId parent, FileName name, RequestContext context) =>
        new(Remove(parent, name, AtFlags.None));

    /// <inheritdoc/>
    public override ValueTask<Errno> RmdirAsync(NodeId parent, FileName name, RequestContext context) =>
        new(Remove(parent, name, AtFlags.RemoveDirectory));

    /// <inheritdoc/>
    public override ValueTask<Errno> RenameAsync(
        NodeId parent, FileName name, FuseRename2In arguments, FileName newName, RequestContext context) =>
        new(Rename(parent, name, arguments.NewParent, newName, arguments.Flags, context));

    private Result<NodeEntry> Link(NodeId id, NodeId newParent, FileName newName, RequestContext context)
    {
        if (_options.ReadOnly)
        {
            return Errno.EROFS;
        }

        using Operation operation = Begin();
        Errno error = operation.Find(id, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        error = operation.FindDirectory(newParent, out Node* directory, out Mount directoryMount);
        if (error != Errno.Success)
        {
            return error;
        }

        if (node->IsDirectory)
        {
            return Errno.EPERM;
        }

        using NodeDescriptor source = Borrow(node, mount);
        if (source.IsError)
        {
            return source.Error;
        }

        using NodeDescriptor target = Borrow(directory, directoryMount);
        if (target.IsError)
        {
            return target.Error;
        }

        // Following the magic link ends at the object itself, whatever it is.
        var path = new DescriptorName(source.Value);
        var place = new Parent(directory, directoryMount, target.Value);
        NameChange change = new(this, BeginChange());
        error = BeginNames(ref change, place, newName, NameUse.Made);
        if (error != Errno.Success)
        {
            return error;
        }

        uint word = WordOf(node, change.Change);
        change.Change.On(word);
        StampAsItIs(context, node);
        error = Files.Linkat(
            Files.WorkingDirectory, path, target.Value, newName.Terminated, AtFlags.Follow).Error;
        Errno linked = error;
        StatxBuffer status = default;
        if (error == Errno.Success)
        {
            error = Files.Statx(source.Value, LookupMask, out status).Error;
        }

        change.Settle(linked);
        if (error != Errno.Success)
        {
            return Answer(error);
        }

        change.Remember(place, newName, new NamedObject(status.Inode, IsDirectory: false));
        StampChangedName(context, change.Change, place, newName.Bytes);
        context.Versions.Metadata = change.Change.After(word);

        if (!NodeTable.TryAddLookup(node))
        {
            return Errno.ESTALE;
        }

        FillEntry(place, node, mount, status,
            NodeTable.NameBit(newName.Bytes), out NodeEntry entry);
        return entry;
    }

    private Errno Remove(NodeId parent, FileName name, AtFlags flags)
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

        var place = new Parent(node, mount, directory.Value);
        NameChange change = new(this, BeginChange());
        error = BeginNames(ref change, place, name, NameUse.Taken);
        if (error != Errno.Success)
        {
            return error;
        }

        KeepVictim(ref change, place, name);
        error = Files.Unlinkat(directory.Value, name.Terminated, flags).Error;
        change.Settle(error);
        return Answer(error);
    }

    private Errno Rename(
        NodeId parent, FileName name, NodeId newParent, FileName newName, RenameFlags flags, RequestContext context)
    {
        if (_options.ReadOnly)
        {
            return Errno.EROFS;
        }

        if ((flags & ~(RenameFlags.NoReplace | RenameFlags.Exchange | RenameFlags.Whiteout)) != 0)
        {
            return Errno.EINVAL;
        }

        using Operation operation = Begin();
        Errno error = operation.FindDirectory(parent, out Node* node, out Mount mount);
        if (error != Errno.Success)
        {
            return error;
        }

        error = operation.FindDirectory(newParent, out Node* newNode, out Mount newMount);
        if (error != Errno.Success)
        {
            return error;
        }

        using NodeDescriptor directory = Borrow(node, mount);
        if (directory.IsError)
        {
            return directory.Error;
        }

        using NodeDescriptor newDirectory = Borrow(newNode, newMount);
        if (newDirectory.IsError)
        {
            return newDirectory.Error;
        }

        var place = new Parent(node, mount, directory.Value);
        var newPlace = new Parent(newNode, newMount, newDirectory.Value);
        if ((flags & RenameFlags.Whiteout) != 0)
        {
            // The only rename that makes something, and it belongs to the daemon.
            operation.Thread.ResumeOwn();
        }

        // Told not to replace anything, the kernel refuses where the new name means something, and what it means need not be looked up
        // before: one system call less where the name is free, one more where it is not. So what the last one found is expected again.
        NameChange change = new(this, BeginChange());
        bool isLookedUp = change.Change.NeedsWords || MayMeanVictim(newPlace, newName);
        RenameFlags asked = flags == 0 && isLookedUp && _renames == RenameTarget.IsFree ? RenameFlags.NoReplace : flags;
        error = RenameCounted(ref change, place, name, newPlace, newName, asked);
        if (asked != flags && error is Errno.EEXIST or Errno.EINVAL)
        {
            // Nothing was done. EINVAL, unless it is the request's own fault: the file system cannot refuse.
            Errno refusal = error;
            change.GiveUp();
            error = RenameCounted(ref change, place, name, newPlace, newName, flags);
            if (refusal == Errno.EINVAL && error != Errno.EINVAL)
            {
                _renames = RenameTarget.IsLookedUp;
            }
        }

        change.Settle(error);
        if (error == Errno.Success)
        {
            change.Remember(newPlace, newName, change.Moved);
            StampChangedName(context, change.Change, newPlace, newName.Bytes);

            // The guest moves its entries without looking them up.
            HandOutMoved(node, NodeTable.NameBit(name.Bytes), newNode, NodeTable.NameBit(newName.Bytes));
            HandOutMoved(newNode, NodeTable.NameBit(newName.Bytes), node, NodeTable.NameBit(name.Bytes));
        }

        return Answer(error);
    }

    // Begins on all that it affects and asks the kernel; the change is not over then.
    private Errno RenameCounted(
        ref NameChange change,
        in Parent place,
        FileName name,
        in Parent newPlace,
        FileName newName,
        RenameFlags flags)
    {
        NameUse newUse = (flags & RenameFlags.NoReplace) != 0 ? NameUse.Made : NameUse.Taken;
        Errno error = BeginNames(ref change, place, name, NameUse.Taken, newPlace, newName, newUse);
        if (error != Errno.Success)
        {
            return error;
        }

        if ((flags & (RenameFlags.NoReplace | RenameFlags.Exchange)) == 0)
        {
            KeepVictim(ref change, newPlace, newName);
        }

        if (newUse == NameUse.Taken && _renames != RenameTarget.IsLookedUp && change.IsKnown)
        {
            _renames = change.IsThere ? RenameTarget.IsReplaced : RenameTarget.IsFree;
        }

        return Files.Renameat2(
            place.Descriptor, name.Terminated, newPlace.Descriptor, newName.Terminated, (uint)flags).Error;
    }

    private static void HandOutMoved(Node* from, ulong fromBit, Node* to, ulong toBit)
    {
        HandOut(to, toBit);
        if ((Volatile.Read(ref Node.NamesByHandle(from)) & NodeTable.ShortBit(fromBit)) != 0)
        {
            HandOutByHandle(to, NodeTable.ShortBit(toBit));
        }
    }

    // Whether a name may mean a node that has no descriptor.
    private bool MayMeanNodeByHandle(Node* directory, ulong bit) => Volatile.Read(ref _hasEvicted)
        ? (Volatile.Read(ref directory->Word) & bit) != 0
        : (Volatile.Read(ref Node.NamesByHandle(directory)) & NodeTable.ShortBit(bit)) != 0;

    private bool MayMeanVictim(in Parent parent, FileName name) => parent.Mount.UsesHandles && parent.Mount.MayPin
        && MayMeanNodeByHandle(parent.Node, NodeTable.NameBit(name.Bytes));

    // A node known by handle only dies with its last name, though the guest may still have a process in that directory or an
    // O_PATH descriptor of that file. It is given a descriptor while it can still be opened.
    private void KeepVictim(ref NameChange change, in Parent parent, FileName name)
    {
        if (!MayMeanVictim(parent, name))
        {
            return;
        }

        bool isThere = change.Look(parent, name, out StatxBuffer status);
        bool isLastName = status.LinkCount <= 1 || IsDirectory(status.Mode);
        if (!isThere || !isLastName || _mounts.Find(status, parent.Mount) is not { UsesHandles: true } mount)
        {
            return;
        }

        Node* node = _nodes.Find(KeyOf(status, mount));
        if (node == null || Volatile.Read(ref node->Descriptor) >= 0 || node->HandleLength == 0)
        {
            return;
        }

        SyscallResult opened = OpenByHandle(node, mount, OpenFlags.Path | OpenFlags.CloseOnExec);
        if (!opened.IsError && !TryPin(node, mount, opened.Descriptor))
        {
            _ = FileIO.Close(opened.Descriptor);
        }
    }

    /// <summary>What a RENAME is expected to find under the new name.</summary>
    private enum RenameTarget
    {
        /// <summary>Nothing.</summary>
        IsFree,

        /// <summary>An object, which is replaced.</summary>
        IsReplaced,

        /// <summary>It is looked up each time, because the file system replaces whatever it is told.</summary>
        IsLookedUp,
    }
}
