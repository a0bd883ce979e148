using System.CommandLine;
using Causeway.Passthrough;

namespace Causeway.Cli.Options;

/// <summary>Users and groups of guest and host, and the privileges that files carry.</summary>
internal sealed class IdentityTopic : OptionTopic
{
    private readonly Option<bool> _killPriv;
    private readonly Option<bool> _noKillPriv;
    private readonly Option<string[]> _translateUid;
    private readonly Option<string[]> _translateGid;

    public IdentityTopic()
    {
        _killPriv = Switch("--killpriv-v2", "clear setuid and setgid bits on the host when the guest says so");
        _noKillPriv = Switch("--no-killpriv-v2", "leave that to the guest [default]");
        _translateUid = Hidden(Value("--translate-uid", "SPEC", string.Empty));
        _translateGid = Hidden(Value("--translate-gid", "SPEC", string.Empty));
    }

    /// <summary>Adds the topic's settings to a share's.</summary>
    public PassthroughOptions Apply(PassthroughOptions options, ParsedOptions parsed)
    {
        parsed.RefuseNotYet(_translateUid, harmless: null);
        parsed.RefuseNotYet(_translateGid, harmless: null);
        return options with { KillPrivV2 = parsed.IsOn(_killPriv, _noKillPriv, byDefault: false) };
    }
}
