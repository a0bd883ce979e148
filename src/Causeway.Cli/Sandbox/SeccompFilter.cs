using System.Runtime.InteropServices;
using Causeway.Linux;

namespace Causeway.Cli.Sandbox;

/// <summary>
/// Writes the filter that stands before every system call of the daemon, in classic BPF: a comparison of the number with each
/// one that is allowed, and a few instructions more where the arguments decide. The kernel works out once which numbers are
/// allowed whatever the arguments, so that the length of the list costs nothing.
/// </summary>
internal sealed class SeccompFilter
{
    // linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGE|BPF_K, BPF_ALU|BPF_AND|BPF_K,
    // BPF_RET|BPF_K.
    private const ushort LoadWord = 0x20;
    private const ushort JumpIfEqual = 0x15;
    private const ushort JumpIfAtLeast = 0x35;
    private const ushort And = 0x54;
    private const ushort Return = 0x06;

    // struct seccomp_data: nr, arch, instruction_pointer, args[6].
    private const uint NumberOffset = 0;
    private const uint ArchitectureOffset = 4;
    private const uint ArgumentsOffset = 16;

    // SECCOMP_RET_*.
    private const uint Allow = 0x7FFF0000;
    private const uint AnswerErrno = 0x00050000;
    private const uint KillProcess = 0x80000000;
    private const uint OnlyLog = 0x7FFC0000;
    private const uint Trap = 0x00030000;

    // AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64, and the bit of x32 calls.
    private const uint ArchitectureX64 = 0xC000003E;
    private const uint ArchitectureArm64 = 0xC00000B7;
    private const uint X32Bit = 0x40000000;

    private const uint CloneFs = 0x200;

    // CLONE_VM, CLONE_SIGHAND, CLONE_THREAD: what makes a thread; and all of CLONE_NEW*.
    private const uint ThreadFlags = 0x10900;
    private const uint NamespaceFlags = 0x7E020000;

    private const uint Executable = 0x4;

    // PR_SET_NAME, PR_GET_NAME, PR_CAPBSET_READ, PR_GET_SECUREBITS, PR_SET_VMA.
    private static readonly uint[] s_prctlOptions = [15, 16, 23, 27, 0x53564D41];

    // PR_SET_SECUREBITS: a worker tries, and goes on without.
    private const uint PrctlSetSecureBits = 28;

    // F_DUPFD to F_SETLKW, F_OFD_*, F_DUPFD_CLOEXEC, F_ADD_SEALS and F_GET_SEALS: nothing that makes signals.
    private static readonly uint[] s_fcntlCommands = [0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1033, 1034];

    // FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FICLONE, FICLONERANGE.
    private static readonly uint[] s_ioctlRequests =
        [0x80086601, 0x40086602, 0x801C581F, 0x401C5820, 0x40049409, 0x4020940D];

    private readonly List<FilterInstruction> _program = [];
    private readonly uint _refusal;

    private SeccompFilter(uint refusal) => _refusal = refusal;

    /// <summary>Writes the filter.</summary>
    /// <param name="action">What happens at a call that is not allowed; not <see cref="SeccompAction.None"/>.</param>
    /// <param name="process">The process's id in its own namespace: it may send signals to itself.</param>
    /// <param name="mayExecuteMemory">Whether a compiler is part of the process, whose memory may become executable.</param>
    /// <param name="takesDelegations">Whether it takes delegations, which are asked for by signals.</param>
    /// <param name="hasRing">Whether it has a ring of io_uring; it cannot make another.</param>
    public static FilterInstruction[] Write(
        SeccompAction action, int process, bool mayExecuteMemory, bool takesDelegations = false, bool hasRing = false)
    {
        var filter = new SeccompFilter(action switch
        {
            SeccompAction.Log => OnlyLog,
            SeccompAction.Trap => Trap,
            _ => KillProcess,
        });
        filter.Write(process, mayExecuteMemory, takesDelegations, hasRing);
        return [.. filter._program];
    }

    private static FilterInstruction Load(uint offset) => new(LoadWord, 0, 0, offset);

    private static FilterInstruction LoadArgument(int index) => Load(ArgumentsOffset + (8 * (uint)index));

    private static FilterInstruction LoadUpperHalf(int index) => Load(ArgumentsOffset + (8 * (uint)index) + 4);

    private static FilterInstruction Answer(uint answer) => new(Return, 0, 0, answer);

    private void Write(int process, bool mayExecuteMemory, bool takesDelegations, bool hasRing)
    {
        bool isX64 = RuntimeInformation.ProcessArchitecture == Architecture.X64;
        _program.Add(Load(ArchitectureOffset));
        _program.Add(new(JumpIfEqual, 1, 0, isX64 ? ArchitectureX64 : ArchitectureArm64));
        _program.Add(Answer(KillProcess));
        _program.Add(Load(NumberOffset));
        if (isX64)
        {
            _program.Add(new(JumpIfAtLeast, 0, 1, X32Bit));
            _program.Add(Answer(KillProcess));
        }

        // glibc falls back to clone, whose flags can be seen.
        OnCall("clone3", [Answer(AnswerErrno | (uint)Errno.ENOSYS)]);
        OnCall("clone",
        [
            LoadArgument(0),
            new(And, 0, 0, ThreadFlags | NamespaceFlags),
            .. AllowIfEqual(ThreadFlags),
        ]);
        OnCall("unshare", [LoadArgument(0), .. AllowIfEqual(CloneFs)]);
        // Without OPEN_TREE_CLONE, and of a descriptor only, it is another open(2).
        OnCall("open_tree", [LoadArgument(2), .. AllowIfEqual((uint)Files.OpenTreeFlags)]);
        OnCall("tgkill", [LoadArgument(0), .. AllowIfEqual((uint)process)]);
        OnCall("kill", [LoadArgument(0), .. AllowIfEqual((uint)process)]);

        // The system's log, when it was started anew: there is no way to it, which is no reason to end.
        OnCall("connect", [Answer(AnswerErrno | (uint)Errno.EACCES)]);
        OnCall("prctl",
        [
            LoadArgument(0),
            .. AllowIfOneOf(s_prctlOptions),
            new(JumpIfEqual, 0, 1, PrctlSetSecureBits),
            Answer(AnswerErrno | (uint)Errno.EPERM),
            Answer(_refusal),
        ]);
        uint[] commands = takesDelegations ? [.. s_fcntlCommands, .. Delegations.Commands] : s_fcntlCommands;
        OnCall("fcntl",
            [LoadArgument(1), .. AllowIfOneOf(commands), Answer(AnswerErrno | (uint)Errno.EINVAL)]);
        OnCall("ioctl",
            [LoadArgument(1), .. AllowIfOneOf(s_ioctlRequests), Answer(AnswerErrno | (uint)Errno.ENOTTY)]);

        if (hasRing)
        {
            OnCall("io_uring_enter", [Answer(Allow)]);
            OnCall("io_uring_register", [LoadArgument(1), .. AllowIfEqual(IoUring.EnableRings)]);
        }

        // Limits are read, and not set.
        OnCall("prlimit64",
        [
            LoadArgument(2),
            new(JumpIfEqual, 0, 2, 0),
            LoadUpperHalf(2),
            new(JumpIfEqual, 1, 0, 0),
            Answer(_refusal),
            Answer(Allow),
        ]);
        FilterInstruction[] protection = mayExecuteMemory
            ? [Answer(Allow)]
            : [LoadArgument(2), new(And, 0, 0, Executable), .. AllowIfEqual(0)];
        OnCall("mmap", protection);
        OnCall("mprotect", protection);

        IEnumerable<SystemCall> calls = SystemCallList.Allowed.Concat(mayExecuteMemory ? SystemCallList.ForCompiler : []);
        int[] allowed = [.. calls.Select(call => call.Number).Where(number => number >= 0).Order()];
        for (int i = 0; i < allowed.Length; i++)
        {
            // To the last instruction, over the refusal.
            _program.Add(new(JumpIfEqual, (byte)(allowed.Length - i), 0, (uint)allowed[i]));
        }

        _program.Add(Answer(_refusal));
        _program.Add(Answer(Allow));
    }

    private FilterInstruction[] AllowIfEqual(uint value) =>
        [new(JumpIfEqual, 0, 1, value), Answer(Allow), Answer(_refusal)];

    private static IEnumerable<FilterInstruction> AllowIfOneOf(uint[] values) => values.SelectMany(
        value => (FilterInstruction[])[new(JumpIfEqual, 0, 1, value), Answer(Allow)]);

    // The accumulator holds the number before, and again where the rule does not apply.
    private void OnCall(string name, FilterInstruction[] rule)
    {
        _program.Add(new(JumpIfEqual, 0, (byte)rule.Length, (uint)SystemCallList.Find(name)));
        _program.AddRange(rule);
    }
}
