using System.Diagnostics;

namespace Causeway.EndToEnd;

/// <summary>Waiting for a condition, never for an amount of time.</summary>
internal static class Deadline
{
    /// <summary>Returns when the condition holds; throws, naming it, when it does not within the time.</summary>
    public static async Task UntilAsync(string condition, TimeSpan time, Func<Task<bool>> holds)
    {
        long started = Stopwatch.GetTimestamp();
        while (!await holds())
        {
            if (Stopwatch.GetElapsedTime(started) > time)
            {
                throw new TimeoutException($"not within {time.TotalSeconds:0} s: {condition}");
            }

            await Task.Delay(20);
        }
    }

    public static Task UntilAsync(string condition, TimeSpan time, Func<bool> holds) =>
        UntilAsync(condition, time, () => Task.FromResult(holds()));
}
