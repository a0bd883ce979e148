using Causeway.Cli;
using Causeway.Cli.Bench;
using Causeway.Cli.Bench.Workloads;

namespace Causeway.Tests.Bench;

/// <summary>The command line of <c>causeway bench</c>.</summary>
public sealed class OptionTests
{
    [Fact]
    public void A_daemon_is_a_name_and_a_line_for_the_shell_with_two_places()
    {
        DaemonLine line = DaemonLine.Parse("mine=prog --socket={socket} -o a=b,source={dir}");
        Assert.Equal("mine", line.Name);
        Assert.Equal("prog --socket='/s' -o a=b,source='/it'\\''s'", line.Fill("/s", "/it's"));
    }

    [Theory]
    [InlineData("prog {socket} {dir}", "NAME=COMMAND")]
    [InlineData("=prog {socket} {dir}", "NAME=COMMAND")]
    [InlineData("a=prog {dir}", "has no {socket}")]
    [InlineData("a=prog {socket}", "has no {dir}")]
    public void A_daemon_that_could_not_be_used_is_refused(string text, string message) =>
        Assert.Contains(message, Assert.Throws<UsageException>(() => DaemonLine.Parse(text)).Message, StringComparison.Ordinal);

    [Fact]
    public void Operations_are_named_one_by_one_or_by_kind()
    {
        Assert.Equal(Catalog.Operations.Where(operation => operation.Kind != OperationKind.Disk), Catalog.Find([]));
        Assert.Equal(["read-cold", "read-direct"], Catalog.Find(["disk"]).Select(operation => operation.Name));
        Assert.Equal(["getattr", "read-1m"], Catalog.Find(["read-1m", "getattr"]).Select(operation => operation.Name));
        Assert.Equal(["noop", "git-status", "npm-install"], Catalog.Find(["mix", "noop"]).Select(operation => operation.Name));
        Assert.Contains("lookup-new", Assert.Throws<UsageException>(() => Catalog.Find(["stat"])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Loads_are_all_combinations()
    {
        Assert.Equal([16], BenchCommand.Numbers("--depth", [], 16, 128));
        int[] depths = BenchCommand.Numbers("--depth", ["1", "128"], 16, 128);
        Assert.Equal(
            [
                new Load(1, 2, ClientKind.Blocking), new Load(128, 2, ClientKind.Blocking), new Load(1, 2, ClientKind.Polling),
                new Load(128, 2, ClientKind.Polling),
            ],
            BenchCommand.Loads(depths, [2], [ClientKind.Blocking, ClientKind.Polling]));
        Assert.Equal("depth 8, 2 queues, blocking client", new Load(8, 2, ClientKind.Blocking).ToString());
        Load packed = Assert.Single(BenchCommand.Loads([1], [1], [ClientKind.Polling], usesPackedRings: true));
        Assert.Equal("depth 1, 1 queue, polling client, packed rings", packed.ToString());
        foreach (string wrong in new[] { "0", "129", "-1", "x", "1.5" })
        {
            string message = Assert.Throws<UsageException>(() => BenchCommand.Numbers("--depth", [wrong], 16, 128)).Message;
            Assert.Contains($"from 1 to 128 with commas between, not '{wrong}'", message, StringComparison.Ordinal);
        }
    }
}
