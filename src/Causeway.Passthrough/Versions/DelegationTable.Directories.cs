using Causeway.Linux;

namespace Causeway.Passthrough;

// What directories are like. The kernel asks for nothing when a directory itself is moved or removed. Its attributes change with that, so
// they count as being changed unless the delegation of its parent is held as well, which is what that takes.
internal sealed unsafe partial class DelegationTable
{
    // linux/stat.h: STATX_ATTR_MOUNT_ROOT.
    private const ulong MountRoot = 0x2000;

    // The top of the share needs no parent.
    private void CoverByParent(int place, ulong inode, int descriptor)
    {
        DelegatedObject* child = &_objects[place];
        lock (_gate)
        {
            if ((child->State & DelegatedState.Metadata) != 0 || !IsDue(child))
            {
                return;
            }
        }

        bool isCovered = false;
        if (_versions.IsTop(inode))
        {
            isCovered = TryLink(child, parent: null, generation: 0);
        }
        else if (!Files.Statx(descriptor, PassthroughFileSystem.LookupMask, out StatxBuffer self).IsError
            && (self.Attributes & MountRoot) == 0
            && !Files.Statx(descriptor, "..\0"u8, AtFlags.NoFollow, PassthroughFileSystem.LookupMask, out StatxBuffer above).IsError
            && above.DeviceMajor == self.DeviceMajor && above.DeviceMinor == self.DeviceMinor)
        {
            isCovered = CoverBy(child, above.Inode, descriptor);
        }

        if (!isCovered)
        {
            lock (_gate)
            {
                Fail(child);
            }
        }
    }

    private bool CoverBy(DelegatedObject* child, ulong parentInode, int descriptor)
    {
        uint parentWord = _versions.Acquire(parentInode);
        try
        {
            int parentPlace = PlaceOf(parentWord);
            if (parentPlace == None || !(IsHeld(parentPlace) || TryTakeParent(parentPlace, parentWord, parentInode, descriptor)))
            {
                return false;
            }

            DelegatedObject* parent = &_objects[parentPlace];
            uint generation = Volatile.Read(ref parent->Generation);

            // With the delegation of the directory above held, its parent is what it is. It was looked up before that.
            return !Files.Statx(descriptor, "..\0"u8, AtFlags.NoFollow, PassthroughFileSystem.LookupMask, out StatxBuffer above).IsError
                && above.Inode == parentInode
                && TryLink(child, parent, generation);
        }
        finally
        {
            _versions.Release(parentInode);
        }
    }

    private bool TryTakeParent(int place, uint word, ulong inode, int child)
    {
        SyscallResult opened = Files.Openat(child, "..\0"u8, OpenFlags.Path | OpenFlags.Directory | OpenFlags.CloseOnExec);
        if (opened.IsError)
        {
            return false;
        }

        bool isTaken = !Files.Statx(opened.Descriptor, PassthroughFileSystem.LookupMask, out StatxBuffer status).IsError
            && status.Inode == inode
            && TryTake(place, word, inode, opened.Descriptor, DelegatedKind.Directory);
        _ = FileIO.Close(opened.Descriptor);
        return isTaken;
    }

    private bool TryLink(DelegatedObject* child, DelegatedObject* parent, uint generation)
    {
        lock (_gate)
        {
            if ((child->State & DelegatedState.Held) == 0
                || (parent != null && ((parent->State & DelegatedState.Held) == 0 || parent->Generation != generation)))
            {
                return false;
            }

            if ((child->State & DelegatedState.Metadata) != 0)
            {
                return true;
            }

            CoverMetadata(child);
            if (parent != null)
            {
                child->Parent = PlaceOf(parent->Word);
                child->NextSibling = parent->FirstChild;
                child->PreviousSibling = None;
                parent->FirstChild = PlaceOf(child->Word);
                if (child->NextSibling != None)
                {
                    _objects[child->NextSibling].PreviousSibling = parent->FirstChild;
                }
            }

            return true;
        }
    }

    private void CoverMetadata(DelegatedObject* delegated)
    {
        delegated->State |= DelegatedState.Metadata;
        _table.End(delegated->Word);
    }

    private void UncoverMetadata(DelegatedObject* delegated)
    {
        if ((delegated->State & DelegatedState.Metadata) == 0)
        {
            return;
        }

        _table.Begin(delegated->Word);
        delegated->State &= ~DelegatedState.Metadata;
        if (delegated->Parent == None)
        {
            return;
        }

        if (delegated->PreviousSibling != None)
        {
            _objects[delegated->PreviousSibling].NextSibling = delegated->NextSibling;
        }
        else
        {
            _objects[delegated->Parent].FirstChild = delegated->NextSibling;
        }

        if (delegated->NextSibling != None)
        {
            _objects[delegated->NextSibling].PreviousSibling = delegated->PreviousSibling;
        }

        (delegated->Parent, delegated->NextSibling, delegated->PreviousSibling) = (None, None, None);
    }
}
