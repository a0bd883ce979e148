using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

// What others do to the shared files, see HostWatch: which directories of this session are watched, and what events mean for its
// guest. A guest that takes notifications has a thread that turns them into invalidations, and waits for the guest.
public sealed unsafe partial class PassthroughFileSystem
{
    private const InotifyEvents InotifyNameChanges =
        InotifyEvents.Create | InotifyEvents.Delete | InotifyEvents.MovedFrom | InotifyEvents.MovedTo;

    private readonly Dictionary<int, NodeId> _watchedDirectories = [];
    private readonly HostWatch? _watch;
    private EventBacklog? _backlog;
    private Thread? _teller;
    private int _watchCount;

    /// <inheritdoc/>
    public override void StartNotifications(FuseNotifier notifier)
    {
        if (_watch is not { } watch || _backlog is not null)
        {
            return;
        }

        // Not on a thread that serves: the one it starts has its ids.
        var backlog = new EventBacklog();
        _backlog = backlog;
        watch.Listen(backlog);
        _teller = new Thread(() => TellGuest(watch, backlog, notifier)) { IsBackground = true, Name = "host-tell" };
        _teller.Start();
    }

    /// <inheritdoc/>
    public override void StopNotifications()
    {
        if (_backlog is not { } backlog)
        {
            return;
        }

        _watch!.StopListening(backlog);
        backlog.End();
        _teller!.Join();
        _backlog = null;
    }

    /// <summary>
    /// Watches the directories that the guest knows already, if they are watched one by one. On no thread that serves; with
    /// <see cref="HostWatch.Gate"/> held.
    /// </summary>
    internal void WatchWhatIsKnown()
    {
        uint slots = _nodes.SlotCount;
        for (uint index = NodeTable.RootIndex; index < slots; index++)
        {
            using Operation operation = Begin();
            Node* node = _nodes.At(index);
            if (Volatile.Read(ref node->LookupCount) > 0 && node->IsDirectory)
            {
                WatchDirectory(node, _mounts[node->Mount]);
            }
        }
    }

    /// <summary>None of its directories is watched any more. With <see cref="HostWatch.Gate"/> held.</summary>
    internal void ForgetWatches()
    {
        foreach (int watch in _watchedDirectories.Keys)
        {
            _watch!.ReleaseDirectory(watch);
        }

        _watchedDirectories.Clear();
        _watchCount = 0;
        uint slots = _nodes.SlotCount;
        for (uint index = NodeTable.RootIndex; index < slots; index++)
        {
            Node* node = _nodes.At(index);
            if (Volatile.Read(ref node->LookupCount) > 0 && node->IsDirectory)
            {
                Volatile.Write(ref node->IsWatched, 0);
            }
        }
    }

    /// <summary>Has the words advanced of what an event is about. With <see cref="HostWatch.Gate"/> held.</summary>
    /// <param name="reader">The event.</param>
    internal void AdvanceVersions(in InotifyReader reader)
    {
        InotifyEvents what = reader.Event.Events;
        if (!_watchedDirectories.TryGetValue(reader.Event.Watch, out NodeId parent))
        {
            return;
        }

        if ((what & InotifyEvents.Ignored) != 0)
        {
            _watchedDirectories.Remove(reader.Event.Watch);
            _watchCount--;
            return;
        }

        if (_versions is null)
        {
            return;
        }

        ReadOnlySpan<byte> name = reader.Name;
        if (name.IsEmpty || (what & InotifyNameChanges) != 0)
        {
            AdvanceVersions(parent, name);
        }

        if (FindChild(parent, name) is { Value: not 0 } child)
        {
            AdvanceVersions(child, name: []);
        }
    }

    // The session ends.
    private void StopWatching()
    {
        if (_watch is not { } watch)
        {
            return;
        }

        lock (watch.Gate)
        {
            watch.Remove(this);
            foreach (int number in _watchedDirectories.Keys)
            {
                watch.ReleaseDirectory(number);
            }

            _watchedDirectories.Clear();
        }
    }

    // A mount was seen for the first time, before the guest learns of anything on it.
    private void WatchMount(Mount mount)
    {
        if (_watch is not { } watch)
        {
            return;
        }

        // Of what happens on a server elsewhere, no event tells.
        bool canBe = !mount.IsNetwork
            && (!watch.IsFanotify || (mount.Descriptor >= 0 && HasKnownHandles(mount.Descriptor)));
        if (!canBe || !watch.TryWatchFileSystem(this, mount.Descriptor))
        {
            watch.GoBlind(this);
        }
    }

    // A directory is about to be made known to the guest. Inside an operation, on a serving thread.
    private void WatchDirectory(Node* node, Mount mount)
    {
        if (_watch is not { WantsDirectories: true } watch || Volatile.Read(ref node->IsWatched) != 0 || mount.IsNetwork)
        {
            return;
        }

        using NodeDescriptor directory = Borrow(node, mount);
        var name = new DescriptorName(directory.IsError ? -1 : directory.Value);
        lock (watch.Gate)
        {
            if (!watch.WantsDirectories || node->IsWatched != 0)
            {
                return;
            }

            SyscallResult added = directory.IsError || _watchCount >= _options.MaxWatches
                ? SyscallResult.Failed(Errno.ENOSPC)
                : watch.TryWatchDirectory(name);
            if (added.IsError)
            {
                watch.GoBlind(this, isFull: true);
                return;
            }

            if (!watch.IsFanotify && !_watchedDirectories.TryAdd(added.Count, NodeTable.IdOf(_nodes.IndexOf(node), node->Generation)))
            {
                // The node that had it before is gone.
                _watchedDirectories[added.Count] = NodeTable.IdOf(_nodes.IndexOf(node), node->Generation);
                watch.ReleaseDirectory(added.Count);
                _watchCount--;
            }

            _watchCount++;
            Volatile.Write(ref node->IsWatched, 1);
        }
    }

    private void TellGuest(HostWatch watch, EventBacklog backlog, FuseNotifier notifier)
    {
        watch.AwaitSettled();
        if (_nodes.SlotCount > NodeTable.RootIndex + 1)
        {
            // The guest may have known something before it asked for notifications.
            InvalidateEverything(notifier);
        }

        while (backlog.Take(out ReadOnlySpan<byte> events, out bool hasLost))
        {
            if (hasLost)
            {
                InvalidateEverything(notifier);
            }

            if (watch.IsFanotify)
            {
                TellFanotify(events, notifier);
            }
            else
            {
                TellInotify(watch, events, notifier);
            }
        }
    }

    private void InvalidateEverything(FuseNotifier notifier)
    {
        bool isHeard = notifier.InvalidateAllEntries();
        uint slots = _nodes.SlotCount;
        for (uint index = NodeTable.RootIndex; index < slots && isHeard; index++)
        {
            Node* node = _nodes.At(index);
            uint generation = Volatile.Read(ref node->Generation);
            if (Volatile.Read(ref node->LookupCount) > 0)
            {
                isHeard = notifier.InvalidateNode(NodeTable.IdOf(index, generation), offset: 0);
            }
        }
    }

    private void TellFanotify(ReadOnlySpan<byte> events, FuseNotifier notifier)
    {
        Span<NodeId> targets = stackalloc NodeId[4];

        // Else the kernel does not tell whose guest it was for.
        bool isAlone = _options.MaxSessions == 1;
        var reader = new FanotifyReader(events);
        while (reader.Read())
        {
            FanotifyEvents what = reader.Event.Events;
            if (isAlone && reader.Event.ProcessId == Environment.ProcessId)
            {
                continue;
            }

            Span<NodeId> found = targets[..FindNodes(reader.FileSystem, reader.Target, targets)];
            if ((what & FanotifyReader.NameChanges) != 0)
            {
                NodeId gone = (what & FanotifyEvents.Delete) != 0 && found.Length == 1 ? found[0] : NodeId.None;
                TellName(reader.FileSystem, reader.Directory, reader.Name, gone, notifier);
                TellName(reader.FileSystem, reader.NewDirectory, reader.NewName, NodeId.None, notifier);
            }

            foreach (NodeId target in found)
            {
                notifier.InvalidateNode(target, (what & FanotifyEvents.Modify) != 0 ? 0 : -1);
            }
        }
    }

    private void TellName(ulong fileSystem, in HandleView directory, ReadOnlySpan<byte> name, NodeId gone, FuseNotifier notifier)
    {
        Span<NodeId> parents = stackalloc NodeId[4];
        if (name.Length is 0 or > FileName.MaxLength)
        {
            return;
        }

        foreach (NodeId parent in parents[..FindNodes(fileSystem, directory, parents)])
        {
            if (gone != NodeId.None)
            {
                notifier.Delete(parent, gone, name);
            }
            else
            {
                notifier.InvalidateEntry(parent, name);
            }

            notifier.InvalidateNode(parent, offset: 0);
        }
    }

    private int FindNodes(ulong fileSystem, in HandleView handle, Span<NodeId> found)
    {
        if (!TryGetInode(handle, out ulong inode))
        {
            return 0;
        }

        using Operation operation = Begin();
        int count = 0;
        bool isKnown = false;
        for (int i = 0; i < _mounts.Count; i++)
        {
            isKnown |= _mounts[(ushort)i].FileSystem == fileSystem;
        }

        for (int i = 0; i < _mounts.Count && count < found.Length; i++)
        {
            // Subvolumes may be numbered otherwise in events.
            if (!isKnown || _mounts[(ushort)i].FileSystem == fileSystem)
            {
                count += _nodes.FindByInode((ushort)i, inode, found[count..]);
            }
        }

        return count;
    }

    private void TellInotify(HostWatch watch, ReadOnlySpan<byte> events, FuseNotifier notifier)
    {
        var reader = new InotifyReader(events);
        while (reader.Read())
        {
            NodeId parent;
            lock (watch.Gate)
            {
                if (!_watchedDirectories.TryGetValue(reader.Event.Watch, out parent))
                {
                    continue;
                }
            }

            InotifyEvents what = reader.Event.Events;
            ReadOnlySpan<byte> name = reader.Name;
            if (name.IsEmpty)
            {
                notifier.InvalidateNode(parent, offset: -1);
                continue;
            }

            if ((what & InotifyNameChanges) != 0)
            {
                notifier.InvalidateEntry(parent, name[..^1]);
                notifier.InvalidateNode(parent, offset: 0);
            }

            // What was written under another name before, and renamed since, is found under its new name only.
            const InotifyEvents data = InotifyEvents.Modify | InotifyEvents.MovedTo;
            if (FindChild(parent, name) is { Value: not 0 } child)
            {
                notifier.InvalidateNode(child, (what & data) != 0 ? 0 : -1);
            }
        }
    }

    private NodeId FindChild(NodeId parent, ReadOnlySpan<byte> name)
    {
        if (name.IsEmpty)
        {
            return NodeId.None;
        }

        using Operation operation = Begin();
        if (operation.FindDirectory(parent, out Node* node, out Mount mount) != Errno.Success)
        {
            return NodeId.None;
        }

        using NodeDescriptor directory = Borrow(node, mount);
        if (directory.IsError
            || Files.Statx(directory.Value, name, NotFollowed, LookupMask, out StatxBuffer status).IsError
            || _mounts.Find(status, mount) is not { } childMount)
        {
            return NodeId.None;
        }

        Node* child = _nodes.Find(KeyOf(status, childMount));
        return child == null ? NodeId.None : NodeTable.IdOf(_nodes.IndexOf(child), child->Generation);
    }

    // Of a node, and of a name in it unless that is empty. The name comes with its NUL.
    private void AdvanceVersions(NodeId node, ReadOnlySpan<byte> name)
    {
        using Operation operation = Begin();
        if (operation.Find(node, out Node* found, out _) == Errno.Success)
        {
            _versions!.Advance(found->Inode);
            if (!name.IsEmpty)
            {
                _versions.AdvanceName(found->Inode, name[..^1]);
            }
        }
    }
}
