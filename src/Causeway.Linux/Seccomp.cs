using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>seccomp(2): filters on the system calls of the process.</summary>
public static unsafe class Seccomp
{
    /// <summary>SECCOMP_SET_MODE_FILTER</summary>
    private const int SetModeFilter = 1;

    /// <summary>SECCOMP_FILTER_FLAG_TSYNC</summary>
    private const int AllThreads = 1;

    private static int SystemCall => RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 317 : 277;

    /// <summary>
    /// seccomp(2) SECCOMP_SET_MODE_FILTER with SECCOMP_FILTER_FLAG_TSYNC: puts a filter before every system call of every
    /// thread, for good. Needs <see cref="Privileges.SetNoNewPrivileges"/>, which it spreads to all threads as well.
    /// </summary>
    /// <param name="program">The filter.</param>
    /// <returns>The id of a thread that could not be included, 0 when all were.</returns>
    public static SyscallResult SetFilter(ReadOnlySpan<FilterInstruction> program)
    {
        fixed (FilterInstruction* instructions = program)
        {
            var header = new FilterProgram { Length = checked((ushort)program.Length), Instructions = instructions };
            return SyscallResult.From(Libc.syscall(SystemCall, SetModeFilter, AllThreads, (nint)(&header), 0, 0, 0));
        }
    }

    /// <summary><c>struct sock_fprog</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct FilterProgram
    {
        /// <summary><c>len</c></summary>
        public ushort Length;

        /// <summary><c>filter</c></summary>
        public FilterInstruction* Instructions;
    }
}

/// <summary>One instruction of classic BPF, <c>struct sock_filter</c>.</summary>
/// <param name="code">The operation.</param>
/// <param name="ifTrue">How many instructions a comparison that holds skips.</param>
/// <param name="ifFalse">How many one that does not hold skips.</param>
/// <param name="operand">The operand.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly struct FilterInstruction(ushort code, byte ifTrue, byte ifFalse, uint operand)
{
    /// <summary><c>code</c></summary>
    public readonly ushort Code = code;

    /// <summary><c>jt</c></summary>
    public readonly byte IfTrue = ifTrue;

    /// <summary><c>jf</c></summary>
    public readonly byte IfFalse = ifFalse;

    /// <summary><c>k</c></summary>
    public readonly uint Operand = operand;
}
