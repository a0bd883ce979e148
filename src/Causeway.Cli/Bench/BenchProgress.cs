using System.Diagnostics;
using System.Globalization;

namespace Causeway.Cli.Bench;

/// <summary>One line on standard error: what is measured, how much is done, and how much longer it takes. Only for a terminal.</summary>
internal sealed class BenchProgress
{
    private readonly bool _isShown = !Console.IsErrorRedirected;
    private readonly long _start = Stopwatch.GetTimestamp();
    private int _done;
    private int _total;
    private int _lastWidth;

    /// <summary>Says how many slices there will be.</summary>
    public void Begin(int total) => _total = total;

    /// <summary>A slice begins.</summary>
    public void Advance(string what)
    {
        _done++;
        Show(what);
    }

    /// <summary>Shows what is going on.</summary>
    public void Show(string what)
    {
        if (_isShown)
        {
            Write(Line(what, _done, _total, Stopwatch.GetElapsedTime(_start)));
        }
    }

    /// <summary>Removes the line.</summary>
    public void Hide()
    {
        if (_lastWidth > 0)
        {
            Write("");
            Console.Error.Write('\r');
        }
    }

    /// <summary>The line for a state.</summary>
    internal static string Line(string what, int done, int total, TimeSpan elapsed)
    {
        double share = total == 0 ? 0 : (double)done / total;
        TimeSpan left = done == 0 ? TimeSpan.Zero : elapsed * ((total - done) / (double)done);
        return string.Create(
            CultureInfo.InvariantCulture, $"{share,4:0%}  {(int)left.TotalHours}:{left:mm\\:ss} left  {what}");
    }

    private void Write(string line)
    {
        Console.Error.Write('\r' + line.PadRight(_lastWidth));
        _lastWidth = line.Length;
    }
}
