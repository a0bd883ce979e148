using System.CommandLine;

namespace Causeway.Cli.Options;

/// <summary>How a guest moves to another host with its open files.</summary>
internal sealed class MigrationTopic : OptionTopic
{
    private readonly Option<string[]> _mode;
    private readonly Option<string[]> _onError;
    private readonly Option<bool> _verifyHandles;
    private readonly Option<bool> _confirmPaths;

    public MigrationTopic()
    {
        _mode = Hidden(Value("--migration-mode", "MODE", string.Empty));
        _onError = Hidden(Value("--migration-on-error", "MODE", string.Empty));
        _verifyHandles = Hidden(Switch("--migration-verify-handles", string.Empty));
        _confirmPaths = Hidden(Switch("--migration-confirm-paths", string.Empty));
    }

    /// <summary>Reads the topic.</summary>
    public MigrationOptions Read(ParsedOptions parsed) => new()
    {
        Mode = parsed.OneOf(
            _mode, MigrationMode.FindPaths, ("find-paths", MigrationMode.FindPaths), ("file-handles", MigrationMode.FileHandles)),
        OnError = parsed.OneOf(
            _onError, MigrationOnError.Abort, ("abort", MigrationOnError.Abort), ("guest-error", MigrationOnError.GuestError)),
        VerifyHandles = parsed.IsOn(_verifyHandles),
        ConfirmPaths = parsed.IsOn(_confirmPaths),
    };
}

/// <summary>How a guest moves to another host. Checked only: moving is not provided yet.</summary>
internal sealed record MigrationOptions
{
    /// <summary>How the source describes the guest's inodes.</summary>
    public MigrationMode Mode { get; init; }

    /// <summary>What the destination does about an inode that it does not find.</summary>
    public MigrationOnError OnError { get; init; }

    /// <summary>Whether the destination has to find the very same inodes; only with <see cref="MigrationMode.FindPaths"/>.</summary>
    public bool VerifyHandles { get; init; }

    /// <summary>Whether the source checks all paths again at the end; only with <see cref="MigrationMode.FindPaths"/>.</summary>
    public bool ConfirmPaths { get; init; }

    /// <summary>Refuses what makes no sense together.</summary>
    /// <exception cref="StartupException">It does not; the message says what to leave out.</exception>
    public void Check()
    {
        if (Mode == MigrationMode.FileHandles && (VerifyHandles || ConfirmPaths))
        {
            string option = VerifyHandles ? "--migration-verify-handles" : "--migration-confirm-paths";
            throw new StartupException(
                $"'{option}' is for '--migration-mode find-paths'; with file-handles there is nothing to check, leave it out");
        }
    }
}

/// <summary>How inodes are described to another host.</summary>
internal enum MigrationMode
{
    /// <summary>By their paths.</summary>
    FindPaths,

    /// <summary>By their file handles.</summary>
    FileHandles,
}

/// <summary>What happens to an inode that the other host does not have.</summary>
internal enum MigrationOnError
{
    /// <summary>The guest stays where it was.</summary>
    Abort,

    /// <summary>The guest moves, and sees EIO for that inode.</summary>
    GuestError,
}
