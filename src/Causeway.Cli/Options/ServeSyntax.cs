using System.CommandLine;

namespace Causeway.Cli.Options;

/// <summary>
/// The options of <c>causeway serve</c> as the parser sees them. All values are taken as text, and all options may be
/// repeated: <see cref="ServeOptionsReader"/> gives them their meaning, the last one counting, as in virtiofsd.
/// </summary>
internal sealed class ServeSyntax
{
    public Option<string[]> SharedDirectory { get; } =
        Value("--shared-dir", "DIR", "the directory to share");

    public Option<string[]> SocketPath { get; } =
        Value("--socket-path", "PATH", "create a socket at PATH and wait for the front end (QEMU) there");

    public Option<string[]> ListeningDescriptor { get; } =
        Value("--fd", "N", "wait for the front end on descriptor N, an inherited listening socket");

    public Option<bool> Persistent { get; } =
        Switch("--persistent", "when the front end disconnects, wait for the next one instead of ending");

    public Option<string[]> Tag { get; } =
        Value("--tag", "TAG", "offer TAG (1 to 36 bytes) as the mount tag, for front ends that ask the daemon");

    public Option<string[]> RequestQueues { get; } =
        Value("--num-request-queues", "N", "announce N request queues with the tag, 1 to 64 [one per CPU, at most 8]");

    public Option<string[]> Cache { get; } =
        Value("--cache", "MODE", "what the guest may cache: never, metadata, auto, always [auto]");

    public Option<bool> Writeback { get; } =
        Switch("--writeback", "let the guest delay writes; only for a tree that nobody else changes");

    public Option<string[]> AttributeTimeout { get; } =
        Value("--attr-timeout", "SECONDS", "how long the guest may trust attributes, fractions allowed [by --cache]");

    public Option<string[]> EntryTimeout { get; } =
        Value("--entry-timeout", "SECONDS", "how long the guest may trust names, fractions allowed [by --cache]");

    public Option<string[]> NegativeTimeout { get; } = Value(
        "--negative-timeout", "SECONDS", "how long the guest may trust that a name does not exist [by --cache]");

    public Option<bool> ReadOnly { get; } = Switch("--readonly", "let the guest change nothing");

    public Option<bool> Xattr { get; } = Switch("--xattr", "offer extended attributes");

    public Option<bool> AllowDirectIo { get; } = Switch("--allow-direct-io", "pass O_DIRECT on to the host");

    public Option<bool> AllowMmap { get; } =
        Switch("--allow-mmap", "allow shared mappings of files with --cache never and metadata");

    public Option<bool> NoReadDirPlus { get; } =
        Switch("--no-readdirplus", "do not send attributes together with directory entries");

    public Option<bool> AnnounceSubmounts { get; } =
        Switch("--announce-submounts", "show mount points below the shared directory as mounts of their own [on]");

    public Option<bool> NoAnnounceSubmounts { get; } =
        Switch("--no-announce-submounts", "show one single file system");

    public Option<string[]> InodeFileHandles { get; } = Value(
        "--inode-file-handles", "MODE", "refer to files by handle instead of descriptor: never, prefer, mandatory [prefer]");

    public Option<bool> KillPrivV2 { get; } =
        Switch("--killpriv-v2", "clear setuid and setgid bits on the host when the guest says so");

    public Option<bool> NoKillPrivV2 { get; } = Switch("--no-killpriv-v2", "leave that to the guest [default]");

    public Option<bool> PreserveNoatime { get; } = Switch("--preserve-noatime", "pass O_NOATIME on to the host");

    public Option<string[]> DescriptorLimit { get; } =
        Value("--rlimit-nofile", "N", "the limit of open files; 0 keeps the current one [1000000 or fs.nr_open]");

    public Option<string[]> Sandbox { get; } =
        Value("--sandbox", "MODE", "only 'none' works today, and it must be said");

    public Option<string[]> LogLevel { get; } =
        Value("--log-level", "LEVEL", "error, warn, info, debug, trace, off [info]");

    /// <summary>Options of virtiofsd that are understood and not provided yet, with the one value that asks for nothing.</summary>
    public IReadOnlyList<(Option<string[]> Option, string? Harmless)> NotYet { get; } =
    [
        (Value("--thread-pool-size", "N"), "0"),
        (Value("--socket-group", "GROUP"), null),
        (Optional("--posix-acl", "MODE"), "never"),
        (Optional("--security-label", "MODE"), "never"),
        (Value("--xattrmap", "RULES"), null),
        (Value("--seccomp", "ACTION"), "none"),
        (Value("--modcaps", "LIST"), null),
        (Value("--uid-map", "MAP"), null),
        (Value("--gid-map", "MAP"), null),
        (Value("--translate-uid", "SPEC"), null),
        (Value("--translate-gid", "SPEC"), null),
        (Value("--migration-mode", "MODE"), "find-paths"),
        (Value("--migration-on-error", "MODE"), "abort"),
    ];

    /// <summary>Switches of virtiofsd that are understood and not provided yet.</summary>
    public IReadOnlyList<Option<bool>> NotYetSwitches { get; } =
    [
        Hidden(Switch("--syslog", string.Empty)),
        Hidden(Switch("--print-capabilities", string.Empty)),
        Hidden(Switch("--migration-verify-handles", string.Empty)),
        Hidden(Switch("--migration-confirm-paths", string.Empty)),
    ];

    /// <summary>Deprecated in virtiofsd: another name of <see cref="SocketPath"/>.</summary>
    public Option<string[]> Socket { get; } = Value("--socket", "PATH");

    /// <summary>Deprecated in virtiofsd: debug messages.</summary>
    public Option<bool> Debug { get; } = Hidden(Switch("-d", string.Empty));

    /// <summary>Deprecated in virtiofsd: stay in the foreground, which is all there is.</summary>
    public Option<bool> Foreground { get; } = Hidden(Switch("-f", string.Empty));

    /// <summary>Adds every option to a command.</summary>
    public void AddTo(Command command)
    {
        Option[] options =
        [
            SharedDirectory, SocketPath, ListeningDescriptor, Persistent, Tag, RequestQueues, Cache, Writeback,
            AttributeTimeout, EntryTimeout, NegativeTimeout, ReadOnly, Xattr, AllowDirectIo, AllowMmap, NoReadDirPlus,
            AnnounceSubmounts, NoAnnounceSubmounts, InodeFileHandles, KillPrivV2, NoKillPrivV2, PreserveNoatime,
            DescriptorLimit, Sandbox, LogLevel, Socket, Debug, Foreground,
        ];
        foreach (Option option in options.Concat(NotYetSwitches).Concat(NotYet.Select(entry => entry.Option)))
        {
            command.Options.Add(option);
        }
    }

    private static Option<string[]> Value(string name, string placeholder, string description) => new(name)
    {
        Arity = ArgumentArity.OneOrMore,
        Description = description,
        HelpName = placeholder,
    };

    private static Option<string[]> Value(string name, string placeholder) =>
        Hidden(Value(name, placeholder, string.Empty));

    private static Option<string[]> Optional(string name, string placeholder)
    {
        Option<string[]> option = Value(name, placeholder);
        option.Arity = ArgumentArity.ZeroOrMore;
        return option;
    }

    private static Option<bool> Switch(string name, string description) => new(name) { Description = description };

    private static T Hidden<T>(T option)
        where T : Option
    {
        option.Hidden = true;
        return option;
    }
}
