namespace Causeway.Tests.Bridge;

/// <summary>Has the kernel offer FUSE over io_uring while at least one test needs it, and leaves it as it was.</summary>
internal sealed class FuseIoUring : IDisposable
{
    private const string Parameter = "/sys/module/fuse/parameters/enable_uring";

    private static readonly Lock s_gate = new();
    private static int s_users;
    private static string? s_before;

    private bool _isDone;

    private FuseIoUring()
    {
    }

    /// <summary>The option of <c>causeway mount</c>.</summary>
    public const string Option = "io_uring";

    /// <summary>Why requests cannot come over io_uring on this machine; null when they can.</summary>
    public static string? Obstacle => !File.Exists(Parameter)
        ? "NOT TESTED: this kernel has no FUSE over io_uring (Linux 6.14, CONFIG_FUSE_IO_URING)"
        : Environment.UserName != "root" ? "NOT TESTED: switching FUSE over io_uring on needs root" : null;

    /// <summary>Switches it on when the options of a mount ask for it; skips the test where it is not to be had.</summary>
    /// <param name="options">What follows <c>-o</c>.</param>
    public static FuseIoUring? For(string options)
    {
        if (!options.Split(',').Contains(Option))
        {
            return null;
        }

        Assert.SkipWhen(Obstacle is not null, Obstacle ?? "");
        lock (s_gate)
        {
            if (s_users++ == 0)
            {
                s_before = File.ReadAllText(Parameter);
                File.WriteAllText(Parameter, "Y");
            }
        }

        return new FuseIoUring();
    }

    public void Dispose()
    {
        lock (s_gate)
        {
            if (!_isDone && --s_users == 0)
            {
                File.WriteAllText(Parameter, s_before);
            }

            _isDone = true;
        }
    }
}
