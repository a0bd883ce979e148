namespace Causeway.Linux;

/// <summary>Giving up rights for good. Each call concerns the calling thread and those it starts later.</summary>
public static class Privileges
{
    /// <summary>PR_SET_PDEATHSIG</summary>
    private const int ParentDeathSignal = 1;

    /// <summary>PR_CAPBSET_DROP</summary>
    private const int BoundingSetDrop = 24;

    /// <summary>PR_SET_NO_NEW_PRIVS</summary>
    private const int NoNewPrivileges = 38;

    /// <summary>PR_CAP_AMBIENT</summary>
    private const int Ambient = 47;

    /// <summary>PR_CAP_AMBIENT_CLEAR_ALL</summary>
    private const int AmbientClearAll = 4;

    private const int KillSignal = 9;
    private const int CapabilityCount = 64;

    /// <summary>prctl(2) PR_CAPBSET_DROP of every capability there is. Needs CAP_SETPCAP.</summary>
    public static SyscallResult DropBoundingSet()
    {
        for (nuint capability = 0; capability < CapabilityCount; capability++)
        {
            SyscallResult result = SyscallResult.From(Libc.prctl(BoundingSetDrop, capability, 0, 0, 0));
            if (result.Error == Errno.EINVAL && capability > 0)
            {
                // Beyond the last one of this kernel.
                break;
            }

            if (result.IsError)
            {
                return result;
            }
        }

        return default;
    }

    /// <summary>prctl(2) PR_CAP_AMBIENT_CLEAR_ALL: programs get none of the capabilities.</summary>
    public static SyscallResult ClearAmbient() => SyscallResult.From(Libc.prctl(Ambient, AmbientClearAll, 0, 0, 0));

    /// <summary>prctl(2) PR_SET_NO_NEW_PRIVS: setuid bits and file capabilities of programs mean nothing.</summary>
    public static SyscallResult SetNoNewPrivileges() => SyscallResult.From(Libc.prctl(NoNewPrivileges, 1, 0, 0, 0));

    /// <summary>
    /// prctl(2) PR_SET_PDEATHSIG: SIGKILL when the thread that started this process ends. Not in force for one that has
    /// ended already.
    /// </summary>
    public static SyscallResult DieWithParent() => SyscallResult.From(Libc.prctl(ParentDeathSignal, KillSignal, 0, 0, 0));
}
