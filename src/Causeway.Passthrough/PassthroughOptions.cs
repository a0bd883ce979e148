using Causeway.Fuse;
namespace Causeway.Passthrough;

/// <summary>How a host directory is shared. Nothing changes after <see cref="Share.Open"/>, which checks everything.</summary>
public sealed record PassthroughOptions
{
    /// <summary>How many <see cref="QueuedReads"/> there are by default. Arbitrary: what keeps several fast disks busy.</summary>
    public const int DefaultQueuedReads = 128;

    /// <summary>The most <see cref="QueuedReads"/> there can be. Arbitrary: each has some hundred bytes once it was needed.</summary>
    public const int MostQueuedReads = 4096;

    /// <summary>How many <see cref="SpareFiles"/> there are by default. Arbitrary: the headers of a build.</summary>
    public const int DefaultSpareFiles = 1024;

    /// <summary>
    /// The most <see cref="SpareFiles"/> there can be. Arbitrary: each has eight bytes whether it is used or not, and a sweep looks at all.
    /// </summary>
    public const int MostSpareFiles = 1 << 16;

    private static readonly TimeSpan s_day = TimeSpan.FromDays(1);

    /// <summary>The directory to share. A symbolic link to one is followed once, when the share is opened.</summary>
    public required string SharedDirectory { get; init; }

    /// <summary>
    /// What a guest may remember. Default <see cref="CacheMode.Auto"/>. The more it remembers, the longer it does not see
    /// what the host or another guest changes.
    /// </summary>
    public CacheMode Cache { get; init; } = CacheMode.Auto;

    /// <summary>
    /// Whether the guest may delay writes and own sizes and times. Default false. With a second writer, data is lost.
    /// </summary>
    public bool Writeback { get; init; }

    /// <summary>How long attributes are remembered. Default by cache mode: never 0, auto 1 s, metadata and always a day.</summary>
    public TimeSpan? AttributeLifetime { get; init; }

    /// <summary>How long names are remembered. Default as for <see cref="AttributeLifetime"/>.</summary>
    public TimeSpan? EntryLifetime { get; init; }

    /// <summary>
    /// How long it is remembered that a name does not exist; zero means not at all. Default zero, and with metadata and
    /// always the entry lifetime. A file made on the host stays invisible that long to a guest that looked for it before.
    /// </summary>
    public TimeSpan? NegativeLifetime { get; init; }

    /// <summary>Whether everything that changes the share is refused with EROFS. Default false.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>
    /// Whether extended attributes are passed through. Default false: each write may then cost one request more. A map,
    /// access control lists and security labels imply it.
    /// </summary>
    public bool Xattr { get; init; }

    /// <summary>
    /// Under which names the guest's extended attributes are kept on the host, and which of them it may not use. Default
    /// null: under their own, all that the host's kernel lets the daemon have.
    /// </summary>
    public XattrMap? XattrMap { get; init; }

    /// <summary>
    /// Whether the guest sees, sets and obeys POSIX access control lists. Default never: they are hidden. Excludes
    /// translated ids, because lists contain ids.
    /// </summary>
    public NegotiationMode PosixAcl { get; init; }

    /// <summary>Whether what a guest makes gets the security label that the guest's security module asks for. Default never.</summary>
    public NegotiationMode SecurityLabel { get; init; }

    /// <summary>Which user ids of the guest and of the host stand for each other. Default: each for itself.</summary>
    public IdTranslation UserIds { get; init; } = IdTranslation.None;

    /// <summary>Which group ids of the guest and of the host stand for each other. Default: each for itself.</summary>
    public IdTranslation GroupIds { get; init; } = IdTranslation.None;

    /// <summary>Whether O_DIRECT of the guest reaches the host. Default false: the flag is dropped.</summary>
    public bool AllowDirectIo { get; init; }

    /// <summary>Whether listings may carry attributes (READDIRPLUS). Default true; never in <see cref="CacheMode.Never"/>.</summary>
    public bool ReadDirPlus { get; init; } = true;

    /// <summary>Whether the guest is told of mount points below the share. Default true; without, inode numbers may collide.</summary>
    public bool AnnounceSubmounts { get; init; } = true;

    /// <summary>Whether nodes are kept as file handles, which cost no descriptors. Default <see cref="InodeFileHandles.Prefer"/>.</summary>
    public InodeFileHandles FileHandles { get; init; } = InodeFileHandles.Prefer;

    /// <summary>
    /// Most descriptors that nodes and open files of one session may hold. Default: an equal part for each of
    /// <see cref="MaxSessions"/> of the process's limit of open files, without a reserve for everything else.
    /// </summary>
    public int? MaxDescriptors { get; init; }

    /// <summary>
    /// Most descriptors per session where <see cref="MaxDescriptors"/> is null and the limit of open files allows more; for the sake of
    /// the kernel's memory that they take. Null for none, which is the default. Objects beyond are opened anew for each request.
    /// </summary>
    public int? DescriptorCeiling { get; init; }

    /// <summary>
    /// Most files of one session that stay open for some seconds after the guest has closed them, so that it can open them again without
    /// a system call; zero for none. Default 1024, and never more than a sixteenth of the descriptors. Only files that were open for
    /// nothing but reading, on local file systems, and not with <see cref="CacheMode.Never"/>. Programs of the host that are told of
    /// every open, or are to allow it (fanotify), are not told of one that finds the file still open.
    /// </summary>
    public int SpareFiles { get; init; } = DefaultSpareFiles;

    /// <summary>
    /// Most reads of all sessions that wait for the disk at the same time in a ring of io_uring(7), while the threads that serve go on
    /// with other requests; zero for none, so that each such read holds up its queue. Default 128. Only with the ring that
    /// <see cref="Share.TryCreateRing"/> makes.
    /// </summary>
    public int QueuedReads { get; init; } = DefaultQueuedReads;

    /// <summary>
    /// How many sessions the share will have at a time: they divide the process's descriptors among them, and events of the host
    /// are got ready for as many while the process may. Default 1.
    /// </summary>
    public int MaxSessions { get; init; } = 1;

    /// <summary>
    /// Whether setuid and setgid bits are cleared on the host when a request says so (FUSE_HANDLE_KILLPRIV_V2). Default: yes where that
    /// saves the guest a request per write, which is with extended attributes, and not if the shared directory is on a network file
    /// system. A guest with a DAX window clears them itself in any case, because it writes there without a request.
    /// </summary>
    public bool? KillPrivV2 { get; init; }

    /// <summary>
    /// Whether the guest may make files immutable or append-only, for which the daemon needs CAP_LINUX_IMMUTABLE. Default false:
    /// nobody on the host can change or remove such a file before its administrator takes the flag away.
    /// </summary>
    public bool AllowImmutable { get; init; }

    /// <summary>Whether O_NOATIME of the guest reaches the host. Default false: the flag is dropped.</summary>
    public bool PreserveNoatime { get; init; }

    /// <summary>Whether files open without cache may be mapped shared (FUSE_DIRECT_IO_ALLOW_MMAP). Default false.</summary>
    public bool AllowMmap { get; init; }

    /// <summary>
    /// Most nodes (files and directories that the guest knows) of one session, at most 16 million; more are refused with ENFILE
    /// until the guest forgets some. Default 4 million, which take up to 400 MB.
    /// </summary>
    public int MaxNodes { get; init; } = 4 << 20;

    /// <summary>
    /// Longest value of an extended attribute that a guest may set, in bytes, up to 65536; longer ones are refused with E2BIG.
    /// Default 65536, which is the most that Linux has.
    /// </summary>
    public int MaxXattrSize { get; init; } = 64 << 10;

    /// <summary>
    /// Whether locks of files (fcntl(2), flock(2)) hold against other guests and the host. Default: yes, but not with
    /// <see cref="CacheMode.Always"/> or <see cref="Writeback"/>, which are for shares that nobody else uses. Each close of a
    /// file then costs one request, and a process of a stock guest cannot be killed while it waits for a lock.
    /// </summary>
    public bool? RemoteLocks { get; init; }

    /// <summary>Most record locks of one session; more are refused with ENOLCK. Default 16384, about 4 MiB in the host's kernel.</summary>
    public int MaxLocks { get; init; } = 16384;

    /// <summary>
    /// Most requests of one session that wait for locks, each on a thread; more are refused with ENOLCK. Default 256.
    /// </summary>
    public int MaxLockWaits { get; init; } = 256;

    /// <summary>
    /// Most bytes of listings of one session that were read from the host and are kept for the next READDIR. Default 16 MiB; what is
    /// beyond is read again.
    /// </summary>
    public long MaxLeftoverBytes { get; init; } = 16 << 20;

    /// <summary>
    /// Most directories of one session that are watched one by one. Default 65536: 64 MiB of the kernel's memory, and below what Linux
    /// allows a user where there is as much. While the guest knows more, everything is invalidated every second.
    /// </summary>
    public int MaxWatches { get; init; } = 65536;

    /// <summary>
    /// How long a request waits for a lock before it fails with ENOLCK; zero means without end. Default 10 minutes: after so long
    /// a process of a stock guest that was killed meanwhile is gone, and a deadlock between guests is over.
    /// </summary>
    public TimeSpan LockWaitLimit { get; init; } = TimeSpan.FromMinutes(10);

    /// <summary>Whether guests can use extended attributes, which several options imply.</summary>
    public bool HasXattrs => Xattr || XattrMap is not null || PosixAcl != NegotiationMode.Never ||
        SecurityLabel != NegotiationMode.Never;

    /// <summary>
    /// How changes that others make on the host are noticed, for guests that take notifications. Default: not at all.
    /// </summary>
    public HostWatching HostWatching { get; init; }

    /// <summary>
    /// How large a version table to keep, by which guests that know of it see what of their caches is still true
    /// (docs/coherency.md). Default null: none. Excludes <see cref="Writeback"/>, with which guests keep changes to themselves.
    /// </summary>
    public VersionTableLayout? VersionTable { get; init; }

    /// <summary>
    /// Whether what guests keep by the version table holds for processes of the host as well: by delegations of the kernel (fcntl(2),
    /// F_SETDELEG), for which such a process waits before it changes anything that a guest knows. Default false.
    /// </summary>
    public bool TakesDelegations { get; init; }

    internal bool EffectiveRemoteLocks => RemoteLocks ?? (Cache != CacheMode.Always && !Writeback);

    /// <summary>The clock that ages of objects are measured by; tests have their own.</summary>
    internal TimeProvider Clock { get; init; } = TimeProvider.System;

    internal TimeSpan EffectiveAttributeLifetime => AttributeLifetime ?? DefaultLifetime;

    internal TimeSpan EffectiveEntryLifetime => EntryLifetime ?? DefaultLifetime;

    internal TimeSpan EffectiveNegativeLifetime => NegativeLifetime ??
        (Cache is CacheMode.Metadata or CacheMode.Always ? EffectiveEntryLifetime : TimeSpan.Zero);

    private TimeSpan DefaultLifetime => Cache switch
    {
        CacheMode.Never => TimeSpan.Zero,
        CacheMode.Auto => TimeSpan.FromSeconds(1),
        _ => s_day,
    };

    /// <summary>Checks every property.</summary>
    /// <exception cref="ArgumentException">A value cannot work; the message says what to write instead.</exception>
    public void Validate()
    {
        if (string.IsNullOrEmpty(SharedDirectory) || SharedDirectory.Contains('\0', StringComparison.Ordinal))
        {
            throw new ArgumentException("The shared directory is missing: name an existing directory.");
        }

        CheckLifetime(AttributeLifetime, "attribute");
        CheckLifetime(EntryLifetime, "entry");
        CheckLifetime(NegativeLifetime, "negative");
        if (!Enum.IsDefined(Cache))
        {
            throw new ArgumentException($"Unknown cache mode {Cache}: use never, metadata, auto or always.");
        }

        if (!Enum.IsDefined(PosixAcl) || !Enum.IsDefined(SecurityLabel))
        {
            throw new ArgumentException("Unknown mode of access control lists or labels: use never, auto or always.");
        }

        if (PosixAcl != NegotiationMode.Never && !(UserIds.IsIdentity && GroupIds.IsIdentity))
        {
            throw new ArgumentException(
                "POSIX access control lists and translated ids exclude each other, because the ids in a list would stay " +
                "untranslated: leave one out.");
        }

        if (!Enum.IsDefined(FileHandles))
        {
            throw new ArgumentException($"Unknown use of file handles {FileHandles}: use never, prefer or mandatory.");
        }

        if (MaxLocks < 1 || MaxLockWaits < 1)
        {
            throw new ArgumentException(
                "Locks and waits for them have to be allowed at least one each: to have none, turn remote locks off.");
        }

        if (VersionTable is not null && Writeback)
        {
            throw new ArgumentException(
                "A version table and writeback exclude each other, because guests that write back keep changes to themselves of " +
                "which the table is to tell: leave one out.");
        }

        if (TakesDelegations && VersionTable is null)
        {
            throw new ArgumentException("Delegations are for a version table, and there is none: ask for both.");
        }

        if (VersionTable is { IsValid: false })
        {
            throw new ArgumentException("The version table cannot be laid out so: names, shared words and log in powers of two.");
        }

        CheckLifetime(LockWaitLimit, "lock wait");
        if (MaxNodes < SmallestBudget || MaxNodes > NodeTable.MaxNodes - 2)
        {
            throw new ArgumentException(
                $"{MaxNodes} nodes cannot be: allow between {SmallestBudget} and {NodeTable.MaxNodes - 2}.");
        }

        if (MaxXattrSize is < 0 or > 64 << 10)
        {
            throw new ArgumentException($"{MaxXattrSize} is no size of extended attributes: allow between 0 and 65536 bytes.");
        }

        if (SpareFiles is < 0 or > MostSpareFiles)
        {
            throw new ArgumentException($"{SpareFiles} spare files cannot be: allow between 0 and {MostSpareFiles}.");
        }

        if (QueuedReads is < 0 or > MostQueuedReads)
        {
            throw new ArgumentException($"{QueuedReads} queued reads cannot be: allow between 0 and {MostQueuedReads}.");
        }

        if (MaxSessions < 1)
        {
            throw new ArgumentException($"{MaxSessions} sessions cannot be: allow at least one.");
        }

        if (Math.Min(MaxDescriptors ?? int.MaxValue, DescriptorCeiling ?? int.MaxValue) is < SmallestBudget and int few)
        {
            throw new ArgumentException($"{few} descriptors are too few to serve a guest: allow at least {SmallestBudget}.");
        }
    }

    // Arbitrary: a root, a working directory and a few open files.
    internal const int SmallestBudget = 16;

    private static void CheckLifetime(TimeSpan? lifetime, string what)
    {
        if (lifetime < TimeSpan.Zero)
        {
            throw new ArgumentException($"The {what} lifetime {lifetime} is negative: use zero or more.");
        }
    }
}

/// <summary>What a guest may remember of a share.</summary>
public enum CacheMode
{
    /// <summary>Nothing: every look is a request, and file content is not cached.</summary>
    Never,

    /// <summary>Names, attributes and listings for long; content not at all.</summary>
    Metadata,

    /// <summary>Names and attributes for a second; content until a file is opened again after a change.</summary>
    Auto,

    /// <summary>Everything for long. For shares that nobody else changes.</summary>
    Always,
}

/// <summary>How nodes are held between requests.</summary>
public enum InodeFileHandles
{
    /// <summary>By an open descriptor each.</summary>
    Never,

    /// <summary>By file handle where file system and privileges allow, else by descriptor.</summary>
    Prefer,

    /// <summary>By file handle; what has none is refused with EOPNOTSUPP.</summary>
    Mandatory,
}
