using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Causeway.Linux;

/// <summary>
/// A submission and a completion ring of io_uring(7), for commands of devices (IORING_OP_URING_CMD), for reading files and for
/// waiting for descriptors. Entries have 128 bytes (IORING_SETUP_SQE128).
/// </summary>
/// <remarks>
/// One thread uses it: the one that calls <see cref="Enable"/>. What completes becomes visible in <see cref="Submit"/> and
/// <see cref="Wait"/> only (IORING_SETUP_DEFER_TASKRUN); <see cref="HasNews"/> says whether it is worth to call them.
/// </remarks>
public sealed unsafe class IoUring : IDisposable
{
    /// <summary>IORING_REGISTER_ENABLE_RINGS, all that <see cref="Enable"/> needs of io_uring_register(2).</summary>
    public const int EnableRings = 12;

    /// <summary>Bytes of a command of a device in a submission entry.</summary>
    public const int CommandBytes = 80;

    // The same on all architectures.
    private const nint SetupCall = 425;
    private const nint EnterCall = 426;
    private const nint RegisterCall = 427;

    private readonly SafeFileHandle _ring;
    private readonly Mapping _rings;
    private readonly Mapping _entries;
    private readonly Parameters _parameters;
    private uint _prepared;
    private uint _submitted;
    private uint _taken;

    private IoUring(SafeFileHandle ring, in Parameters parameters)
    {
        _ring = ring;
        _parameters = parameters;
        ulong submissionBytes = parameters.Submission.Array + (parameters.SubmissionEntries * sizeof(uint));
        ulong completionBytes =
            parameters.Completion.Entries + (parameters.CompletionEntries * (ulong)sizeof(CompletionEntry));
        _rings = Mapping.Of(ring, Math.Max(submissionBytes, completionBytes), RingsOffset);
        _entries = Mapping.Of(ring, parameters.SubmissionEntries * (ulong)sizeof(SubmissionEntry), EntriesOffset);
        for (uint i = 0; i < parameters.SubmissionEntries; i++)
        {
            // Entries are submitted in their order; the table in between is not needed.
            At(parameters.Submission.Array + (i * sizeof(uint))) = i;
        }
    }

    /// <summary>Whether there is room to prepare another entry without giving those there are to the kernel.</summary>
    public bool HasRoom => _prepared - _submitted < _parameters.SubmissionEntries;

    /// <summary>Whether something was prepared that the kernel does not have yet.</summary>
    public bool HasPrepared => _prepared != _submitted;

    /// <summary>Whether <see cref="Submit"/> or <see cref="TryTake"/> would find something, without a system call.</summary>
    public bool HasNews => Volatile.Read(ref At(_parameters.Completion.Tail)) != _taken
        || (Volatile.Read(ref At(_parameters.Submission.Flags)) & TaskRun) != 0;

    private int Descriptor => (int)_ring.DangerousGetHandle();

    /// <summary>io_uring_setup(2): makes the rings.</summary>
    /// <param name="entries">How many entries can be prepared at a time; a power of two.</param>
    /// <param name="completions">How many completions there is room for; a power of two, and not fewer.</param>
    /// <param name="ring">The rings, which the caller owns; null after an error.</param>
    /// <returns>ENOSYS or EPERM where io_uring is not to be had; EINVAL when the kernel is too old.</returns>
    public static SyscallResult TryCreate(uint entries, uint completions, out IoUring? ring)
    {
        var parameters = new Parameters
        {
            CompletionEntries = completions,
            Flags = CompletionSize | Disabled | WideEntries | TaskRunFlag | SingleIssuer | DeferTaskRun
                | SubmitAll,
        };
        SyscallResult result = SyscallResult.From(Libc.syscall(SetupCall, (nint)entries, (nint)(&parameters), 0, 0, 0, 0));
        ring = null;
        if (result.IsError)
        {
            return result;
        }

        var handle = new SafeFileHandle(result.Descriptor, ownsHandle: true);
        if ((parameters.Features & NeededFeatures) != NeededFeatures)
        {
            handle.Dispose();
            return SyscallResult.Failed(Errno.EINVAL);
        }

        try
        {
            ring = new IoUring(handle, parameters);
            return result;
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    /// <summary>
    /// io_uring_register(2) with IORING_REGISTER_RESTRICTIONS: from <see cref="Enable"/> on the ring takes nothing else than
    /// <see cref="PrepareRead"/> and <see cref="PrepareWatch"/>, whoever gets hold of it.
    /// </summary>
    public SyscallResult RestrictToReads()
    {
        Span<Restriction> allowed =
        [
            new Restriction { Kind = AllowOperation, Operation = ReadVectors },
            new Restriction { Kind = AllowOperation, Operation = PollAdd },
        ];
        fixed (Restriction* first = allowed)
        {
            return SyscallResult.From(
                Libc.syscall(RegisterCall, Descriptor, RegisterRestrictions, (nint)first, allowed.Length, 0, 0));
        }
    }

    /// <summary>io_uring_register(2) with IORING_REGISTER_ENABLE_RINGS: makes the calling thread the one that submits.</summary>
    public SyscallResult Enable() =>
        SyscallResult.From(Libc.syscall(RegisterCall, Descriptor, EnableRings, 0, 0, 0, 0));

    /// <summary>Prepares a command of a device, IORING_OP_URING_CMD.</summary>
    /// <param name="command">Which, and to whom.</param>
    /// <param name="data">What the device defines, at most <see cref="CommandBytes"/>.</param>
    /// <param name="token">Names it when it completes.</param>
    public void PrepareCommand(in DeviceCommand command, ReadOnlySpan<byte> data, ulong token)
    {
        SubmissionEntry* entry = Next();
        entry->Opcode = UringCommand;
        entry->Descriptor = command.Descriptor;
        entry->Offset = command.Number;
        entry->Address = (ulong)command.Vectors;
        entry->Length = (uint)command.VectorCount;
        entry->UserData = token;
        data.CopyTo(new Span<byte>(&entry->Address3, CommandBytes));
    }

    /// <summary>Prepares to read from a file, IORING_OP_READV. Of a regular file it is short only at the end, as preadv(2) is.</summary>
    /// <param name="descriptor">The open file; it stays open until the read completes.</param>
    /// <param name="destination">Where the bytes go: pieces that stay, with their list, until it completes; at most 1024 (IOV_MAX).</param>
    /// <param name="pieces">How many pieces.</param>
    /// <param name="offset">The position in the file, in bytes.</param>
    /// <param name="token">Names it when it completes.</param>
    public void PrepareRead(int descriptor, IoVector* destination, int pieces, long offset, ulong token)
    {
        SubmissionEntry* entry = Next();
        entry->Opcode = ReadVectors;
        entry->Descriptor = descriptor;
        entry->Offset = (ulong)offset;
        entry->Address = (ulong)destination;
        entry->Length = (uint)pieces;
        entry->UserData = token;
    }

    /// <summary>
    /// Prepares to wait for a descriptor again and again, IORING_OP_POLL_ADD with IORING_POLL_ADD_MULTI: each time that it
    /// becomes readable completes once more, whether or not it has been read meanwhile.
    /// </summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="token">Names it when it is readable.</param>
    public void PrepareWatch(int descriptor, ulong token)
    {
        SubmissionEntry* entry = Next();
        entry->Opcode = PollAdd;
        entry->Descriptor = descriptor;
        entry->Length = Multishot;
        entry->OperationFlags = (uint)PollEvents.Readable;
        entry->UserData = token;
    }

    /// <summary>io_uring_enter(2): gives what was prepared to the kernel, and lets it do what it has to; does not wait.</summary>
    public SyscallResult Submit() => Enter(0, GetEvents, null, 0);

    /// <summary>The same, and waits for something to complete. A signal ends it early.</summary>
    /// <param name="timeoutMilliseconds">How long at most; <see cref="Poll.Forever"/> for without end.</param>
    public SyscallResult Wait(int timeoutMilliseconds)
    {
        if (timeoutMilliseconds == Poll.Forever)
        {
            return Enter(1, GetEvents, null, 0);
        }

        var time = new TimeSpecification
        {
            Seconds = timeoutMilliseconds / 1000,
            Nanoseconds = timeoutMilliseconds % 1000 * 1_000_000L,
        };
        var argument = new WaitArgument { Time = (ulong)(&time) };
        return Enter(1, GetEvents | ExtendedArgument, &argument, sizeof(WaitArgument));
    }

    /// <summary>Takes what has completed.</summary>
    /// <param name="completion">It.</param>
    /// <returns>Whether there was something.</returns>
    public bool TryTake(out IoCompletion completion)
    {
        if (Volatile.Read(ref At(_parameters.Completion.Tail)) == _taken)
        {
            completion = default;
            return false;
        }

        // SAFETY: below the mask, and the kernel made the mapping for as many. It writes an entry before the tail.
        uint index = _taken & (_parameters.CompletionEntries - 1);
        var entry = (CompletionEntry*)(_rings.Address + _parameters.Completion.Entries) + index;
        completion = new IoCompletion(entry->UserData, entry->Result, (entry->Flags & More) != 0);
        Volatile.Write(ref At(_parameters.Completion.Head), ++_taken);
        return true;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _ring.Dispose();
        _rings.Dispose();
        _entries.Dispose();
    }

    private ref uint At(ulong offset) => ref Unsafe.AsRef<uint>(_rings.Address + offset);

    private SubmissionEntry* Next()
    {
        if (!HasRoom)
        {
            Submit().ThrowIfError("submit to a ring");
        }

        // SAFETY: below the mask, and the mapping holds as many. The kernel has taken what was there before.
        SubmissionEntry* entry =
            (SubmissionEntry*)_entries.Address + (_prepared++ & (_parameters.SubmissionEntries - 1));
        *entry = default;
        return entry;
    }

    private SyscallResult Enter(uint least, uint flags, void* argument, int size)
    {
        // Release: pairs with the kernel's load of the tail; the entries come before it.
        Volatile.Write(ref At(_parameters.Submission.Tail), _prepared);
        SyscallResult result = SyscallResult.From(Libc.syscall(
            EnterCall, Descriptor, (nint)(_prepared - _submitted), (nint)least, (nint)flags, (nint)argument, size));
        if (!result.IsError)
        {
            _submitted += (uint)result.Count;
        }

        return result.Error is Errno.EINTR or Errno.ETIME ? new SyscallResult(0) : result;
    }

    /// <summary>A part of the rings that both sides see.</summary>
    private readonly struct Mapping(byte* address, nuint length) : IDisposable
    {
        public byte* Address { get; } = address;

        public static Mapping Of(SafeFileHandle ring, ulong length, long offset) => new(
            (byte*)Memory.Mmap(
                null, (nuint)length, MemoryProtection.Read | MemoryProtection.Write, MapFlags.Shared | MapFlags.Populate,
                (int)ring.DangerousGetHandle(), offset).ThrowIfError("map the rings of io_uring").RawValue,
            (nuint)length);

        public void Dispose() => _ = Memory.Munmap(Address, length);
    }

    /// <summary>IORING_OFF_SQ_RING: both rings, with IORING_FEAT_SINGLE_MMAP.</summary>
    private const long RingsOffset = 0;

    /// <summary>IORING_OFF_SQES</summary>
    private const long EntriesOffset = 0x10000000;

    /// <summary>IORING_SETUP_CQSIZE</summary>
    private const uint CompletionSize = 1 << 3;

    /// <summary>IORING_SETUP_R_DISABLED</summary>
    private const uint Disabled = 1 << 6;

    /// <summary>IORING_SETUP_SUBMIT_ALL: one that fails does not keep others from being submitted.</summary>
    private const uint SubmitAll = 1 << 7;

    /// <summary>IORING_SETUP_TASKRUN_FLAG</summary>
    private const uint TaskRunFlag = 1 << 9;

    /// <summary>IORING_SETUP_SQE128</summary>
    private const uint WideEntries = 1 << 10;

    /// <summary>IORING_SETUP_SINGLE_ISSUER</summary>
    private const uint SingleIssuer = 1 << 12;

    /// <summary>IORING_SETUP_DEFER_TASKRUN</summary>
    private const uint DeferTaskRun = 1 << 13;

    /// <summary>IORING_FEAT_SINGLE_MMAP</summary>
    private const uint SingleMapping = 1 << 0;

    /// <summary>IORING_FEAT_NODROP</summary>
    private const uint DropsNothing = 1 << 1;

    /// <summary>IORING_FEAT_EXT_ARG</summary>
    private const uint HasExtendedArgument = 1 << 8;

    private const uint NeededFeatures = SingleMapping | DropsNothing | HasExtendedArgument;

    /// <summary>IORING_SQ_TASKRUN</summary>
    private const uint TaskRun = 1 << 2;

    /// <summary>IORING_ENTER_GETEVENTS</summary>
    private const uint GetEvents = 1 << 0;

    /// <summary>IORING_ENTER_EXT_ARG</summary>
    private const uint ExtendedArgument = 1 << 3;

    /// <summary>IORING_REGISTER_RESTRICTIONS</summary>
    private const nint RegisterRestrictions = 11;

    /// <summary>IORING_RESTRICTION_SQE_OP</summary>
    private const ushort AllowOperation = 1;

    /// <summary>IORING_OP_READV</summary>
    private const byte ReadVectors = 1;

    /// <summary>IORING_OP_POLL_ADD</summary>
    private const byte PollAdd = 6;

    /// <summary>IORING_OP_URING_CMD</summary>
    private const byte UringCommand = 46;

    /// <summary>IORING_POLL_ADD_MULTI</summary>
    private const uint Multishot = 1 << 0;

    /// <summary>IORING_CQE_F_MORE</summary>
    private const uint More = 1 << 1;

    /// <summary><c>struct io_uring_params</c></summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct Parameters
    {
        internal uint SubmissionEntries;
        internal uint CompletionEntries;
        internal uint Flags;
        internal uint ThreadProcessor;
        internal uint ThreadIdle;
        internal uint Features;
        internal uint Workers;
        internal uint Reserved0;
        internal uint Reserved1;
        internal uint Reserved2;
        internal SubmissionOffsets Submission;
        internal CompletionOffsets Completion;
    }

    /// <summary><c>struct io_sqring_offsets</c></summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct SubmissionOffsets
    {
        internal uint Head;
        internal uint Tail;
        internal uint Mask;
        internal uint Count;
        internal uint Flags;
        internal uint Dropped;
        internal uint Array;
        internal uint Reserved0;
        internal ulong UserAddress;
    }

    /// <summary><c>struct io_cqring_offsets</c></summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct CompletionOffsets
    {
        internal uint Head;
        internal uint Tail;
        internal uint Mask;
        internal uint Count;
        internal uint Overflow;
        internal uint Entries;
        internal uint Flags;
        internal uint Reserved0;
        internal ulong UserAddress;
    }

    /// <summary><c>struct io_uring_sqe</c>, with the second half that a wide entry has.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 128)]
    internal struct SubmissionEntry
    {
        internal byte Opcode;
        internal byte Flags;
        internal ushort Priority;
        internal int Descriptor;
        internal ulong Offset;
        internal ulong Address;
        internal uint Length;
        internal uint OperationFlags;
        internal ulong UserData;
        internal ushort BufferIndex;
        internal ushort Personality;
        internal int FileIndex;
        internal ulong Address3;
    }

    /// <summary><c>struct io_uring_cqe</c></summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct CompletionEntry
    {
        internal ulong UserData;
        internal int Result;
        internal uint Flags;
    }

    /// <summary><c>struct io_uring_restriction</c></summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct Restriction
    {
        internal ushort Kind;
        internal byte Operation;
        internal byte Reserved0;
        internal uint Reserved1;
        internal uint Reserved2;
        internal uint Reserved3;
    }

    /// <summary><c>struct io_uring_getevents_arg</c></summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct WaitArgument
    {
        internal ulong SignalMask;
        internal uint SignalMaskSize;
        internal uint Reserved0;
        internal ulong Time;
    }
}

/// <summary>What has completed.</summary>
/// <param name="Token">What it was named.</param>
/// <param name="Result">What became of it, or a negated errno.</param>
/// <param name="IsMoreToCome">Whether it goes on and completes again (IORING_CQE_F_MORE).</param>
public readonly record struct IoCompletion(ulong Token, int Result, bool IsMoreToCome)
{
    /// <summary>What went wrong; success otherwise.</summary>
    public Errno Error => Result < 0 ? (Errno)(-Result) : Errno.Success;
}

/// <summary>A command of a device.</summary>
/// <param name="descriptor">The device.</param>
/// <param name="number">The command, by its own numbers.</param>
/// <param name="vectors">Pieces of memory that it is about, which stay until it is submitted; null for none.</param>
/// <param name="vectorCount">How many.</param>
public readonly unsafe struct DeviceCommand(int descriptor, uint number, IoVector* vectors = null, int vectorCount = 0)
{
    /// <summary>The device.</summary>
    public int Descriptor { get; } = descriptor;

    /// <summary>The command.</summary>
    public uint Number { get; } = number;

    /// <summary>Pieces of memory.</summary>
    public IoVector* Vectors { get; } = vectors;

    /// <summary>How many.</summary>
    public int VectorCount { get; } = vectorCount;
}
