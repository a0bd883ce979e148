using Causeway.Linux;

namespace Causeway.Cli;

/// <summary><c>--cpu-affinity</c>: the processors that the daemon runs on.</summary>
internal static class ProcessorAffinity
{
    /// <summary>Moves the calling thread, and with it all that it starts, to some of the processors.</summary>
    /// <param name="processors">Their numbers; null leaves everything as it is.</param>
    /// <exception cref="StartupException">One of them is not there for this process.</exception>
    public static void Apply(IReadOnlyList<int>? processors)
    {
        if (processors is null)
        {
            return;
        }

        SyscallResult set = Processors.SetAffinity(processors);
        if (set.IsError && set.Error != Errno.EINVAL)
        {
            set.ThrowIfError("move to the processors of '--cpu-affinity'");
        }

        // The kernel leaves out what it does not have, as long as something is left.
        IReadOnlyList<int> got = Processors.GetAffinity();
        foreach (int processor in processors)
        {
            if (set.IsError || !got.Contains(processor))
            {
                throw new StartupException(
                    $"'--cpu-affinity' names processor {processor}, which this process cannot have; see Cpus_allowed_list in /proc/self/status");
            }
        }
    }
}
