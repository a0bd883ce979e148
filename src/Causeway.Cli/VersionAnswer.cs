using System.CommandLine;
using System.CommandLine.Invocation;
using System.Reflection;

namespace Causeway.Cli;

/// <summary><c>--version</c> and <c>-V</c>.</summary>
internal static class VersionAnswer
{
    /// <summary>The version of virtiofsd whose options and behaviour this program has.</summary>
    private const string Virtiofsd = "1.14.0";

    /// <summary>This program's own version.</summary>
    private static string Own => typeof(VersionAnswer).Assembly
        .GetCustomAttribute<AssemblyInformationalVersionAttribute>()!.InformationalVersion.Split('+')[0];

    /// <summary>Has a root command answer.</summary>
    /// <param name="root">The command, whose own answer is taken away.</param>
    public static void AddTo(RootCommand root)
    {
        foreach (VersionOption own in root.Options.OfType<VersionOption>().ToArray())
        {
            root.Options.Remove(own);
        }

        // In virtiofsd's place its name and version come first: programs that ask want to know which options there are.
        string text = Invocation.IsVirtiofsd ? $"virtiofsd {Virtiofsd} (causeway {Own})" : $"causeway {Own}";
        root.Options.Add(new Option<bool>("--version", "-V")
        {
            Description = "say which version this is, and end",
            Action = new PrintLine(text),
        });
    }

    private sealed class PrintLine(string text) : SynchronousCommandLineAction
    {
        public override int Invoke(ParseResult parseResult)
        {
            parseResult.InvocationConfiguration.Output.WriteLine(text);
            return ExitStatus.Success;
        }
    }
}
