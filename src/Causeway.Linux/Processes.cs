namespace Causeway.Linux;

/// <summary>What concerns the whole process.</summary>
public static class Processes
{
    /// <summary>_exit(2): ends the process at once, without handlers or finalizers.</summary>
    /// <param name="status">The exit status.</param>
    public static void ExitNow(int status) => Libc._exit(status);
}
