using System.Text;
using Causeway.Linux;

namespace Causeway.Cli.Sandbox;

/// <summary>Landlock on top of the rest, as far as the kernel has it.</summary>
/// <remarks>
/// Landlock judges a file by the directories above it, and a file that was opened by handle may have none that the kernel knows:
/// it could not be opened or linked any more. So the rule that nothing outside of the share may be touched, and nothing started,
/// is there where nodes live by descriptor. Where they live by handle only TCP is forbidden.
/// </remarks>
internal static class LandlockRules
{
    /// <summary>Writes the rules.</summary>
    /// <param name="share">Where the share is.</param>
    /// <param name="usesHandles">Whether files may be opened by handle.</param>
    /// <returns>A descriptor of the rules; -1 where the kernel has no Landlock, or none that helps.</returns>
    /// <exception cref="ErrnoException">The kernel refuses them.</exception>
    public static int Write(string share, bool usesHandles)
    {
        SyscallResult version = Landlock.Version();
        if (version.IsError)
        {
            return -1;
        }

        // Without version 2 nothing could be moved from one directory to another.
        LandlockFileRights granted = usesHandles || version.Count < 2 ? LandlockFileRights.None : RightsOf(version.Count);
        LandlockFileRights handled = granted;
        if (granted != LandlockFileRights.None)
        {
            handled |= LandlockFileRights.Execute;
            handled |= version.Count >= 5 ? LandlockFileRights.DeviceControl : LandlockFileRights.None;
        }

        LandlockNetworkRights network = version.Count >= 4
            ? LandlockNetworkRights.BindTcp | LandlockNetworkRights.ConnectTcp
            : LandlockNetworkRights.None;
        if (handled == LandlockFileRights.None && network == LandlockNetworkRights.None)
        {
            return -1;
        }

        int ruleset = Landlock.CreateRuleset(handled, network).ThrowIfError("make Landlock rules").Descriptor;
        if (granted != LandlockFileRights.None)
        {
            int directory = Files.Openat(
                Files.WorkingDirectory, Encoding.UTF8.GetBytes(share + '\0'),
                OpenFlags.Path | OpenFlags.Directory | OpenFlags.CloseOnExec)
                .ThrowIfError("open the share for Landlock").Descriptor;
            Landlock.Allow(ruleset, directory, granted).ThrowIfError("allow the share by Landlock");
            _ = FileIO.Close(directory);
        }

        return ruleset;
    }

    private static LandlockFileRights RightsOf(int version)
    {
        LandlockFileRights rights = LandlockFileRights.WriteFile | LandlockFileRights.ReadFile
            | LandlockFileRights.ReadDirectory | LandlockFileRights.RemoveDirectory | LandlockFileRights.RemoveFile
            | LandlockFileRights.MakeCharacterDevice | LandlockFileRights.MakeDirectory | LandlockFileRights.MakeFile
            | LandlockFileRights.MakeSocket | LandlockFileRights.MakeFifo | LandlockFileRights.MakeBlockDevice
            | LandlockFileRights.MakeSymbolicLink;
        return rights | LandlockFileRights.Refer | (version >= 3 ? LandlockFileRights.Truncate : LandlockFileRights.None);
    }
}
