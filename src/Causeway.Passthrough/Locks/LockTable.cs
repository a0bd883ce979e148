using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>The owners of record locks of one session.</summary>
/// <param name="budget">Pays for their descriptors.</param>
/// <param name="maxLocks">Most locks of the session.</param>
internal sealed class LockTable(DescriptorBudget budget, int maxLocks)
{
    private readonly Lock _lock = new();
    private readonly Dictionary<(NodeId Node, ulong Owner), LockOwner> _owners = [];
    private int _ownerCount;
    private int _lockCount;

    /// <summary>How many owners have an open file.</summary>
    public int OwnerCount => Volatile.Read(ref _ownerCount);

    /// <summary>How many locks they have.</summary>
    public int LockCount => Volatile.Read(ref _lockCount);

    /// <summary>Whether one more would be too many.</summary>
    public bool IsFull => LockCount >= maxLocks;

    /// <summary>Takes up a use of an owner, if there is one.</summary>
    public LockOwner? Find(NodeId node, ulong owner)
    {
        if (OwnerCount == 0)
        {
            return null;
        }

        lock (_lock)
        {
            if (_owners.TryGetValue((node, owner), out LockOwner? found))
            {
                found.Uses++;
            }

            return found;
        }
    }

    /// <summary>Adds an owner and takes up a use of it.</summary>
    /// <param name="node">The file.</param>
    /// <param name="owner">The owner.</param>
    /// <param name="descriptor">Its open file, the table's from now on, with one unit of the budget.</param>
    /// <returns>The owner; another request's, if that came first.</returns>
    public LockOwner Add(NodeId node, ulong owner, int descriptor)
    {
        LockOwner? found;
        lock (_lock)
        {
            if (!_owners.TryGetValue((node, owner), out found))
            {
                var added = new LockOwner(node, owner) { Descriptor = descriptor, Uses = 1 };
                _owners.Add((node, owner), added);
                Volatile.Write(ref _ownerCount, _owners.Count);
                return added;
            }

            found.Uses++;
        }

        Close(descriptor);
        return found;
    }

    /// <summary>Ends a use.</summary>
    public void EndUse(LockOwner owner)
    {
        lock (_lock)
        {
            if (--owner.Uses > 0 || !owner.IsVoid)
            {
                return;
            }
        }

        Close(owner.Descriptor);
    }

    /// <summary>Notes what the host's kernel has done.</summary>
    public void Note(LockOwner owner, in FuseLkIn arguments)
    {
        lock (_lock)
        {
            if (owner.IsVoid)
            {
                return;
            }

            int before = owner.Ranges.Count;
            owner.Ranges.Set((long)arguments.Start, (long)arguments.End, arguments.Type);
            if (arguments.Type != FuseLockType.Unlock)
            {
                owner.ProcessId = arguments.ProcessId;
                owner.Handle = arguments.Handle;
            }

            Volatile.Write(ref _lockCount, _lockCount + owner.Ranges.Count - before);
        }
    }

    /// <summary>Gives back all locks of an owner on a file (FLUSH).</summary>
    public void Release(NodeId node, ulong owner)
    {
        if (OwnerCount == 0)
        {
            return;
        }

        LockOwner? found;
        bool isUsed;
        lock (_lock)
        {
            if (!_owners.TryGetValue((node, owner), out found))
            {
                return;
            }

            isUsed = found.Uses > 0;
            if (isUsed)
            {
                // Another thread of the process waits for a lock of the same file: that goes on.
                found.Uses++;
                Forget(found);
            }
            else
            {
                Remove(found);
            }
        }

        if (isUsed)
        {
            _ = FileLocks.SetRecord(found.Descriptor, new RecordLock { Type = RecordLockType.Unlock });
            EndUse(found);
        }
        else
        {
            Close(found.Descriptor);
        }
    }

    /// <summary>
    /// Gives back what was locked through an open file that the guest has closed. A process has flushed it before, so this is for
    /// owners that are open files themselves (OFD locks of the guest), of whose end nobody else tells.
    /// </summary>
    public void ReleaseThrough(NodeId node, HandleId handle) =>
        ReleaseWhere((node, handle), static (owner, file) => owner.Node == file.node && owner.Handle == file.handle);

    /// <summary>Gives back all locks: the session is over.</summary>
    public void ReleaseAll() => ReleaseWhere(0, static (_, _) => true);

    /// <summary>Closes the files of all owners without locks.</summary>
    public void ReleaseIdle() => ReleaseWhere(0, static (owner, _) => owner.Uses == 0 && owner.Ranges.Count == 0);

    /// <summary>The process of this session that has a lock in the way of another; zero when it is none of ours.</summary>
    public uint FindProcess(NodeId node, in FuseLkIn wanted, long start, long end)
    {
        lock (_lock)
        {
            foreach (LockOwner owner in _owners.Values)
            {
                if (owner.Node == node && owner.Owner != wanted.Owner &&
                    owner.Ranges.Conflicts(start, end, wanted.Type))
                {
                    return owner.ProcessId;
                }
            }
        }

        return 0;
    }

    private void ReleaseWhere<T>(T argument, Func<LockOwner, T, bool> condition)
    {
        while (OwnerCount != 0)
        {
            LockOwner? found = null;
            bool isUsed;
            lock (_lock)
            {
                foreach (LockOwner owner in _owners.Values)
                {
                    if (condition(owner, argument))
                    {
                        found = owner;
                        break;
                    }
                }

                if (found is null)
                {
                    return;
                }

                isUsed = found.Uses > 0;
                found.Uses += isUsed ? 1 : 0;
                Remove(found);
            }

            if (isUsed)
            {
                _ = FileLocks.SetRecord(found.Descriptor, new RecordLock { Type = RecordLockType.Unlock });
                EndUse(found);
            }
            else
            {
                Close(found.Descriptor);
            }
        }
    }

    // Under the lock.
    private void Forget(LockOwner owner)
    {
        Volatile.Write(ref _lockCount, _lockCount - owner.Ranges.Count);
        owner.Ranges.Clear();
    }

    private void Remove(LockOwner owner)
    {
        Forget(owner);
        owner.IsVoid = true;
        _owners.Remove((owner.Node, owner.Owner));
        Volatile.Write(ref _ownerCount, _owners.Count);
    }

    private void Close(int descriptor)
    {
        _ = FileIO.Close(descriptor);
        budget.Return();
    }
}
