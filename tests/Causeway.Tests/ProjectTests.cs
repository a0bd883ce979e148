using System.Reflection;

namespace Causeway.Tests;

/// <summary>Holds the projects to the arrows of ARCHITECTURE.md.</summary>
public sealed class ProjectTests
{
    [Theory]
    [InlineData("Causeway.Linux", "")]
    [InlineData("Causeway.Virtio", "Causeway.Linux")]
    [InlineData("Causeway.VhostUser", "Causeway.Linux Causeway.Virtio")]
    [InlineData("Causeway.Fuse", "Causeway.Linux")]
    [InlineData("Causeway.Passthrough", "Causeway.Fuse Causeway.Linux")]
    [InlineData("Causeway.Server", "Causeway.Fuse Causeway.Linux Causeway.VhostUser Causeway.Virtio")]
    [InlineData("Causeway.Driver", "Causeway.Fuse Causeway.Linux Causeway.VhostUser Causeway.Virtio")]
    public void An_assembly_uses_only_what_the_design_lets_it_use(string name, string allowed)
    {
        string[] used = [.. Assembly.Load(name).GetReferencedAssemblies()
            .Select(reference => reference.Name!)
            .Where(reference => reference.StartsWith("Causeway.", StringComparison.Ordinal))];

        Assert.Empty(used.Except(allowed.Split(' ')));
    }
}
