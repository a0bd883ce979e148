namespace Causeway.Linux;

/// <summary>What concerns a whole process.</summary>
public static unsafe class Processes
{
    // include/linux/posix-timers.h: the clock of all threads of a process together, with the scheduler's precision.
    private const int ProcessorClock = 2;

    // asm-generic/signal.h; the same on x86-64, arm64 and riscv64.
    private const int FileSizeSignal = 25;
    private const nint Ignore = 1;

    /// <summary>
    /// Has writes beyond RLIMIT_FSIZE fail with EFBIG, as setrlimit(2) describes, instead of ending the process by SIGXFSZ.
    /// </summary>
    public static void IgnoreFileSizeSignal() => Libc.signal(FileSizeSignal, Ignore);

    /// <summary>_exit(2): ends the process at once, without handlers or finalizers.</summary>
    /// <param name="status">The exit status.</param>
    public static void ExitNow(int status) => Libc._exit(status);

    /// <summary>
    /// getrandom(2): numbers that nobody can foresee. Works in a process that has locked itself in, where the runtime's own source
    /// finds neither its library nor a device.
    /// </summary>
    /// <param name="bytes">Filled completely; up to 256 bytes, which the kernel delivers at once.</param>
    /// <exception cref="ErrnoException">The kernel refuses.</exception>
    public static void FillRandom(Span<byte> bytes)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(bytes.Length, 256);
        fixed (byte* start = bytes)
        {
            SyscallResult.From(Libc.getrandom(start, (nuint)bytes.Length, 0)).ThrowIfError("get random numbers");
        }
    }

    /// <summary>
    /// The processor time that all threads of a process have taken, ended ones included: the clock of clock_getcpuclockid(3).
    /// </summary>
    /// <param name="process">The process.</param>
    /// <param name="nanoseconds">The time.</param>
    /// <returns>Success, or EINVAL when there is no such process.</returns>
    public static SyscallResult ProcessorTime(int process, out long nanoseconds)
    {
        TimeSpecification time = default;
        SyscallResult result = SyscallResult.From(Libc.clock_gettime((~process << 3) | ProcessorClock, &time));
        nanoseconds = (time.Seconds * 1_000_000_000) + time.Nanoseconds;
        return result;
    }
}
