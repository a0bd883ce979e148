using System.CommandLine;

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
        _sandbox = Value("--sandbox", "MODE", "only 'none' works today, and it must be said");
        _seccomp = Hidden(Value("--seccomp", "ACTION", string.Empty));
        _modcaps = Hidden(Value("--modcaps", "LIST", string.Empty));
        _uidMap = Hidden(Value("--uid-map", "MAP", string.Empty));
        _gidMap = Hidden(Value("--gid-map", "MAP", string.Empty));
    }

    /// <summary>Refuses what is not provided yet.</summary>
    public void Check(ParsedOptions parsed)
    {
        parsed.RefuseNotYet(_seccomp, harmless: "none");
        parsed.RefuseNotYet(_modcaps, harmless: null);
        parsed.RefuseNotYet(_uidMap, harmless: null);
        parsed.RefuseNotYet(_gidMap, harmless: null);
        string? sandbox = parsed.Last(_sandbox);
        if (!string.Equals(sandbox, "none", StringComparison.OrdinalIgnoreCase))
        {
            throw new UsageException(sandbox is null or "namespace" or "chroot"
                ? "the sandbox is not provided yet; say '--sandbox none' to serve without one"
                : $"'--sandbox {sandbox}' is not a mode; today there is only '--sandbox none'");
        }
    }
}
