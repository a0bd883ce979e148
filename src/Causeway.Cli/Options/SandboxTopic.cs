using System.CommandLine;
using Causeway.Cli.Sandbox;

namespace Causeway.Cli.Options;

/// <summary>How the daemon is confined.</summary>
internal sealed class SandboxTopic : OptionTopic
{
    private readonly Option<string[]> _sandbox;
    private readonly Option<string[]> _seccomp;
    private readonly Option<string[]> _modcaps;
    private readonly Option<string[]> _uidMap;
    private readonly Option<string[]> _gidMap;

    public SandboxTopic()
    {
        _sandbox = Value(
            "--sandbox", "MODE", "how the daemon locks itself in: namespace, chroot (needs root), none [namespace]");
        _seccomp = Value(
            "--seccomp", "ACTION", "what a forbidden system call ends in: kill, trap, log (and goes on), none [kill]");
        _modcaps = Value(
            "--modcaps", "LIST", "capabilities to keep or drop beyond what is needed, for example +sys_admin:-mknod");
        _uidMap = Value(
            "--uid-map", "MAP", "user ids in the sandbox, :INSIDE:OUTSIDE:COUNT:, when not started by root [one's own]");
        _gidMap = Value("--gid-map", "MAP", "the same for group ids");
    }

    /// <summary>Reads the topic.</summary>
    public SandboxOptions Read(ParsedOptions parsed) => new()
    {
        Mode = parsed.OneOf(
            _sandbox,
            SandboxMode.Namespace,
            ("namespace", SandboxMode.Namespace),
            ("chroot", SandboxMode.Chroot),
            ("none", SandboxMode.None)),
        Seccomp = parsed.OneOf(
            _seccomp,
            SeccompAction.Kill,
            ("kill", SeccompAction.Kill),
            ("log", SeccompAction.Log),
            ("trap", SeccompAction.Trap),
            ("none", SeccompAction.None)),
        CapabilityChanges = parsed.Last(_modcaps) is { } list ? CapabilitySelection.Parse(list) : [],
        UserMap = [.. parsed.All(_uidMap).Select(text => IdentityMap.Parse(_uidMap.Name, text))],
        GroupMap = [.. parsed.All(_gidMap).Select(text => IdentityMap.Parse(_gidMap.Name, text))],
    };
}
