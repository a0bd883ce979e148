using Causeway.Linux;
using Microsoft.Extensions.Logging;

namespace Causeway.Cli;

/// <summary><c>--rlimit-nofile</c>: how many descriptors the daemon may have open, with virtiofsd's rules.</summary>
internal static partial class DescriptorLimit
{
    // What virtiofsd takes when nothing is said.
    private const ulong Wanted = 1_000_000;

    /// <summary>Sets the limit.</summary>
    /// <param name="limit">The number asked for; zero keeps the current limit, null takes what is usual.</param>
    /// <param name="logger">Hears when less than usual could be had.</param>
    /// <exception cref="StartupException">The number asked for is more than the system allows.</exception>
    public static void Apply(ulong? limit, ILogger logger)
    {
        if (limit == 0)
        {
            return;
        }

        ulong most = ulong.Parse(
            File.ReadAllText("/proc/sys/fs/nr_open"), System.Globalization.CultureInfo.InvariantCulture);
        if (limit > most)
        {
            throw new StartupException(
                $"'--rlimit-nofile {limit}' is more than the kernel allows ({most}, from fs.nr_open); ask for less");
        }

        Limits.GetOpenFiles(out ResourceLimit current).ThrowIfError("read the limit of open files");
        ulong wanted = limit ?? Math.Min(Wanted, most);
        if (limit is null && current.Current >= wanted)
        {
            return;
        }

        if (!Set(wanted).IsError)
        {
            return;
        }

        if (limit is not null)
        {
            throw new StartupException(
                $"'--rlimit-nofile {limit}' needs root, or at most the hard limit of {current.Maximum}; ask for less");
        }

        LessThanUsual(logger, current.Maximum, wanted);
        Set(current.Maximum).ThrowIfError("raise the limit of open files to the hard limit");
    }

    private static SyscallResult Set(ulong limit) =>
        Limits.SetOpenFiles(new ResourceLimit { Current = limit, Maximum = limit });

    [LoggerMessage(1, LogLevel.Warning,
        "The limit of open files is {Limit}, less than the usual {Wanted}; guests with very many open files may see ENFILE")]
    private static partial void LessThanUsual(ILogger logger, ulong limit, ulong wanted);
}
