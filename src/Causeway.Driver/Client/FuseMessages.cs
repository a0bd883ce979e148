using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver;

/// <summary>
/// Requests and replies one by one: writes arguments, checks replies. Errors of the file system are results; a device that
/// is lost or breaks the protocol is an exception.
/// </summary>
internal sealed class FuseMessages(VirtioFsTransport transport, uint userId, uint groupId)
{
    // Without MAX_PAGES a request has at most 32 pages (fs/fuse/fuse_i.h, FUSE_DEFAULT_MAX_PAGES_PER_REQ).
    private const int DefaultPages = 32;

    private const uint Minor = 38;
    private const uint OldestMinor = 27;

    private const FuseFeatures Wanted =
        FuseFeatures.AsyncRead | FuseFeatures.AtomicOTrunc | FuseFeatures.BigWrites | FuseFeatures.DoReadDirPlus
        | FuseFeatures.ParallelDirOps | FuseFeatures.AsyncDio | FuseFeatures.MaxPages | FuseFeatures.AutoInvalData
        | FuseFeatures.PosixLocks | FuseFeatures.FlockLocks;

    private volatile bool _isEnding;

    internal VirtioFsTransport Transport => transport;

    /// <summary>The longest READ in bytes.</summary>
    internal int MaxRead { get; private set; } = 4096;

    /// <summary>The longest WRITE in bytes.</summary>
    internal int MaxWrite { get; private set; } = 4096;

    internal FuseFeatures Features { get; private set; }

    // Whether replies carry tags; see FuseVersionTags.
    private bool HasVersions => (Features & FuseFeatures.VersionTable) != 0;

    /// <summary>Alignment of DAX mappings, as a power of two; when the device maps nothing, more than can be.</summary>
    internal int MapAlignment { get; private set; } = int.MaxValue;

    /// <summary>INIT: starts a session, and checks what the device answers.</summary>
    /// <param name="more">Features that are wanted as well.</param>
    /// <param name="cancellationToken">Stops waiting.</param>
    internal async ValueTask InitializeAsync(FuseFeatures more, CancellationToken cancellationToken)
    {
        FuseFeatures wanted = Wanted | more;
        var arguments = new FuseInitIn
        {
            Major = 7,
            Minor = Minor,
            MaxReadahead = 1 << 20,
            Flags = (uint)wanted,
            Flags2 = (uint)((ulong)wanted >> 32),
        };
        if (wanted.HasFlag(FuseFeatures.VersionTable))
        {
            arguments.VersionTableMagic = VersionTableLayout.InitMagic;
            arguments.VersionTableAbi = VersionTableLayout.Abi;
        }

        using Exchange exchange = await ExchangeAsync(
            new Target(FuseOpcode.Init, NodeId.None), arguments, default, null, cancellationToken).ConfigureAwait(false);
        FuseInitOut reply = default;
        int length = exchange.BodyLength;
        if (exchange.Error != Errno.Success)
        {
            throw new VirtioFsDeviceException(
                DeviceFailure.NotVirtioFs,
                $"the device refuses to start a session: {ErrnoException.Describe(exchange.Error)}");
        }

        if (length is >= 24 and <= 64)
        {
            // Older daemons send less; what is missing is zero.
            exchange.Body[..length].CopyTo(MemoryMarshal.AsBytes(new Span<FuseInitOut>(ref reply)));
        }

        var granted = (FuseFeatures)reply.Flags;
        if (granted.HasFlag(FuseFeatures.InitExt))
        {
            granted |= (FuseFeatures)((ulong)reply.Flags2 << 32);
        }

        if (reply.Major != 7 || reply.Minor < OldestMinor || (granted & ~wanted) != 0 || reply.MaxWrite < 4096)
        {
            throw new VirtioFsDeviceException(
                DeviceFailure.NotVirtioFs,
                $"the device answers INIT with version {reply.Major}.{reply.Minor}, flags 0x{reply.Flags:x} and writes of "
                + $"{reply.MaxWrite} bytes in {length} bytes, so it is no FUSE device that can be used");
        }

        if (granted.HasFlag(FuseFeatures.VersionTable)
            && (reply.VersionTableAnswer, reply.VersionTableAbi, reply.VersionTableRegion)
                != (VersionTableLayout.InitAnswer, VersionTableLayout.Abi, VersionTableLayout.RegionId))
        {
            throw new VirtioFsDeviceException(
                DeviceFailure.NotVirtioFs,
                "the device means something else by the feature bit of version tables, so its replies cannot be read");
        }

        Features = granted;
        MapAlignment = granted.HasFlag(FuseFeatures.MapAlignment) ? reply.MapAlignment : int.MaxValue;
        int pages = granted.HasFlag(FuseFeatures.MaxPages) ? Math.Max(1, (int)reply.MaxPages) : DefaultPages;
        MaxRead = Math.Min(transport.PayloadBytes, pages * 4096);
        MaxWrite = Math.Min(MaxRead, (int)Math.Min(reply.MaxWrite, int.MaxValue)) / 4096 * 4096;
    }

    /// <summary>A request whose reply is a structure.</summary>
    internal async ValueTask<Result<TReply>> CallAsync<TArguments, TReply>(
        Target target, TArguments arguments, Names names, FuseCompletion? late, CancellationToken cancellationToken)
        where TArguments : unmanaged
        where TReply : unmanaged
    {
        using Exchange exchange = await ExchangeAsync(target, arguments, names, late, cancellationToken).ConfigureAwait(false);
        if (exchange.Error != Errno.Success)
        {
            return exchange.Error;
        }

        return exchange.TryRead(out TReply reply) ? reply : throw Malformed(target);
    }

    /// <summary>A request whose reply is empty.</summary>
    internal ValueTask<Errno> CallAsync<TArguments>(
        Target target, TArguments arguments, Names names, CancellationToken cancellationToken)
        where TArguments : unmanaged =>
        CallAsync(target, arguments, names, late: null, cancellationToken);

    /// <summary>The same with somebody who takes the reply that comes when nobody waits any more.</summary>
    internal async ValueTask<Errno> CallAsync<TArguments>(
        Target target, TArguments arguments, Names names, FuseCompletion? late, CancellationToken cancellationToken)
        where TArguments : unmanaged
    {
        using Exchange exchange = await ExchangeAsync(target, arguments, names, late, cancellationToken).ConfigureAwait(false);
        return exchange.Error != Errno.Success || exchange.BodyLength == 0 ? exchange.Error : throw Malformed(target);
    }

    /// <summary>A request whose reply is a node: checked, and its lookup given back when nobody waits any more.</summary>
    internal async ValueTask<Result<NodeEntry>> CallEntryAsync<TArguments>(
        Target target, TArguments arguments, Names names, CancellationToken cancellationToken)
        where TArguments : unmanaged
    {
        Result<NodeEntry> result = await CallAsync<TArguments, NodeEntry>(
            target,
            arguments,
            names,
            (call, reply) =>
            {
                if (TryReadBody(call, reply, target.Opcode, out NodeEntry entry) && entry.NodeId != NodeId.None)
                {
                    transport.Forget(new FuseForgetOne { NodeId = entry.NodeId, LookupCount = 1 });
                }
            },
            cancellationToken).ConfigureAwait(false);
        if (result.IsError)
        {
            return result;
        }

        // A name that does not exist and may be remembered as such.
        if (target.Opcode == FuseOpcode.Lookup && result.Value.NodeId == NodeId.None)
        {
            return Errno.ENOENT;
        }

        return IsValid(result.Value) ? result : throw Malformed(target);
    }

    /// <summary>OPEN, OPENDIR.</summary>
    internal ValueTask<Result<FuseOpenOut>> OpenAsync(
        FuseOpcode opcode, NodeId node, uint flags, CancellationToken cancellationToken) =>
        CallAsync<FuseOpenIn, FuseOpenOut>(
            new Target(opcode, node),
            new FuseOpenIn { Flags = flags },
            default,
            (call, reply) =>
            {
                if (TryReadBody(call, reply, opcode, out FuseOpenOut open))
                {
                    ReleaseLate(opcode == FuseOpcode.Open ? FuseOpcode.Release : FuseOpcode.ReleaseDir, node, open.Handle);
                }
            },
            cancellationToken);

    /// <summary>CREATE and TMPFILE.</summary>
    internal async ValueTask<Result<FuseCreateOut>> CreateAsync(
        Target target, string name, FuseCreateIn arguments, CancellationToken cancellationToken)
    {
        Result<FuseCreateOut> result = await CallAsync<FuseCreateIn, FuseCreateOut>(
            target,
            arguments,
            new Names(name),
            (call, reply) =>
            {
                if (TryReadBody(call, reply, target.Opcode, out FuseCreateOut created))
                {
                    ReleaseLate(FuseOpcode.Release, created.Entry.NodeId, created.Open.Handle);
                    transport.Forget(new FuseForgetOne { NodeId = created.Entry.NodeId, LookupCount = 1 });
                }
            },
            cancellationToken).ConfigureAwait(false);
        return result.IsError || (IsValid(result.Value.Entry) && result.Value.Entry.Attributes.Mode >> 12 == (int)FileKind.File)
            ? result
            : throw Malformed(target);
    }

    /// <summary>SETLK and SETLKW. A lock that comes when nobody waits any more is given back.</summary>
    /// <param name="target">Which of the two, of which node.</param>
    /// <param name="arguments">The lock.</param>
    /// <param name="late">Takes the task that ends when the device has answered a request that was given up.</param>
    /// <param name="cancellationToken">Gives it up.</param>
    internal async ValueTask<Errno> SetLockAsync(
        Target target, FuseLkIn arguments, Action<Task> late, CancellationToken cancellationToken)
    {
        var answered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        FuseCall call = await transport.RentCallAsync(cancellationToken).ConfigureAwait(false);
        Write(call, target, arguments, default, payload: 0);
        FuseReply reply = await Send(
            call,
            (_, lateReply) =>
            {
                if (lateReply.Error == Errno.Success)
                {
                    Post(new Target(FuseOpcode.SetLk, target.Node), arguments with { Type = FuseLockType.Unlock });
                }

                answered.SetResult();
            },
            cancellationToken).ConfigureAwait(false);
        if (reply.Status == FuseReplyStatus.Abandoned)
        {
            late(answered.Task);
            throw new OperationCanceledException(cancellationToken);
        }

        call.Return();
        ThrowIfNotAnswered(target, reply);
        return reply.Error != Errno.Success || reply.BodyLength == 0 ? reply.Error : throw Malformed(target);
    }

    /// <summary>
    /// READ, READDIR and READDIRPLUS into a buffer of guest memory, which stays the caller's. Cancelling asks the device to
    /// stop, by EINTR, and does not end the wait: the device may write to the buffer until it answers.
    /// </summary>
    internal async ValueTask<Result<int>> ReadAsync(
        Target target, FuseReadIn arguments, GuestPiece destination, CancellationToken cancellationToken)
    {
        FuseCall call = await transport.RentCallAsync(CancellationToken.None).ConfigureAwait(false);
        arguments.Size = (uint)destination.Length;
        RequestId unique = Write(call, target, arguments, default, payload: 0);
        call.ReplyCapacity = BodyStart(target.Opcode);
        call.ReplyPayload = destination;
        ValueTask<FuseReply> pending = call.SubmitAsync(transport.PreferredQueue(), cancellationToken: default);
        FuseReply reply;
        using (cancellationToken.UnsafeRegister(_ => transport.Interrupt(unique), null))
        {
            reply = await pending.ConfigureAwait(false);
        }

        // The buffer is not the call's.
        call.ReplyPayload = default;
        int length = TakeTags(call, reply, target);
        call.Return();
        ThrowIfNotAnswered(target, reply);
        return reply.Error != Errno.Success ? reply.Error : length >= 0 ? length : throw Malformed(target);
    }

    /// <summary>WRITE from a buffer of guest memory, which stays the caller's.</summary>
    internal async ValueTask<Result<int>> WriteAsync(NodeId node, FuseWriteIn arguments, GuestPiece source)
    {
        var target = new Target(FuseOpcode.Write, node);
        FuseCall call = await transport.RentCallAsync().ConfigureAwait(false);
        arguments.Size = (uint)source.Length;
        Write(call, target, arguments, default, source.Length);
        call.RequestPayload = source;
        FuseReply reply = await call.SubmitAsync(transport.PreferredQueue()).ConfigureAwait(false);
        bool isComplete = TryReadBody(call, reply, FuseOpcode.Write, out FuseWriteOut written);
        call.RequestPayload = default;
        call.Return();
        ThrowIfNotAnswered(target, reply);
        if (reply.Error != Errno.Success)
        {
            return reply.Error;
        }

        return isComplete && written.Size <= source.Length ? (int)written.Size : throw Malformed(target);
    }

    /// <summary>READ with a copy to memory of the caller, at most <see cref="MaxRead"/> bytes.</summary>
    internal async ValueTask<Result<int>> ReadAsync(
        NodeId node, FuseReadIn arguments, Memory<byte> destination, CancellationToken cancellationToken)
    {
        var target = new Target(FuseOpcode.Read, node);
        GuestBuffer buffer = await transport.RentBufferAsync(cancellationToken).ConfigureAwait(false);
        FuseCall call = await RentCallAsync(buffer, cancellationToken).ConfigureAwait(false);
        int length = Math.Min(destination.Length, MaxRead);
        arguments.Size = (uint)length;
        Write(call, target, arguments, default, payload: 0);
        call.ReplyCapacity = BodyStart(target.Opcode);
        call.ReplyPayload = new GuestPiece(buffer, 0, length);
        FuseReply reply = await SubmitAsync(call, null, cancellationToken).ConfigureAwait(false);
        int read = TakeTags(call, reply, target);
        if (read > 0)
        {
            buffer.Span[..read].CopyTo(destination.Span);
        }

        call.Return();
        ThrowIfNotAnswered(target, reply);
        return reply.Error != Errno.Success ? reply.Error : read >= 0 ? read : throw Malformed(target);
    }

    /// <summary>WRITE with a copy from memory of the caller, at most <see cref="MaxWrite"/> bytes.</summary>
    internal async ValueTask<Result<int>> WriteAsync(
        NodeId node,
        FuseWriteIn arguments,
        ReadOnlyMemory<byte> source,
        ReplyNote? note,
        CancellationToken cancellationToken)
    {
        var target = new Target(FuseOpcode.Write, node, note);
        GuestBuffer buffer = await transport.RentBufferAsync(cancellationToken).ConfigureAwait(false);
        FuseCall call = await RentCallAsync(buffer, cancellationToken).ConfigureAwait(false);
        int length = Math.Min(source.Length, MaxWrite);
        source.Span[..length].CopyTo(buffer.Span);
        arguments.Size = (uint)length;
        Write(call, target, arguments, default, length);
        call.RequestPayload = new GuestPiece(buffer, 0, length);
        FuseReply reply = await SubmitAsync(call, null, cancellationToken).ConfigureAwait(false);
        TakeTags(call, reply, target);
        bool isComplete = TryReadBody(call, reply, FuseOpcode.Write, out FuseWriteOut written);
        call.Return();
        ThrowIfNotAnswered(target, reply);
        if (reply.Error != Errno.Success)
        {
            return reply.Error;
        }

        return isComplete && written.Size <= length ? (int)written.Size : throw Malformed(target);
    }

    /// <summary>SETUPMAPPING. Not to be given up halfway: nobody would know what is mapped.</summary>
    internal ValueTask<Errno> SetupMappingAsync(NodeId node, FuseSetupMappingIn arguments) =>
        CallAsync(new Target(FuseOpcode.SetupMapping, node), arguments, default, CancellationToken.None);

    /// <summary>REMOVEMAPPING of one range.</summary>
    internal ValueTask<Errno> RemoveMappingAsync(ulong offset, ulong length) => CallAsync(
        new Target(FuseOpcode.RemoveMapping, NodeId.Root), new OneRemoval(1, offset, length), default, CancellationToken.None);

    /// <summary>REMOVEMAPPING, for nobody who waits.</summary>
    /// <param name="ranges">The ranges, as many as fit a call; the state of the call at its end.</param>
    /// <param name="done">Returns the call.</param>
    /// <returns>Whether it was sent, or will be.</returns>
    internal bool TryRemoveMappings(WindowRange[] ranges, FuseCompletion done)
    {
        FuseCall? call;
        try
        {
            call = transport.TryRentCall();
        }
        catch (ObjectDisposedException)
        {
            return false;
        }

        if (call is null)
        {
            return false;
        }

        Write(
            call,
            new Target(FuseOpcode.RemoveMapping, NodeId.Root),
            new FuseRemoveMappingIn { Count = (uint)ranges.Length },
            default,
            payload: Unsafe.SizeOf<FuseRemoveMappingOne>() * ranges.Length);
        Span<byte> entries = call.Request[call.RequestLength..];
        foreach (WindowRange range in ranges)
        {
            MemoryMarshal.Write(entries, new FuseRemoveMappingOne
            {
                WindowOffset = (ulong)range.Index << ClientWindow.RangeShift,
                Length = ClientWindow.RangeBytes,
            });
            entries = entries[Unsafe.SizeOf<FuseRemoveMappingOne>()..];
            call.RequestLength += Unsafe.SizeOf<FuseRemoveMappingOne>();
        }

        call.State = ranges;
        call.Submit(transport.PreferredQueue(), done);
        return true;
    }

    /// <summary>A request whose reply has a length of its own, up to a payload buffer.</summary>
    internal async ValueTask<Result<byte[]>> CallBytesAsync<TArguments>(
        Target target, TArguments arguments, Names names, int capacity, CancellationToken cancellationToken)
        where TArguments : unmanaged
    {
        GuestBuffer buffer = await transport.RentBufferAsync(cancellationToken).ConfigureAwait(false);
        FuseCall call = await RentCallAsync(buffer, cancellationToken).ConfigureAwait(false);
        call.ReplyPayload = new GuestPiece(buffer, 0, Math.Min(capacity, buffer.Length));
        Write(call, target, arguments, names, payload: 0);
        call.ReplyCapacity = BodyStart(target.Opcode);
        FuseReply reply = await SubmitAsync(call, null, cancellationToken).ConfigureAwait(false);
        int length = TakeTags(call, reply, target);
        byte[] body = length > 0 ? buffer.Span[..length].ToArray() : [];
        call.Return();
        ThrowIfNotAnswered(target, reply);
        return reply.Error != Errno.Success ? reply.Error : length >= 0 ? body : throw Malformed(target);
    }

    /// <summary>A request that is followed by bytes, at most a payload buffer, and has an empty reply.</summary>
    internal async ValueTask<Errno> SendBytesAsync<TArguments>(
        Target target, TArguments arguments, Names names, ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
        where TArguments : unmanaged
    {
        if (bytes.Length > transport.PayloadBytes)
        {
            return Errno.E2BIG;
        }

        GuestBuffer buffer = await transport.RentBufferAsync(cancellationToken).ConfigureAwait(false);
        FuseCall call = await RentCallAsync(buffer, cancellationToken).ConfigureAwait(false);
        bytes.Span.CopyTo(buffer.Span);
        call.RequestPayload = new GuestPiece(buffer, 0, bytes.Length);
        Write(call, target, arguments, names, bytes.Length);
        FuseReply reply = await SubmitAsync(call, null, cancellationToken).ConfigureAwait(false);
        int length = TakeTags(call, reply, target);
        call.Return();
        ThrowIfNotAnswered(target, reply);
        return reply.Error != Errno.Success || length == 0 ? reply.Error : throw Malformed(target);
    }

    internal static VirtioFsDeviceException Malformed(Target target) => new(
        DeviceFailure.MalformedReply, $"the device's reply to {target.Opcode} of node {target.Node.Value} breaks the protocol");

    /// <summary>Whether a node can be one (fuse-virtiofs reference, 6.4).</summary>
    internal static bool IsValid(in NodeEntry entry) =>
        entry.NodeId != NodeId.None && entry.NodeId != NodeId.Root && IsValid(entry.Attributes);

    /// <summary>Whether attributes can be those of a node.</summary>
    internal static bool IsValid(in FuseAttributes attributes) =>
        attributes.Size <= long.MaxValue
        && (FileKind)(attributes.Mode >> 12) is FileKind.Pipe or FileKind.CharacterDevice or FileKind.Directory
            or FileKind.BlockDevice or FileKind.File or FileKind.SymbolicLink or FileKind.Socket;

    /// <summary>Sends a call. When nobody waits any more, it is the device's, with all its buffers.</summary>
    private async ValueTask<FuseReply> SubmitAsync(
        FuseCall call, FuseCompletion? late, CancellationToken cancellationToken)
    {
        FuseReply reply = await Send(call, late, cancellationToken).ConfigureAwait(false);
        return reply.Status != FuseReplyStatus.Abandoned
            ? reply
            : throw new OperationCanceledException(cancellationToken);
    }

    private ValueTask<FuseReply> Send(FuseCall call, FuseCompletion? late, CancellationToken cancellationToken)
    {
        try
        {
            return call.SubmitAsync(transport.PreferredQueue(), late, cancellationToken);
        }
        catch (OperationCanceledException)
        {
            // It was not sent.
            call.Return();
            throw;
        }
    }

    /// <summary>
    /// DESTROY comes next. A device answers EIO to what it takes up after that, which says nothing of the file: who still waits is
    /// told of the end instead.
    /// </summary>
    internal void BeginEnd() => _isEnding = true;

    private void ThrowIfNotAnswered(Target target, FuseReply reply)
    {
        if (_isEnding && reply.Error == Errno.EIO)
        {
            throw DeviceConnection.Closed();
        }

        switch (reply.Status)
        {
            case FuseReplyStatus.Malformed:
                throw Malformed(target);
            case FuseReplyStatus.Lost:
                // Exceptions are not shared: each has the stack of its own caller.
                VirtioFsDeviceException loss = transport.Loss!;
                throw new VirtioFsDeviceException(loss.Failure, loss.Message, loss);
            default:
                break;
        }
    }

    private async ValueTask<FuseCall> RentCallAsync(GuestBuffer buffer, CancellationToken cancellationToken)
    {
        try
        {
            return await transport.RentCallAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            buffer.Return();
            throw;
        }
    }

    private async ValueTask<Exchange> ExchangeAsync<TArguments>(
        Target target, TArguments arguments, Names names, FuseCompletion? late, CancellationToken cancellationToken)
        where TArguments : unmanaged
    {
        FuseCall call = await transport.RentCallAsync(cancellationToken).ConfigureAwait(false);
        FuseReply reply;
        try
        {
            Write(call, target, arguments, names, payload: 0);
        }
        catch
        {
            call.Return();
            throw;
        }

        reply = await SubmitAsync(call, late, cancellationToken).ConfigureAwait(false);
        try
        {
            ThrowIfNotAnswered(target, reply);
            int length = TakeTags(call, reply, target);
            return reply.Error != Errno.Success || length >= 0
                ? new Exchange(call, reply.Error, BodyStart(target.Opcode), length)
                : throw Malformed(target);
        }
        catch
        {
            call.Return();
            throw;
        }
    }

    /// <summary>Where the body of a successful reply starts: behind the header, or behind the tags that follow it.</summary>
    private int BodyStart(FuseOpcode opcode) => HasVersions && FuseVersionTags.AreIn(opcode)
        ? FuseCall.ReplyHeaderBytes + FuseVersionTags.Size
        : FuseCall.ReplyHeaderBytes;

    /// <summary>Takes the tags of a successful reply, which has them in the call's own memory.</summary>
    /// <returns>How long the body is; negative when there is no proper reply.</returns>
    private int TakeTags(FuseCall call, FuseReply reply, Target target)
    {
        int length = reply.BodyLength + FuseCall.ReplyHeaderBytes - BodyStart(target.Opcode);
        if (reply.Error != Errno.Success || length < 0)
        {
            return -1;
        }

        if (target.Note is { } note && HasVersions && FuseVersionTags.AreIn(target.Opcode))
        {
            note.Tags = MemoryMarshal.Read<FuseVersionTags>(call.Reply[FuseCall.ReplyHeaderBytes..]);
        }

        return length;
    }

    private bool TryReadBody<T>(FuseCall call, FuseReply reply, FuseOpcode opcode, out T body)
        where T : unmanaged
    {
        int start = BodyStart(opcode);
        if (reply.Error != Errno.Success
            || reply.BodyLength + FuseCall.ReplyHeaderBytes - start != Unsafe.SizeOf<T>()
            || reply.Header.Length > call.ReplyCapacity)
        {
            body = default;
            return false;
        }

        body = MemoryMarshal.Read<T>(call.Reply[start..]);
        return true;
    }

    private RequestId Write<TArguments>(FuseCall call, Target target, TArguments arguments, Names names, int payload)
        where TArguments : unmanaged
    {
        int fixedBytes = typeof(TArguments) == typeof(NoArguments) ? 0 : Unsafe.SizeOf<TArguments>();
        Span<byte> request = call.Request;
        int length = FuseCall.RequestHeaderBytes;
        if (fixedBytes > 0)
        {
            MemoryMarshal.Write(request[length..], in arguments);
            length += fixedBytes;
        }

        length += WriteName(request[length..], names.First);
        length += WriteName(request[length..], names.Second);
        RequestId unique = transport.NextUnique();
        MemoryMarshal.Write(request, new FuseInHeader
        {
            Length = (uint)(length + payload),
            Opcode = target.Opcode,
            Unique = unique,
            NodeId = target.Node,
            UserId = userId,
            GroupId = groupId,
            ProcessId = (uint)Environment.ProcessId,
        });
        call.RequestLength = length;
        call.ReplyCapacity = FuseCall.ControlBytes;
        return unique;
    }

    private static int WriteName(Span<byte> destination, string? name)
    {
        if (name is null)
        {
            return 0;
        }

        // Checked before by Names; a zero byte ends it, and guest memory is used again and again.
        int length = Encoding.UTF8.GetBytes(name, destination);
        destination[length] = 0;
        return length + 1;
    }

    /// <summary>Closes what was opened for somebody who does not wait any more.</summary>
    private void ReleaseLate(FuseOpcode opcode, NodeId node, HandleId handle) =>
        Post(new Target(opcode, node), new FuseReleaseIn { Handle = handle });

    /// <summary>A request that nobody waits for. Nobody learns whether it works.</summary>
    internal void Post<TArguments>(Target target, TArguments arguments)
        where TArguments : unmanaged
    {
        if (transport.TryRentCall() is { } call)
        {
            Post(call, target, arguments);
        }
        else
        {
            // What waits may be what holds all calls; it is not forgotten meanwhile.
            _ = PostLaterAsync(target, arguments);
        }
    }

    private async Task PostLaterAsync<TArguments>(Target target, TArguments arguments)
        where TArguments : unmanaged
    {
        try
        {
            Post(await transport.RentCallAsync().ConfigureAwait(false), target, arguments);
        }
        catch (ObjectDisposedException)
        {
            // The session has ended, and everything in it.
        }
    }

    private void Post<TArguments>(FuseCall call, Target target, TArguments arguments)
        where TArguments : unmanaged
    {
        Write(call, target, arguments, default, payload: 0);
        call.Submit(transport.PreferredQueue(), static (done, _) => done.Return());
    }

    /// <summary>What a request is, and of which node.</summary>
    /// <param name="Opcode">The opcode.</param>
    /// <param name="Node">The node.</param>
    /// <param name="Note">Takes what the reply vouches for; null where nobody keeps it.</param>
    internal readonly record struct Target(FuseOpcode Opcode, NodeId Node, ReplyNote? Note = null);

    /// <summary>A request without fixed arguments.</summary>
    internal readonly struct NoArguments;

    /// <summary>The names behind the fixed arguments; they fit the control area because their bytes were counted.</summary>
    internal readonly record struct Names(string? First, string? Second = null)
    {
        private const int Room = FuseCall.ControlBytes - FuseCall.RequestHeaderBytes - 128;

        /// <summary>Why the names cannot be sent; success when they can.</summary>
        internal Errno Check()
        {
            int bytes = 0;
            foreach (string? name in (ReadOnlySpan<string?>)[First, Second])
            {
                if (name is not null)
                {
                    bytes += Encoding.UTF8.GetByteCount(name) + 1;
                    if (name.Length == 0)
                    {
                        return Errno.ENOENT;
                    }

                    if (name.Contains('\0', StringComparison.Ordinal))
                    {
                        return Errno.EINVAL;
                    }
                }
            }

            return bytes > Room ? Errno.ENAMETOOLONG : Errno.Success;
        }
    }

    /// <summary>The arguments of REMOVEMAPPING with one range, which is not aligned.</summary>
    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    private readonly record struct OneRemoval(uint Count, ulong WindowOffset, ulong Length);

    /// <summary>A call that was answered; disposing returns it.</summary>
    private readonly struct Exchange(FuseCall call, Errno error, int bodyStart, int bodyLength) : IDisposable
    {
        internal Errno Error => error;

        internal int BodyLength => bodyLength;

        internal ReadOnlySpan<byte> Body => call.Reply[bodyStart..];

        internal bool TryRead<T>(out T body)
            where T : unmanaged
        {
            bool isWhole = bodyLength == Unsafe.SizeOf<T>() && bodyStart + bodyLength <= call.ReplyCapacity;
            body = isWhole ? MemoryMarshal.Read<T>(Body) : default;
            return isWhole;
        }

        public void Dispose() => call.Return();
    }
}
