using Causeway.Linux;

namespace Causeway.Fuse;

/// <content>INIT and DESTROY: how a session begins and ends.</content>
public sealed partial class FuseSession
{
    private const uint Major = 7;

    // Newest version whose messages are all understood, and the oldest: where virtio-fs began (fuse-virtiofs.md 1.11).
    private const uint NewestMinor = 46;
    private const uint OldestMinor = 31;

    // fuse_init_in, and the same without what INIT_EXT added.
    private const int LongInitSize = 64;
    private const int ShortInitSize = 16;

    private const uint MinMaxWrite = 4096;
    private const uint NanosecondsPerSecond = 1_000_000_000;

    // READ is limited by this and not by max_write (fuse-virtiofs.md, trap 6).
    private const ushort MaxPages = MaxTransfer / 4096;

    /// <summary>
    /// What a session grants by itself: features of the wire and of concurrency that ask nothing of a file system but
    /// what <see cref="FuseFileSystem"/> asks anyway. All else (caching, READDIRPLUS, umask, privileges, ids, submounts,
    /// SETXATTR_EXT with its duty to clear setgid) a file system adds, because each is a promise about its behaviour.
    /// HAS_IOCTL_DIR promises nothing: a file system without ioctls answers ENOSYS, which a guest turns into ENOTTY.
    /// </summary>
    private const FuseFeatures SessionFeatures =
        FuseFeatures.AsyncRead | FuseFeatures.AtomicOTrunc | FuseFeatures.BigWrites | FuseFeatures.HasIoctlDir
        | FuseFeatures.AsyncDio | FuseFeatures.ParallelDirOps | FuseFeatures.MaxPages | FuseFeatures.InitExt;

    /// <summary>
    /// What can be granted at all. Missing on purpose: what makes sense over /dev/fuse only (SPLICE_*, ABORT_ERROR,
    /// PASSTHROUGH, HAS_RESEND, HAS_EXPIRE_ONLY, and OVER_IO_URING, which hangs a virtio-fs mount); EXPLICIT_INVAL_DATA and
    /// REQUEST_TIMEOUT; and what the session has no opcode or argument for yet: LOOKUP of "." for EXPORT_SUPPORT.
    /// MAP_ALIGNMENT goes with the window.
    /// </summary>
    private const FuseFeatures GrantableFeatures =
        SessionFeatures | FuseFeatures.PosixLocks | FuseFeatures.FlockLocks | FuseFeatures.DontMask
        | FuseFeatures.AutoInvalData | FuseFeatures.DoReadDirPlus
        | FuseFeatures.ReadDirPlusAuto | FuseFeatures.WritebackCache | FuseFeatures.NoOpenSupport
        | FuseFeatures.HandleKillPriv | FuseFeatures.PosixAcl | FuseFeatures.CacheSymlinks
        | FuseFeatures.NoOpenDirSupport | FuseFeatures.Submounts | FuseFeatures.HandleKillPrivV2
        | FuseFeatures.SetXattrExt | FuseFeatures.CreateSuppGroup | FuseFeatures.DirectIoAllowMmap
        | FuseFeatures.SecurityContext | FuseFeatures.NoExportSupport | FuseFeatures.AllowIdmap | FuseFeatures.HasInodeDax
        | FuseFeatures.VersionTable;

    // One while an INIT waits for the file system: a second one on another queue must not start it twice.
    private int _initializing;

    private ValueTask<int> Init(FuseRequest request)
    {
        if (!TryReadInit(request, out FuseInitIn arguments) || !request.HasRoomFor<FuseInitOut>())
        {
            return Refuse(request);
        }

        if (Interlocked.Exchange(ref _initializing, 1) != 0)
        {
            request.Refuse(Errno.EIO, FuseViolation.ConcurrentInit);
            return Refuse(request);
        }

        if (arguments.Major != Major || arguments.Minor < OldestMinor)
        {
            return new(RejectVersion(request, arguments.Major));
        }

        FuseFeatures offered = (FuseFeatures)(arguments.Flags | ((ulong)arguments.Flags2 << 32));

        // The previous session ends here; InitializeAsync makes void what it left.
        Volatile.Write(ref _negotiated, null);
        EndAllWaits();
        if (!BeginVersions(arguments, offered))
        {
            offered &= ~FuseFeatures.VersionTable;
        }

        request.Negotiation = new FuseNegotiation(Math.Min(arguments.Minor, NewestMinor), offered)
        {
            Granted = SessionFeatures & offered,
            MaxReadahead = arguments.MaxReadahead,
            Window = BeginWindow(offered),
        };
        return Finish<InitReply>(request, _fileSystem.InitializeAsync(request.Negotiation));
    }

    // A guest that sees the device's window offers MAP_ALIGNMENT.
    private IDaxWindow? BeginWindow(FuseFeatures offered)
    {
        if (_options.Window is not { } window)
        {
            return null;
        }

        if ((offered & FuseFeatures.MapAlignment) != 0 && window.TryBegin())
        {
            return window;
        }

        window.End();
        return null;
    }

    private bool BeginVersions(in FuseInitIn arguments, FuseFeatures offered)
    {
        if (_options.Versions is not { } versions)
        {
            return false;
        }

        if ((offered & FuseFeatures.VersionTable) != 0
            && arguments.VersionTableMagic == VersionTableLayout.InitMagic
            && arguments.VersionTableAbi == VersionTableLayout.Abi
            && versions.TryBegin())
        {
            return true;
        }

        versions.End();
        return false;
    }

    // 16 bytes up to 7.35, 64 since; a longer one of a later version would only add to the end.
    private static bool TryReadInit(FuseRequest request, out FuseInitIn arguments)
    {
        bool isLong = request.Remaining >= LongInitSize;
        if (!request.TryReadPrefix(isLong ? LongInitSize : ShortInitSize, out arguments))
        {
            return false;
        }

        if ((arguments.Flags & (uint)FuseFeatures.InitExt) == 0)
        {
            arguments.Flags2 = 0;
            return true;
        }

        return isLong || request.Refuse(Errno.EINVAL, FuseViolation.ArgumentsTooShort);
    }

    // A guest with a later major version is told ours and asks again; an older one cannot be served.
    private int RejectVersion(FuseRequest request, uint major)
    {
        try
        {
            Close();
        }
        finally
        {
            Volatile.Write(ref _initializing, 0);
        }

        return major > Major
            ? request.Reply(new FuseInitOut { Major = Major, Minor = NewestMinor })
            : request.ReplyError(Errno.EPROTO);
    }

    private int CompleteInit(FuseRequest request, FuseNegotiation negotiation)
    {
        FuseFeatures granted = negotiation.Granted & negotiation.Offered & GrantableFeatures;
        granted = negotiation.Window is null ? granted & ~FuseFeatures.HasInodeDax : granted | FuseFeatures.MapAlignment;
        if ((granted & FuseFeatures.InitExt) == 0)
        {
            granted &= (FuseFeatures)uint.MaxValue;
        }

        uint maxWrite = Math.Clamp(negotiation.MaxWrite, MinMaxWrite, (uint)MaxTransfer);
        FuseInitOut reply = new()
        {
            Major = Major,
            Minor = negotiation.Minor,
            MaxReadahead = negotiation.MaxReadahead,
            Flags = (uint)granted,
            Flags2 = (uint)((ulong)granted >> 32),
            MaxBackground = negotiation.MaxBackground,
            CongestionThreshold = negotiation.CongestionThreshold,
            MaxWrite = maxWrite,
            TimeGranularity = Math.Clamp(negotiation.TimeGranularity, 1, NanosecondsPerSecond),
            MaxPages = (granted & FuseFeatures.MaxPages) != 0 ? MaxPages : (ushort)0,
            MapAlignment = negotiation.Window is null ? (ushort)0 : MapAlignment,
        };
        if ((granted & FuseFeatures.VersionTable) != 0)
        {
            reply.VersionTableAnswer = VersionTableLayout.InitAnswer;
            reply.VersionTableAbi = VersionTableLayout.Abi;
            reply.VersionTableRegion = VersionTableLayout.RegionId;
        }
        else
        {
            _options.Versions?.End();
        }

        Volatile.Write(
            ref _negotiated,
            new NegotiatedFeatures(negotiation.Minor, granted, maxWrite) { Window = negotiation.Window });
        Log.SessionOpened(_logger, _options.Name, negotiation.Minor, (ulong)granted);
        return request.Reply(in reply);
    }

    private void AbandonInit(FuseRequest request)
    {
        if (request.Negotiation is not null)
        {
            Volatile.Write(ref _initializing, 0);
        }
    }

    private ValueTask<int> Destroy(FuseRequest request)
    {
        if (!request.IsAtEnd())
        {
            return Refuse(request);
        }

        Close();
        return new(request.ReplyEmpty());
    }

    private readonly struct InitReply : IReply<Errno>
    {
        public static int Write(FuseSession session, FuseRequest request, in Errno value)
        {
            int length = value == Errno.Success
                ? session.CompleteInit(request, request.Negotiation!)
                : request.ReplyError(value);
            session.AbandonInit(request);
            return length;
        }
    }
}
