using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>Resource limits of the process.</summary>
public static unsafe class Limits
{
    private const int OpenFiles = 7;

    /// <summary>prlimit(2) RLIMIT_NOFILE: one more than the highest descriptor the process may have.</summary>
    /// <param name="limit">The limit.</param>
    public static SyscallResult GetOpenFiles(out ResourceLimit limit)
    {
        fixed (ResourceLimit* answer = &limit)
        {
            return SyscallResult.From(Libc.prlimit(0, OpenFiles, null, answer));
        }
    }

    /// <summary>prlimit(2) RLIMIT_NOFILE.</summary>
    /// <param name="limit">The new limit.</param>
    public static SyscallResult SetOpenFiles(in ResourceLimit limit)
    {
        fixed (ResourceLimit* pointer = &limit)
        {
            return SyscallResult.From(Libc.prlimit(0, OpenFiles, pointer, null));
        }
    }
}

/// <summary>A resource limit, <c>struct rlimit64</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct ResourceLimit
{
    /// <summary>The limit in force (<c>rlim_cur</c>).</summary>
    public ulong Current;

    /// <summary>How far it may be raised (<c>rlim_max</c>).</summary>
    public ulong Maximum;
}
