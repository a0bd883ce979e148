using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Passthrough;

// What others do to the shared files, told to a guest that wants to know. One thread reads the kernel's events and turns
// them into invalidations:
//
//   fanotify  whole file systems; events name objects by handle, which the table of nodes finds by inode number; what the
//             daemon does itself is known by its process id and left out, unless it serves other guests as well
//   inotify   a watch per directory that the guest knows, added before the guest learns of the directory; events name
//             children by name, which is looked up; what the daemon does itself comes back as well
//
// An invalidation too many does no harm, so objects are found by inode number alone. One too few would, so whatever cannot
// be watched or was lost invalidates everything: once when the kernel's queue overflowed, every second while something is
// not watched at all. Nothing is queued here: while the guest takes no notifications, the kernel's bounded queue fills.
//
// With a version table the same goes into its words, from the beginning and whether or not the guest takes notifications.
public sealed unsafe partial class PassthroughFileSystem
{
    private const int EventBufferSize = 64 << 10;

    // What is watched and tells of no event (stores into mapped files) is believed this long by guests with the version table.
    private const int SafetyPeriodMilliseconds = 10_000;

    // While something is not watched, everything is invalidated this often.
    private const int BlindPeriodMilliseconds = 1000;

    private readonly Lock _watchLock = new();
    private readonly Dictionary<int, NodeId> _watchedDirectories = [];
    private readonly HostWatch? _watch;
    private SafeFileHandle? _watchWake;
    private Thread? _watcher;
    private FuseNotifier? _notifier;
    private bool _isWatching;
    private bool _isWatchEnding;
    private bool _isBlind;

    /// <summary>How many directories are watched one by one.</summary>
    internal int WatchCount
    {
        get
        {
            lock (_watchLock)
            {
                return _watchedDirectories.Count;
            }
        }
    }

    /// <inheritdoc/>
    public override void StartNotifications(FuseNotifier notifier)
    {
        if (_watch is null || _notifier is not null)
        {
            return;
        }

        StopWatching();
        _notifier = notifier;
        StartWatching();
    }

    /// <inheritdoc/>
    public override void StopNotifications()
    {
        if (_notifier is null)
        {
            return;
        }

        StopWatching();
        _notifier = null;
        if (_versions is not null)
        {
            StartWatching();
        }
    }

    // Not on a thread that serves: the one it starts has its ids.
    private void StartWatching()
    {
        _watchWake ??= Events.CreateEvent();
        Volatile.Write(ref _isWatchEnding, false);
        Volatile.Write(ref _isWatching, true);
        _watcher = new Thread(WatchHost) { IsBackground = true, Name = "host-watch" };
        _watcher.Start();
    }

    private void StopWatching()
    {
        if (_watcher is null)
        {
            return;
        }

        Volatile.Write(ref _isWatching, false);
        Volatile.Write(ref _isWatchEnding, true);
        WakeWatcher();
        _watcher.Join();
        _watcher = null;
        lock (_watchLock)
        {
            foreach ((int watch, NodeId node) in _watchedDirectories)
            {
                FileEvents.InotifyRemoveWatch(_watch!.Descriptor, watch);
                if (_nodes.Resolve(node) is var found && found != null)
                {
                    Volatile.Write(ref found->IsWatched, 0);
                }
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
        bool isWatched = !mount.IsNetwork;
        if (watch.IsByFileSystem)
        {
            isWatched = isWatched && mount.Descriptor >= 0 && !watch.TryWatchFileSystem(mount.Descriptor).IsError
                && !Files.NameToHandleAt(mount.Descriptor, "\0"u8, out KernelFileHandle handle, AtFlags.EmptyPath).IsError
                && TryGetInode(handle.Type, KernelFileHandle.BytesOf(ref handle), out _);
        }

        if (!isWatched)
        {
            GoBlind();
        }
    }

    // A directory is about to be made known to the guest. Inside an operation, on a serving thread.
    private void WatchDirectory(Node* node, Mount mount)
    {
        if (!Volatile.Read(ref _isWatching) || _watch is not { IsByFileSystem: false } watch
            || Volatile.Read(ref node->IsWatched) != 0)
        {
            return;
        }

        using NodeDescriptor directory = Borrow(node, mount);
        var name = new DescriptorName(directory.IsError ? -1 : directory.Value);
        lock (_watchLock)
        {
            if (_watchedDirectories.Count >= _options.MaxWatches)
            {
                ForgetWatches(watch);
            }

            SyscallResult added = directory.IsError || _watchedDirectories.Count >= _options.MaxWatches
                ? SyscallResult.Failed(Errno.ENOSPC)
                : watch.TryWatchDirectory(name);
            if (!added.IsError)
            {
                _watchedDirectories[added.Count] = NodeTable.IdOf(_nodes.IndexOf(node), node->Generation);
                Volatile.Write(ref node->IsWatched, 1);
                return;
            }
        }

        GoBlind();
    }

    // Gives back the watches of directories that the guest has forgotten.
    private void ForgetWatches(HostWatch watch)
    {
        foreach ((int number, NodeId node) in _watchedDirectories.ToArray())
        {
            if (_nodes.Resolve(node) == null)
            {
                FileEvents.InotifyRemoveWatch(watch.Descriptor, number);
                _watchedDirectories.Remove(number);
            }
        }
    }

    private void GoBlind()
    {
        if (!Volatile.Read(ref _isBlind))
        {
            Volatile.Write(ref _isBlind, true);
            WakeWatcher();
        }
    }

    private void WakeWatcher()
    {
        if (_watchWake is not null)
        {
            Events.Signal((int)_watchWake.DangerousGetHandle());
        }
    }

    private void WatchHost()
    {
        HostWatch watch = _watch!;
        int wake = (int)_watchWake!.DangerousGetHandle();
        byte[] buffer = new byte[EventBufferSize];
        Span<PollDescriptor> waits =
        [
            new PollDescriptor(watch.Descriptor, PollEvents.Readable),
            new PollDescriptor(wake, PollEvents.Readable),
        ];
        WatchWhatIsKnown();
        long lastSafe = Environment.TickCount64;
        while (!Volatile.Read(ref _isWatchEnding))
        {
            // However many events there are: this is for what none tells of.
            bool isBlind = Volatile.Read(ref _isBlind);
            int period = isBlind ? BlindPeriodMilliseconds : _versions is null ? Timeout.Infinite : SafetyPeriodMilliseconds;
            long left = period - (Environment.TickCount64 - lastSafe);
            if (period != Timeout.Infinite && left <= 0)
            {
                lastSafe = Environment.TickCount64;
                InvalidateUnwatched(isBlind);
                continue;
            }

            SyscallResult read = FileEvents.Read(watch.Descriptor, buffer);
            if (!read.IsError)
            {
                ReadOnlySpan<byte> events = buffer.AsSpan(0, read.Count);
                if (watch.IsByFileSystem)
                {
                    TellFanotify(events);
                }
                else
                {
                    TellInotify(events);
                }

                continue;
            }

            _ = Poll.Wait(waits, period == Timeout.Infinite ? Timeout.Infinite : (int)left);
            Events.Drain(wake, out _);
        }
    }

    private void InvalidateUnwatched(bool isBlind)
    {
        if (isBlind)
        {
            InvalidateEverything();
        }
        else
        {
            _versions!.Table.AdvanceEpoch();
        }
    }

    // The guest may have known something before it asked for notifications.
    private void WatchWhatIsKnown()
    {
        uint slots = _nodes.SlotCount;
        bool isNew = slots <= NodeTable.RootIndex + 1;
        for (uint index = NodeTable.RootIndex; index < slots; index++)
        {
            using Operation operation = Begin();
            Node* node = _nodes.At(index);
            if (Volatile.Read(ref node->LookupCount) > 0 && node->IsDirectory)
            {
                WatchDirectory(node, _mounts[node->Mount]);
            }
        }

        if (!isNew)
        {
            InvalidateEverything();
        }
    }

    private void InvalidateEverything()
    {
        _versions?.Table.AdvanceEpoch();
        if (_notifier is not { } notifier)
        {
            return;
        }

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

    private void TellFanotify(ReadOnlySpan<byte> events)
    {
        FuseNotifier? notifier = _notifier;
        Span<NodeId> parents = stackalloc NodeId[4];
        Span<NodeId> targets = stackalloc NodeId[4];

        // Else the kernel does not tell whose guest it was for.
        bool isAlone = _options.MaxSessions == 1;
        var reader = new FanotifyReader(events);
        while (reader.Read())
        {
            FanotifyEvents what = reader.Event.Events;
            if ((what & FanotifyEvents.Overflow) != 0)
            {
                InvalidateEverything();
                continue;
            }

            bool isOurs = reader.Event.ProcessId == Environment.ProcessId;
            if (isOurs && isAlone)
            {
                continue;
            }

            const FanotifyEvents names =
                FanotifyEvents.Create | FanotifyEvents.Delete | FanotifyEvents.MovedFrom | FanotifyEvents.MovedTo;
            bool isNameChanged = (what & names) != 0 && !reader.Name.IsEmpty && reader.Name.Length <= FileName.MaxLength;
            if (!isOurs)
            {
                AdvanceVersions(reader, isNameChanged);
            }

            if (notifier is null)
            {
                continue;
            }

            int targetCount = FindNodes(reader.FileSystem, reader.Target, targets);
            int parentCount = isNameChanged ? FindNodes(reader.FileSystem, reader.Directory, parents) : 0;
            foreach (NodeId parent in parents[..parentCount])
            {
                if ((what & FanotifyEvents.Delete) != 0 && targetCount == 1)
                {
                    notifier.Delete(parent, targets[0], reader.Name);
                }
                else
                {
                    notifier.InvalidateEntry(parent, reader.Name);
                }

                notifier.InvalidateNode(parent, offset: 0);
            }

            foreach (NodeId target in targets[..targetCount])
            {
                notifier.InvalidateNode(target, (what & FanotifyEvents.Modify) != 0 ? 0 : -1);
            }
        }
    }

    private int FindNodes(ulong fileSystem, in HandleView handle, Span<NodeId> found)
    {
        if (handle.IsEmpty || !TryGetInode(handle.Type, handle.Bytes, out ulong inode))
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

    private void TellInotify(ReadOnlySpan<byte> events)
    {
        int headerSize = Unsafe.SizeOf<InotifyEvent>();
        while (events.Length >= headerSize)
        {
            InotifyEvent what = MemoryMarshal.Read<InotifyEvent>(events);
            ReadOnlySpan<byte> name = events.Slice(headerSize, (int)what.NameLength);
            events = events[(headerSize + (int)what.NameLength)..];
            int end = name.IndexOf((byte)0);
            TellInotify(what, end < 0 ? name : name[..(end + 1)]);
        }
    }

    // The name comes with its NUL, or is empty.
    private void TellInotify(in InotifyEvent what, ReadOnlySpan<byte> name)
    {
        if ((what.Events & InotifyEvents.Overflow) != 0)
        {
            InvalidateEverything();
            return;
        }

        FuseNotifier? notifier = _notifier;
        NodeId parent;
        lock (_watchLock)
        {
            if (!_watchedDirectories.TryGetValue(what.Watch, out parent))
            {
                return;
            }

            if ((what.Events & InotifyEvents.Ignored) != 0)
            {
                _watchedDirectories.Remove(what.Watch);
                return;
            }
        }

        if (name.IsEmpty)
        {
            AdvanceVersions(parent, name, isNameChanged: false);
            notifier?.InvalidateNode(parent, offset: -1);
            return;
        }

        const InotifyEvents names =
            InotifyEvents.Create | InotifyEvents.Delete | InotifyEvents.MovedFrom | InotifyEvents.MovedTo;
        if ((what.Events & names) != 0)
        {
            AdvanceVersions(parent, name[..^1], isNameChanged: true);
            notifier?.InvalidateEntry(parent, name[..^1]);
            notifier?.InvalidateNode(parent, offset: 0);
        }

        // What was written under another name before, and renamed since, is found under its new name only.
        const InotifyEvents data = InotifyEvents.Modify | InotifyEvents.MovedTo;
        if (FindChild(parent, name) is { Value: not 0 } child)
        {
            AdvanceVersions(child, name: [], isNameChanged: false);
            notifier?.InvalidateNode(child, (what.Events & data) != 0 ? 0 : -1);
        }
    }

    private NodeId FindChild(NodeId parent, ReadOnlySpan<byte> name)
    {
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

    // Whoever has no words has given none to any guest.
    private void AdvanceVersions(ulong inode)
    {
        uint word = _versions!.Find(inode);
        if (word != 0)
        {
            _versions.Table.Advance(word);
            _versions.Table.Advance(word + 1);
            _versions.Table.Log(word, word + 1);
        }
    }

    private void AdvanceName(ulong directory, ReadOnlySpan<byte> name)
    {
        uint word = _versions!.Table.WordOfName(directory, name);
        _versions.Table.Advance(word);
        _versions.Table.Log(word);
    }

    private void AdvanceVersions(in FanotifyReader reader, bool isNameChanged)
    {
        if (_versions is null)
        {
            return;
        }

        if (!reader.Target.IsEmpty && TryGetInode(reader.Target.Type, reader.Target.Bytes, out ulong target))
        {
            AdvanceVersions(target);
        }

        if (!reader.Directory.IsEmpty && TryGetInode(reader.Directory.Type, reader.Directory.Bytes, out ulong directory))
        {
            AdvanceVersions(directory);
            if (isNameChanged)
            {
                AdvanceName(directory, reader.Name);
            }
        }
    }

    private void AdvanceVersions(NodeId node, ReadOnlySpan<byte> name, bool isNameChanged)
    {
        if (_versions is null)
        {
            return;
        }

        using Operation operation = Begin();
        if (operation.Find(node, out Node* found, out _) == Errno.Success)
        {
            AdvanceVersions(found->Inode);
            if (isNameChanged)
            {
                AdvanceName(found->Inode, name);
            }
        }
    }
}
