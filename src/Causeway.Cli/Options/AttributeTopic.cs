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
        _xattrMap = Value(
            "--xattrmap", "RULES", "keep extended attributes under other names, for example ':map::user.virtiofs.:'");
        _posixAcl = OptionalValue(
            "--posix-acl", "MODE", "offer POSIX access control lists: never, auto, always [never; without MODE always]");
        _securityLabel = OptionalValue(
            "--security-label",
            "MODE",
            "label new files as the guest's security module says: never, auto, always [never; without MODE always]");
    }

    /// <summary>Adds the topic's settings to a share's.</summary>
    /// <exception cref="UsageException">A value is wrong.</exception>
    public PassthroughOptions Apply(PassthroughOptions options, ParsedOptions parsed)
    {
        options = options with
        {
            Xattr = parsed.IsOn(_xattr),
            XattrMap = ReadMap(parsed),
            PosixAcl = ReadMode(parsed, _posixAcl),
            SecurityLabel = ReadMode(parsed, _securityLabel),
        };
        if (options is { PosixAcl: not NegotiationMode.Never, XattrMap.KeepsAccessControlLists: false })
        {
            parsed.Warn(
                "'--xattrmap' keeps access control lists under other names, so that the host does not inherit them to new "
                + "files; begin it with ':ok:all:system.posix_acl_:system.posix_acl_:'");
        }

        return options;
    }

    // The rules themselves are left out of the message: they may have several lines.
    private XattrMap? ReadMap(ParsedOptions parsed)
    {
        string? rules = parsed.Last(_xattrMap);
        try
        {
            return rules is null ? null : XattrMap.Parse(rules);
        }
        catch (FormatException exception)
        {
            throw new UsageException($"'--xattrmap': {exception.Message}");
        }
    }

    private static NegotiationMode ReadMode(ParsedOptions parsed, Option<string[]> option) =>
        parsed.IsGiven(option) && parsed.Last(option) is null
            ? NegotiationMode.Always
            : parsed.OneOf(
                option,
                NegotiationMode.Never,
                ("never", NegotiationMode.Never),
                ("auto", NegotiationMode.Auto),
                ("always", NegotiationMode.Always));
}
