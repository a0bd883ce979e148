using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>
/// Delegations of the kernel for reading (fcntl(2), F_SETDELEG): whoever is about to change the file or directory waits until the holder
/// has given its delegation up, or fs.lease-break-time is over. The holder hears of it by a signal.
/// </summary>
/// <remarks>
/// What is waited for: opening a file for writing, truncation, changes of permissions, owners, times, lists and extended attributes, links
/// made and removed, the file renamed or replaced; of a directory the first of these and all changes of names in it. Not: a directory
/// itself renamed or removed, and ioctl(2). A file that is open for writing gets none.
/// </remarks>
public static unsafe class Delegations
{
    // linux/fcntl.h: F_SETDELEG is F_LINUX_SPECIFIC_BASE + 16. F_SETSIG, F_SETOWN_EX, F_OWNER_TID, F_RDLCK.
    private const int SetDelegation = 1040;
    private const int SetSignal = 10;
    private const int SetOwner = 15;
    private const int OwnerThread = 0;
    private const ushort ForReading = 0;

    // A real-time signal, of which each is kept with its descriptor. The runtime uses the first of those, ThreadInterruption another
    // (arbitrary).
    private const int Signal = 45;

    // SIGIO: what comes when no more signals can be kept, and says nothing. It never gets lost, so it is what we send ourselves.
    private const int Lost = 29;

    // SIG_BLOCK.
    private const int Block = 0;

    /// <summary>The commands of fcntl(2) that are used here, for who filters system calls.</summary>
    public static ReadOnlySpan<uint> Commands => [SetDelegation, SetSignal, SetOwner];

    /// <summary>Has the calling thread hear of what is asked for: it alone, and only by <see cref="Await"/>.</summary>
    /// <returns>The thread's number.</returns>
    /// <exception cref="ErrnoException">The kernel refuses.</exception>
    public static int PrepareThread()
    {
        SignalSet signals = Signals();
        int error = Libc.pthread_sigmask(Block, &signals, null);
        return error == 0 ? Libc.gettid() : throw new ErrnoException((Errno)error, "block a signal");
    }

    /// <summary>Says which thread hears of it when a delegation is asked for that is taken by a descriptor.</summary>
    /// <param name="descriptor">A file or directory, open for reading only.</param>
    /// <param name="thread">What <see cref="PrepareThread"/> returned.</param>
    public static SyscallResult Direct(int descriptor, int thread)
    {
        var owner = new SignalOwner { Type = OwnerThread, Id = thread };
        SyscallResult result = SyscallResult.From(Libc.fcntl(descriptor, SetOwner, (nint)(&owner)));
        return result.IsError ? result : SyscallResult.From(Libc.fcntl(descriptor, SetSignal, Signal));
    }

    /// <summary>Takes a delegation. It ends when the descriptor is closed.</summary>
    /// <param name="descriptor">See <see cref="Direct"/>.</param>
    /// <returns>
    /// EAGAIN while somebody changes it or has it open for writing; EACCES without CAP_LEASE if it is not the caller's; EINVAL where
    /// kernel or file system have none, or fs.leases-enable is 0.
    /// </returns>
    public static SyscallResult Take(int descriptor)
    {
        var delegation = new Delegation { Type = ForReading };
        return SyscallResult.From(Libc.fcntl(descriptor, SetDelegation, (nint)(&delegation)));
    }

    /// <summary>Waits until a delegation is asked for, on the thread that was prepared.</summary>
    /// <param name="milliseconds">For how long.</param>
    /// <param name="descriptor">By which it was taken. It may be closed already, and another file have its number.</param>
    public static DelegationSignal Await(int milliseconds, out int descriptor)
    {
        SignalSet signals = Signals();
        SignalInformation information = default;
        var time = new TimeSpecification { Seconds = milliseconds / 1000, Nanoseconds = milliseconds % 1000 * 1_000_000L };
        int signal = Libc.sigtimedwait(&signals, &information, &time);
        descriptor = information.Descriptor;
        return signal == Signal ? DelegationSignal.One : signal == Lost ? DelegationSignal.Any : DelegationSignal.None;
    }

    /// <summary>Has <see cref="Await"/> return <see cref="DelegationSignal.Any"/>.</summary>
    /// <param name="thread">The thread that waits there, or will.</param>
    public static void Wake(int thread) => _ = Libc.tgkill(Libc.getpid(), thread, Lost);

    private static SignalSet Signals()
    {
        var signals = new SignalSet();
        signals[0] = (1UL << (Signal - 1)) | (1UL << (Lost - 1));
        return signals;
    }

    /// <summary><c>struct f_owner_ex</c>.</summary>
    private struct SignalOwner
    {
        public int Type;
        public int Id;
    }

    /// <summary><c>struct delegation</c>.</summary>
    private struct Delegation
    {
        public uint Flags;
        public ushort Type;
        public ushort Padding;
    }
}

/// <summary>What a thread that waits for delegations to be asked for has heard.</summary>
public enum DelegationSignal
{
    /// <summary>Nothing: the time is over, or it was interrupted.</summary>
    None,

    /// <summary>Somebody waits for one to be given up.</summary>
    One,

    /// <summary>Somebody may wait for any: more were asked for than the kernel keeps signals, or the thread was woken.</summary>
    Any,
}

/// <summary><c>siginfo_t</c> of a signal about a descriptor, 128 bytes.</summary>
[StructLayout(LayoutKind.Explicit, Size = 128)]
internal struct SignalInformation
{
    /// <summary><c>si_fd</c>, behind <c>si_band</c>.</summary>
    [FieldOffset(24)]
    public int Descriptor;
}
