using Xunit.Sdk;
using Xunit.v3;

[assembly: TestCaseOrderer(typeof(Causeway.EndToEnd.RestartFirst))]

namespace Causeway.EndToEnd;

/// <summary>
/// Runs the restart of a guest before its other tests, which follow by name: emulated by QEMU 7.2, a guest that restarts after
/// much work can hang for minutes while it clears pages that held translated code. That was seen with virtiofsd, too.
/// </summary>
public sealed class RestartFirst : ITestCaseOrderer
{
    /// <inheritdoc/>
    public IReadOnlyCollection<TTestCase> OrderTestCases<TTestCase>(IReadOnlyCollection<TTestCase> testCases)
        where TTestCase : notnull, ITestCase =>
        [.. testCases.OrderByDescending(IsRestart).ThenBy(test => test.TestCaseDisplayName, StringComparer.Ordinal)];

    private static bool IsRestart<TTestCase>(TTestCase test)
        where TTestCase : ITestCase =>
        test.TestMethod?.MethodName.StartsWith("A_guest_that_restarts", StringComparison.Ordinal) == true;
}
