using System.Runtime.InteropServices;

namespace Causeway.Linux;

/// <summary>Landlock: rights to files that a thread gives up. Each method is the call of that name.</summary>
public static unsafe class Landlock
{
    // The same numbers on every architecture.
    private const int CreateRulesetCall = 444;
    private const int AddRuleCall = 445;
    private const int RestrictSelfCall = 446;

    /// <summary>LANDLOCK_CREATE_RULESET_VERSION</summary>
    private const int VersionFlag = 1;

    /// <summary>LANDLOCK_RULE_PATH_BENEATH</summary>
    private const int PathBeneath = 1;

    /// <summary>Which version of Landlock the kernel has; an error when it has none, or it is switched off.</summary>
    public static SyscallResult Version() =>
        SyscallResult.From(Libc.syscall(CreateRulesetCall, 0, 0, VersionFlag, 0, 0, 0));

    /// <summary>landlock_create_ruleset(2).</summary>
    /// <param name="files">Rights to files that the rules grant, and that nobody has without a rule.</param>
    /// <param name="network">The same for the network; none before version 4.</param>
    /// <returns>A descriptor of the rules, close-on-exec.</returns>
    public static SyscallResult CreateRuleset(LandlockFileRights files, LandlockNetworkRights network)
    {
        var attributes = new RulesetAttributes { Files = (ulong)files, Network = (ulong)network };
        // An older kernel knows the first field only.
        int size = network == LandlockNetworkRights.None ? sizeof(ulong) : sizeof(RulesetAttributes);
        return SyscallResult.From(Libc.syscall(CreateRulesetCall, (nint)(&attributes), size, 0, 0, 0, 0));
    }

    /// <summary>landlock_add_rule(2): grants rights to everything at and below a directory.</summary>
    /// <param name="ruleset">The rules.</param>
    /// <param name="directory">An O_PATH descriptor of it.</param>
    /// <param name="rights">The rights.</param>
    public static SyscallResult Allow(int ruleset, int directory, LandlockFileRights rights)
    {
        var attributes = new PathAttributes { Rights = (ulong)rights, Directory = directory };
        return SyscallResult.From(Libc.syscall(AddRuleCall, ruleset, PathBeneath, (nint)(&attributes), 0, 0, 0));
    }

    /// <summary>landlock_restrict_self(2): puts the rules in force for the calling thread and those it starts later.</summary>
    /// <param name="ruleset">The rules.</param>
    public static SyscallResult RestrictSelf(int ruleset) =>
        SyscallResult.From(Libc.syscall(RestrictSelfCall, ruleset, 0, 0, 0, 0, 0));

    /// <summary><c>struct landlock_ruleset_attr</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct RulesetAttributes
    {
        /// <summary><c>handled_access_fs</c></summary>
        public ulong Files;

        /// <summary><c>handled_access_net</c></summary>
        public ulong Network;
    }

    /// <summary><c>struct landlock_path_beneath_attr</c>.</summary>
    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    private struct PathAttributes
    {
        /// <summary><c>allowed_access</c></summary>
        public ulong Rights;

        /// <summary><c>parent_fd</c></summary>
        public int Directory;
    }
}

/// <summary>Rights to files, LANDLOCK_ACCESS_FS_*.</summary>
[Flags]
public enum LandlockFileRights
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>LANDLOCK_ACCESS_FS_EXECUTE: start a program.</summary>
    Execute = 0x1,

    /// <summary>LANDLOCK_ACCESS_FS_WRITE_FILE</summary>
    WriteFile = 0x2,

    /// <summary>LANDLOCK_ACCESS_FS_READ_FILE</summary>
    ReadFile = 0x4,

    /// <summary>LANDLOCK_ACCESS_FS_READ_DIR</summary>
    ReadDirectory = 0x8,

    /// <summary>LANDLOCK_ACCESS_FS_REMOVE_DIR</summary>
    RemoveDirectory = 0x10,

    /// <summary>LANDLOCK_ACCESS_FS_REMOVE_FILE</summary>
    RemoveFile = 0x20,

    /// <summary>LANDLOCK_ACCESS_FS_MAKE_CHAR</summary>
    MakeCharacterDevice = 0x40,

    /// <summary>LANDLOCK_ACCESS_FS_MAKE_DIR</summary>
    MakeDirectory = 0x80,

    /// <summary>LANDLOCK_ACCESS_FS_MAKE_REG</summary>
    MakeFile = 0x100,

    /// <summary>LANDLOCK_ACCESS_FS_MAKE_SOCK</summary>
    MakeSocket = 0x200,

    /// <summary>LANDLOCK_ACCESS_FS_MAKE_FIFO</summary>
    MakeFifo = 0x400,

    /// <summary>LANDLOCK_ACCESS_FS_MAKE_BLOCK</summary>
    MakeBlockDevice = 0x800,

    /// <summary>LANDLOCK_ACCESS_FS_MAKE_SYM</summary>
    MakeSymbolicLink = 0x1000,

    /// <summary>LANDLOCK_ACCESS_FS_REFER: move or link from one directory to another; version 2.</summary>
    Refer = 0x2000,

    /// <summary>LANDLOCK_ACCESS_FS_TRUNCATE: version 3.</summary>
    Truncate = 0x4000,

    /// <summary>LANDLOCK_ACCESS_FS_IOCTL_DEV: ioctl(2) on devices; version 5.</summary>
    DeviceControl = 0x8000,
}

/// <summary>Rights to the network, LANDLOCK_ACCESS_NET_*.</summary>
[Flags]
public enum LandlockNetworkRights
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>LANDLOCK_ACCESS_NET_BIND_TCP</summary>
    BindTcp = 0x1,

    /// <summary>LANDLOCK_ACCESS_NET_CONNECT_TCP</summary>
    ConnectTcp = 0x2,
}
