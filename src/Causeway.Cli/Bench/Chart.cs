using System.Globalization;
using System.Security;
using System.Text;

namespace Causeway.Cli.Bench;

/// <summary>
/// Results as a drawing (SVG): for each load and operation a bar per daemon, as long as its processor time per operation is
/// in relation to the first daemon's.
/// </summary>
internal static class Chart
{
    private const int Left = 150;
    private const int Width = 900;
    private const int Right = 90;
    private const int BarHeight = 12;
    private const int GroupGap = 10;
    private const int HeadHeight = 40;

    // Longer bars are cut and say how long they are.
    private const double MaxRatio = 8;

    private static readonly string[] s_colors = ["#1b7f5c", "#c2571a", "#3f6fb5", "#8a5ba8", "#7a7a7a"];

    /// <summary>Draws.</summary>
    public static string Draw(IReadOnlyList<OperationResult> results)
    {
        var body = new StringBuilder();
        int y = 24;
        Text(body, Left, y, "Processor time of the daemon per operation, in relation to the first; shorter is better", "bold");
        y += 22;
        if (results is [var any, ..])
        {
            y = DrawLegend(body, y, any.Daemons);
        }

        double scale = (Width - Left - Right) / Math.Max(1.5, Longest(results));
        foreach (IGrouping<Load, OperationResult> load in results.GroupBy(result => result.Load))
        {
            Text(body, Left, y + 24, load.Key.ToString(), "bold");
            y += HeadHeight;
            int top = y;
            foreach (OperationResult result in load)
            {
                y = DrawGroup(body, y, result, scale);
            }

            // Where the first daemon is.
            body.Append(CultureInfo.InvariantCulture, $"<path d='M{Left + scale:0.0} {top}V{y}' stroke='#000' stroke-dasharray='2 3'/>\n");
        }

        return string.Create(
            CultureInfo.InvariantCulture,
            $"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {Width} {y + 10}' font-family='sans-serif' font-size='12'>\n"
                + $"<rect width='100%' height='100%' fill='#fff'/>\n{body}</svg>\n");
    }

    private static double Longest(IEnumerable<OperationResult> results) => Math.Min(MaxRatio, results
        .SelectMany(result => result.Daemons.Select(daemon => Ratio(result, daemon)?.Median ?? 0))
        .DefaultIfEmpty(1)
        .Max());

    private static Spread? Ratio(OperationResult result, DaemonResult daemon) =>
        Measurement.Processor.Ratio(daemon, result.Daemons[0]);

    private static int DrawLegend(StringBuilder body, int y, IReadOnlyList<DaemonResult> daemons)
    {
        for (int i = 0; i < daemons.Count; i++)
        {
            body.Append(CultureInfo.InvariantCulture, $"<rect x='{Left}' y='{y - 10}' width='12' height='12' fill='{Color(i)}'/>\n");
            Text(body, Left + 18, y, daemons[i].Daemon);
            y += 18;
        }

        return y;
    }

    private static int DrawGroup(StringBuilder body, int y, OperationResult result, double scale)
    {
        Text(body, 8, y + 10, result.Operation.Name);
        for (int i = 0; i < result.Daemons.Count; i++)
        {
            if (Ratio(result, result.Daemons[i]) is { } ratio)
            {
                double length = Math.Min(ratio.Median, MaxRatio) * scale;
                double time = Measurement.Processor.For(result.Daemons[i])!.Value.Median / 1000;
                body.Append(
                    CultureInfo.InvariantCulture,
                    $"<rect x='{Left}' y='{y}' width='{length:0.0}' height='{BarHeight - 2}' fill='{Color(i)}'/>\n");
                Text(
                    body,
                    Left + (int)length + 4,
                    y + 9,
                    string.Create(CultureInfo.InvariantCulture, $"{ratio.Median:0.00}  {time:0.0} us"));
            }

            y += BarHeight;
        }

        return y + GroupGap;
    }

    private static string Color(int number) => s_colors[number % s_colors.Length];

    private static void Text(StringBuilder body, int x, int y, string text, string weight = "normal") => body.Append(
        CultureInfo.InvariantCulture,
        $"<text x='{x}' y='{y}' font-weight='{weight}'>{SecurityElement.Escape(text)}</text>\n");
}
