using Causeway.Linux;

namespace Causeway.Passthrough;

// Descriptors of nodes. A node with a file handle can do without one; it gets one when it is used (it is "pinned"), and
// loses it when others need the place. The places are a clock: the hand passes over nodes used since it last came by. The clock
// grows only when the next places are all taken, so that nodes that come and go use a few again and again, and nobody loses
// anything as long as there are places.
//
// A pinned node costs one system call less in nearly every operation, and its inode number cannot be given to another
// object, so that a lookup by statx(2) alone proves what a name means.
//
// The last name of a node may go while the clock takes its descriptor. The descriptor is closed only after all operations
// of the time are over, and looked at before: with no name left it is the only thing that keeps the node alive, and goes
// back into it.
public sealed unsafe partial class PassthroughFileSystem
{
    // Arbitrary: one barrier for as many.
    private const int ReclaimThreshold = 64;

    // For so many milliseconds a request waits for descriptors that are about to be free, before it fails for lack of them (arbitrary).
    private const int MaxReclaimAttempts = 50;

    // How many places the hand looks at for one whose node is gone before the clock grows. Of those that come and go one more as they
    // become more is enough (arbitrary).
    private const int PlacesToTryAgain = 2;

    // How far the hand looks for a node that was not used lately before it takes one that was.
    private const int ClockPatience = 64;

    // With all places taken, one of so many times that a node is found without a descriptor it gets somebody's: a tree that has more
    // nodes than there are places would take every descriptor away just before it is needed again, which costs more than none. A file
    // used again and again still has one soon. GETATTR of 10,000 files in turn with 9,600 places took 10.1 us of processor time when
    // it was every time; 8 is arbitrary.
    private const int MissesPerEviction = 8;

    private readonly Lock _pinLock = new();
    private readonly PinnedPlace[] _pinned;
    private readonly Lock _retireLock = new();
    private readonly Lock _reclaimLock = new();
    private List<Retired> _retired = [];
    private List<Retired> _waiting = [];
    private long _waitingEpoch;
    private int _retiredCount;
    private int _clockHand;
    private int _clockSize;
    private int _pinnedCount;
    private bool _hasEvicted;

    // Gives a descriptor of a node, O_PATH at least, for the time of an operation.
    private NodeDescriptor Borrow(Node* node, Mount mount)
    {
        int descriptor = Volatile.Read(ref node->Descriptor);
        if (descriptor >= 0)
        {
            if (node->WasUsed == 0)
            {
                node->WasUsed = 1;
            }

            return new NodeDescriptor(descriptor, isOwned: false);
        }

        SyscallResult opened = OpenByHandle(node, mount, OpenFlags.Path | OpenFlags.CloseOnExec);
        if (opened.IsError)
        {
            return new NodeDescriptor(Answer(opened.Error));
        }

        bool isPinned = IsWorthPinning(mount, mayEvict: true) && TryPin(node, mount, opened.Descriptor);
        return new NodeDescriptor(opened.Descriptor, isOwned: !isPinned);
    }

    // Opens a node's object once more, for reading or writing. Inside an operation.
    private SyscallResult Reopen(Node* node, Mount mount, int flags)
    {
        if ((flags & OpenFlags.AccessMode) != OpenFlags.ReadOnly)
        {
            // Nobody keeps anything of what may be written. The kernel would ask for it, too, and wait for another thread of ours.
            _versions?.Delegations?.GiveBack(Volatile.Read(ref node->VersionWord));
        }

        // In this order: a late handle is there before the descriptor is taken away.
        int descriptor = Volatile.Read(ref node->Descriptor);
        if (Volatile.Read(ref node->HandleLength) != 0)
        {
            SyscallResult opened = OpenByHandle(node, mount, flags);
            if (opened.Error != Errno.ESTALE)
            {
                return opened;
            }

            // Without a name, and with a descriptor that keeps it.
            descriptor = Volatile.Read(ref node->Descriptor);
        }

        return descriptor < 0
            ? SyscallResult.Failed(Errno.ESTALE)
            : DescriptorName.Open(WorkerThread.ProcessDescriptors, descriptor, flags);
    }

    private SyscallResult OpenByHandle(Node* node, Mount mount, int flags)
    {
        _nodes.CopyHandle(node, out KernelFileHandle handle);
        SyscallResult result = Files.OpenByHandleAt(mount.Descriptor, handle, flags);
        if (result.Error is Errno.EMFILE or Errno.ENFILE)
        {
            _spares.DropAll();
            EvictPinned(ReclaimThreshold);
            Reclaim();
            result = Files.OpenByHandleAt(mount.Descriptor, handle, flags);
        }

        if (result.Error == Errno.ESTALE)
        {
            // Whoever looks its name up again asks for a handle.
            node->IsHandleLasting = 0;
            _remembered.Remove(node->Key);
        }

        return result;
    }

    // Whether a node that is found without a descriptor is to have one.
    private bool IsWorthPinning(Mount mount, bool mayEvict) => mount.MayPin &&
        (Volatile.Read(ref _pinnedCount) < _pinned.Length ||
         (mayEvict && ++WorkerThread.Current.PinMisses % MissesPerEviction == 0));

    // Gives a node a descriptor to keep. False: it did not take it.
    private bool TryPin(Node* node, Mount mount, int descriptor)
    {
        if (!mount.MayPin || !_budget.TryTake())
        {
            return false;
        }

        if (Interlocked.CompareExchange(ref node->Descriptor, descriptor, Node.NoDescriptor) != Node.NoDescriptor)
        {
            _budget.Return();
            return false;
        }

        Interlocked.Increment(ref _pinnedCount);
        EnterClock(node);
        return true;
    }

    // Gives a node that has a descriptor a place from which it can be taken away. Inside an operation.
    private void EnterClock(Node* node)
    {
        node->WasUsed = 1;
        var place = new PinnedPlace(_nodes.IndexOf(node), node->Generation);
        lock (_pinLock)
        {
            for (int step = 0; step < PlacesToTryAgain && _clockSize != 0; step++)
            {
                ref PinnedPlace next = ref MoveHand();
                if (IsVacant(next))
                {
                    next = place;
                    return;
                }
            }

            if (_clockSize < _pinned.Length)
            {
                _pinned[_clockSize++] = place;
                return;
            }

            for (int step = 0; ; step++)
            {
                ref PinnedPlace next = ref MoveHand();
                if (TryVacate(next, isLast: step >= ClockPatience))
                {
                    next = place;
                    return;
                }
            }
        }
    }

    private ref PinnedPlace MoveHand()
    {
        _clockHand = _clockHand + 1 >= _clockSize ? 0 : _clockHand + 1;
        return ref _pinned[_clockHand];
    }

    // Whether a place is nobody's, or of a node that is gone, or that lives by its descriptor.
    private bool IsVacant(PinnedPlace place)
    {
        if (place.Index == 0)
        {
            return true;
        }

        // The generation last: then the others were this node's, and its slot is not another's as long as the operation lasts.
        Node* node = _nodes.At(place.Index);
        return Volatile.Read(ref node->Descriptor) < 0 || !node->IsPinnedBesideHandle
            || Volatile.Read(ref node->LookupCount) == 0 || Volatile.Read(ref node->Generation) != place.Generation;
    }

    // Whether a place of the clock is free, or has been made so.
    private bool TryVacate(PinnedPlace place, bool isLast)
    {
        if (IsVacant(place))
        {
            return true;
        }

        Node* node = _nodes.At(place.Index);
        int descriptor = Volatile.Read(ref node->Descriptor);
        if (descriptor < 0)
        {
            return true;
        }

        if (node->WasUsed != 0 && !isLast)
        {
            node->WasUsed = 0;
            return false;
        }

        if (node->HandleLength == 0 && !TryGetLateHandle(node, descriptor, place.Generation))
        {
            // It lives by its descriptor from now on.
            return true;
        }

        // Names that were handed out while it had a descriptor now mean a node without one.
        Volatile.Write(ref _hasEvicted, true);
        if (Interlocked.CompareExchange(ref node->Descriptor, Node.NoDescriptor, descriptor) == descriptor)
        {
            Retire(new Retired(place.Index, descriptor, place.Generation));
        }

        return true;
    }

    // Inside an operation the node stays what it is, if it is alive afterwards: no count rises from zero.
    private static bool TryGetLateHandle(Node* node, int descriptor, uint generation)
    {
        SyscallResult named = Files.NameToHandleAt(descriptor, "\0"u8, out KernelFileHandle handle, AtFlags.EmptyPath);
        return !named.IsError && Volatile.Read(ref node->Generation) == generation &&
            Volatile.Read(ref node->LookupCount) > 0 && NodeTable.TrySetHandle(node, ref handle);
    }

    // Takes descriptors away from pinned nodes; they are free after the next reclaim.
    private void EvictPinned(int count)
    {
        WorkerThread thread = WorkerThread.Current;
        bool isOutside = _epochs.TryEnter(thread);
        lock (_pinLock)
        {
            for (int step = 0; step < _clockSize && count > 0; step++)
            {
                ref PinnedPlace place = ref MoveHand();
                if (!IsVacant(place) && TryVacate(place, isLast: true))
                {
                    count--;
                    place = default;
                }
            }
        }

        if (isOutside)
        {
            _epochs.Exit(thread);
        }
    }

    // Takes a descriptor out of the budget, at the expense of spare files and then of pinned nodes if need be.
    private bool TryTakeDescriptor()
    {
        if (_budget.TryTake())
        {
            return true;
        }

        _spares.DropAll();
        if (_budget.TryTake())
        {
            return true;
        }

        if (Volatile.Read(ref _pinnedCount) > 0)
        {
            EvictPinned(ReclaimThreshold);
        }

        // What is free once others' operations are over is waited for: a thread that has lost its processor is back soon.
        for (int attempt = 0; ; attempt++)
        {
            Reclaim();
            if (_budget.TryTake())
            {
                return true;
            }

            if (attempt == MaxReclaimAttempts || Volatile.Read(ref _retiredCount) == 0)
            {
                return false;
            }

            Thread.Sleep(1);
        }
    }

    // Puts off the end of a slot.
    private void Retire(uint index) => Retire(new Retired(index, Node.NoDescriptor, 0));

    // Puts off the end of a slot, or of a descriptor taken from a pinned node.
    private void Retire(Retired retired)
    {
        lock (_retireLock)
        {
            _retired.Add(retired);
            Volatile.Write(ref _retiredCount, _retired.Count + _waiting.Count);
        }
    }

    private void ReclaimIfDue()
    {
        if (Volatile.Read(ref _retiredCount) >= ReclaimThreshold)
        {
            Reclaim();
        }
    }

    // Ends what was put off, as far as no operation can be using it. The calling thread may be in an operation itself; then
    // only what was retired before that is ended.
    private void Reclaim()
    {
        if (!_reclaimLock.TryEnter())
        {
            return;
        }

        try
        {
            if (_waiting.Count != 0 && !EndWaiting())
            {
                return;
            }

            lock (_retireLock)
            {
                (_retired, _waiting) = (_waiting, _retired);
            }

            if (_waiting.Count != 0)
            {
                _waitingEpoch = _epochs.Advance();
                _ = EndWaiting();
            }
        }
        finally
        {
            _reclaimLock.Exit();
        }
    }

    private bool EndWaiting()
    {
        if (!_epochs.HasPassed(_waitingEpoch))
        {
            return false;
        }

        foreach (Retired retired in _waiting)
        {
            if (retired.Descriptor < 0)
            {
                FreeSlot(retired.Index);
            }
            else
            {
                EndEvicted(retired);
            }
        }

        _waiting.Clear();
        lock (_retireLock)
        {
            Volatile.Write(ref _retiredCount, _retired.Count);
        }

        return true;
    }

    private void FreeSlot(uint index)
    {
        Node* node = _nodes.At(index);
        EndGrant(node);
        ReleaseWord(node);
        _spares.Drop(index);
        if (node->Descriptor >= 0)
        {
            ReturnDescriptor(node->Descriptor, wasPinned: node->IsPinnedBesideHandle);
            node->Descriptor = Node.NoDescriptor;
        }

        _nodes.Free(index);
    }

    private void EndEvicted(Retired retired)
    {
        Node* node = _nodes.At(retired.Index);
        bool isAlive = node->Generation == retired.Generation && Volatile.Read(ref node->LookupCount) > 0;
        if (isAlive && !Files.Statx(retired.Descriptor, StatxMask.Basic, out StatxBuffer status).IsError &&
            status.LinkCount == 0 &&
            Interlocked.CompareExchange(ref node->Descriptor, retired.Descriptor, Node.NoDescriptor) ==
            Node.NoDescriptor)
        {
            // It has no place in the clock any more and stays until the guest forgets it.
            return;
        }

        ReturnDescriptor(retired.Descriptor, wasPinned: true);
    }

    private void ReturnDescriptor(int descriptor, bool wasPinned)
    {
        _ = FileIO.Close(descriptor);
        _budget.Return();
        if (wasPinned)
        {
            Interlocked.Decrement(ref _pinnedCount);
        }
    }

    /// <summary>A place of the clock: a node, or what was one. Slots are used again, so the index alone does not say which.</summary>
    private readonly record struct PinnedPlace(uint Index, uint Generation);

    private readonly record struct Retired(uint Index, int Descriptor, uint Generation);

    /// <summary>A node's descriptor for the time of an operation, or the errno that says why there is none.</summary>
    private readonly ref struct NodeDescriptor
    {
        private readonly bool _isOwned;

        public NodeDescriptor(int value, bool isOwned)
        {
            Value = value;
            _isOwned = isOwned;
        }

        public NodeDescriptor(Errno error)
        {
            Value = Node.NoDescriptor;
            Error = error;
        }

        public int Value { get; }

        public Errno Error { get; }

        public bool IsError => Error != Errno.Success;

        public void Dispose()
        {
            if (_isOwned)
            {
                _ = FileIO.Close(Value);
            }
        }
    }
}
