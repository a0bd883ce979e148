using System.Diagnostics.CodeAnalysis;
using System.Reflection;

namespace Causeway.Cli.Sandbox;

/// <summary>
/// Under <c>dotnet run</c> the program is in many files that are read when they are needed, and in the sandbox they are gone.
/// The program that is compiled ahead is one file, for which there is nothing to do.
/// </summary>
internal static class LoadedCode
{
    /// <summary>Whether a compiler is part of this process. Only its host sets this; a switch of the runtime says what is wanted.</summary>
    public static bool IsCompiledHere { get; } = AppContext.GetData("TRUSTED_PLATFORM_ASSEMBLIES") is not null;

    /// <summary>Loads everything that the program consists of.</summary>
    [UnconditionalSuppressMessage(
        "Trimming", "IL2026", Justification = "Does nothing in a program that was trimmed.")]
    public static void Complete()
    {
        if (!IsCompiledHere)
        {
            return;
        }

        var seen = new HashSet<string>(StringComparer.Ordinal);
        var waiting = new Queue<Assembly>([typeof(LoadedCode).Assembly]);
        while (waiting.TryDequeue(out Assembly? assembly))
        {
            foreach (AssemblyName name in assembly.GetReferencedAssemblies().Where(name => seen.Add(name.FullName)))
            {
                waiting.Enqueue(Assembly.Load(name));
            }
        }
    }
}
