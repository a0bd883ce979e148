using System.Globalization;
using Causeway.Fuzz.Targets;

namespace Causeway.Fuzz;

/// <summary>
/// Runs inputs again and again, and looks whether anything has become more: what a target holds when an input is done belongs to
/// nobody.
/// </summary>
internal static class LeakCheck
{
    // The first rounds make what is made once: code, thread pools, buffers of every size.
    private const int FirstRounds = 3;
    private const int Rounds = 10;

    // Heap of the runtime that is not empty yet, or stacks of threads that are just ending: arbitrary, far below what any input
    // leaks in all rounds together if it leaks a page.
    private const long Slack = 8 << 20;

    public static bool Find(FuzzTarget target, string[] files)
    {
        List<byte[]> inputs = [.. files.Select(File.ReadAllBytes)];
        Run(target, inputs, FirstRounds);
        Usage before = Usage.Now();
        Run(target, inputs, Rounds);
        Usage after = Usage.Now();
        Console.Error.WriteLine($"{inputs.Count} inputs, {Rounds} times: {before} before, {after} after");
        return after.Descriptors > before.Descriptors || after.Threads > before.Threads
            || after.Managed > before.Managed + Slack || after.Resident > before.Resident + (4 * Slack);
    }

    private static void Run(FuzzTarget target, List<byte[]> inputs, int rounds)
    {
        for (int round = 0; round < rounds; round++)
        {
            inputs.ForEach(input => target.Run(input));
        }
    }

    private readonly record struct Usage(int Descriptors, int Threads, long Managed, long Resident)
    {
        public static Usage Now()
        {
            // Twice: what finalizers let go of.
            for (int i = 0; i < 2; i++)
            {
                GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
                GC.WaitForPendingFinalizers();
            }

            string resident = File.ReadLines("/proc/self/status").First(line => line.StartsWith("RssAnon:", StringComparison.Ordinal));
            return new(
                Directory.GetFiles("/proc/self/fd").Length,
                Directory.GetDirectories("/proc/self/task").Length,
                GC.GetTotalMemory(forceFullCollection: true),
                long.Parse(resident.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) << 10);
        }

        public override string ToString() =>
            $"{Descriptors} descriptors, {Threads} threads, {Managed >> 10} KiB managed, {Resident >> 10} KiB resident";
    }
}
