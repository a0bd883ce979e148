using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>
/// Who the calling thread is for the kernel. These are raw system calls: the C library's functions of the same names
/// change all threads, these change the calling one only.
/// </summary>
public static unsafe class Credentials
{
    /// <summary>In place of an id: leave it as it is.</summary>
    public const uint KeepId = uint.MaxValue;

    /// <summary>SECBIT_NO_SETUID_FIXUP: capabilities stay as they are when ids change.</summary>
    public const uint NoSetUidFixup = 0x4;

    /// <summary>
    /// All of SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP and SECBIT_NO_CAP_AMBIENT_RAISE, and SECBIT_KEEP_CAPS off, each locked:
    /// ids have no influence on capabilities any more, and programs get none.
    /// </summary>
    public const uint IdsWithoutCapabilities = 0xEF;

    private const int PrctlGetSecureBits = 27;
    private const int PrctlSetSecureBits = 28;
    private const int CloneFs = 0x200;
    private const uint CapabilityVersion3 = 0x20080522;

    // PROC_USER_INIT_INO of the kernel.
    private const ulong InitialUserNamespace = 0xEFFFFFFD;

    private static readonly bool s_isX64 = RuntimeInformation.ProcessArchitecture == Architecture.X64;

    // arm64 and riscv64 share the generic table.
    private static int SetResUid => s_isX64 ? 117 : 147;

    private static int GetResUid => s_isX64 ? 118 : 148;

    private static int SetResGid => s_isX64 ? 119 : 149;

    private static int GetResGid => s_isX64 ? 120 : 150;

    private static int GetGroups => s_isX64 ? 115 : 158;

    private static int SetGroups => s_isX64 ? 116 : 159;

    private static int CapabilityGet => s_isX64 ? 125 : 90;

    private static int CapabilitySet => s_isX64 ? 126 : 91;

    /// <summary>setresuid(2) of the calling thread.</summary>
    /// <param name="real">The real id, or <see cref="KeepId"/>.</param>
    /// <param name="effective">The effective id, or <see cref="KeepId"/>.</param>
    /// <param name="saved">The saved id, or <see cref="KeepId"/>.</param>
    public static SyscallResult Setresuid(uint real, uint effective, uint saved) =>
        SyscallResult.From(Libc.syscall(SetResUid, (nint)real, (nint)effective, (nint)saved, 0, 0, 0));

    /// <summary>setresgid(2) of the calling thread.</summary>
    /// <param name="real">The real id, or <see cref="KeepId"/>.</param>
    /// <param name="effective">The effective id, or <see cref="KeepId"/>.</param>
    /// <param name="saved">The saved id, or <see cref="KeepId"/>.</param>
    public static SyscallResult Setresgid(uint real, uint effective, uint saved) =>
        SyscallResult.From(Libc.syscall(SetResGid, (nint)real, (nint)effective, (nint)saved, 0, 0, 0));

    /// <summary>
    /// Whether the process is in the user namespace of the host, where capabilities count for everything. Needs /proc; false without.
    /// </summary>
    public static bool IsInInitialUserNamespace() =>
        !Files.Statx(
            Files.WorkingDirectory, "/proc/self/ns/user\0"u8, AtFlags.None, StatxMask.Basic, out StatxBuffer status).IsError &&
        status.Inode == InitialUserNamespace;

    /// <summary>The effective user id of the calling thread.</summary>
    public static uint Geteuid()
    {
        uint real, effective, saved;
        _ = Libc.syscall(GetResUid, (nint)(&real), (nint)(&effective), (nint)(&saved), 0, 0, 0);
        return effective;
    }

    /// <summary>The effective group id of the calling thread.</summary>
    public static uint Getegid()
    {
        uint real, effective, saved;
        _ = Libc.syscall(GetResGid, (nint)(&real), (nint)(&effective), (nint)(&saved), 0, 0, 0);
        return effective;
    }

    /// <summary>getgroups(2) of the calling thread.</summary>
    /// <param name="groups">Where the groups go; empty when only their number is asked for.</param>
    /// <returns>How many there are.</returns>
    public static SyscallResult Getgroups(Span<uint> groups)
    {
        fixed (uint* pointer = groups)
        {
            return SyscallResult.From(Libc.syscall(GetGroups, groups.Length, (nint)pointer, 0, 0, 0, 0));
        }
    }

    /// <summary>setgroups(2) of the calling thread.</summary>
    /// <param name="groups">The supplementary groups.</param>
    public static SyscallResult Setgroups(ReadOnlySpan<uint> groups)
    {
        fixed (uint* pointer = groups)
        {
            return SyscallResult.From(Libc.syscall(SetGroups, groups.Length, (nint)pointer, 0, 0, 0, 0));
        }
    }

    /// <summary>capget(2) of the calling thread.</summary>
    /// <param name="sets">The capabilities.</param>
    public static SyscallResult Capget(out CapabilitySets sets)
    {
        var header = new CapabilityHeader { Version = CapabilityVersion3 };
        CapabilityData* data = stackalloc CapabilityData[2];
        SyscallResult result = SyscallResult.From(
            Libc.syscall(CapabilityGet, (nint)(&header), (nint)data, 0, 0, 0, 0));
        sets = new CapabilitySets(
            data[0].Effective | ((ulong)data[1].Effective << 32),
            data[0].Permitted | ((ulong)data[1].Permitted << 32),
            data[0].Inheritable | ((ulong)data[1].Inheritable << 32));
        return result;
    }

    /// <summary>capset(2) of the calling thread.</summary>
    /// <param name="sets">The capabilities.</param>
    public static SyscallResult Capset(CapabilitySets sets)
    {
        var header = new CapabilityHeader { Version = CapabilityVersion3 };
        CapabilityData* data = stackalloc CapabilityData[2];
        data[0].Effective = (uint)sets.Effective;
        data[1].Effective = (uint)(sets.Effective >> 32);
        data[0].Permitted = (uint)sets.Permitted;
        data[1].Permitted = (uint)(sets.Permitted >> 32);
        data[0].Inheritable = (uint)sets.Inheritable;
        data[1].Inheritable = (uint)(sets.Inheritable >> 32);
        return SyscallResult.From(Libc.syscall(CapabilitySet, (nint)(&header), (nint)data, 0, 0, 0, 0));
    }

    /// <summary>prctl(2) PR_GET_SECUREBITS.</summary>
    /// <returns>The bits.</returns>
    public static SyscallResult GetSecureBits() => SyscallResult.From(Libc.prctl(PrctlGetSecureBits, 0, 0, 0, 0));

    /// <summary>prctl(2) PR_SET_SECUREBITS. Needs CAP_SETPCAP.</summary>
    /// <param name="bits">The bits.</param>
    public static SyscallResult SetSecureBits(uint bits) =>
        SyscallResult.From(Libc.prctl(PrctlSetSecureBits, bits, 0, 0, 0));

    /// <summary>unshare(2) CLONE_FS: working directory, root and umask become the calling thread's own.</summary>
    public static SyscallResult UnshareFs() => SyscallResult.From(Libc.unshare(CloneFs));

    /// <summary>umask(2), of all threads that share it.</summary>
    /// <param name="mask">The new mask.</param>
    /// <returns>The previous mask.</returns>
    public static uint Umask(uint mask) => Libc.umask(mask);

    [StructLayout(LayoutKind.Sequential)]
    private struct CapabilityHeader
    {
        public uint Version;
        public int ProcessId;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct CapabilityData
    {
        public uint Effective;
        public uint Permitted;
        public uint Inheritable;
    }
}

/// <summary>Capabilities of a thread as bit sets, capabilities(7).</summary>
/// <param name="Effective">What the kernel checks.</param>
/// <param name="Permitted">What may be made effective.</param>
/// <param name="Inheritable">What survives execve(2).</param>
public readonly record struct CapabilitySets(ulong Effective, ulong Permitted, ulong Inheritable)
{
    /// <summary>Whether a capability is effective.</summary>
    /// <param name="capability">The capability.</param>
    public bool Has(Capability capability) => (Effective & (1UL << (int)capability)) != 0;

    /// <summary>The same sets with a capability taken out of the effective one or put into it.</summary>
    /// <param name="capability">The capability.</param>
    /// <param name="isEffective">Whether it is to be effective.</param>
    public CapabilitySets With(Capability capability, bool isEffective)
    {
        ulong bit = 1UL << (int)capability;
        return this with { Effective = isEffective ? Effective | bit : Effective & ~bit };
    }
}

/// <summary>Capabilities by number, CAP_*.</summary>
public enum Capability
{
    /// <summary>CAP_CHOWN: owners can be changed.</summary>
    Chown = 0,

    /// <summary>CAP_DAC_OVERRIDE.</summary>
    DacOverride = 1,

    /// <summary>CAP_DAC_READ_SEARCH</summary>
    DacReadSearch = 2,

    /// <summary>CAP_FOWNER: what only owners may do.</summary>
    Fowner = 3,

    /// <summary>CAP_FSETID: setgid bits are not cleared.</summary>
    Fsetid = 4,

    /// <summary>CAP_KILL</summary>
    Kill = 5,

    /// <summary>CAP_SETGID</summary>
    SetGid = 6,

    /// <summary>CAP_SETUID</summary>
    SetUid = 7,

    /// <summary>CAP_SETPCAP</summary>
    SetPcap = 8,

    /// <summary>CAP_LINUX_IMMUTABLE</summary>
    LinuxImmutable = 9,

    /// <summary>CAP_NET_BIND_SERVICE</summary>
    NetBindService = 10,

    /// <summary>CAP_NET_BROADCAST</summary>
    NetBroadcast = 11,

    /// <summary>CAP_NET_ADMIN</summary>
    NetAdmin = 12,

    /// <summary>CAP_NET_RAW</summary>
    NetRaw = 13,

    /// <summary>CAP_IPC_LOCK</summary>
    IpcLock = 14,

    /// <summary>CAP_IPC_OWNER</summary>
    IpcOwner = 15,

    /// <summary>CAP_SYS_MODULE</summary>
    SysModule = 16,

    /// <summary>CAP_SYS_RAWIO</summary>
    SysRawio = 17,

    /// <summary>CAP_SYS_CHROOT</summary>
    SysChroot = 18,

    /// <summary>CAP_SYS_PTRACE</summary>
    SysPtrace = 19,

    /// <summary>CAP_SYS_PACCT</summary>
    SysPacct = 20,

    /// <summary>CAP_SYS_ADMIN</summary>
    SysAdmin = 21,

    /// <summary>CAP_SYS_BOOT</summary>
    SysBoot = 22,

    /// <summary>CAP_SYS_NICE</summary>
    SysNice = 23,

    /// <summary>CAP_SYS_RESOURCE</summary>
    SysResource = 24,

    /// <summary>CAP_SYS_TIME</summary>
    SysTime = 25,

    /// <summary>CAP_SYS_TTY_CONFIG</summary>
    SysTtyConfig = 26,

    /// <summary>CAP_MKNOD</summary>
    Mknod = 27,

    /// <summary>CAP_LEASE</summary>
    Lease = 28,

    /// <summary>CAP_AUDIT_WRITE</summary>
    AuditWrite = 29,

    /// <summary>CAP_AUDIT_CONTROL</summary>
    AuditControl = 30,

    /// <summary>CAP_SETFCAP</summary>
    SetFcap = 31,

    /// <summary>CAP_MAC_OVERRIDE</summary>
    MacOverride = 32,

    /// <summary>CAP_MAC_ADMIN</summary>
    MacAdmin = 33,

    /// <summary>CAP_SYSLOG</summary>
    Syslog = 34,

    /// <summary>CAP_WAKE_ALARM</summary>
    WakeAlarm = 35,

    /// <summary>CAP_BLOCK_SUSPEND</summary>
    BlockSuspend = 36,

    /// <summary>CAP_AUDIT_READ</summary>
    AuditRead = 37,

    /// <summary>CAP_PERFMON</summary>
    Perfmon = 38,

    /// <summary>CAP_BPF</summary>
    Bpf = 39,

    /// <summary>CAP_CHECKPOINT_RESTORE</summary>
    CheckpointRestore = 40,
}
