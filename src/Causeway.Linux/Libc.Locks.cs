using System.Runtime.InteropServices;

namespace Causeway.Linux;

internal static unsafe partial class Libc
{
    [LibraryImport(Name)]
    internal static partial int flock(int fd, int operation);

    [LibraryImport(Name)]
    internal static partial int gettid();

    [LibraryImport(Name)]
    internal static partial int getpid();

    [LibraryImport(Name)]
    internal static partial int sigaction(int signum, SignalAction* action, SignalAction* old);

    [LibraryImport(Name)]
    internal static partial int pthread_sigmask(int how, SignalSet* set, SignalSet* old);

    [LibraryImport(Name)]
    internal static partial int sigtimedwait(SignalSet* set, SignalInformation* information, TimeSpecification* timeout);

    [LibraryImport(Name)]
    internal static partial int tgkill(int processId, int threadId, int signum);

    [LibraryImport(Name)]
    internal static partial nint dlsym(nint handle, byte* symbol);
}
