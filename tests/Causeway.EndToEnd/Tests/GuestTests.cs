namespace Causeway.EndToEnd;

/// <summary>
/// The tests that every configuration runs, one after another in one guest. Each has a directory of its own in the share; most let
/// the guest do something there and then compare what guest and host see.
/// </summary>
public abstract partial class GuestTests(GuestFixture fixture) : IAsyncLifetime
{
    /// <summary>What every script in the guest starts with. A failing command ends it; "refused" expects one to fail.</summary>
    private const string Prelude = """
        set -euo pipefail
        refused() { if "$@" 2>/dev/null; then echo "this should have failed: $*" >&2; exit 1; fi; }

        """;

    private int _logLength;

    protected GuestConfiguration Configuration => fixture.Configuration;

    protected Guest Guest => fixture.Guest;

    /// <summary>This test's directory, as the host sees it.</summary>
    protected string HostDirectory { get; private set; } = "";

    /// <summary>The same directory, as the guest sees it.</summary>
    protected string GuestDirectory { get; private set; } = "";

    private static string TestName =>
        TestContext.Current.TestMethod?.MethodName ?? throw new InvalidOperationException("not within a test");

    public ValueTask InitializeAsync()
    {
        Assert.SkipWhen(fixture.Missing is not null, fixture.Missing ?? "");
        HostDirectory = Path.Combine(fixture.Share, TestName);
        GuestDirectory = "/mnt/" + TestName;
        Directory.CreateDirectory(HostDirectory);
        // Tests with an ordinary user write here too.
        File.SetUnixFileMode(HostDirectory, (UnixFileMode)0b111_111_111);
        _logLength = fixture.Daemon.LogLength;
        return ValueTask.CompletedTask;
    }

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        if (fixture.Missing is not null)
        {
            return ValueTask.CompletedTask;
        }

        IReadOnlyList<string> warnings = fixture.Daemon.WarningsSince(_logLength);
        if (warnings.Count > 0 || TestContext.Current.TestState?.Result == TestResult.Failed)
        {
            TestContext.Current.SendDiagnosticMessage("logs: {0}", fixture.Folder);
            Console.Error.WriteLine(
                $"logs: {fixture.Folder}/daemon.log and console.log; again: " +
                $"dotnet run --project tests/Causeway.EndToEnd -- -method '{GetType().FullName}.{TestName}'");
        }

        return warnings.Count == 0
            ? ValueTask.CompletedTask
            : throw new InvalidOperationException("the daemon logged what it should not: " + string.Join('\n', warnings));
    }

    /// <summary>Runs a script in the guest, in the test's directory, and returns what it prints. Any failing command fails it.</summary>
    protected async Task<string> GuestAsync(string script, int seconds = 120)
    {
        GuestResult result =
            await Guest.RunAsync($"{Prelude}cd {GuestDirectory}\n{script}", time: TimeSpan.FromSeconds(seconds));
        string why = result.Status == GuestResult.KilledStatus ? $"killed after {seconds} s" : $"status {result.Status}";
        Assert.True(result.Status == 0, $"in the guest, {why}:\n{script}\n{Tail(result.OutputText)}\n{Tail(result.ErrorText)}");
        return result.OutputText;
    }

    /// <summary>The same for a Python program: for system calls that no command makes.</summary>
    protected Task<string> GuestPythonAsync(string program, int seconds = 120) =>
        GuestAsync($"python3 - <<'END_OF_PROGRAM'\nimport os, sys\n{program}\nEND_OF_PROGRAM", seconds);

    /// <summary>The same on the host.</summary>
    protected Task<string> HostAsync(string script) => HostCommand.BashAsync(HostDirectory, script);

    /// <summary>Runs one script on both sides and asserts that it prints the same.</summary>
    protected async Task AssertSameAsync(string script, int seconds = 120)
    {
        string guest = await GuestAsync(script, seconds);
        string host = await HostAsync(script);
        Assert.NotEqual("", guest);
        Assert.Equal(host, guest);
    }

    protected string HostPath(string name) => Path.Combine(HostDirectory, name);

    private static string Tail(string text) => text.Length <= 2000 ? text : "..." + text[^2000..];
}
