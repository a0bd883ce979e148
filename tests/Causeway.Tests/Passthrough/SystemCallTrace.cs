using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;
using Causeway.Linux;

namespace Causeway.Tests.Passthrough;

/// <summary>
/// Records the system calls of the calling thread between two marks, by strace(1) attached to that one thread. A mark is a
/// close(2) of a descriptor that cannot exist.
/// </summary>
internal sealed partial class SystemCallTrace : IDisposable
{
    private const int FirstMark = -1_000_000;

    // What the runtime does on any thread: memory, waiting, signals to suspend it.
    private static readonly HashSet<string> s_runtime =
    [
        "futex", "madvise", "mmap", "munmap", "mprotect", "brk", "sched_yield", "rt_sigreturn", "restart_syscall",
        "rt_sigprocmask", "gettid", "getpid", "tgkill", "membarrier", "clock_gettime", "getcpu", "sched_getaffinity",
    ];

    private readonly string _output = Path.Combine(Path.GetTempPath(), $"causeway-strace-{Guid.NewGuid():N}");
    private readonly List<(string Title, string Expected)> _steps = [];
    private readonly Process _strace;

    public SystemCallTrace()
    {
        // Otherwise the next collection, which reads the limits of memory, might fall into the trace.
        GC.Collect();
        string thread = Path.GetFileName(File.ResolveLinkTarget("/proc/thread-self", returnFinalTarget: false)!.FullName);
        _strace = Host.StartClean("strace", "-p", thread, "-o", _output);
        string? line = _strace.StandardError.ReadLine();
        if (line is null || !line.Contains("attached", StringComparison.Ordinal))
        {
            Assert.Skip($"strace cannot trace here: {line}");
        }
    }

    /// <summary>Skips the test when there is no strace.</summary>
    public static void Require() => Assert.SkipUnless(
        Environment.GetEnvironmentVariable("PATH")!.Split(':').Any(path => File.Exists($"{path}/strace")),
        "strace is not installed");

    /// <summary>Does something and remembers which calls it should make, separated by spaces.</summary>
    public void Expect(string title, string calls, Action action)
    {
        int mark = FirstMark - _steps.Count;
        _steps.Add((title, calls));
        _ = FileIO.Close(mark);
        action();
        _ = FileIO.Close(mark);
    }

    /// <summary>Ends the trace and compares.</summary>
    public void Verify()
    {
        Host.Run("kill", "-INT", _strace.Id.ToString(CultureInfo.InvariantCulture));
        _strace.WaitForExit();
        var actual = new List<string>[_steps.Count];
        List<string>? current = null;
        bool isInSignalHandler = false;
        foreach (string line in File.ReadLines(_output))
        {
            isInSignalHandler |= line.StartsWith("--- SIG", StringComparison.Ordinal);
            Match call = Call().Match(line);
            if (!call.Success || isInSignalHandler)
            {
                isInSignalHandler &= !line.StartsWith("rt_sigreturn", StringComparison.Ordinal);
                continue;
            }

            Match mark = Mark().Match(line);
            if (mark.Success)
            {
                int step = FirstMark - int.Parse(mark.Groups[1].Value, CultureInfo.InvariantCulture);
                current = current is null ? actual[step] = [] : null;
            }
            else if (!s_runtime.Contains(call.Groups[1].Value))
            {
                current?.Add(call.Groups[1].Value switch
                {
                    // The C library takes the older call where there are no flags.
                    "renameat" => "renameat2",
                    // Newer than Debian 12's strace.
                    "syscall_0x1c4" => "fchmodat2",
                    string name => name,
                });
            }
        }

        Assert.Equal(
            string.Join('\n', _steps.Select(step => $"{step.Title}: {step.Expected}")),
            string.Join('\n', _steps.Zip(actual, (step, calls) => $"{step.Title}: {string.Join(' ', calls)}")));
    }

    public void Dispose()
    {
        if (!_strace.HasExited)
        {
            _strace.Kill();
        }

        _strace.Dispose();
        File.Delete(_output);
    }

    [GeneratedRegex(@"^(\w+)\(")]
    private static partial Regex Call();

    [GeneratedRegex(@"^close\((-\d{7})\)")]
    private static partial Regex Mark();
}
