using System.Text;

namespace Causeway.Cli;

/// <summary>Under which name the program was started.</summary>
internal static class Invocation
{
    /// <summary>The file name that the caller used, which may be a link's.</summary>
    public static string Name { get; } = Path.GetFileName(ReadFirstArgument());

    /// <summary>Whether the program was started in virtiofsd's place: it is one then, with its options at the top.</summary>
    public static bool IsVirtiofsd => Name.EndsWith("virtiofsd", StringComparison.Ordinal);

    // The framework's own list begins with the name of an assembly when the program is not compiled ahead of time.
    private static string ReadFirstArgument()
    {
        byte[] arguments = File.ReadAllBytes("/proc/self/cmdline");
        int end = Array.IndexOf(arguments, (byte)0);
        return Encoding.UTF8.GetString(arguments, 0, Math.Max(end, 0));
    }
}
