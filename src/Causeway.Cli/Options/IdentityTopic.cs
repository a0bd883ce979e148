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
        _killPriv = Switch("--killpriv-v2", "clear setuid and setgid bits on the host when the guest says so [with extended attributes, unless the directory is on a network file system]");
        _noKillPriv = Switch("--no-killpriv-v2", "leave that to the guest");
        _translateUid = Value(
            "--translate-uid",
            "SPEC",
            "which user ids of guest and host stand for each other, for example map:1000:3000:10 or "
            + "squash-guest:0:1001:4294967295; may be repeated");
        _translateGid = Value("--translate-gid", "SPEC", "the same for group ids");
    }

    /// <summary>Adds the topic's settings to a share's.</summary>
    /// <exception cref="UsageException">A rule is none.</exception>
    /// <exception cref="StartupException">Rules contradict each other, or something else that was asked for.</exception>
    public PassthroughOptions Apply(PassthroughOptions options, ParsedOptions parsed) => options with
    {
        KillPrivV2 = parsed.IsGiven(_killPriv) || parsed.IsGiven(_noKillPriv)
            ? parsed.IsOn(_killPriv, _noKillPriv, byDefault: false)
            : null,
        UserIds = ReadTranslation(parsed, _translateUid),
        GroupIds = ReadTranslation(parsed, _translateGid),
    };

    private static IdTranslation ReadTranslation(ParsedOptions parsed, Option<string[]> option)
    {
        try
        {
            return IdTranslation.Parse(parsed.All(option));
        }
        catch (FormatException exception)
        {
            throw new UsageException($"'{option.Name}': {exception.Message}");
        }
        // What virtiofsd, too, takes for a wrong start and not for a wrong command line.
        catch (ArgumentException exception)
        {
            throw new StartupException($"'{option.Name}': {exception.Message}", exception);
        }
    }
}
