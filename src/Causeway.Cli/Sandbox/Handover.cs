using System.Globalization;

namespace Causeway.Cli.Sandbox;

/// <summary>What stage one leaves to stage two, which runs the same command line in the sandbox: open descriptors, by number.</summary>
/// <param name="Mode">Which sandbox stage two is to enter.</param>
/// <param name="Listeners">The listening sockets.</param>
/// <param name="Lifeline">A pipe whose other end stage one has: it hangs up when stage one ends.</param>
/// <param name="MapsIds">Whether it is in a user namespace of its own.</param>
/// <param name="Capabilities">The capabilities that are kept in the end.</param>
internal sealed record Handover(
    SandboxMode Mode, IReadOnlyList<int> Listeners, int Lifeline, bool MapsIds, ulong Capabilities)
{
    private const string Variable = "CAUSEWAY_STAGE_TWO";

    /// <summary>The entry of the environment that carries it.</summary>
    public string Entry => string.Create(
        CultureInfo.InvariantCulture,
        $"{Variable}={(int)Mode}:{Lifeline}:{(MapsIds ? 1 : 0)}:{Capabilities}:{string.Join(':', Listeners)}");

    /// <summary>Whether an entry of the environment is one of these, left over from somewhere.</summary>
    public static bool IsEntry(ReadOnlySpan<byte> entry) => entry.StartsWith("CAUSEWAY_STAGE_TWO="u8);

    /// <summary>Takes what was left; null in stage one.</summary>
    /// <exception cref="StartupException">The variable is set, and not by stage one.</exception>
    public static Handover? Take()
    {
        string? text = Environment.GetEnvironmentVariable(Variable);
        if (text is null)
        {
            return null;
        }

        Environment.SetEnvironmentVariable(Variable, null);
        long[] numbers = [.. text.Split(':').Select(
            part => long.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : -1)];
        if (numbers is not [0 or 1, >= 3 and <= int.MaxValue, 0 or 1, >= 0, _, ..]
            || numbers[4..].Any(number => number is < 3 or > int.MaxValue))
        {
            throw new StartupException($"the environment has {Variable}, which only the daemon itself sets; remove it");
        }

        int[] listeners = [.. numbers[4..].Select(number => (int)number)];
        return new Handover((SandboxMode)numbers[0], listeners, (int)numbers[1], numbers[2] == 1, (ulong)numbers[3]);
    }
}
