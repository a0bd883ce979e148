using System.Runtime.ExceptionServices;

namespace Causeway.Tests.Passthrough;

/// <summary>Threads for the file system: it changes those it runs on for good, so the test runner's own are not for it.</summary>
internal static class Worker
{
    public static void Run(Action body) => RunAll(1, _ => body());

    /// <summary>Runs a body on several threads at once and rethrows what the first of them threw.</summary>
    public static void RunAll(int count, Action<int> body)
    {
        var failures = new Exception?[count];
        Thread[] threads = [.. Enumerable.Range(0, count).Select(i => new Thread(() =>
        {
            try
            {
                body(i);
            }
            catch (Exception exception)
            {
                failures[i] = exception;
            }
        }))];
        foreach (Thread thread in threads)
        {
            thread.Start();
        }

        foreach (Thread thread in threads)
        {
            thread.Join();
        }

        if (failures.FirstOrDefault(failure => failure is not null) is { } first)
        {
            ExceptionDispatchInfo.Throw(first);
        }
    }
}
