using Xunit.Sdk;
using Xunit.v3;

[assembly: TestMethodOrderer(typeof(Causeway.EndToEnd.RestartFirst))]

namespace Causeway.EndToEnd;

/// <summary>
/// Runs the restart of a guest before its other tests, which follow by name: emulated by QEMU 7.2, a guest that restarts after
/// much work can hang for minutes while it clears pages that held translated code. That was seen with virtiofsd, too.
/// </summary>
public sealed class RestartFirst : ITestMethodOrderer
{
    /// <inheritdoc/>
    public IReadOnlyCollection<TTestMethod?> OrderTestMethods<TTestMethod>(
        IReadOnlyCollection<TTestMethod?> testMethods)
        where TTestMethod : notnull, ITestMethod =>
        [.. testMethods.OrderByDescending(IsRestart).ThenBy(method => method?.MethodName, StringComparer.Ordinal)];

    private static bool IsRestart<TTestMethod>(TTestMethod? method)
        where TTestMethod : ITestMethod =>
        method?.MethodName.StartsWith("A_guest_that_restarts", StringComparison.Ordinal) == true;
}
