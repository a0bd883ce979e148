using System.Runtime.InteropServices;
using Causeway.Fuse;
using Causeway.Linux;

namespace Causeway.Driver.Bridge;

/// <content>
/// With a version table: what is answered here, what replies say of versions, and files that the device opens only when something is
/// to be read from them. Such a request goes in the slot it came in, one message after the other:
/// <code>
///   kernel: READ     -> device: OPEN ... READ                 -> kernel
///   kernel: RELEASE  -> device: RELEASE, for each open handle -> kernel; to the kernel at once, if there is none
/// </code>
/// </content>
internal sealed unsafe partial class BridgeWorker
{
    private const int HeaderSize = 40;

    // The longest that names a handle and is kept aside while the file is opened: IOCTL with its structure.
    private const int MaxAside = 256;

    private readonly byte[]?[] _aside = new byte[RingShare.MostSlots][];
    private readonly LazyHandle?[] _closing = new LazyHandle?[RingShare.MostSlots];
    private readonly byte[] _ownReply = GC.AllocateUninitializedArray<byte>(256, pinned: true);

    private enum LazyStage
    {
        None,
        Opening,
        Closing,
    }

    // Whether a FORGET has to go to the device; its counts are corrected.
    private bool ForgetHere(byte* message, int length)
    {
        if (_bridge.Coherency is not { } coherency)
        {
            return true;
        }

        var header = (FuseInHeader*)message;
        if (header->Opcode == FuseOpcode.Forget)
        {
            ulong* count = (ulong*)(message + HeaderSize);
            *count = coherency.Forget(header->NodeId, *count);
            return *count != 0;
        }

        // fuse_batch_forget_in: count 4, dummy 4; then nodeid 8 and nlookup 8 each.
        for (int offset = HeaderSize + 8; offset + sizeof(FuseForgetOne) <= length; offset += sizeof(FuseForgetOne))
        {
            var entry = (FuseForgetOne*)(message + offset);
            entry->LookupCount = coherency.Forget(entry->NodeId, entry->LookupCount);
        }

        return true;
    }

    // Whether a request is answered without the device, or is on its way in stages.
    private bool AnswerHere(BridgeCoherency coherency, in KernelRequest request, in FuseInHeader header)
    {
        byte* message = request.Message;
        var sent = new SentRequest(header.Opcode, header.NodeId, 0);
        ReadOnlySpan<byte> arguments = new(message + HeaderSize, request.Length - HeaderSize);
        Volatile.Write(ref _deliveries, _deliveries + 1);
        Interlocked.MemoryBarrier();
        bool isAnswered = coherency.TryAnswer(sent, arguments, _ownReply, out int length, out Errno error);
        if (isAnswered)
        {
            AnswerOwn(request.Slot, header.Unique, error, length);
            _kernel.Flush();
        }

        Volatile.Write(ref _deliveries, _deliveries + 1);
        if (isAnswered)
        {
            return true;
        }

        ulong* place = HandleIn(header.Opcode, message, request.Length);
        if (place == null || !LazyHandles.IsLazy(*place))
        {
            return false;
        }

        bool isEnd = header.Opcode is FuseOpcode.Release or FuseOpcode.ReleaseDir;
        LazyHandle? handle = isEnd ? coherency.Handles.Remove(*place) : coherency.Handles.Find(*place);
        if (handle is null)
        {
            AnswerError(request.Slot, header.Unique, Errno.EBADF);
            return true;
        }

        if (isEnd)
        {
            return Close(request, header, handle, place);
        }

        if (handle.Opened is { } opened)
        {
            *place = opened;
            return false;
        }

        switch (header.Opcode)
        {
            case FuseOpcode.Flush or FuseOpcode.Fsync or FuseOpcode.FsyncDir:
                // Nothing was written or locked.
                AnswerOwn(request.Slot, header.Unique, Errno.Success, 0);
                return true;

            case FuseOpcode.GetAttr:
                ((FuseGetAttrIn*)(message + HeaderSize))->Flags = FuseGetAttrFlags.None;
                return false;

            default:
                return Open(request, header, handle);
        }
    }

    private void AnswerOwn(int slot, RequestId unique, Errno error, int length)
    {
        if (error != Errno.Success)
        {
            AnswerError(slot, unique, error);
            return;
        }

        var header = new FuseOutHeader { Length = (uint)(ReplyHeaderSize + length), Unique = unique };
        fixed (byte* body = _ownReply)
        {
            _kernel.Answer(slot, header, body, length);
        }
    }

    // Where a request names a handle; null where it does not.
    private static ulong* HandleIn(FuseOpcode opcode, byte* message, int length)
    {
        int offset = opcode switch
        {
            FuseOpcode.Read or FuseOpcode.Release or FuseOpcode.Flush or FuseOpcode.Fsync or FuseOpcode.ReadDir
                or FuseOpcode.ReadDirPlus or FuseOpcode.ReleaseDir or FuseOpcode.FsyncDir or FuseOpcode.Lseek
                or FuseOpcode.Ioctl or FuseOpcode.GetLk or FuseOpcode.SetLk or FuseOpcode.SetLkWait or FuseOpcode.Poll
                or FuseOpcode.CopyFileRange or FuseOpcode.CopyFileRange64 => HeaderSize,
            FuseOpcode.GetAttr or FuseOpcode.SetAttr or FuseOpcode.Statx => HeaderSize + 8,
            _ => -1,
        };
        return offset < 0 || offset + sizeof(ulong) > length ? null : (ulong*)(message + offset);
    }

    private bool Open(in KernelRequest request, in FuseInHeader header, LazyHandle handle)
    {
        if (request.Length > MaxAside)
        {
            AnswerError(request.Slot, header.Unique, Errno.EIO);
            return true;
        }

        byte[] aside = _aside[request.Slot] ??= GC.AllocateUninitializedArray<byte>(MaxAside, pinned: true);
        new ReadOnlySpan<byte>(request.Message, request.Length).CopyTo(aside);
        const int openLength = HeaderSize + 8;
        FuseOpcode opcode = handle.IsDirectory ? FuseOpcode.OpenDir : FuseOpcode.Open;
        *(FuseInHeader*)request.Message = header with { Length = openLength, Opcode = opcode, ProcessId = 0 };
        *(FuseOpenIn*)(request.Message + HeaderSize) = new FuseOpenIn { Flags = handle.Flags };
        Begin(request, header, LazyStage.Opening, opcode, openLength);
        return true;
    }

    private bool Close(in KernelRequest request, in FuseInHeader header, LazyHandle handle, ulong* place)
    {
        if (!handle.TryTake(out ulong opened))
        {
            AnswerOwn(request.Slot, header.Unique, Errno.Success, 0);
            return true;
        }

        // Requests at the same time may have had it opened more than once.
        *place = opened;
        _closing[request.Slot] = handle;
        Begin(request, header, LazyStage.Closing, header.Opcode, request.Length);
        return true;
    }

    private void Begin(in KernelRequest request, in FuseInHeader header, LazyStage stage, FuseOpcode opcode, int length)
    {
        _inFlight[request.Slot] = new InFlight(
            header.Unique, header.Opcode, request.Request with { Length = length }, request.Reply, _bridge.InvalidationCount)
        {
            Stage = stage,
            Sent = opcode,
        };
        _waitingLocks += header.Opcode == FuseOpcode.SetLkWait ? 1 : 0;
        _count++;
        Submit(request.Slot);
    }

    // One stage has been answered. False: it was the last, and the reply is the kernel's.
    private bool GoOn(int slot, ref InFlight request, in FuseOutHeader header, byte* body)
    {
        byte* message = _queue.Memory(slot) + request.Request.Offset;
        if (request.Stage == LazyStage.Closing)
        {
            if (!_closing[slot]!.TryTake(out ulong next))
            {
                _closing[slot] = null;
                return false;
            }

            *(ulong*)(message + HeaderSize) = next;
            Submit(slot);
            return true;
        }

        byte[] aside = _aside[slot]!;
        request.Stage = LazyStage.None;
        if (header.Error != 0)
        {
            // As the reply to what the kernel has asked: the file cannot be opened any more.
            return false;
        }

        ulong opened = ((FuseOpenOut*)body)->Handle.Value;
        var original = MemoryMarshal.Read<FuseInHeader>(aside);
        aside.AsSpan(0, (int)original.Length).CopyTo(new Span<byte>(message, MaxAside));
        ((FuseInHeader*)message)->ProcessId = 0;
        ulong* place = HandleIn(original.Opcode, message, (int)original.Length);
        LazyHandle? handle = place == null ? null : _bridge.Coherency!.Handles.Find(*place);
        if (handle is null)
        {
            // The kernel closes nothing that it still reads from.
            return false;
        }

        *place = handle.Add(opened);
        request.Sent = request.Opcode;
        request.Request = request.Request with { Length = (int)original.Length };
        Submit(slot);
        return true;
    }

    private void PrepareVersions(BridgeCoherency coherency, int slot, ref InFlight request)
    {
        byte* message = _queue.Memory(slot) + request.Request.Offset;
        request.Node = ((FuseInHeader*)message)->NodeId;
        bool hasTags = FuseVersionTags.AreIn(request.Sent);
        int before = request.TagBytes;
        request.TagBytes = hasTags ? FuseVersionTags.Size : 0;

        // The tags lie between the header and the body, which stays where it is.
        int more = request.TagBytes - before;
        request.ReplyPart = new SlotPart(request.ReplyPart.Offset - more, request.ReplyPart.Length + more);
        request.Epoch = coherency.Epoch;
        coherency.HasSent(new SentRequest(request.Sent, request.Node, request.Epoch));
    }

    private void DeliverVersioned(
        BridgeCoherency coherency, int slot, in InFlight request, FuseOutHeader header, byte* reply)
    {
        var sent = new SentRequest(request.Sent, request.Node, request.Epoch);
        byte* body = reply + ReplyHeaderSize;
        int length = (int)header.Length - ReplyHeaderSize;

        // Odd while a reply is on its way, see WaitForDelivery: what is found current now is known to the kernel before it can
        // be told that it is not any more.
        Volatile.Write(ref _deliveries, _deliveries + 1);
        Interlocked.MemoryBarrier();
        if (request.TagBytes != 0 && header.Error == 0)
        {
            FuseVersionTags tags = *(FuseVersionTags*)body;
            body += request.TagBytes;
            length -= request.TagBytes;
            byte* message = _queue.Memory(slot) + request.Request.Offset;
            ReadOnlySpan<byte> arguments = new(message + HeaderSize, Math.Max(request.Request.Length - HeaderSize, 0));
            length = coherency.Learn(sent, arguments, tags, body, length);
            header.Length = (uint)(ReplyHeaderSize + length);
        }

        _kernel.Answer(slot, header, body, length);
        _kernel.Flush();
        Volatile.Write(ref _deliveries, _deliveries + 1);
        coherency.HasReturned(sent);
    }
}
