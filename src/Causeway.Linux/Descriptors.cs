namespace Causeway.Linux;

/// <summary>Descriptors as such, whatever is behind them.</summary>
public static class Descriptors
{
    private const int CloseOnExec = 0x80000;

    /// <summary>
    /// dup3(2) with O_CLOEXEC: puts what is behind one descriptor behind another, atomically. A call that another thread
    /// has begun on <paramref name="target"/> ends on what was behind it before.
    /// </summary>
    /// <param name="source">What to duplicate.</param>
    /// <param name="target">The descriptor that changes; open, and not <paramref name="source"/>.</param>
    public static SyscallResult Dup3(int source, int target)
    {
        while (true)
        {
            SyscallResult result = SyscallResult.From(Libc.dup3(source, target, CloseOnExec));
            if (result.Error is not (Errno.EINTR or Errno.EBUSY))
            {
                return result;
            }
        }
    }
}
