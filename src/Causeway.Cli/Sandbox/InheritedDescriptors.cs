using System.Globalization;
using Causeway.Linux;

namespace Causeway.Cli.Sandbox;

/// <summary>Descriptors that whoever started the daemon had open, perhaps unknowingly. A guest has no business with them.</summary>
internal static class InheritedDescriptors
{
    private const int FirstAfterStandard = 3;

    /// <summary>Closes them. The runtime's own are close-on-exec, which an inherited one cannot be.</summary>
    /// <param name="except">One that was meant for the daemon.</param>
    public static void Close(int? except)
    {
        foreach (string name in Directory.GetFiles("/proc/self/fd").Select(path => Path.GetFileName(path)))
        {
            int descriptor = int.Parse(name, CultureInfo.InvariantCulture);
            if (descriptor >= FirstAfterStandard && descriptor != except && !Descriptors.IsCloseOnExec(descriptor))
            {
                // The listing's own is among them, and gone; that is an error which means nothing.
                _ = FileIO.Close(descriptor);
            }
        }
    }
}
