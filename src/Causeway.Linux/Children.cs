using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>Starting programs in namespaces of their own, and waiting for them.</summary>
/// <remarks>
/// <para>A runtime cannot fork: the child has one of its threads, and locks that the missing ones hold. Between clone(2) and
/// execve(2) the child therefore runs nothing but system calls on memory that was made ready before: no allocation, no
/// exception, no lock, no transition.</para>
/// <para>clone(2) is called on the thread that waits later: PR_SET_PDEATHSIG means the end of a thread.</para>
/// </remarks>
public static unsafe class Children
{
    private const int ChildSignal = 17;
    private const int SetDescriptorFlags = 2;
    private const int CloseRangeCloseOnExec = 4;
    private const int PrctlCapabilityBoundingSetDrop = 24;
    private const int PrctlAmbient = 47;
    private const int AmbientRaise = 2;
    private const int AtEmptyPath = 0x1000;
    private const int FailedBeforeProgram = 127;
    private const uint CapabilityVersion3 = 0x20080522;

    private static readonly bool s_isX64 = RuntimeInformation.ProcessArchitecture == Architecture.X64;

    /// <summary>Starts a program.</summary>
    /// <param name="launch">What and how.</param>
    /// <param name="failure">
    /// Receives what the child reports when it fails on its way: read to the end with <see cref="ReadFailure"/>. The caller
    /// owns it.
    /// </param>
    /// <returns>The child's process id.</returns>
    public static SyscallResult Start(ProgramLaunch launch, out int failure)
    {
        SyscallResult pipe = Pipes.Pipe2(out failure, out int report);
        if (pipe.IsError)
        {
            return pipe;
        }

        nint* arguments = Strings(launch.Arguments);
        nint* environment = Strings(launch.Environment);
        int* kept = (int*)NativeMemory.AllocZeroed((nuint)launch.KeptDescriptors.Count + 1, sizeof(int));
        for (int i = 0; i < launch.KeptDescriptors.Count; i++)
        {
            kept[i] = launch.KeptDescriptors[i];
        }

        // Effective, permitted and inheritable alike, lower halves first.
        uint low = (uint)(launch.Capabilities ?? 0);
        uint high = (uint)((launch.Capabilities ?? 0) >> 32);
        uint* header = stackalloc uint[2] { CapabilityVersion3, 0 };
        uint* sets = stackalloc uint[6] { low, low, low, high, high, high };
        var plan = new Plan
        {
            Number = Numbers.ForThisArchitecture(),
            Flags = (long)launch.Namespaces | ChildSignal,
            Program = launch.Program,
            Arguments = arguments,
            Environment = environment,
            Kept = kept,
            KeptCount = launch.KeptDescriptors.Count,
            Gate = launch.Gate,
            OtherEnd = launch.OtherEndOfGate,
            Report = report,
            DropsGroups = launch.DropsGroups ? 1 : 0,
            BecomesRoot = launch.BecomesRoot ? 1 : 0,
            RestrictsCapabilities = launch.Capabilities is null ? 0 : 1,
            Capabilities = launch.Capabilities ?? 0,
            CapabilityHeader = header,
            CapabilitySets = sets,
        };

        // Everything the child calls is called once before, so that nothing of it is bound or compiled there.
        _ = Libc.syscall_without_transition(plan.Number.GetPid, 0, 0, 0, 0, 0);
        _ = Marshal.GetLastSystemError();
        SyscallResult result = new(CloneAndExecute(&plan));
        _ = Libc.close(report);
        Free(arguments);
        Free(environment);
        NativeMemory.Free(kept);
        return result;
    }

    /// <summary>Waits until the child runs its program, or has failed before.</summary>
    /// <param name="failure">What <see cref="Start"/> gave.</param>
    /// <returns>What failed and why; null when the program runs, or the child has died without a word.</returns>
    public static (LaunchStep Step, Errno Error)? ReadFailure(int failure)
    {
        Span<int> report = stackalloc int[2];
        SyscallResult result = Pipes.Read(failure, MemoryMarshal.AsBytes(report));
        return result.IsError || result.Count < sizeof(int) * 2 ? null : ((LaunchStep)report[0], (Errno)report[1]);
    }

    /// <summary>waitpid(2) until a child ends.</summary>
    /// <param name="child">Its process id.</param>
    /// <param name="end">How it ended.</param>
    public static SyscallResult Wait(int child, out ChildEnd end)
    {
        int status;
        while (true)
        {
            SyscallResult result = SyscallResult.From(Libc.waitpid(child, &status, 0));
            if (result.Error == Errno.EINTR)
            {
                continue;
            }

            end = (status & 0x7F) == 0 ? new ChildEnd((status >> 8) & 0xFF, 0) : new ChildEnd(0, status & 0x7F);
            return result;
        }
    }

    /// <summary>kill(2) with SIGKILL.</summary>
    /// <param name="child">The process.</param>
    public static SyscallResult Kill(int child) => Signal(child, 9);

    /// <summary>kill(2).</summary>
    /// <param name="child">The process.</param>
    /// <param name="signal">The signal's number.</param>
    public static SyscallResult Signal(int child, int signal) => SyscallResult.From(Libc.kill(child, signal));

    // One method, optimised at once: a JIT that compiled another one, or this one better, in the child would write into memory
    // that it shares with the parent.
    [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
    private static nint CloneAndExecute(Plan* plan)
    {
        Numbers* number = &plan->Number;
        nint child = Libc.syscall_without_transition(number->Clone, (nint)plan->Flags, 0, 0, 0, 0);
        if (child != 0)
        {
            return child > 0 ? child : -Marshal.GetLastSystemError();
        }

        if (plan->OtherEnd >= 0)
        {
            // Else the gate would never hang up.
            _ = Libc.syscall_without_transition(number->Close, plan->OtherEnd, 0, 0, 0, 0);
        }

        int step = (int)LaunchStep.WaitForMaps;
        byte go = 0;
        nint result = plan->Gate < 0
            ? 1
            : Libc.syscall_without_transition(number->Read, plan->Gate, (nint)(&go), 1, 0, 0);
        if (result == 0)
        {
            // The parent has gone, or has failed and says so itself.
            _ = Libc.syscall_without_transition(number->ExitGroup, FailedBeforeProgram, 0, 0, 0, 0);
        }

        if (result > 0 && plan->DropsGroups != 0)
        {
            step = (int)LaunchStep.DropGroups;
            result = Libc.syscall_without_transition(number->SetGroups, 0, 0, 0, 0, 0);
        }

        if (result >= 0 && plan->BecomesRoot != 0)
        {
            step = (int)LaunchStep.BecomeRoot;
            result = Libc.syscall_without_transition(number->SetResGid, 0, 0, 0, 0, 0);
            if (result >= 0)
            {
                result = Libc.syscall_without_transition(number->SetResUid, 0, 0, 0, 0, 0);
            }
        }

        if (result >= 0 && plan->RestrictsCapabilities != 0)
        {
            step = (int)LaunchStep.RestrictCapabilities;
            for (int capability = 0; capability < 64; capability++)
            {
                // EINVAL for those that this kernel does not have.
                if ((plan->Capabilities & (1UL << capability)) == 0)
                {
                    _ = Libc.syscall_without_transition(
                        number->Prctl, PrctlCapabilityBoundingSetDrop, capability, 0, 0, 0);
                }
            }

            // What stays is made inheritable and ambient, so that execve(2) keeps it for a user that is not root.
            result = Libc.syscall_without_transition(
                number->CapSet, (nint)plan->CapabilityHeader, (nint)plan->CapabilitySets, 0, 0, 0);
            for (int capability = 0; result >= 0 && capability < 64; capability++)
            {
                if ((plan->Capabilities & (1UL << capability)) != 0)
                {
                    result = Libc.syscall_without_transition(
                        number->Prctl, PrctlAmbient, AmbientRaise, capability, 0, 0);
                }
            }
        }

        if (result >= 0)
        {
            step = (int)LaunchStep.CloseDescriptors;
            result = Libc.syscall_without_transition(number->CloseRange, 3, -1, CloseRangeCloseOnExec, 0, 0);
            for (int i = 0; result >= 0 && i < plan->KeptCount; i++)
            {
                result = Libc.syscall_without_transition(number->Fcntl, plan->Kept[i], SetDescriptorFlags, 0, 0, 0);
            }
        }

        if (result >= 0)
        {
            step = (int)LaunchStep.Execute;
            int empty = 0;
            _ = Libc.syscall_without_transition(
                number->ExecveAt, plan->Program, (nint)(&empty), (nint)plan->Arguments, (nint)plan->Environment, AtEmptyPath);
        }

        int* report = stackalloc int[2];
        report[0] = step;
        report[1] = Marshal.GetLastSystemError();
        _ = Libc.syscall_without_transition(number->Write, plan->Report, (nint)report, sizeof(int) * 2, 0, 0);
        while (true)
        {
            _ = Libc.syscall_without_transition(number->ExitGroup, FailedBeforeProgram, 0, 0, 0, 0);
        }
    }

    private static nint* Strings(IReadOnlyList<byte[]> strings)
    {
        nint* pointers = (nint*)NativeMemory.AllocZeroed((nuint)strings.Count + 1, (nuint)sizeof(nint));
        for (int i = 0; i < strings.Count; i++)
        {
            byte* copy = (byte*)NativeMemory.AllocZeroed((nuint)strings[i].Length + 1);
            strings[i].CopyTo(new Span<byte>(copy, strings[i].Length));
            pointers[i] = (nint)copy;
        }

        return pointers;
    }

    private static void Free(nint* strings)
    {
        for (nint* pointer = strings; *pointer != 0; pointer++)
        {
            NativeMemory.Free((void*)*pointer);
        }

        NativeMemory.Free(strings);
    }

    private struct Plan
    {
        public Numbers Number;
        public long Flags;
        public int Program;
        public int Gate;
        public int OtherEnd;
        public int Report;
        public int KeptCount;
        public int DropsGroups;
        public int BecomesRoot;
        public int RestrictsCapabilities;
        public ulong Capabilities;
        public uint* CapabilityHeader;
        public uint* CapabilitySets;
        public nint* Arguments;
        public nint* Environment;
        public int* Kept;
    }

    /// <summary>Numbers of the system calls that the child makes.</summary>
    private struct Numbers
    {
        public int Clone;
        public int Read;
        public int Write;
        public int ExitGroup;
        public int SetGroups;
        public int SetResGid;
        public int SetResUid;
        public int CapSet;
        public int Prctl;
        public int Fcntl;
        public int Close;
        public int CloseRange;
        public int ExecveAt;
        public int GetPid;

        public static Numbers ForThisArchitecture() => s_isX64
            ? new Numbers
            {
                Clone = 56, Read = 0, Write = 1, ExitGroup = 231, SetGroups = 116, SetResGid = 119, SetResUid = 117,
                CapSet = 126, Prctl = 157, Fcntl = 72, Close = 3, CloseRange = 436, ExecveAt = 322, GetPid = 39,
            }
            : new Numbers
            {
                Clone = 220, Read = 63, Write = 64, ExitGroup = 94, SetGroups = 159, SetResGid = 149, SetResUid = 147,
                CapSet = 91, Prctl = 167, Fcntl = 25, Close = 57, CloseRange = 436, ExecveAt = 281, GetPid = 172,
            };
    }
}

/// <summary>What <see cref="Children.Start"/> starts, and how.</summary>
public sealed record ProgramLaunch
{
    /// <summary>A descriptor of the program, which must be one (no script).</summary>
    public required int Program { get; init; }

    /// <summary>The arguments, its name first; without NUL.</summary>
    public required IReadOnlyList<byte[]> Arguments { get; init; }

    /// <summary>The environment; without NUL.</summary>
    public required IReadOnlyList<byte[]> Environment { get; init; }

    /// <summary>Namespaces to make for it. Default: none.</summary>
    public NamespaceFlags Namespaces { get; init; }

    /// <summary>The descriptors beyond standard input, output and error that it gets.</summary>
    public IReadOnlyList<int> KeptDescriptors { get; init; } = [];

    /// <summary>A pipe from which the child reads a byte before it does anything; -1 for none.</summary>
    public int Gate { get; init; } = -1;

    /// <summary>The other end of that pipe, which only the parent is to have; -1 for none.</summary>
    public int OtherEndOfGate { get; init; } = -1;

    /// <summary>Whether it loses its supplementary groups.</summary>
    public bool DropsGroups { get; init; }

    /// <summary>Whether it takes user and group 0 of its namespace.</summary>
    public bool BecomesRoot { get; init; }

    /// <summary>The capabilities that it has at most; null leaves everything as it is.</summary>
    public ulong? Capabilities { get; init; }
}

/// <summary>Namespaces, CLONE_NEW* of clone(2).</summary>
[Flags]
public enum NamespaceFlags
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>CLONE_NEWNS: mounts.</summary>
    Mounts = 0x20000,

    /// <summary>CLONE_NEWIPC: System V and POSIX message queues, semaphores, shared memory.</summary>
    Ipc = 0x8000000,

    /// <summary>CLONE_NEWUSER: ids and capabilities.</summary>
    Users = 0x10000000,

    /// <summary>CLONE_NEWPID: processes.</summary>
    Processes = 0x20000000,

    /// <summary>CLONE_NEWNET: network.</summary>
    Network = 0x40000000,
}

/// <summary>The steps of a child on the way to its program.</summary>
public enum LaunchStep
{
    /// <summary>Waiting until its ids are mapped.</summary>
    WaitForMaps = 1,

    /// <summary>setgroups(2).</summary>
    DropGroups,

    /// <summary>setresgid(2) and setresuid(2).</summary>
    BecomeRoot,

    /// <summary>capset(2) and prctl(2).</summary>
    RestrictCapabilities,

    /// <summary>close_range(2).</summary>
    CloseDescriptors,

    /// <summary>execveat(2).</summary>
    Execute,
}

/// <summary>How a child ended.</summary>
/// <param name="Status">Its exit status; 0 when a signal ended it.</param>
/// <param name="Signal">The signal that ended it; 0 when none did.</param>
public readonly record struct ChildEnd(int Status, int Signal);
