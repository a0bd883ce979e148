using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using Causeway.Linux;

namespace Causeway.Cli.Sandbox;

/// <summary>
/// Takes rights away from the whole process: capabilities, Landlock, seccomp. Runs before the process has more threads than the
/// runtime starts it with, the main thread and the one for finalizers. What the kernel only takes from the calling thread is
/// taken from both; every later thread starts with what its parent has.
/// </summary>
internal sealed class Confinement
{
    // A hundred collections are far more than a finalizer that is due can miss (arbitrary).
    private const int Collections = 100;

    private static SyscallResult s_onFinalizerThread;
    private static string? s_failedStep;
    private static volatile bool s_isFinalizerThreadDone;

    private readonly ulong _kept;
    private readonly int _ruleset;

    private Confinement(ulong kept, int ruleset)
    {
        _kept = kept;
        _ruleset = ruleset;
    }

    /// <summary>Collected on purpose: this is how one runs code on the thread for finalizers.</summary>
    ~Confinement()
    {
        if (!s_isFinalizerThreadDone)
        {
            s_onFinalizerThread = RestrictThread(_kept, _ruleset, out s_failedStep);
            s_isFinalizerThreadDone = true;
        }
    }

    /// <summary>Cuts everything down.</summary>
    /// <param name="options">How far.</param>
    /// <param name="takesDelegations">Whether the kernel may be asked for delegations.</param>
    /// <param name="hasRing">Whether there is a ring of io_uring that is to be used.</param>
    /// <param name="wanted">The capabilities that are kept, of those the process has.</param>
    /// <param name="ruleset">Landlock rules, or -1.</param>
    /// <param name="threads">What <see cref="OpenThreads"/> gave; closed.</param>
    /// <returns>The capabilities that are left.</returns>
    /// <exception cref="StartupException">A step cannot be done.</exception>
    public static ulong Enter(
        SandboxOptions options, bool takesDelegations, bool hasRing, ulong wanted, int ruleset, IReadOnlyList<int> threads)
    {
        ulong kept = Restrict(wanted, ruleset);
        if (ruleset >= 0)
        {
            _ = FileIO.Close(ruleset);
        }

        if (options.Seccomp != SeccompAction.None)
        {
            FilterInstruction[] filter = SeccompFilter.Write(
                options.Seccomp, Environment.ProcessId, LoadedCode.IsCompiledHere, takesDelegations, hasRing);
            SyscallResult result = Seccomp.SetFilter(filter);
            if (result.RawValue != 0)
            {
                throw new StartupException(
                    $"the filter for system calls (seccomp) cannot be set: {result}; use a kernel with CONFIG_SECCOMP_FILTER, "
                    + "or say '--seccomp none'");
            }
        }

        Verify(threads, kept, options.Seccomp != SeccompAction.None);
        return kept;
    }

    /// <summary>Takes all capabilities from a process that only waits.</summary>
    /// <exception cref="StartupException">It cannot be done.</exception>
    public static void Disarm() => Restrict(wanted: 0, ruleset: -1);

    /// <summary>Opens what <see cref="Enter"/> looks at in the end, as long as it can be opened.</summary>
    /// <returns>Descriptors of every thread's status.</returns>
    public static IReadOnlyList<int> OpenThreads() =>
    [
        .. Directory.GetDirectories("/proc/self/task").Select(
            task => Files.Openat(
                Files.WorkingDirectory, Encoding.UTF8.GetBytes($"{task}/status\0"), OpenFlags.ReadOnly | OpenFlags.CloseOnExec)
                .ThrowIfError($"open '{task}/status'").Descriptor),
    ];

    private static ulong Restrict(ulong wanted, int ruleset)
    {
        Credentials.Capget(out CapabilitySets before).ThrowIfError("read the capabilities");
        ulong kept = wanted & before.Permitted;
        SyscallResult result = RestrictThread(kept, ruleset, out string? step);
        if (!result.IsError)
        {
            s_isFinalizerThreadDone = false;
            result = RestrictFinalizerThread(kept, ruleset, out step);
        }

        return !result.IsError
            ? kept
            : throw new StartupException(
                $"the sandbox cannot {step}: {ErrnoException.Describe(result.Error)}; start the daemon with CAP_SETPCAP, or as a "
                + "user without capabilities");
    }

    private static SyscallResult RestrictThread(ulong kept, int ruleset, out string? step)
    {
        Credentials.Capget(out CapabilitySets before);
        if (before.Permitted != 0)
        {
            // While CAP_SETPCAP is still there.
            step = "separate capabilities from user ids (securebits)";
            SyscallResult result = Credentials.SetSecureBits(Credentials.IdsWithoutCapabilities);
            if (result.IsError)
            {
                return result;
            }

            step = "empty the bounding set of capabilities";
            result = Privileges.DropBoundingSet();
            if (result.IsError)
            {
                return result;
            }
        }

        step = "drop capabilities";
        SyscallResult dropped = Privileges.ClearAmbient();
        if (!dropped.IsError)
        {
            dropped = Credentials.Capset(new CapabilitySets(kept, kept, 0));
        }

        if (!dropped.IsError)
        {
            step = "forbid new privileges";
            dropped = Privileges.SetNoNewPrivileges();
        }

        if (!dropped.IsError && ruleset >= 0)
        {
            step = "put its Landlock rules in force";
            dropped = Landlock.RestrictSelf(ruleset);
        }

        return dropped;
    }

    private static SyscallResult RestrictFinalizerThread(ulong kept, int ruleset, out string? step)
    {
        Abandon(kept, ruleset);
        for (int i = 0; i < Collections && !s_isFinalizerThreadDone; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }

        step = s_failedStep ?? "reach the thread for finalizers";
        return s_isFinalizerThreadDone ? s_onFinalizerThread : SyscallResult.Failed(Errno.ETIMEDOUT);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Abandon(ulong kept, int ruleset) => _ = new Confinement(kept, ruleset);

    // What the kernel says of each thread, not what we believe.
    private static void Verify(IReadOnlyList<int> threads, ulong kept, bool hasFilter)
    {
        byte[] text = new byte[8 << 10];
        foreach (int thread in threads)
        {
            int length = Pipes.Read(thread, text).ThrowIfError("look at a thread of this process").Count;
            _ = FileIO.Close(thread);
            string status = Encoding.UTF8.GetString(text, 0, length);
            bool isConfined = Field(status, "NoNewPrivs") == "1"
                && (Field(status, "Seccomp") == "2" || !hasFilter)
                && (Bits(status, "CapPrm") & ~kept) == 0
                && (Bits(status, "CapBnd") == 0 || kept == 0);

            // Under 'dotnet run' the virtual machine has threads of its own that nobody reaches; they have the filter, though.
            if (!isConfined && !(LoadedCode.IsCompiledHere && Field(status, "Name") != ".NET Finalizer"))
            {
                throw new StartupException(
                    "a thread is not confined, which is a defect of this program; please report it with: "
                    + status.Replace('\n', ' ').Replace('\t', ' '));
            }
        }
    }

    private static ulong Bits(string status, string name) =>
        ulong.Parse(Field(status, name), NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    private static string Field(string status, string name)
    {
        string line = status.Split('\n').FirstOrDefault(line => line.StartsWith(name + ":", StringComparison.Ordinal)) ?? ":";
        return line[(line.IndexOf(':', StringComparison.Ordinal) + 1)..].Trim();
    }
}
