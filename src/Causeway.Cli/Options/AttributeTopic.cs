using System.CommandLine;
using Causeway.Passthrough;

namespace Causeway.Cli.Options;

/// <summary>Extended attributes, access control lists and security labels.</summary>
internal sealed class AttributeTopic : OptionTopic
{
    private readonly Option<bool> _xattr;
    private readonly Option<string[]> _xattrMap;
    private readonly Option<string[]> _posixAcl;
    private readonly Option<string[]> _securityLabel;

    public AttributeTopic()
    {
        _xattr = Switch("--xattr", "offer extended attributes");
        _xattrMap = Hidden(Value("--xattrmap", "RULES", string.Empty));
        _posixAcl = Hidden(OptionalValue("--posix-acl", "MODE", string.Empty));
        _securityLabel = Hidden(OptionalValue("--security-label", "MODE", string.Empty));
    }

    /// <summary>Adds the topic's settings to a share's.</summary>
    public PassthroughOptions Apply(PassthroughOptions options, ParsedOptions parsed)
    {
        parsed.RefuseNotYet(_xattrMap, harmless: null);
        parsed.RefuseNotYet(_posixAcl, harmless: "never");
        parsed.RefuseNotYet(_securityLabel, harmless: "never");
        return options with { Xattr = parsed.IsOn(_xattr) };
    }
}
