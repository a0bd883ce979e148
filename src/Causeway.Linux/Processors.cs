using System.Globalization;

namespace Causeway.Linux;

/// <summary>The processors of the machine.</summary>
public static unsafe class Processors
{
    /// <summary>One more than the highest number of a processor: the largest CONFIG_NR_CPUS there is.</summary>
    public const int MaxNumber = 8192;

    private const string PossiblePath = "/sys/devices/system/cpu/possible";
    private const int Words = MaxNumber / 64;

    /// <summary>How many processors there may ever be, those included that could be added while it runs.</summary>
    /// <exception cref="IOException">The kernel does not tell.</exception>
    public static int CountPossible() => Count(File.ReadAllText(PossiblePath));

    /// <summary>
    /// sched_setaffinity(2): the calling thread, and what it starts from then on, runs on these processors only. Those that the machine
    /// or the thread's control group does not have are left out.
    /// </summary>
    /// <param name="processors">Their numbers, below <see cref="MaxNumber"/>.</param>
    /// <returns>EINVAL when none of them is there.</returns>
    public static SyscallResult SetAffinity(IEnumerable<int> processors)
    {
        ArgumentNullException.ThrowIfNull(processors);
        ulong[] mask = new ulong[Words];
        foreach (int processor in processors)
        {
            mask[processor / 64] |= 1UL << (processor % 64);
        }

        fixed (ulong* pointer = mask)
        {
            return SyscallResult.From(Libc.sched_setaffinity(0, Words * sizeof(ulong), pointer));
        }
    }

    /// <summary>sched_getaffinity(2): the processors on which the calling thread may run, in order.</summary>
    /// <exception cref="ErrnoException">The call failed.</exception>
    public static IReadOnlyList<int> GetAffinity()
    {
        ulong[] mask = new ulong[Words];
        fixed (ulong* pointer = mask)
        {
            SyscallResult.From(Libc.sched_getaffinity(0, Words * sizeof(ulong), pointer)).ThrowIfError("ask for the processors");
        }

        return [.. Enumerable.Range(0, MaxNumber).Where(processor => (mask[processor / 64] >> (processor % 64) & 1) != 0)];
    }

    /// <summary>Reads a list of processors as taskset(1) takes it: <c>0,2-5,8-14:2</c>.</summary>
    /// <param name="text">The list.</param>
    /// <param name="processors">Their numbers in order, each once.</param>
    /// <returns>False when it is none.</returns>
    public static bool TryParse(string text, out IReadOnlyList<int> processors)
    {
        ArgumentNullException.ThrowIfNull(text);
        var found = new SortedSet<int>();
        processors = [];
        foreach (string part in text.Split(','))
        {
            if (!TryAdd(part, found))
            {
                return false;
            }
        }

        processors = [.. found];
        return true;
    }

    // One part of a list: 3, 3-7 or 3-7:2.
    private static bool TryAdd(string part, SortedSet<int> found)
    {
        string[] range = part.Split('-');
        string[] end = range[^1].Split(':');
        if (range.Length > 2 || end.Length > range.Length || !TryReadNumber(range[0], out int first))
        {
            return false;
        }

        int last = first;
        int step = 1;
        if (range.Length == 2 && !TryReadNumber(end[0], out last))
        {
            return false;
        }

        if (end.Length == 2 && (!TryReadNumber(end[1], out step) || step == 0))
        {
            return false;
        }

        for (int processor = first; processor <= last; processor += step)
        {
            found.Add(processor);
        }

        return last >= first;
    }

    private static bool TryReadNumber(string text, out int number) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number) && number < MaxNumber;

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
