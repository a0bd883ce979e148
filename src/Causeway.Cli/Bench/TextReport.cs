using System.Globalization;

namespace Causeway.Cli.Bench;

/// <summary>Results as tables for people, written as they come.</summary>
internal sealed class TextReport(TextWriter output)
{
    private const int NameWidth = 17;

    private readonly List<OperationResult> _results = [];
    private int _daemonWidth;

    /// <summary>Writes one operation, and before the first of a load the heading.</summary>
    public void Add(OperationResult result)
    {
        if (_results.Count == 0 || _results[^1].Load != result.Load)
        {
            End();
            _daemonWidth = result.Daemons.Max(daemon => daemon.Daemon.Length) + 1;
            WriteHeading(result);
        }

        _results.Add(result);
        for (int i = 0; i < result.Daemons.Count; i++)
        {
            string name = i == 0 ? result.Operation.Name : "";
            output.WriteLine(
                $"{name.PadRight(NameWidth)}{result.Daemons[i].Daemon.PadRight(_daemonWidth)}{Row(result.Daemons[i], result.Daemons[0], i > 0)}"
                    .TrimEnd());
        }
    }

    /// <summary>Writes the means of the load that is done.</summary>
    public void End()
    {
        if (_results.Count > 1 && _results[0].Daemons.Count > 1)
        {
            WriteMeans();
        }

        _results.Clear();
    }

    private static string Row(DaemonResult daemon, DaemonResult first, bool isCompared)
    {
        if (daemon.Missing is { } missing)
        {
            return $"  {missing}";
        }

        string row = "";
        foreach (Measurement measurement in Measurement.All)
        {
            double value = measurement.For(daemon)!.Value.Median;
            row += measurement == Measurement.Rate
                ? value.ToString("0", CultureInfo.InvariantCulture).PadLeft(10)
                : (value / 1000).ToString(value < 100_000 ? "0.00" : "0", CultureInfo.InvariantCulture).PadLeft(10);
            if (isCompared)
            {
                row += $"  {measurement.Ratio(daemon, first)?.ToRatio(),-18}";
            }
            else
            {
                row += new string(' ', 20);
            }
        }

        return row;
    }

    private void WriteHeading(OperationResult result)
    {
        output.WriteLine();
        output.WriteLine(result.Load);
        foreach (DaemonResult daemon in result.Daemons.Where(daemon => daemon.Queues < result.Load.Queues))
        {
            output.WriteLine($"'{daemon.Daemon}' has only {daemon.Queues} of the queues");
        }

        string columns = string.Concat(Measurement.All.Select(measurement => $"{measurement.Title,10}  {"ratio (half)",-18}"));
        output.WriteLine($"{"operation".PadRight(NameWidth)}{"daemon".PadRight(_daemonWidth)}{columns}".TrimEnd());
    }

    private void WriteMeans()
    {
        foreach ((string title, Func<OperationKind, bool> isMeant) in new (string, Func<OperationKind, bool>)[]
        {
            ("metadata", kind => kind == OperationKind.Metadata),
            ("everything", _ => true),
        })
        {
            for (int i = 1; i < _results[0].Daemons.Count; i++)
            {
                string row = "";
                foreach (Measurement measurement in Measurement.All)
                {
                    double[] ratios =
                    [
                        .. _results.Where(result => isMeant(result.Operation.Kind))
                            .Select(result => measurement.Ratio(result.Daemons[i], result.Daemons[0])?.Median ?? 0)
                            .Where(ratio => ratio > 0),
                    ];
                    string mean = ratios.Length == 0
                        ? ""
                        : Spread.GeometricMean(ratios).ToString("0.00", CultureInfo.InvariantCulture);
                    row += $"{"",12}{mean,-18}";
                }

                string name = i == 1 ? $"mean, {title}" : "";
                output.WriteLine($"{name.PadRight(NameWidth)}{_results[0].Daemons[i].Daemon.PadRight(_daemonWidth)}{row}".TrimEnd());
            }
        }
    }
}
