using System.Globalization;

namespace Causeway.Linux;

/// <summary>The processors of the machine.</summary>
public static class Processors
{
    private const string PossiblePath = "/sys/devices/system/cpu/possible";

    /// <summary>How many processors there may ever be, those included that could be added while it runs.</summary>
    /// <exception cref="IOException">The kernel does not tell.</exception>
    public static int CountPossible() => Count(File.ReadAllText(PossiblePath));

    /// <summary>How many are in a list as the kernel writes them: <c>0-3,8</c>.</summary>
    internal static int Count(string list)
    {
        int count = 0;
        foreach (string part in list.Trim().Split(','))
        {
            string[] ends = part.Split('-');
            int first = int.Parse(ends[0], CultureInfo.InvariantCulture);
            count += int.Parse(ends[^1], CultureInfo.InvariantCulture) - first + 1;
        }

        return count;
    }
}
