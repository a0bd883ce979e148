using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>
/// Makes touching pages that are not there survivable: in a guarded range of addresses SIGBUS, which would end the process,
/// becomes a page of zeros of this process alone and a flag that says so.
/// </summary>
/// <remarks>
/// <para>Memory that is a file's ends where the file ends, and somebody else can truncate the file at any time. A system call that
/// copies would answer EFAULT instead, but costs several times what the copy does, and is no help to whoever has a span.</para>
/// <para>So a handler of SIGBUS takes care of it, in machine code (FaultGuard.x64.s): the signal hits threads in the middle of
/// managed code, where managed code must not be called. It puts an anonymous page where the access was, and lets it happen
/// again. SIGBUS elsewhere goes to whoever handled it before. Whoever owns the range looks at the flags after each use,
/// and then has the range mapped anew.</para>
/// <para>Only x86-64 has such a handler so far. Where there is none, or code must not be made at run time,
/// <see cref="TryCreate"/> says no.</para>
/// </remarks>
public sealed unsafe class FaultGuard : IDisposable
{
    /// <summary>Bytes of addresses that share a flag.</summary>
    public const ulong GranuleBytes = 1UL << 21;

    private const int BusError = 7;
    private const int SignalInformation = 0x4;
    private const int AlternateStack = 0x0800_0000;
    private const nuint PageBytes = 4096;
    private const int MaxGuards = 64;
    private const int FirstGuard = 64;

    private static readonly Lock s_gate = new();
    private static byte* s_table;
    private static bool s_isTried;

    private readonly Guard* _guard;
    private readonly byte* _flags;
    private readonly ulong _granules;
    private bool _isDisposed;

    private FaultGuard(Guard* guard, ulong granules)
    {
        _guard = guard;
        _granules = granules;
        _flags = (byte*)NativeMemory.AllocZeroed((nuint)granules);
    }

    /// <summary>How many faults there were in the range.</summary>
    public long Count => Volatile.Read(ref _guard->Count);

    /// <summary>The handler, as FaultGuard.x64.s assembles. What it needs is in the page behind.</summary>
    internal static ReadOnlySpan<byte> Handler =>
    [
        0x4c, 0x8d, 0x05, 0x39, 0x10, 0x00, 0x00, 0xb9, 0x40, 0x00, 0x00, 0x00, 0x48, 0x8b, 0x46, 0x10,
        0x49, 0x2b, 0x00, 0x49, 0x3b, 0x40, 0x08, 0x72, 0x33, 0x49, 0x83, 0xc0, 0x20, 0xff, 0xc9, 0x75,
        0xeb, 0x48, 0x8b, 0x05, 0xd8, 0x0f, 0x00, 0x00, 0x48, 0x83, 0xf8, 0x01, 0x76, 0x02, 0xff, 0xe0,
        0xbf, 0x07, 0x00, 0x00, 0x00, 0x48, 0x8d, 0x35, 0xcc, 0x0f, 0x00, 0x00, 0x31, 0xd2, 0x41, 0xba,
        0x08, 0x00, 0x00, 0x00, 0xb8, 0x0d, 0x00, 0x00, 0x00, 0x0f, 0x05, 0xc3, 0x48, 0xc1, 0xe8, 0x15,
        0x49, 0x03, 0x40, 0x10, 0xc6, 0x00, 0x01, 0xf0, 0x49, 0xff, 0x40, 0x18, 0x48, 0x8b, 0x7e, 0x10,
        0x48, 0x81, 0xe7, 0x00, 0xf0, 0xff, 0xff, 0xbe, 0x00, 0x10, 0x00, 0x00, 0xba, 0x03, 0x00, 0x00,
        0x00, 0x41, 0xba, 0x32, 0x00, 0x00, 0x00, 0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0x45, 0x31,
        0xc9, 0xb8, 0x09, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77, 0xa0,
        0xc3,
    ];

    /// <summary>Guards a range of addresses.</summary>
    /// <param name="address">Its start, a multiple of 4096.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <returns>The guard, to be disposed of before the range is given back; null when this machine has none, or too many are in use.</returns>
    public static FaultGuard? TryCreate(byte* address, ulong length)
    {
        lock (s_gate)
        {
            if (!s_isTried)
            {
                s_isTried = true;
                s_table = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? TryInstall() : null;
            }

            if (s_table == null)
            {
                return null;
            }

            var guards = (Guard*)(s_table + FirstGuard);
            for (int i = 0; i < MaxGuards; i++)
            {
                if (guards[i].Length == 0)
                {
                    var guard = new FaultGuard(&guards[i], (length + GranuleBytes - 1) / GranuleBytes);
                    guards[i].Count = 0;
                    guards[i].Flags = guard._flags;
                    guards[i].Start = address;

                    // The handler may run in any thread from here on.
                    Volatile.Write(ref guards[i].Length, length);
                    return guard;
                }
            }

            return null;
        }
    }

    /// <summary>Whether a missing page was touched since the last <see cref="Reset"/>.</summary>
    /// <param name="granule">Which piece of <see cref="GranuleBytes"/> bytes.</param>
    public bool IsHit(int granule) => Volatile.Read(ref _flags[granule]) != 0;

    /// <summary>The same for several pieces.</summary>
    /// <param name="first">The first piece.</param>
    /// <param name="count">How many.</param>
    public bool AreHit(int first, int count)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((ulong)first + (ulong)count, _granules);
        return new ReadOnlySpan<byte>(_flags + first, count).Contains((byte)1);
    }

    /// <summary>Takes a flag down, once the pages of zeros have been replaced and nobody uses the piece.</summary>
    /// <param name="granule">Which piece.</param>
    public void Reset(int granule) => Volatile.Write(ref _flags[granule], 0);

    /// <summary>Ends it. Nobody may touch the range any more.</summary>
    public void Dispose()
    {
        lock (s_gate)
        {
            if (!_isDisposed)
            {
                _isDisposed = true;
                Volatile.Write(ref _guard->Length, 0);
                NativeMemory.Free(_flags);
            }
        }
    }

    // One page of code and one of data. The handler stays for as long as the process does.
    private static byte* TryInstall()
    {
        SyscallResult mapped = Memory.Mmap(
            null,
            2 * PageBytes,
            MemoryProtection.Read | MemoryProtection.Write,
            MapFlags.Private | MapFlags.Anonymous,
            descriptor: -1,
            offset: 0);
        if (mapped.IsError)
        {
            return null;
        }

        var code = (byte*)mapped.RawValue;
        Handler.CopyTo(new Span<byte>(code, (int)PageBytes));
        SignalAction previous = default;
        var action = new SignalAction { Handler = (nint)code, Flags = SignalInformation | AlternateStack };
        if (Memory.Mprotect(code, PageBytes, MemoryProtection.Read | MemoryProtection.Execute).IsError
            || Libc.sigaction(BusError, null, &previous) != 0)
        {
            _ = Memory.Munmap(code, 2 * PageBytes);
            return null;
        }

        *(nint*)(code + PageBytes) = previous.Handler;
        return Libc.sigaction(BusError, &action, null) == 0 ? code + PageBytes : null;
    }

    // The layout is the handler's.
    [StructLayout(LayoutKind.Sequential)]
    private struct Guard
    {
        public byte* Start;
        public ulong Length;
        public byte* Flags;
        public long Count;
    }
}
