using System.CommandLine;
using Causeway.Server;

namespace Causeway.Cli.Options;

/// <summary>Whether files are mapped into the guest.</summary>
internal sealed class DaxTopic : OptionTopic
{
    private const string DefaultSize = "256M";

    private readonly Option<string[]> _dax;
    private readonly Option<bool> _isExclusive;

    public DaxTopic()
    {
        _dax = OptionalValue(
            "--dax", "SIZE", "map files into the guest through a window of SIZE, say 1G; needs '--exclusive' [off; 256M]");
        _isExclusive = Switch(
            "--exclusive", "promise that only guests of this daemon change the sizes of existing files below DIR");
    }

    /// <summary>Reads the topic.</summary>
    /// <returns>The size of the window in bytes; zero for none.</returns>
    public ulong Read(ParsedOptions parsed)
    {
        if (!parsed.IsGiven(_dax))
        {
            return 0;
        }

        // Whoever shortens a mapped file behind our back ends the guest that touches the missing part, and nothing that the
        // platform offers prevents it: so it is never on without the operator having said that nobody does.
        if (!parsed.IsOn(_isExclusive))
        {
            throw new UsageException(
                "'--dax' ends a guest that touches a mapped file which somebody else on this host has shortened: say "
                + "'--exclusive' as well if nobody does, or leave '--dax' out");
        }

        string text = parsed.Last(_dax) ?? DefaultSize;
        return ParsedOptions.TryReadSize(text, out ulong size) && ulong.IsPow2(size)
            && size is >= VirtioFsServerOptions.MinDaxWindow and <= VirtioFsServerOptions.MaxDaxWindow
            ? size
            : throw new UsageException($"'--dax' takes a power of two from 2M to 64G, for example 256M, not '{text}'");
    }
}
