namespace Causeway.Linux;

/// <summary>Descriptors as such, whatever is behind them.</summary>
public static class Descriptors
{
    private const int CloseOnExec = 0x80000;
    private const int GetDescriptorFlags = 1;
    private const int SetDescriptorFlags = 2;
    private const int GetStatusFlags = 3;
    private const int SetStatusFlags = 4;
    private const int CloseOnExecFlag = 1;

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

    /// <summary>fcntl(2) with F_SETFD: whether programs that are started from now on have the descriptor as well.</summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="isInheritable">Whether they have.</param>
    public static SyscallResult SetInheritable(int descriptor, bool isInheritable) =>
        SyscallResult.From(Libc.fcntl(descriptor, SetDescriptorFlags, isInheritable ? 0 : CloseOnExecFlag));

    /// <summary>fcntl(2) with F_SETFL and O_NONBLOCK: whether calls that would wait return EAGAIN from now on.</summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="isOn">Whether they do; else they wait.</param>
    public static SyscallResult SetNonBlocking(int descriptor, bool isOn = true)
    {
        var flags = SyscallResult.From(Libc.fcntl(descriptor, GetStatusFlags, 0));
        return flags.IsError
            ? flags
            : SyscallResult.From(Libc.fcntl(
                descriptor,
                SetStatusFlags,
                isOn ? flags.RawValue | OpenFlags.NonBlocking : flags.RawValue & ~(nint)OpenFlags.NonBlocking));
    }

    /// <summary>fcntl(2) F_GETFD: whether execve(2) closes the descriptor. What a process inherited is never so marked.</summary>
    /// <param name="descriptor">The descriptor.</param>
    public static bool IsCloseOnExec(int descriptor)
    {
        SyscallResult result = SyscallResult.From(Libc.fcntl(descriptor, GetDescriptorFlags, 0));
        return !result.IsError && (result.Count & CloseOnExecFlag) != 0;
    }
}
