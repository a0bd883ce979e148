namespace Causeway.Cli;

/// <summary>
/// The answer to <c>--print-capabilities</c>: what managers of virtual machines have to know before they start the program
/// (QEMU's docs/interop/vhost-user.json). <c>eng/install-causeway</c> makes of it the description <c>50-causeway.json</c>, which
/// they look for.
/// </summary>
internal static class Capabilities
{
    /// <summary>
    /// What this program can do, of the names that virtiofsd has. Missing is <c>migrate-precopy</c>, which promises that a guest
    /// can move with its open files. In virtiofsd's order.
    /// </summary>
    public static IReadOnlyList<string> Features { get; } =
        ["posix-acl-negotiation-mode", "security-label-negotiation-mode", "separate-options"];

    /// <summary>The answer: an object with the members <c>type</c> and <c>features</c>.</summary>
    public static string Json =>
        $"{{\n  \"type\": \"fs\",\n  \"features\": [\n    {string.Join(",\n    ", Features.Select(name => $"\"{name}\""))}\n  ]\n}}";
}
