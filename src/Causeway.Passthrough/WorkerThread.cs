using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Passthrough;

/// <summary>
/// What belongs to one thread that serves requests: who it is for the kernel, its working directory and umask, and its
/// buffers. Made when a thread serves its first request.
/// </summary>
/// <remarks>
/// <para>The working directory is /proc/self/fd, so that the name "7" means descriptor 7 itself: calls that take a path act
/// on O_PATH descriptors, on symbolic links and on files without a name. No other code may run on such a thread that
/// relies on relative paths.</para>
/// <para>Credentials are sticky: they change only when a request's differ from what the thread has. That needs
/// SECBIT_NO_SETUID_FIXUP, without which the capabilities would go with the user id, and the capabilities without which
/// the host would judge later requests by the ids of an earlier one; where either is refused the thread changes back after
/// each call.</para>
/// </remarks>
#pragma warning disable CA1001 // Disposing of a change ends it; there is nothing to give back.
internal sealed unsafe class WorkerThread
#pragma warning restore CA1001
{
    /// <summary>Most threads at a time that may serve requests (arbitrary: 64 guests with 65 queues and all their helpers).</summary>
    public const int MaxThreads = 1 << 16;

    /// <summary>Size of <see cref="DirectoryBuffer"/>: what one getdents64(2) fetches.</summary>
    public const int DirectoryBufferSize = 64 << 10;

    [ThreadStatic]
    private static WorkerThread? t_current;

    private static readonly Lock s_lock = new();
    private static readonly Stack<int> s_freeIndices = new();
    private static int s_highestIndex = -1;
    private static int s_processDescriptors = -1;
    private static bool s_isInitialNamespace;
    private static uint s_ownUser;
    private static uint s_ownGroup;

    private readonly byte* _directoryBuffer;
    private readonly bool _canSetUser;
    private readonly bool _canSetGroup;
    private readonly bool _isSticky;
    private readonly uint[] _groups = new uint[RequestContext.MaxGroups];
    private readonly uint[] _groupBuffer = new uint[RequestContext.MaxGroups];
    private VersionChange _change = VersionChange.None;
    private CapabilitySets _capabilities;
    private uint _user;
    private uint _group;
    private int _groupCount;
    private uint _umask;

    private WorkerThread(int index)
    {
        Index = index;
        _directoryBuffer = (byte*)NativeMemory.AlignedAlloc(DirectoryBufferSize, 64);
        Credentials.UnshareFs().ThrowIfError("give a thread its own working directory");
        Files.Fchdir(s_processDescriptors).ThrowIfError("enter /proc/self/fd");
        _ = Credentials.Umask(0);
        Credentials.Capget(out _capabilities).ThrowIfError("read a thread's capabilities");
        _user = Credentials.Geteuid();
        _group = Credentials.Getegid();
        _canSetUser = _capabilities.Has(Capability.SetUid);
        _canSetGroup = _capabilities.Has(Capability.SetGid);
        if (_canSetGroup)
        {
            // The daemon's own groups are no business of its guests.
            Credentials.Setgroups([]).ThrowIfError("drop supplementary groups");
        }

        MayReadAnything = s_isInitialNamespace &&
            (_capabilities.Has(Capability.DacOverride) || _capabilities.Has(Capability.DacReadSearch));
        SyscallResult bits = Credentials.GetSecureBits();
        bool isAboveIds = _capabilities.Has(Capability.DacOverride) && _capabilities.Has(Capability.Fowner) &&
            _capabilities.Has(Capability.Chown);
        _isSticky = isAboveIds && !bits.IsError &&
            (((uint)bits.Count & Credentials.NoSetUidFixup) != 0 ||
             !Credentials.SetSecureBits((uint)bits.Count | Credentials.NoSetUidFixup).IsError);

        // A thread starts with the ids of the one that started it, and that may have been acting for a guest.
        ResumeOwn();
    }

    ~WorkerThread()
    {
        // The thread has ended; until now nobody else could be given its slots.
        NativeMemory.AlignedFree(_directoryBuffer);
        lock (s_lock)
        {
            s_freeIndices.Push(Index);
        }
    }

    /// <summary>The calling thread's.</summary>
    public static WorkerThread Current => t_current ?? Create();

    /// <summary>The highest index any thread has had.</summary>
    public static int HighestIndex => Volatile.Read(ref s_highestIndex);

    /// <summary>A descriptor of /proc/self/fd, opened once for the process before any thread changes its ids.</summary>
    public static int ProcessDescriptors => s_processDescriptors;

    /// <summary>The thread's place among all, below <see cref="MaxThreads"/>.</summary>
    public int Index { get; }

    /// <summary>
    /// Whether no permissions, and no change of them, keep the daemon from opening a file for reading. Not in a user namespace of its
    /// own, where files of ids that it does not have are judged like anybody's.
    /// </summary>
    public bool MayReadAnything { get; }

    /// <summary>How often the thread has found a node without a descriptor, and no place for one.</summary>
    public uint PinMisses { get; set; }

    /// <summary>How often the thread has judged the age of an object (<see cref="RememberedHandles.WasOld"/>).</summary>
    public uint AgesJudged { get; set; }

    /// <summary>Room for the groups of one request.</summary>
    public Span<uint> GroupBuffer => _groupBuffer;

    /// <summary>Room for directory entries, or for names of extended attributes (XATTR_LIST_MAX).</summary>
    public Span<byte> DirectoryBuffer => new(_directoryBuffer, DirectoryBufferSize);

    /// <summary>The thread's change in a version table.</summary>
    /// <param name="versions">The table and what is in it.</param>
    public VersionChange ChangeIn(ObjectVersions versions) =>
        _change.Table == versions.Table ? _change : _change = new VersionChange(versions);

    /// <summary>
    /// Opens what all threads need, and remembers who the daemon is. Called before the first of them serves.
    /// </summary>
    /// <param name="location">What was kept of /proc where that is out of reach; null where it is not.</param>
    public static void Prepare(ShareLocation? location = null)
    {
        lock (s_lock)
        {
            if (s_processDescriptors < 0)
            {
                s_processDescriptors = location?.ProcessDescriptors ?? Files.Openat(
                    Files.WorkingDirectory,
                    "/proc/self/fd\0"u8,
                    OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.CloseOnExec)
                    .ThrowIfError("open '/proc/self/fd' (is /proc mounted?)").Descriptor;
                s_ownUser = Credentials.Geteuid();
                s_ownGroup = Credentials.Getegid();
                s_isInitialNamespace = location?.IsInInitialUserNamespace ?? Credentials.IsInInitialUserNamespace();
            }
        }
    }

    /// <summary>Makes the thread act as the caller of a creating request, so that what it makes has the right owner.</summary>
    /// <param name="user">The caller on the host. Root means the daemon itself.</param>
    /// <param name="group">His group on the host. Root's means the daemon's.</param>
    /// <param name="groups">His other groups on the host, as far as the guest tells them.</param>
    /// <param name="isMembershipKnown">
    /// Whether the guest tells the groups that matter. If not, the host must not refuse what a group may allow.
    /// </param>
    /// <returns>EPERM when the daemon may not act for that user; then nothing has changed.</returns>
    public Errno Assume(uint user, uint group, ReadOnlySpan<uint> groups, bool isMembershipKnown)
    {
        user = user == 0 ? s_ownUser : user;
        group = group == 0 ? s_ownGroup : group;
        if ((user != s_ownUser && !_canSetUser) || (group != s_ownGroup && !_canSetGroup))
        {
            return Errno.EPERM;
        }

        Errno error = Switch(user, group, _canSetGroup ? groups : []);
        if (error == Errno.Success && !_isSticky && !isMembershipKnown && user != s_ownUser)
        {
            SetEffective(Capability.DacOverride, true);
        }

        return error;
    }

    /// <summary>The umask of what the thread makes next.</summary>
    /// <param name="mask">The mask.</param>
    public void SetUmask(uint mask)
    {
        if (mask != _umask)
        {
            _ = Credentials.Umask(mask);
            _umask = mask;
        }
    }

    /// <summary>The creating call is over. Goes back to the daemon's own ids where they must not stick.</summary>
    /// <param name="mayStick">Whether the file system leaves permissions to us; false where a server judges by our ids.</param>
    public void Resume(bool mayStick)
    {
        if (!mayStick || !_isSticky)
        {
            ResumeOwn();
        }
    }

    /// <summary>Goes back to the daemon's own ids; costs nothing when the thread has them.</summary>
    public void ResumeOwn()
    {
        if (Switch(s_ownUser, s_ownGroup, []) != Errno.Success)
        {
            Environment.FailFast("causeway: a thread could not take back its own user and group ids");
        }
    }

    /// <summary>What <see cref="KeepSetgid"/> was told last, whether or not the daemon has the capability.</summary>
    public bool KeepsSetgid { get; private set; } = true;

    /// <summary>Whether setgid bits survive what the thread does next: writes, truncation, creation (CAP_FSETID).</summary>
    /// <param name="keep">False when the host has to clear them as it does for an ordinary user.</param>
    public void KeepSetgid(bool keep)
    {
        KeepsSetgid = keep;
        if (!keep)
        {
            // Whoever was served last may be a member of the file's group, for whom the host would keep the bit.
            ResumeOwn();
        }

        SetEffective(Capability.Fsetid, keep);
    }

    // Nothing happens where the daemon does not have the capability at all.
    private void SetEffective(Capability capability, bool isEffective)
    {
        if (_capabilities.Has(capability) == isEffective ||
            (_capabilities.Permitted & (1UL << (int)capability)) == 0)
        {
            return;
        }

        CapabilitySets changed = _capabilities.With(capability, isEffective);
        if (Credentials.Capset(changed).IsError)
        {
            Environment.FailFast("causeway: a thread could not change its capabilities");
        }

        _capabilities = changed;
    }

    private static WorkerThread Create()
    {
        Prepare();
        int index;
        lock (s_lock)
        {
            if (!s_freeIndices.TryPop(out index))
            {
                index = s_highestIndex + 1;
                if (index == MaxThreads)
                {
                    throw new InvalidOperationException($"More than {MaxThreads} threads serve requests.");
                }

                Volatile.Write(ref s_highestIndex, index);
            }
        }

        t_current = new WorkerThread(index);
        return t_current;
    }

    // Groups, then group, then user: without sticky capabilities the user id takes them away, so it changes last on the
    // way out and first on the way back.
    private Errno Switch(uint user, uint group, ReadOnlySpan<uint> groups)
    {
        if (user == _user && group == _group && groups.SequenceEqual(_groups.AsSpan(0, _groupCount)))
        {
            return Errno.Success;
        }

        uint previousGroup = _group;
        if (!_isSticky && user == s_ownUser && _user != user)
        {
            Errno error = SwitchUser(user);
            if (error != Errno.Success)
            {
                return error;
            }
        }

        Errno failed = SwitchGroups(groups);
        if (failed == Errno.Success)
        {
            failed = SwitchGroup(group);
            if (failed == Errno.Success)
            {
                failed = SwitchUser(user);
                if (failed == Errno.Success)
                {
                    return failed;
                }

                if (SwitchGroup(previousGroup) != Errno.Success)
                {
                    Environment.FailFast("causeway: a thread could not take back its group id");
                }
            }

            if (SwitchGroups([]) != Errno.Success)
            {
                Environment.FailFast("causeway: a thread could not drop its supplementary groups");
            }
        }

        return failed;
    }

    private Errno SwitchUser(uint user)
    {
        if (user == _user)
        {
            return Errno.Success;
        }

        SyscallResult result = Credentials.Setresuid(Credentials.KeepId, user, Credentials.KeepId);
        _user = result.IsError ? _user : user;
        if (!_isSticky)
        {
            // The kernel has taken the effective capabilities away, or given all permitted ones back.
            Credentials.Capget(out _capabilities).ThrowIfError("read a thread's capabilities");
        }

        return result.Error;
    }

    private Errno SwitchGroup(uint group)
    {
        if (group == _group)
        {
            return Errno.Success;
        }

        SyscallResult result = Credentials.Setresgid(Credentials.KeepId, group, Credentials.KeepId);
        _group = result.IsError ? _group : group;
        return result.Error;
    }

    private Errno SwitchGroups(ReadOnlySpan<uint> groups)
    {
        if (groups.SequenceEqual(_groups.AsSpan(0, _groupCount)))
        {
            return Errno.Success;
        }

        SyscallResult result = Credentials.Setgroups(groups);
        if (!result.IsError)
        {
            groups.CopyTo(_groups);
            _groupCount = groups.Length;
        }

        return result.Error;
    }
}
