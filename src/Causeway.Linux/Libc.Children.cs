using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    // The style forbids SuppressGCTransition on what enters the kernel. This one is for the few calls between clone and execve
    // in Children.cs, where the other threads of the runtime are missing: a transition might wait for one of them for ever.
    [LibraryImport(Name, EntryPoint = "syscall")]
    [SuppressGCTransition]
    internal static partial nint syscall_without_transition(
        nint number, nint arg1, nint arg2, nint arg3, nint arg4, nint arg5);

    [LibraryImport(Name)]
    internal static partial int waitpid(int pid, int* status, int options);

    [LibraryImport(Name)]
    internal static partial int kill(int pid, int signal);
}
