using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>
/// Calls a thread back from a system call that waits: the call returns EINTR. There is no other way to end a wait for a file
/// lock.
/// </summary>
/// <remarks>
/// It is done with a signal of our own whose handler does nothing: a function of the C library that is safe in a handler, since
/// managed code is not. A signal that comes before the thread has entered the call is lost, so whoever wants a thread back
/// repeats it until it is.
/// </remarks>
public static unsafe class ThreadInterruption
{
    // A real-time signal; the runtime uses the first of those, and nobody else here uses any (arbitrary).
    private const int Signal = 44;

    // SIG_UNBLOCK. asm-generic/signal-defs.h.
    private const int Unblock = 1;

    private static int s_isPrepared;

    /// <summary>Has the calling thread come back when it is interrupted.</summary>
    /// <returns>The thread's number, for <see cref="Interrupt"/>.</returns>
    /// <exception cref="ErrnoException">The kernel refuses.</exception>
    public static int PrepareThread()
    {
        if (Interlocked.Exchange(ref s_isPrepared, 1) == 0)
        {
            InstallHandler();
        }

        // Whoever started the daemon may have left the signal blocked.
        var mask = new SignalSet();
        mask[(Signal - 1) / 64] = 1UL << ((Signal - 1) % 64);
        int error = Libc.pthread_sigmask(Unblock, &mask, null);
        return error == 0 ? Libc.gettid() : throw new ErrnoException((Errno)error, "unblock a signal");
    }

    /// <summary>Interrupts the system call that a thread of this process is waiting in.</summary>
    /// <param name="thread">What <see cref="PrepareThread"/> returned there.</param>
    public static SyscallResult Interrupt(int thread) =>
        SyscallResult.From(Libc.tgkill(Libc.getpid(), thread, Signal));

    private static void InstallHandler()
    {
        // SAFETY: getpid takes no arguments, and the calling convention lets a function ignore those it is given.
        nint handler;
        fixed (byte* name = "getpid\0"u8)
        {
            handler = Libc.dlsym(0, name);
        }

        var action = new SignalAction { Handler = handler };
        SyscallResult.From(handler == 0 ? -1 : Libc.sigaction(Signal, &action, null)).ThrowIfError("handle a signal");
    }
}

/// <summary><c>sigset_t</c> of the C library, 128 bytes.</summary>
[InlineArray(16)]
internal struct SignalSet
{
    private ulong _spareWord;
}

/// <summary><c>struct sigaction</c> of the C library, 152 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct SignalAction
{
    public nint Handler;
    public SignalSet Mask;
    public int Flags;
    public nint Restorer;
}
