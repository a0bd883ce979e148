using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Causeway.Linux;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Passthrough;

/// <summary>How changes on the host are noticed.</summary>
public enum HostWatching
{
    /// <summary>Not at all.</summary>
    Off,

    /// <summary>
    /// By fanotify(7) where file systems allow: whole file systems with the privileges for that, else directories; and else by
    /// inotify(7).
    /// </summary>
    Auto,

    /// <summary>By fanotify(7), whole file systems, or not at all.</summary>
    Fanotify,

    /// <summary>By fanotify(7) or not at all: a mark for every directory the guest knows.</summary>
    Directories,

    /// <summary>By inotify(7): a watch for every directory the guest knows.</summary>
    Inotify,
}

/// <summary>
/// Sees what others do to the shared files: one for all sessions of a share, because the kernel makes an event of each change by the
/// daemon as well, for each who watches. Opened with the share, while the daemon still has its privileges.
/// </summary>
/// <remarks>
/// <para>One thread reads the kernel's events:</para>
/// <list type="bullet">
/// <item>fanotify, whole file systems: events name objects by handle, which tells the inode number. What the daemon does itself is known
/// by its process id and left out, and what it writes through mounts that nobody else uses makes no event at all.</item>
/// <item>fanotify, directories: a mark for each that a guest knows, set before the guest learns of it. It takes no privilege.</item>
/// <item>inotify: a watch for each directory in the same way. Events name children by name, which is looked up; what the daemon does itself
/// comes back as well.</item>
/// </list>
/// <para>With a version table it has their words advanced at once. Guests that take notifications get the events by a backlog each,
/// so that no guest holds up another. While neither is wanted nothing is watched, and changes cost nothing.</para>
/// <para>An invalidation too many does no harm, so objects are found by inode number alone. One too few would, so whatever cannot be
/// watched or was lost invalidates everything: once when the kernel's queue overflowed, every second while something is not watched
/// at all, and the version table every ten seconds for what no event tells of (stores into mapped files).</para>
/// </remarks>
internal sealed class HostWatch : IDisposable
{
    private const FanotifyEvents FanotifyMask =
        FanotifyEvents.Modify | FanotifyEvents.Attributes | FanotifyEvents.Rename | FanotifyEvents.Create
        | FanotifyEvents.Delete | FanotifyEvents.OnDirectories;

    private const InotifyEvents InotifyMask =
        InotifyEvents.Modify | InotifyEvents.Attributes | InotifyEvents.MovedFrom | InotifyEvents.MovedTo
        | InotifyEvents.Create | InotifyEvents.Delete | InotifyEvents.DeleteSelf | InotifyEvents.OnlyDirectories;

    // The only ones that tell the mount, as they are about an open file.
    private const FanotifyEvents IgnoredMask = FanotifyEvents.Modify;

    private const int EventBufferSize = 64 << 10;

    // What is watched and tells of no event (stores into mapped files) is believed this long by guests with the version table.
    private const int SafetyPeriodMilliseconds = 10_000;

    // While something is not watched, everything is invalidated this often.
    private const int BlindPeriodMilliseconds = 1000;

    // Not to be woken by each change that the daemon makes: events that are still waiting then are merged by the kernel if they say the
    // same. Who sees changes of the host does so this much later while guests are changing things.
    private const int OwnPauseMilliseconds = 1;

    private readonly SafeFileHandle _events;
    private readonly SafeFileHandle _wake = Events.CreateEvent();
    private readonly HostWatching _how;
    private readonly ObjectVersions? _versions;
    private readonly bool _isAlone;
    private readonly bool _hasOwnMounts;
    private readonly int _ownProcess = Environment.ProcessId;
    private readonly ManualResetEventSlim _isSettled = new();
    private readonly Thread _thread;
    private readonly List<PassthroughFileSystem> _sessions = [];
    private readonly List<(PassthroughFileSystem Session, int Descriptor)> _fileSystems = [];
    private readonly Dictionary<int, int> _watchUses = [];
    private readonly HashSet<PassthroughFileSystem> _blind = [];
    private readonly HashSet<PassthroughFileSystem> _full = [];
    private EventBacklog[] _listeners = [];
    private bool _isActive;
    private bool _hasNewSessions;
    private bool _ignoresOwn;
    private bool _isBlind;
    private bool _isEnding;
    private long _lastSafe;
    private long _lastRenewal = long.MinValue / 2;

    private HostWatch(
        SafeFileHandle events, HostWatching how, PassthroughOptions options, ObjectVersions? versions, bool hasOwnMounts)
    {
        _events = events;
        _how = how;
        _versions = versions;
        _isAlone = options.MaxSessions == 1;
        _hasOwnMounts = hasOwnMounts;
        if (versions is not null)
        {
            versions.Table.OnWatched = Wake;
        }

        _thread = new Thread(Watch) { IsBackground = true, Name = "host-watch" };
        _thread.Start();
    }

    /// <summary>Whether events come from fanotify(7), and not from inotify(7).</summary>
    public bool IsFanotify => _how != HostWatching.Inotify;

    /// <summary>Whether directories are watched one by one, and now.</summary>
    public bool WantsDirectories => _how != HostWatching.Fanotify && Volatile.Read(ref _isActive);

    /// <summary>Whether all is watched now that is to be.</summary>
    public bool IsWatching
    {
        get
        {
            lock (Gate)
            {
                return _isActive && !_hasNewSessions;
            }
        }
    }

    /// <summary>
    /// Guards who is there and what is watched. Held over system calls; taken by serving threads for a directory or a mount that
    /// is new to a guest.
    /// </summary>
    public Lock Gate { get; } = new();

    private int Descriptor => (int)_events.DangerousGetHandle();

    private bool IsNeeded => Volatile.Read(ref _listeners).Length > 0 || _versions is { Table.IsWatched: true };

    private bool MayIgnoreOwn => _hasOwnMounts && _how == HostWatching.Fanotify && (_isAlone || Volatile.Read(ref _listeners).Length == 0);

    /// <summary>Gets ready to watch.</summary>
    /// <param name="options">How, and for how many.</param>
    /// <param name="root">A readable descriptor of the shared directory.</param>
    /// <param name="versions">The words of the version table; null when there is none.</param>
    /// <param name="hasOwnMounts">Whether nobody but this process uses the mounts it reaches the share through.</param>
    /// <exception cref="ErrnoException">It cannot be watched that way.</exception>
    public static HostWatch Open(PassthroughOptions options, int root, ObjectVersions? versions, bool hasOwnMounts)
    {
        HostWatching how = options.HostWatching;
        SyscallResult failed = SyscallResult.Failed(Errno.EOPNOTSUPP);
        if (how != HostWatching.Inotify)
        {
            SyscallResult opened = FileEvents.FanotifyInit(
                FanotifyFlags.ReportFile | FanotifyFlags.ReportDirectory | FanotifyFlags.ReportName | FanotifyFlags.ReportTarget);
            failed = opened;
            if (!opened.IsError)
            {
                var events = new SafeFileHandle(opened.Descriptor, ownsHandle: true);
                foreach (HostWatching tried in (ReadOnlySpan<HostWatching>)[HostWatching.Fanotify, HostWatching.Directories])
                {
                    if (how != HostWatching.Auto && how != tried)
                    {
                        continue;
                    }

                    failed = TryMark(opened.Descriptor, tried, root);
                    if (!failed.IsError)
                    {
                        return new HostWatch(events, tried, options, versions, hasOwnMounts);
                    }
                }

                events.Dispose();
            }
        }

        if (how == HostWatching.Fanotify)
        {
            failed.ThrowIfError(
                "watch the shared directory by fanotify, which needs CAP_SYS_ADMIN, Linux 5.17 and a file system with "
                + "file handles (use 'directories', 'inotify' or 'auto')");
        }

        if (how == HostWatching.Directories)
        {
            failed.ThrowIfError(
                "watch directories by fanotify, which needs Linux 5.17 and a file system with file handles (use 'inotify' or 'auto')");
        }

        return new HostWatch(
            new SafeFileHandle(FileEvents.InotifyInit().ThrowIfError("watch the shared directory by inotify").Descriptor, ownsHandle: true),
            HostWatching.Inotify, options, versions, hasOwnMounts);
    }

    /// <summary>A session begins.</summary>
    /// <param name="session">The session.</param>
    public void Add(PassthroughFileSystem session)
    {
        lock (Gate)
        {
            _sessions.Add(session);
            _hasNewSessions = true;
        }

        Wake();
    }

    /// <summary>A session ends: nothing of it is used from now on.</summary>
    /// <param name="session">The session, perhaps one that never was added.</param>
    public void Remove(PassthroughFileSystem session)
    {
        lock (Gate)
        {
            _ = _sessions.Remove(session);
            _fileSystems.RemoveAll(known => known.Session == session);
            _ = _blind.Remove(session);
            _ = _full.Remove(session);
            UpdateBlindness();
        }
    }

    /// <summary>Whoever takes a guest's events from a backlog gets them from now on.</summary>
    /// <param name="backlog">The backlog.</param>
    public void Listen(EventBacklog backlog)
    {
        lock (Gate)
        {
            Volatile.Write(ref _listeners, [.. _listeners, backlog]);
            _isSettled.Reset();
        }

        Wake();
    }

    /// <summary>And does not any more, from soon on.</summary>
    /// <param name="backlog">The backlog.</param>
    public void StopListening(EventBacklog backlog)
    {
        lock (Gate)
        {
            Volatile.Write(ref _listeners, [.. _listeners.Where(known => known != backlog)]);
        }

        Wake();
    }

    /// <summary>Waits until all is watched that has to be for those who listen.</summary>
    public void AwaitSettled() => _isSettled.Wait();

    /// <summary>Watches one more file system, if file systems are watched.</summary>
    /// <param name="session">The session that knows it.</param>
    /// <param name="descriptor">A readable descriptor on it, open as long as the session is there.</param>
    /// <returns>Whether it can be watched.</returns>
    public bool TryWatchFileSystem(PassthroughFileSystem session, int descriptor)
    {
        if (_how != HostWatching.Fanotify)
        {
            return true;
        }

        lock (Gate)
        {
            _fileSystems.Add((session, descriptor));
            return !_isActive || TryMark(descriptor);
        }
    }

    /// <summary>Watches one more directory. With <see cref="Gate"/> held.</summary>
    /// <param name="name">Its name, with NUL.</param>
    /// <returns>The number of the watch; zero where they have none.</returns>
    public SyscallResult TryWatchDirectory(ReadOnlySpan<byte> name)
    {
        if (IsFanotify)
        {
            return FileEvents.FanotifyMark(
                Descriptor, FanotifyMarks.Add | FanotifyMarks.OnlyDirectories, FanotifyMask | FanotifyEvents.OnChildren, name);
        }

        SyscallResult added = FileEvents.InotifyAddWatch(Descriptor, name, InotifyMask);
        if (!added.IsError)
        {
            CollectionsMarshal.GetValueRefOrAddDefault(_watchUses, added.Count, out _)++;
        }

        return added;
    }

    /// <summary>A session does not need one of its watches any more. With <see cref="Gate"/> held.</summary>
    /// <param name="watch">The number of the watch.</param>
    public void ReleaseDirectory(int watch)
    {
        if (_watchUses.TryGetValue(watch, out int uses) && uses > 1)
        {
            _watchUses[watch] = uses - 1;
        }
        else if (_watchUses.Remove(watch))
        {
            _ = FileEvents.InotifyRemoveWatch(Descriptor, watch);
        }
    }

    /// <summary>Something that a session knows is not watched: everything is invalidated from time to time.</summary>
    /// <param name="session">The session.</param>
    /// <param name="isFull">Whether there may be room when what is not known any more is given up.</param>
    public void GoBlind(PassthroughFileSystem session, bool isFull = false)
    {
        lock (Gate)
        {
            if (!(isFull ? _full : _blind).Add(session))
            {
                return;
            }

            UpdateBlindness();
        }

        Wake();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_versions is not null)
        {
            _versions.Table.OnWatched = null;
        }

        Volatile.Write(ref _isEnding, true);
        Wake();
        _thread.Join();
        _isSettled.Dispose();
        _events.Dispose();
        _wake.Dispose();
    }

    // Whether it can be done at all. Nothing stays marked.
    private static SyscallResult TryMark(int descriptor, HostWatching how, int root)
    {
        if (!PassthroughFileSystem.HasKnownHandles(root))
        {
            return SyscallResult.Failed(Errno.EOPNOTSUPP);
        }

        FanotifyMarks kind = how == HostWatching.Fanotify ? FanotifyMarks.FileSystem : FanotifyMarks.None;
        SyscallResult marked = FileEvents.FanotifyMark(descriptor, FanotifyMarks.Add | kind, FanotifyMask, root);
        return marked.IsError ? marked : FileEvents.FanotifyMark(descriptor, FanotifyMarks.Remove | kind, FanotifyMask, root);
    }

    private bool TryMark(int descriptor)
    {
        if (FileEvents.FanotifyMark(Descriptor, FanotifyMarks.Add | FanotifyMarks.FileSystem, FanotifyMask, descriptor).IsError)
        {
            return false;
        }

        if (_ignoresOwn)
        {
            IgnoreOwn(FanotifyMarks.Add, descriptor);
        }

        return true;
    }

    // Where it cannot be done, before Linux 6.0, the events come and are left out.
    private void IgnoreOwn(FanotifyMarks change, int descriptor) => _ = FileEvents.FanotifyMark(
        Descriptor, change | FanotifyMarks.Mount | FanotifyMarks.Ignore | FanotifyMarks.SurvivesModify, IgnoredMask, descriptor);

    private void UpdateBlindness() => Volatile.Write(ref _isBlind, _blind.Count + _full.Count > 0);

    private void Wake() => _ = Events.Signal((int)_wake.DangerousGetHandle());

    private void Watch()
    {
        int wake = (int)_wake.DangerousGetHandle();
        byte[] buffer = new byte[EventBufferSize];
        Span<PollDescriptor> waits =
        [
            new PollDescriptor(wake, PollEvents.Readable),
            new PollDescriptor(Descriptor, PollEvents.Readable),
        ];
        while (!Volatile.Read(ref _isEnding))
        {
            Settle();
            if (!_isActive)
            {
                _ = Poll.Wait(waits[..1], Timeout.Infinite);
                Events.Drain(wake, out _);
                continue;
            }

            // However many events there are: this is for what none tells of.
            bool isBlind = Volatile.Read(ref _isBlind);
            int period = isBlind ? BlindPeriodMilliseconds : _versions is null ? Timeout.Infinite : SafetyPeriodMilliseconds;
            long left = period - (Environment.TickCount64 - _lastSafe);
            if (period != Timeout.Infinite && left <= 0)
            {
                InvalidateUnwatched(isBlind);
                continue;
            }

            SyscallResult read = FileEvents.Read(Descriptor, buffer);
            if (read.IsError)
            {
                _ = Poll.Wait(waits, period == Timeout.Infinite ? Timeout.Infinite : (int)left);
                Events.Drain(wake, out _);
            }
            else if (IsFanotify)
            {
                TakeFanotify(buffer.AsSpan(0, read.Count));
            }
            else
            {
                TakeInotify(buffer.AsSpan(0, read.Count));
            }
        }
    }

    // Watches what is to be watched now, and nothing else.
    private void Settle()
    {
        if (IsNeeded == _isActive && (_isActive && MayIgnoreOwn) == _ignoresOwn && _isSettled.IsSet
            && !Volatile.Read(ref _hasNewSessions))
        {
            return;
        }

        lock (Gate)
        {
            bool isNeeded = IsNeeded;
            _ignoresOwn = isNeeded && _ignoresOwn;
            if (isNeeded != _isActive)
            {
                Volatile.Write(ref _isActive, isNeeded);
                Unmark();
                if (isNeeded)
                {
                    Mark();
                }
            }
            else if (_isActive && _hasNewSessions)
            {
                // What is marked already stays so: this is for their root directories.
                Mark();
            }

            _hasNewSessions = false;

            if (_isActive && MayIgnoreOwn != _ignoresOwn)
            {
                _ignoresOwn = !_ignoresOwn;
                _fileSystems.ForEach(known => IgnoreOwn(_ignoresOwn ? FanotifyMarks.Add : FanotifyMarks.Remove, known.Descriptor));
            }

            _isSettled.Set();
        }
    }

    private void Mark()
    {
        foreach ((PassthroughFileSystem session, int descriptor) in _fileSystems)
        {
            if (!TryMark(descriptor))
            {
                GoBlind(session);
            }
        }

        if (_how != HostWatching.Fanotify)
        {
            _sessions.ForEach(session => session.WatchWhatIsKnown());
        }

        // Whoever looked at the table before the marks were there.
        _versions?.Table.AdvanceEpoch();
        _lastSafe = Environment.TickCount64;
    }

    private void Unmark()
    {
        if (IsFanotify)
        {
            foreach (FanotifyMarks kind in (ReadOnlySpan<FanotifyMarks>)[FanotifyMarks.None, FanotifyMarks.FileSystem, FanotifyMarks.Mount])
            {
                _ = FileEvents.FanotifyMark(Descriptor, FanotifyMarks.Flush | kind, FanotifyEvents.None, Files.WorkingDirectory);
            }
        }

        _sessions.ForEach(session => session.ForgetWatches());
        _full.Clear();
        UpdateBlindness();
    }

    private void InvalidateUnwatched(bool isBlind)
    {
        long now = Environment.TickCount64;
        _lastSafe = now;
        if (isBlind && now - _lastRenewal >= SafetyPeriodMilliseconds)
        {
            lock (Gate)
            {
                // Directories that no guest knows any more are watched no longer.
                if (_full.Count > 0)
                {
                    _lastRenewal = now;
                    Unmark();
                    Mark();
                }
            }
        }

        _versions?.Table.AdvanceEpoch();
        if (isBlind)
        {
            LoseForGuests();
        }
    }

    private void LoseEverything()
    {
        _versions?.Table.AdvanceEpoch();
        LoseForGuests();
    }

    private void LoseForGuests()
    {
        foreach (EventBacklog backlog in Volatile.Read(ref _listeners))
        {
            backlog.Lose();
        }
    }

    private void TakeFanotify(ReadOnlySpan<byte> events)
    {
        bool isOwn = true;
        bool isToTell = false;
        var reader = new FanotifyReader(events);
        while (reader.Read())
        {
            if ((reader.Event.Events & FanotifyEvents.Overflow) != 0)
            {
                LoseEverything();
            }
            else if (reader.Event.ProcessId == _ownProcess)
            {
                // The kernel does not tell whose guest it was for.
                isToTell |= !_isAlone;
            }
            else
            {
                isOwn = false;
                isToTell = true;
                AdvanceVersions(reader);
            }
        }

        if (isToTell)
        {
            Tell(events);
        }

        if (isOwn)
        {
            Thread.Sleep(OwnPauseMilliseconds);
        }
    }

    private void AdvanceVersions(in FanotifyReader reader)
    {
        if (_versions is null)
        {
            return;
        }

        if (PassthroughFileSystem.TryGetInode(reader.Target, out ulong target))
        {
            _versions.Advance(target);
        }

        bool isOfName = (reader.Event.Events & FanotifyReader.NameChanges) != 0;
        AdvanceVersions(reader.Directory, reader.Name, isOfName, reader.Target.IsEmpty);
        AdvanceVersions(reader.NewDirectory, reader.NewName, isOfName, isOfDirectory: false);
    }

    private void AdvanceVersions(in HandleView handle, ReadOnlySpan<byte> name, bool isOfName, bool isOfDirectory)
    {
        if ((isOfName || isOfDirectory) && PassthroughFileSystem.TryGetInode(handle, out ulong directory))
        {
            _versions!.Advance(directory);
            if (isOfName)
            {
                _versions.AdvanceName(directory, name);
            }
        }
    }

    private void TakeInotify(ReadOnlySpan<byte> events)
    {
        bool hasLost = false;
        lock (Gate)
        {
            var reader = new InotifyReader(events);
            while (reader.Read())
            {
                hasLost |= (reader.Event.Events & InotifyEvents.Overflow) != 0;
                foreach (PassthroughFileSystem session in _sessions)
                {
                    session.AdvanceVersions(reader);
                }

                if ((reader.Event.Events & InotifyEvents.Ignored) != 0)
                {
                    _ = _watchUses.Remove(reader.Event.Watch);
                }
            }
        }

        if (hasLost)
        {
            LoseEverything();
        }

        Tell(events);
    }

    private void Tell(ReadOnlySpan<byte> events)
    {
        foreach (EventBacklog backlog in Volatile.Read(ref _listeners))
        {
            backlog.Add(events);
        }
    }
}

/// <summary>One event of inotify(7) after the other.</summary>
internal ref struct InotifyReader
{
    private ReadOnlySpan<byte> _events;

    public InotifyReader(ReadOnlySpan<byte> events)
    {
        this = default;
        _events = events;
    }

    public InotifyEvent Event { get; private set; }

    /// <summary>The name in the watched directory, with its NUL; empty for the directory itself.</summary>
    public ReadOnlySpan<byte> Name { get; private set; }

    /// <summary>Takes the next event. The kernel writes them, so they are what they should be.</summary>
    public bool Read()
    {
        int headerSize = Unsafe.SizeOf<InotifyEvent>();
        if (_events.Length < headerSize)
        {
            return false;
        }

        Event = MemoryMarshal.Read<InotifyEvent>(_events);
        ReadOnlySpan<byte> name = _events.Slice(headerSize, (int)Event.NameLength);
        _events = _events[(headerSize + name.Length)..];
        int end = name.IndexOf((byte)0);
        Name = end < 0 ? name : name[..(end + 1)];
        return true;
    }
}

/// <summary>One event of fanotify(7), taken apart.</summary>
internal ref struct FanotifyReader
{
    private ReadOnlySpan<byte> _events;

    public FanotifyReader(ReadOnlySpan<byte> events)
    {
        this = default;
        _events = events;
    }

    /// <summary>What is about the name.</summary>
    public const FanotifyEvents NameChanges = FanotifyEvents.Create | FanotifyEvents.Delete | FanotifyEvents.Rename;

    public FanotifyEvent Event { get; private set; }

    /// <summary>The number of the file system.</summary>
    public ulong FileSystem { get; private set; }

    /// <summary>The handle of the directory in which <see cref="Name"/> is; empty when there is none.</summary>
    public HandleView Directory { get; private set; }

    /// <summary>The name, without NUL; "." for the directory itself.</summary>
    public ReadOnlySpan<byte> Name { get; private set; }

    /// <summary>The handle of the directory that something was moved to; empty when nothing was, or nobody watches that one.</summary>
    public HandleView NewDirectory { get; private set; }

    /// <summary>Its name there, without NUL.</summary>
    public ReadOnlySpan<byte> NewName { get; private set; }

    /// <summary>The handle of the object; empty when there is none.</summary>
    public HandleView Target { get; private set; }

    /// <summary>Takes the next event. The kernel writes them, so they are what they should be; what is not ends the list.</summary>
    public bool Read()
    {
        if (_events.Length < Unsafe.SizeOf<FanotifyEvent>())
        {
            return false;
        }

        Event = MemoryMarshal.Read<FanotifyEvent>(_events);
        if (Event.Length < Unsafe.SizeOf<FanotifyEvent>() || Event.Length > _events.Length)
        {
            return false;
        }

        Directory = default;
        NewDirectory = default;
        Target = default;
        Name = default;
        NewName = default;
        ReadRecords(_events[Event.MetadataLength..(int)Event.Length]);
        _events = _events[(int)Event.Length..];
        return true;
    }

    private void ReadRecords(ReadOnlySpan<byte> records)
    {
        // Header 4, file system 8, struct file_handle: length 4, type 4, bytes; then the name.
        const int handleStart = 12;
        const int bytesStart = handleStart + 8;
        while (records.Length >= bytesStart)
        {
            FanotifyInfoHeader header = MemoryMarshal.Read<FanotifyInfoHeader>(records);
            int length = (int)MemoryMarshal.Read<uint>(records[handleStart..]);
            if (header.Length < bytesStart + length || header.Length > records.Length)
            {
                return;
            }

            ReadOnlySpan<byte> record = records[..header.Length];
            var handle = new HandleView(MemoryMarshal.Read<int>(record[(handleStart + 4)..]), record.Slice(bytesStart, length));
            FileSystem = MemoryMarshal.Read<ulong>(record[4..]);
            ReadOnlySpan<byte> name = record[(bytesStart + length)..];
            int end = name.IndexOf((byte)0);
            name = end < 0 ? name : name[..end];
            switch (header.Type)
            {
                case FanotifyInfoType.Directory:
                case FanotifyInfoType.DirectoryAndName:
                case FanotifyInfoType.OldDirectoryAndName:
                    Directory = handle;
                    Name = name;
                    break;
                case FanotifyInfoType.NewDirectoryAndName:
                    NewDirectory = handle;
                    NewName = name;
                    break;
                case FanotifyInfoType.File:
                    Target = handle;
                    break;
                default:
                    break;
            }

            records = records[header.Length..];
        }
    }
}

/// <summary>A file handle that stands in memory of somebody else.</summary>
internal readonly ref struct HandleView(int type, ReadOnlySpan<byte> bytes)
{
    public readonly int Type = type;
    public readonly ReadOnlySpan<byte> Bytes = bytes;

    public bool IsEmpty => Bytes.IsEmpty;
}
