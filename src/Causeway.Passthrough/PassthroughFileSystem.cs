using System.Runtime.CompilerServices;
using Causeway.Fuse;
using Causeway.Linux;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Causeway.Passthrough;

/// <summary>
/// A host directory as one guest sees it: the nodes and open files of one session. Every operation completes before its
/// method returns.
/// </summary>
/// <remarks>
/// <para>Nothing on the host is reached by path: each call names an object by a descriptor, or by a directory's descriptor
/// and one checked name that is not followed. A node is a file handle where the file system has such (its descriptor is then
/// only a cache, see PassthroughFileSystem.Descriptors.cs), else an O_PATH descriptor.</para>
/// <para>Methods may run on any threads, several at a time, but each thread that calls one is changed for good: see
/// <see cref="WorkerThread"/>. Give it to threads made for the purpose.</para>
/// </remarks>
public sealed unsafe partial class PassthroughFileSystem : FuseFileSystem
{
    /// <summary>What is asked about an object that may become a node.</summary>
    internal const StatxMask LookupMask =
        StatxMask.Basic | StatxMask.BirthTime | StatxMask.MountId | StatxMask.MountIdUnique;

    private readonly Share _share;
    private readonly PassthroughOptions _options;
    private readonly NodeTable _nodes;
    private readonly OpenFileTable _files;
    private readonly RememberedHandles _remembered;
    private readonly SpareFiles _spares;
    private readonly MountTable _mounts;
    private readonly DescriptorBudget _budget;
    private readonly EpochDomain _epochs = new();
    private readonly Lifetime _attributeLifetime;
    private readonly Lifetime _entryLifetime;
    private readonly TimeSpan _negativeLifetime;
    private readonly ILogger _logger;
    private bool _announceSubmounts;
    private bool _writeback;
    private bool _killPriv;
    private bool _lacksFchmodat2;
    private bool _lacksOpenTree;
    private bool _posixAcl;
    private bool _hasGroups;
    private bool _isDisposed;

    /// <summary>Starts a session on a share.</summary>
    /// <param name="share">The share; it must outlive the session.</param>
    /// <param name="logger">Hears of guests that lack what the share is to have; null for nobody.</param>
    /// <exception cref="ErrnoException">The shared directory cannot be read.</exception>
    public PassthroughFileSystem(Share share, ILogger? logger = null)
    {
        _share = share;
        _logger = logger ?? NullLogger.Instance;
        _options = share.Options;
        _watch = share.Watch;
        _budget = new DescriptorBudget(share.MaxDescriptors);
        // And one that is never used, and the root.
        _nodes = new NodeTable((uint)_options.MaxNodes + 2);
        _remembered = new RememberedHandles((uint)_options.MaxNodes, _options.Clock);
        _versions = share.Versions;
        _ownVersions = _versions is null
            ? null
            : new SessionVersions(_versions, _versions.Table.Layout.Inodes / _options.MaxSessions);
        _files = new OpenFileTable(_budget, _options.MaxLeftoverBytes, _ownVersions);
        // A sixteenth: nodes, which take up to three quarters, and the guest's open files go first.
        _spares = new SpareFiles(
            _budget, _options.Cache == CacheMode.Never ? 0 : Math.Min(_options.SpareFiles, share.MaxDescriptors / 16));
        _locks = new LockTable(_budget, _options.MaxLocks);
        _lockWaiters = new LockWaiters(_options.MaxLockWaits, _options.LockWaitLimit, OnLockWaitEnd);
        _mounts = new MountTable(_options.FileHandles, WatchMount);
        _pinned = new PinnedPlace[Math.Max(1, share.MaxDescriptors / 4 * 3)];
        _attributeLifetime = new Lifetime(_options.EffectiveAttributeLifetime);
        _entryLifetime = new Lifetime(_options.EffectiveEntryLifetime);
        _negativeLifetime = _options.EffectiveNegativeLifetime;
        try
        {
            SetUpRoot();
            _watch?.Add(this);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Figures about the session, for metrics and tests.</summary>
    internal SessionFigures Figures => new(
        _nodes.LiveCount, _files.OpenCount, _budget.Used, Volatile.Read(ref _pinnedCount), _mounts.Count,
        _nodes.CommittedBytes);

    /// <summary>Handles of what the guest has forgotten; for tests.</summary>
    internal RememberedHandles Remembered => _remembered;

    /// <inheritdoc/>
    public override ValueTask<Errno> InitializeAsync(FuseNegotiation negotiation)
    {
        Destroy();
        _announceSubmounts = _options.AnnounceSubmounts && negotiation.Offers(FuseFeatures.Submounts);
        _writeback = _options.Writeback && negotiation.Offers(FuseFeatures.WritebackCache);
        _hasGroups = negotiation.Offers(FuseFeatures.CreateSuppGroup);
        if (!NegotiatePrivileges(negotiation))
        {
            return new(Errno.EPROTO);
        }

        _recordLocks = _options.EffectiveRemoteLocks && negotiation.Offers(FuseFeatures.PosixLocks);
        FuseFeatures granted = FuseFeatures.AsyncRead | FuseFeatures.AtomicOTrunc | FuseFeatures.BigWrites |
            FuseFeatures.AutoInvalData | FuseFeatures.AsyncDio | FuseFeatures.ParallelDirOps | FuseFeatures.MaxPages |
            FuseFeatures.InitExt | FuseFeatures.CreateSuppGroup | FuseFeatures.AllowIdmap;
        granted |= _announceSubmounts ? FuseFeatures.Submounts : 0;
        granted |= _writeback ? FuseFeatures.WritebackCache : 0;
        granted |= _options.EffectiveRemoteLocks ? FuseFeatures.PosixLocks | FuseFeatures.FlockLocks : 0;
        granted |= _options.AllowMmap ? FuseFeatures.DirectIoAllowMmap : 0;
        if (_options.ReadDirPlus && _options.Cache != CacheMode.Never)
        {
            granted |= FuseFeatures.DoReadDirPlus | FuseFeatures.ReadDirPlusAuto;
        }

        // A guest keeps a target as long as it keeps the node, and a local link with another target is another node.
        if (_options.Cache != CacheMode.Never && !_mounts[_nodes.Root->Mount].IsNetwork)
        {
            granted |= FuseFeatures.CacheSymlinks;
        }

        granted |= _versions is null ? 0 : FuseFeatures.VersionTable;
        negotiation.Granted |= granted | BeginMappings(negotiation);
        return new(Errno.Success);
    }

    /// <inheritdoc/>
    public override void Destroy()
    {
        // Not as an operation: the thread that ends a session is not one that serves, and need not become one. A slot that is
        // freed and used again meanwhile holds a node that has to go as well.
        EndLocks();
        _files.ReleaseAll();
        _spares.DropAll();
        uint slots = _nodes.SlotCount;
        for (uint index = NodeTable.RootIndex + 1; index < slots; index++)
        {
            if (_nodes.RemoveLookups(_nodes.At(index), ulong.MaxValue))
            {
                Retire(index);
                ReclaimIfDue();
            }
        }

        _nodes.Root->Word = 0;
        Reclaim();
    }

    /// <inheritdoc/>
    public override int Settle()
    {
        if (Volatile.Read(ref _retiredCount) != 0)
        {
            Reclaim();
        }

        return _spares.Sweep();
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (!_isDisposed)
        {
            _isDisposed = true;
            StopNotifications();
            StopWatching();
            Destroy();
            _lockWaiters.Dispose();
            var wait = new SpinWait();
            while (Volatile.Read(ref _retiredCount) != 0)
            {
                // A request that still runs would use freed memory; there must be none, or it must end soon.
                Reclaim();
                wait.SpinOnce();
            }

            _files.Dispose();
            ReleaseWord(_nodes.Root);
            _nodes.Dispose();
            _remembered.Dispose();
            _mounts.Dispose();
            _epochs.Dispose();
        }

        base.Dispose(disposing);
    }

    private void SetUpRoot()
    {
        int root = _share.RootDescriptor;
        Files.Statx(root, LookupMask, out StatxBuffer status)
            .ThrowIfError($"look at the shared directory '{_options.SharedDirectory}'");
        Mount mount = _mounts.FindOrAdd(status, root, WorkerThread.ProcessDescriptors)!;
        Node* node = _nodes.Root;
        node->Descriptor = root;
        node->Mount = mount.Index;
        node->Mode = status.Mode;
        node->Inode = status.Inode;
        node->LookupCount = 1;
    }

    // What the host must not tell a guest: ENOSYS would switch the request off for good, and EMFILE names a limit that is
    // the daemon's own.
    internal static Errno Answer(Errno error) => error switch
    {
        Errno.ENOSYS => Errno.EOPNOTSUPP,
        Errno.EMFILE => Errno.ENFILE,
        _ => error,
    };

    private Operation Begin() => new(this);

    /// <summary>The span of one request on one thread: inside it, no node that was found goes away.</summary>
    private readonly ref struct Operation
    {
        private readonly PassthroughFileSystem _owner;

        public Operation(PassthroughFileSystem owner)
        {
            _owner = owner;
            Thread = WorkerThread.Current;
            if (owner._budget.IsNearlyUsedUp)
            {
                // Now, because inside the operation nothing can be reclaimed.
                owner._spares.DropAll();
                _ = owner.Settle();
            }

            owner._epochs.Enter(Thread);
        }

        public WorkerThread Thread { get; }

        /// <summary>Finds a node.</summary>
        /// <param name="id">The id a guest sent.</param>
        /// <param name="node">The node.</param>
        /// <param name="mount">The mount it is on.</param>
        /// <returns>EBADF when there is none.</returns>
        public Errno Find(NodeId id, out Node* node, out Mount mount)
        {
            node = _owner._nodes.Resolve(id);
            if (node == null)
            {
                Unsafe.SkipInit(out mount);
                return Errno.EBADF;
            }

            mount = _owner._mounts[node->Mount];
            if (mount.IsNetwork)
            {
                // There our ids decide what is allowed.
                Thread.ResumeOwn();
            }

            return Errno.Success;
        }

        /// <summary>Finds a directory.</summary>
        /// <param name="id">The id a guest sent.</param>
        /// <param name="node">The directory.</param>
        /// <param name="mount">The mount it is on.</param>
        /// <returns>EBADF when there is no such node, ENOTDIR when it is no directory.</returns>
        public Errno FindDirectory(NodeId id, out Node* node, out Mount mount)
        {
            Errno error = Find(id, out node, out mount);
            return error == Errno.Success && !node->IsDirectory ? Errno.ENOTDIR : error;
        }

        public void Dispose()
        {
            _owner._epochs.Exit(Thread);
            _owner.ReclaimIfDue();
        }
    }

    /// <summary>A lifetime as the wire has it.</summary>
    private readonly struct Lifetime(TimeSpan time)
    {
        public readonly ulong Seconds = (ulong)(time.Ticks / TimeSpan.TicksPerSecond);
        public readonly uint Nanoseconds = (uint)(time.Ticks % TimeSpan.TicksPerSecond) * 100;
    }
}

/// <summary>Figures about a session.</summary>
/// <param name="Nodes">Nodes the guest holds, the root not counted.</param>
/// <param name="OpenFiles">Files and directories it has open.</param>
/// <param name="Descriptors">Descriptors of its nodes and open files.</param>
/// <param name="Pinned">Descriptors held beside file handles.</param>
/// <param name="Mounts">Mounts it has seen.</param>
/// <param name="NodeBytes">Memory committed for nodes, in bytes.</param>
internal readonly record struct SessionFigures(
    long Nodes, long OpenFiles, int Descriptors, int Pinned, int Mounts, long NodeBytes);
