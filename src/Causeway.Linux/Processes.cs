namespace Causeway.Linux;

/// <summary>What concerns the whole process.</summary>
public static class Processes
{
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
}
