using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// What makes the promise of the version table hold for processes of the host as well: for objects that guests look at, delegations of
/// the kernel (<see cref="Delegations"/>), one for each pair of words.
/// </summary>
/// <remarks>
/// <para>An object without a delegation is being changed, as far as its words tell: they are in flight, and nothing is kept of it. Who
/// looks at an object takes its delegation first, and with that the change ends. When somebody wants to change it the kernel
/// asks for the delegation: another change begins, and then the delegation is given back, which is what he waits for. So a
/// change by the host is a change like others, of which it is not known when it is over: it ends when the kernel gives the
/// delegation again, which it does not do while anybody is changing the object.</para>
/// <para>Of a symbolic link there are none. Its target never changes; that it stays the same link its descriptor sees to.</para>
/// <para>Changes of our own give the delegations up before. Where one is taken again in the middle, the change waits like anybody's, until
/// the thread here has given it back; so no lock may be held over such calls that this thread or <see cref="GiveBack"/> takes.</para>
/// </remarks>
internal sealed unsafe partial class DelegationTable : IDisposable
{
    // Whoever has waited for a delegation must get to change the object before it is taken again, and may have to wait for others before
    // that: a rename needs those of two directories and two files at a time. So what is asked for again is left alone twice as long, up to a
    // second (arbitrary).
    private const int ShortestPause = 16;
    private const int MostFailures = 6;

    // Held for longer, the object is as good as one that was never asked for. Not less than the longest pause: the kernel may take long to
    // let somebody go on who has waited, and who asks again then must not look like somebody else.
    private const int CalmMilliseconds = 1000;

    // A delegation on the root is refused while somebody changes it.
    private const int ProbeAttempts = 100;

    // Places begin at 1, so that zero means none.
    private const int None = 0;

    private const int AnyDescriptor = -1;

    private readonly ObjectVersions _versions;
    private readonly VersionTable _table;
    private readonly Lock _gate = new();
    private readonly Thread _thread;
    private readonly ManualResetEventSlim _isReady = new();
    private readonly int _most;
    private readonly int _descriptorLimit;
    private DelegatedObject* _objects;
    private int* _placeOfDescriptor;
    private int _highest;
    private int _count;
    private int _threadId;
    private bool _isEnding;

    /// <summary>Makes an empty table.</summary>
    /// <param name="versions">The words of objects; they stay the caller's, and must not be disposed of before this is.</param>
    /// <param name="root">The shared directory.</param>
    /// <param name="most">Most delegations at a time, each of which takes a descriptor.</param>
    /// <param name="descriptorLimit">The limit of open files: no descriptor is as large.</param>
    /// <exception cref="ErrnoException">There are no delegations here.</exception>
    public DelegationTable(ObjectVersions versions, int root, int most, int descriptorLimit)
    {
        _versions = versions;
        _table = versions.Table;
        _most = most;
        _descriptorLimit = descriptorLimit;
        _thread = new Thread(Serve) { IsBackground = true, Name = "delegations" };
        _thread.Start();
        _isReady.Wait();
        try
        {
            Probe(root);
        }
        catch
        {
            End();
            throw;
        }

        // Zeroed by the kernel when it is touched.
        _objects = (DelegatedObject*)NativeMemory.AllocZeroed((nuint)_table.Layout.Inodes + 1, (nuint)sizeof(DelegatedObject));
        _placeOfDescriptor = (int*)NativeMemory.AllocZeroed((nuint)_descriptorLimit, sizeof(int));
        _table.OnWatched += GiveBackIfNobodyLooks;
    }

    /// <summary>Takes an object's delegation before it is looked at, if it is not held and can be.</summary>
    /// <param name="word">Its META word, which the caller refers to.</param>
    /// <param name="inode">Its inode number.</param>
    /// <param name="descriptor">The object, O_PATH at least.</param>
    /// <param name="kind">What it is.</param>
    public void Cover(uint word, ulong inode, int descriptor, DelegatedKind kind)
    {
        int place = PlaceOf(word);
        if (place == None || kind == DelegatedKind.Other || (StateOf(place) & Whole(kind)) == Whole(kind))
        {
            return;
        }

        if (!IsHeld(place) && !TryTake(place, word, inode, descriptor, kind))
        {
            return;
        }

        if (kind == DelegatedKind.Directory)
        {
            CoverByParent(place, inode, descriptor);
        }
    }

    /// <summary>Gives an object's delegation up, if it is held: its words are in flight then.</summary>
    /// <param name="word">Any of its words, or any other word.</param>
    public void GiveBack(uint word)
    {
        int place = PlaceOf(word);
        if (place != None && (StateOf(place) & (DelegatedState.Held | DelegatedState.Taking)) != 0)
        {
            Release(place, AnyDescriptor, isAskedFor: false);
        }
    }

    /// <summary>An object is about to lose its words, to which nobody refers any more: they are in flight then.</summary>
    /// <param name="word">Its META word.</param>
    /// <returns>A descriptor to close; negative for none.</returns>
    public int Leave(uint word)
    {
        int place = PlaceOf(word);
        if (place == None)
        {
            return -1;
        }

        DelegatedObject* delegated = &_objects[place];
        lock (_gate)
        {
            int held = delegated->Descriptor;
            bool isHeld = (delegated->State & DelegatedState.Held) != 0;
            if (isHeld)
            {
                Uncover(delegated);
            }

            // For the next owner of the words.
            (delegated->Failures, delegated->Renewals, delegated->RenewedFor) = (0, 0, 0);
            return isHeld ? held : -1;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _table.OnWatched -= GiveBackIfNobodyLooks;
        GiveAllBack(isAskedFor: false);
        End();
        NativeMemory.Free(_objects);
        NativeMemory.Free(_placeOfDescriptor);
        _objects = null;
        _placeOfDescriptor = null;
    }

    private static DelegatedState Whole(DelegatedKind kind) =>
        kind == DelegatedKind.Link ? DelegatedState.Content : DelegatedState.Metadata | DelegatedState.Content;

    private static SyscallResult Open(int descriptor, DelegatedKind kind)
    {
        const int common = OpenFlags.CloseOnExec | OpenFlags.NonBlocking;
        return kind switch
        {
            DelegatedKind.Directory => Files.Openat(descriptor, ".\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory | common),
            DelegatedKind.Link => Files.Duplicate(descriptor),
            _ => DescriptorName.Open(WorkerThread.ProcessDescriptors, descriptor, OpenFlags.ReadOnly | common),
        };
    }

    private static int Now() => unchecked((int)Environment.TickCount64);

    // Of a word that belongs to an object's own pair. Shared ones have none: they are never in flight for this, and never told either.
    private int PlaceOf(uint word)
    {
        uint first = VersionTable.WordOfSlot(0);
        uint slot = (word - first) / 2;
        return word >= first && slot < (uint)_table.Layout.Inodes ? (int)slot + 1 : None;
    }

    private DelegatedState StateOf(int place) => (DelegatedState)Volatile.Read(ref *(int*)&_objects[place].State);

    private bool IsHeld(int place) => (StateOf(place) & DelegatedState.Held) != 0;

    private void Probe(int root)
    {
        int descriptor = Open(root, DelegatedKind.Directory).ThrowIfError("open the shared directory for a delegation").Descriptor;
        try
        {
            Delegations.Direct(descriptor, _threadId).ThrowIfError("be told by a signal who asks for a delegation");
            SyscallResult taken = Delegations.Take(descriptor);
            for (int attempt = 1; taken.Error == Errno.EAGAIN && attempt < ProbeAttempts; attempt++)
            {
                Thread.Sleep(1);
                taken = Delegations.Take(descriptor);
            }

            if (taken.Error != Errno.EAGAIN)
            {
                taken.ThrowIfError(
                    "take a delegation of the shared directory (fcntl F_SETDELEG) for '--version-table=strict', which needs a newer Linux "
                    + "than 6.18 with fs.leases-enable=1, a file system that has delegations, and CAP_LEASE unless the files are the "
                    + "daemon's own; '--version-table=watched' does without");
            }
        }
        finally
        {
            _ = FileIO.Close(descriptor);
        }
    }

    private bool TryTake(int place, uint word, ulong inode, int source, DelegatedKind kind)
    {
        DelegatedObject* delegated = &_objects[place];
        lock (_gate)
        {
            if ((delegated->State & DelegatedState.Held) != 0)
            {
                return true;
            }

            if ((delegated->State & DelegatedState.Taking) != 0 || !IsDue(delegated) || _count >= _most
                || WasAskedFor(inode, ShortestPause, out _))
            {
                return false;
            }

            _count++;
            _highest = Math.Max(_highest, place);
            delegated->State = DelegatedState.Taking;
            delegated->Word = word;
            delegated->Inode = inode;
            delegated->NameWord = kind == DelegatedKind.Directory ? _versions.WordOfNamesIn(inode) : 0;
        }

        SyscallResult opened = Open(source, kind);
        int descriptor = opened.IsError ? -1 : opened.Descriptor;
        bool isTaken = descriptor >= 0 && descriptor < _descriptorLimit;
        if (isTaken && kind != DelegatedKind.Link)
        {
            // Before it can be asked for.
            Volatile.Write(ref _placeOfDescriptor[descriptor], place);
            isTaken = !Delegations.Direct(descriptor, _threadId).IsError && !Delegations.Take(descriptor).IsError;
        }

        lock (_gate)
        {
            isTaken &= (delegated->State & DelegatedState.AskedFor) == 0;
            delegated->State = DelegatedState.None;
            if (isTaken)
            {
                delegated->State = DelegatedState.Held | DelegatedState.Content;
                delegated->Descriptor = descriptor;
                delegated->Since = Now();
                delegated->Generation++;
                PlanRenewals(delegated);
                _table.End(word + 1);
                if (kind == DelegatedKind.File)
                {
                    CoverMetadata(delegated);
                }
            }
            else
            {
                Fail(delegated);
                _count--;
            }
        }

        if (!isTaken && descriptor >= 0)
        {
            _ = FileIO.Close(descriptor);
        }

        return isTaken;
    }

    // Of the object at a place, if it is held by a descriptor, or by any.
    private void Release(int place, int descriptor, bool isAskedFor)
    {
        DelegatedObject* delegated = &_objects[place];
        int held;
        lock (_gate)
        {
            if (isAskedFor)
            {
                // Also when it was given up already: whoever asked may not be through.
                RememberAsked(delegated);
            }

            if ((delegated->State & DelegatedState.Taking) != 0)
            {
                // Whoever is taking it gives it back.
                delegated->State |= DelegatedState.AskedFor;
                return;
            }

            held = delegated->Descriptor;
            if ((delegated->State & DelegatedState.Held) == 0 || (descriptor != AnyDescriptor && descriptor != held))
            {
                return;
            }

            Uncover(delegated);
        }

        // Not before the words are in flight: this is what whoever wants to change the object waits for. Without the lock, because the
        // last descriptor of a file that was removed takes as long as it is large.
        _ = FileIO.Close(held);
    }

    private void Uncover(DelegatedObject* delegated)
    {
        UncoverMetadata(delegated);
        _table.Begin(delegated->Word + 1);
        if (delegated->NameWord != 0)
        {
            // Only after the content is in flight: see PassthroughFileSystem.StampName.
            _table.Advance(delegated->NameWord);
        }

        // Who follows the log finds all of them moved.
        _table.Log(delegated->Word, delegated->Word + 1, delegated->NameWord);
        while (delegated->FirstChild != None)
        {
            DelegatedObject* child = &_objects[delegated->FirstChild];
            UncoverMetadata(child);
            _table.Log(child->Word);
        }

        if (unchecked(Now() - delegated->Since) > CalmMilliseconds)
        {
            delegated->Failures = 0;
        }

        delegated->State = DelegatedState.None;
        _count--;
        Fail(delegated);
    }

    private static bool IsDue(DelegatedObject* delegated) =>
        delegated->Failures == 0 || unchecked(Now() - delegated->RetryAt) >= 0;

    private static void Fail(DelegatedObject* delegated)
    {
        delegated->Failures = Math.Min(delegated->Failures + 1, MostFailures);
        delegated->RetryAt = unchecked(Now() + (ShortestPause << (delegated->Failures - 1)));
    }

    private void GiveBackIfNobodyLooks()
    {
        if (!_table.IsWatched)
        {
            Delegations.Wake(_threadId);
        }
    }

    private void GiveAllBack(bool isAskedFor)
    {
        int highest;
        lock (_gate)
        {
            highest = _highest;
        }

        for (int place = 1; place <= highest; place++)
        {
            Release(place, AnyDescriptor, isAskedFor);
        }
    }

    private void End()
    {
        Volatile.Write(ref _isEnding, true);
        Delegations.Wake(_threadId);
        _thread.Join();
        _isReady.Dispose();
    }

    private void Serve()
    {
        _lastRenewal = Now();
        _threadId = Delegations.PrepareThread();
        _isReady.Set();
        while (!Volatile.Read(ref _isEnding))
        {
            DelegationSignal signal = Delegations.Await(_isRenewing ? RenewalPeriod : int.MaxValue, out int descriptor);
            RenewIfDue();
            if (signal == DelegationSignal.None)
            {
                continue;
            }

            ExpectRenewals();
            if (signal == DelegationSignal.Any)
            {
                GiveAllBack(isAskedFor: true);
            }
            else if (descriptor >= 0 && descriptor < _descriptorLimit && _placeOfDescriptor != null
                && Volatile.Read(ref _placeOfDescriptor[descriptor]) is not None and int place)
            {
                // The last that was taken by it: the signal may come when it is closed already.
                Release(place, descriptor, isAskedFor: true);
            }
        }
    }
}
