using Causeway.Linux;
using Microsoft.Extensions.Logging;

namespace Causeway.Fuse;

/// <summary>
/// The server's end of one guest's FUSE connection: checks requests, calls the file system, writes replies.
/// </summary>
/// <remarks>
/// <para>The session keeps the rules of the wire (lengths, names, numbers, room for the reply) so that a
/// <see cref="FuseFileSystem"/> is only called with arguments that make sense; whether a node or handle exists is for the
/// file system to say. Nothing a guest sends ends the session.</para>
/// <code>
///          INIT                     INIT again: the file system starts anew
///  closed ------> open -----------------------------------------------------> open
///    ^             |
///    +-------------+  DESTROY, Reset; everything but INIT answers EIO when closed
/// </code>
/// <para>Requests may be dispatched on any thread, several at a time, each with a <see cref="FuseRequest"/> of its own.
/// A request that was dispatched before an INIT or DESTROY may still run when the file system is told.</para>
/// </remarks>
public sealed partial class FuseSession
{
    /// <summary>Longest READ and WRITE in bytes: 256 pages, which is what Linux allows.</summary>
    public const int MaxTransfer = 1 << 20;

    // passthrough.md 3.0: what virtiofsd takes.
    private const uint MaxRequestBytes = MaxTransfer + 4096;

    private readonly FuseFileSystem _fileSystem;
    private readonly FuseSessionOptions _options;
    private readonly ILogger _logger;

    // Null while closed.
    private NegotiatedFeatures? _negotiated;

    /// <summary>Makes a session. It is closed until INIT.</summary>
    /// <param name="fileSystem">What the guest sees. The caller owns it.</param>
    /// <param name="options">How the session behaves.</param>
    /// <param name="logger">Where a guest that breaks the protocol, and a file system that throws, are reported.</param>
    public FuseSession(FuseFileSystem fileSystem, FuseSessionOptions options, ILogger logger)
    {
        ArgumentNullException.ThrowIfNull(fileSystem);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(logger);
        _fileSystem = fileSystem;
        _options = options;
        _logger = logger;
    }

    /// <summary>Whether a guest has the session open: between INIT and DESTROY.</summary>
    public bool IsOpen => Volatile.Read(ref _negotiated) is not null;

    /// <summary>Handles a request.</summary>
    /// <param name="request">The request. It belongs to the session until the task completes.</param>
    /// <returns>
    /// How many bytes of the reply were written: the used length of the chain. Zero when the request is one that is never
    /// answered, or there was no room for an answer. The task never fails.
    /// </returns>
    public ValueTask<int> DispatchAsync(FuseRequest request)
    {
        try
        {
            return Dispatch(request);
        }
        catch (Exception exception)
        {
            return new(Fail(request, exception));
        }
    }

    /// <summary>
    /// The guest went away or its device was reset: ends the session as DESTROY does. No request may be in flight.
    /// </summary>
    public void Reset()
    {
        Volatile.Write(ref _initializing, 0);
        try
        {
            Close();
        }
        catch (Exception exception)
        {
            Log.FileSystemFailed(_logger, exception, _options.Name, FuseOpcode.Destroy);
        }
    }

    /// <summary>The calling thread of the transport has answered all it had and is about to wait.</summary>
    /// <returns>After how many milliseconds to call again if no request comes; <see cref="Timeout.Infinite"/> for not at all.</returns>
    public int Settle()
    {
        try
        {
            return _fileSystem.Settle();
        }
        catch (Exception exception)
        {
            Log.SettleFailed(_logger, exception, _options.Name);
            return Timeout.Infinite;
        }
    }

    private ValueTask<int> Dispatch(FuseRequest request)
    {
        if (!request.TryCopyHeader())
        {
            Report(request, FuseViolation.NoHeader);
            return new(request.ReplyNoHeader());
        }

        FuseOpcode opcode = request.Header.Opcode;
        request.Counters.CountRequest(opcode);
        request.Context.Reset(in request.Header);
        request.Negotiated = Volatile.Read(ref _negotiated);
        request.PlaceBody(request.Negotiated is { HasVersions: true } && FuseVersionTags.AreIn(opcode));
        if (!IsAcceptable(request, opcode))
        {
            return Refuse(request);
        }

        // WRITE's payload stays in guest memory, and BATCH_FORGET is read piece by piece.
        if (opcode is not (FuseOpcode.Write or FuseOpcode.BatchForget)
            && IsImplemented(opcode) && !request.TryCopyArguments())
        {
            return Refuse(request);
        }

        return Handle(request, opcode);
    }

    private static bool IsAcceptable(FuseRequest request, FuseOpcode opcode)
    {
        // An operation whose result cannot be told is not done. DESTROY's has no content.
        if (request.IsAnswered && !request.HasRoomFor(0) && opcode != FuseOpcode.Destroy)
        {
            return request.Refuse(Errno.EIO, FuseViolation.NoReplySpace);
        }

        if (!request.IsLengthValid(MaxRequestBytes))
        {
            return false;
        }

        return request.Negotiated is not null || opcode == FuseOpcode.Init
            || request.Refuse(Errno.EIO, FuseViolation.NotInitialized);
    }

    // BMAP and POLL are not; nor are opcodes of another byte order or a later version.
    private static bool IsImplemented(FuseOpcode opcode) => opcode switch
    {
        FuseOpcode.Bmap or FuseOpcode.Poll or FuseOpcode.NotifyReply => false,
        _ => opcode.IsKnown(),
    };

    private ValueTask<int> Handle(FuseRequest request, FuseOpcode opcode) => opcode switch
    {
        FuseOpcode.Lookup => Lookup(request),
        FuseOpcode.Forget => Forget(request),
        FuseOpcode.GetAttr => GetAttr(request),
        FuseOpcode.SetAttr => SetAttr(request),
        FuseOpcode.ReadLink => ReadLink(request),
        FuseOpcode.Symlink => Symlink(request),
        FuseOpcode.Mknod => Mknod(request),
        FuseOpcode.Mkdir => Mkdir(request),
        FuseOpcode.Unlink => Unlink(request),
        FuseOpcode.Rmdir => Rmdir(request),
        FuseOpcode.Rename => Rename(request),
        FuseOpcode.Link => Link(request),
        FuseOpcode.Open => Open(request),
        FuseOpcode.Read => Read(request),
        FuseOpcode.Write => Write(request),
        FuseOpcode.Statfs => Statfs(request),
        FuseOpcode.Release => Release(request),
        FuseOpcode.Fsync => Fsync(request),
        FuseOpcode.SetXattr => SetXattr(request),
        FuseOpcode.GetXattr => GetXattr(request),
        FuseOpcode.ListXattr => ListXattr(request),
        FuseOpcode.RemoveXattr => RemoveXattr(request),
        FuseOpcode.Flush => Flush(request),
        FuseOpcode.Init => Init(request),
        FuseOpcode.OpenDir => OpenDir(request),
        FuseOpcode.ReadDir => ReadDir(request, isPlus: false),
        FuseOpcode.ReleaseDir => ReleaseDir(request),
        FuseOpcode.FsyncDir => FsyncDir(request),
        FuseOpcode.GetLk => GetLk(request),
        FuseOpcode.SetLk => SetLk(request, mayWait: false),
        FuseOpcode.SetLkWait => SetLk(request, mayWait: true),
        FuseOpcode.Access => Access(request),
        FuseOpcode.Create => Create(request),
        FuseOpcode.Interrupt => Interrupt(request),
        FuseOpcode.Destroy => Destroy(request),
        FuseOpcode.Ioctl => Ioctl(request),
        FuseOpcode.NotifyReply => new(0),
        FuseOpcode.BatchForget => BatchForget(request),
        FuseOpcode.Fallocate => Fallocate(request),
        FuseOpcode.ReadDirPlus => ReadDir(request, isPlus: true),
        FuseOpcode.Rename2 => Rename2(request),
        FuseOpcode.Lseek => Lseek(request),
        FuseOpcode.CopyFileRange => CopyFileRange(request, isLong: false),
        FuseOpcode.SetupMapping => SetupMapping(request),
        FuseOpcode.RemoveMapping => RemoveMapping(request),
        FuseOpcode.SyncFs => SyncFs(request),
        FuseOpcode.Tmpfile => Tmpfile(request),
        FuseOpcode.Statx => Statx(request),
        FuseOpcode.CopyFileRange64 => CopyFileRange(request, isLong: true),
        _ => new(request.ReplyError(Errno.ENOSYS)),
    };

    private void Close()
    {
        if (Interlocked.Exchange(ref _negotiated, null) is not null)
        {
            EndAllWaits();
            _fileSystem.Destroy();
            _options.Window?.End();
            _options.Versions?.End();
        }
    }
}
