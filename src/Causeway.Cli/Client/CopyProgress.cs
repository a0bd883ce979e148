using System.Diagnostics;
using System.Globalization;

namespace Causeway.Cli.Client;

/// <summary>
/// One line on standard error while a copy takes long: how much, how fast, how much longer. Only for a terminal.
/// </summary>
internal sealed class CopyProgress
{
    // A copy that is done by then shows nothing; then the line is written again so often (arbitrary).
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(200);
    private const int BarWidth = 24;

    private readonly bool _isShown = !Console.IsErrorRedirected;
    private readonly long _start = Stopwatch.GetTimestamp();
    private TimeSpan _next = Patience;
    private int _lastWidth;

    /// <summary>Says how far the copy is.</summary>
    /// <param name="name">What is copied.</param>
    /// <param name="done">Bytes copied.</param>
    /// <param name="total">Bytes in all; less than <paramref name="done"/> when not known.</param>
    public void Report(string name, long done, long total)
    {
        TimeSpan elapsed = Stopwatch.GetElapsedTime(_start);
        if (_isShown && elapsed >= _next)
        {
            _next = elapsed + Interval;
            Write(Line(name, done, total, elapsed));
        }
    }

    /// <summary>Removes the line.</summary>
    public void End()
    {
        if (_lastWidth > 0)
        {
            Write("");
            Console.Error.Write('\r');
        }
    }

    /// <summary>The line for a state.</summary>
    internal static string Line(string name, long done, long total, TimeSpan elapsed)
    {
        double rate = done / Math.Max(elapsed.TotalSeconds, 0.001);
        string speed = $"{Display.Size(rate)}/s";
        if (total < done || total == 0)
        {
            return $"{name}  {Display.Size(done)}  {speed}";
        }

        double share = (double)done / total;
        int filled = (int)(share * BarWidth);
        string bar = new string('=', filled) + new string(' ', BarWidth - filled);
        var left = TimeSpan.FromSeconds(rate > 0 ? Math.Min((total - done) / rate, 359_999) : 0);
        return string.Create(
            CultureInfo.InvariantCulture,
            $"{name}  [{bar}] {share,4:0%}  {Display.Size(done)} of {Display.Size(total)}  {speed}  "
                + $"{(int)left.TotalHours}:{left:mm\\:ss} left");
    }

    private void Write(string line)
    {
        int width = line.Length;
        Console.Error.Write('\r' + line.PadRight(_lastWidth));
        _lastWidth = width;
    }
}
