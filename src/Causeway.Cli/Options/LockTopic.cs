using System.CommandLine;
using Causeway.Passthrough;

namespace Causeway.Cli.Options;

/// <summary>Locks that programs of the guest take on files.</summary>
internal sealed class LockTopic : OptionTopic
{
    private readonly Option<bool> _remote;
    private readonly Option<bool> _notRemote;
    private readonly Option<string[]> _wait;

    public LockTopic()
    {
        _remote = Switch(
            "--remote-locks", "have locks of files hold against other guests and the host [unless --cache always or --writeback]");
        _notRemote = Switch("--no-remote-locks", "keep the locks of a guest to itself, as virtiofsd does");
        _wait = Value("--lock-wait", "SECONDS", "how long the guest may wait for a lock before that fails; 0 is for ever [600]");
    }

    /// <summary>Adds the topic's settings to a share's.</summary>
    public PassthroughOptions Apply(PassthroughOptions options, ParsedOptions parsed)
    {
        // A day: arbitrary, longer than anybody waits.
        const int longest = 24 * 60 * 60;
        bool isDecided = parsed.IsGiven(_remote) || parsed.IsGiven(_notRemote);
        return options with
        {
            RemoteLocks = isDecided ? parsed.IsOn(_remote, _notRemote, byDefault: true) : null,
            LockWaitLimit = parsed.Number(_wait, 0, longest) is { } seconds
                ? TimeSpan.FromSeconds((double)seconds)
                : options.LockWaitLimit,
        };
    }
}
