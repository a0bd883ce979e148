using System.Text.Json;
using System.Xml.Linq;
using Causeway.Cli.Bench;
using Causeway.Cli.Bench.Workloads;

namespace Causeway.Tests.Bench;

/// <summary>The same results as tables, JSON and a drawing.</summary>
public sealed class ReportTests
{
    private static readonly Load s_load = new(16, 1, ClientKind.Polling);

    private static readonly OperationResult[] s_results =
    [
        Result("getattr", second: 2000),
        Result("open", second: 8000),
        new(s_load, Catalog.Find(["xattr"])[0], [Daemon("first", 1000), new("second <2>", 1, [], "no attributes")]),
    ];

    [Fact]
    public void Tables_give_figures_ratios_and_means()
    {
        var text = new StringWriter();
        var report = new TextReport(text);
        foreach (OperationResult result in s_results)
        {
            report.Add(result);
        }

        report.End();
        string[] lines = text.ToString().Split('\n');
        Assert.Equal("depth 16, 1 queue, polling client", lines[1]);
        Assert.Matches(@"^getattr +first +1\.00 +1000 +5\.00 +9\.00$", lines[3]);
        Assert.Matches(@"^ +second <2> +2\.00  2\.00 \(2\.00-2\.00\) +1000  1\.00 \(1\.00-1\.00\)", lines[4]);
        Assert.Matches(@"^ +second <2> +no attributes$", lines[8]);
        // What one cannot do has no part in the mean: of 2 and 8.
        Assert.Matches(@"^mean, metadata +second <2> +4\.00 +1\.00", lines[9]);
    }

    [Fact]
    public void Json_has_every_slice()
    {
        var options = new BenchOptions
        {
            Daemons = [DaemonLine.Parse("first=a {socket} {dir}"), DaemonLine.Parse("second <2>=b {socket} {dir}")],
            Directory = "/dev/shm",
            Operations = [],
            Loads = [s_load],
            Slice = TimeSpan.FromSeconds(1),
            Slices = 2,
        };
        using var stream = new MemoryStream();
        JsonReport.Write(stream, options, "tmpfs", s_results);
        using JsonDocument json = JsonDocument.Parse(stream.ToArray());
        JsonElement second = json.RootElement.GetProperty("results")[1].GetProperty("daemons")[1];
        Assert.Equal("second <2>", second.GetProperty("name").GetString());
        Assert.Equal(8000, second.GetProperty("cpuNanoseconds").GetProperty("median").GetDouble());
        Assert.Equal(8, second.GetProperty("cpuNanosecondsRatio").GetProperty("lower").GetDouble());
        Assert.Equal(2, second.GetProperty("slices").GetArrayLength());
        JsonElement missing = json.RootElement.GetProperty("results")[2].GetProperty("daemons")[1];
        Assert.Equal("no attributes", missing.GetProperty("missing").GetString());
        Assert.Equal(JsonValueKind.Null, missing.GetProperty("cpuNanoseconds").ValueKind);
    }

    [Fact]
    public void The_drawing_is_well_formed_and_has_a_bar_for_every_figure()
    {
        XDocument chart = XDocument.Parse(Chart.Draw(s_results));
        XNamespace svg = "http://www.w3.org/2000/svg";
        // The ground, two of the legend, and one for each of five figures.
        Assert.Equal(8, chart.Descendants(svg + "rect").Count());
        Assert.Contains(chart.Descendants(svg + "text"), text => text.Value == "second <2>");
        Assert.Contains(chart.Descendants(svg + "text"), text => text.Value == "8.00  8.0 us");
        Assert.NotNull(XDocument.Parse(Chart.Draw([])).Root);
    }

    private static OperationResult Result(string operation, int second) =>
        new(s_load, Catalog.Find([operation])[0], [Daemon("first", 1000), Daemon("second <2>", second)]);

    // Two slices of a second with a thousand operations each.
    private static DaemonResult Daemon(string name, int nanoseconds)
    {
        var slice = new Slice(1000, 1, nanoseconds * 1000L, 5000, 9000);
        return new DaemonResult(name, 1, [slice, slice], null);
    }
}
