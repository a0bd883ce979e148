using System.Globalization;
using System.Net;
using System.Text;

namespace Causeway.Benchmarks;

/// <summary>
/// Draws what 'perf script' has printed as a flame graph (Gregg 2011): every box is a function, as wide as the share of the samples
/// that have it on the stack, above its caller. A box says its share where the pointer rests on it.
/// </summary>
internal sealed class FlameGraph
{
    private const double Width = 1200;
    private const int RowHeight = 16;
    private const double LeastWidth = 2.4;
    private const double CharacterWidth = 6.1;
    private const string Ours = "Causeway: ";

    private readonly Frame _root = new("all");

    /// <summary>Reads samples: a line of the thread's, for each function from the innermost on a line that begins with a tab, and an empty line.</summary>
    public static FlameGraph Read(TextReader samples)
    {
        var graph = new FlameGraph();
        var stack = new List<string>();
        while (samples.ReadLine() is { } line)
        {
            if (line.Length == 0)
            {
                graph.Add(stack);
                stack.Clear();
            }
            else if (line[0] == '\t')
            {
                stack.Add(NameOf(line));
            }
        }

        graph.Add(stack);
        return graph;
    }

    /// <summary>Draws it.</summary>
    /// <param name="output">Takes the SVG.</param>
    /// <param name="title">What it says above.</param>
    public void Write(TextWriter output, string title)
    {
        int height = (_root.Depth + 2) * RowHeight;
        output.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {Width} {height}\" font-family=\"monospace\" font-size=\"10\">"));
        output.WriteLine($"<text x=\"4\" y=\"12\" font-size=\"12\">{WebUtility.HtmlEncode(title)}, {_root.Samples} samples</text>");
        Draw(output, _root, left: 0, bottom: height);
        output.WriteLine("</svg>");
    }

    private void Draw(TextWriter output, Frame frame, double left, int bottom)
    {
        double width = Width * frame.Samples / _root.Samples;
        if (width < LeastWidth)
        {
            return;
        }

        int top = bottom - RowHeight;
        double share = 100.0 * frame.Samples / _root.Samples;
        int room = (int)((width - 4) / CharacterWidth);
        string name = frame.Name.StartsWith(Ours, StringComparison.Ordinal) ? frame.Name[Ours.Length..] : frame.Name;
        string text = room < 3 ? "" : name.Length <= room ? name : name[..room];
        output.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"<g><title>{WebUtility.HtmlEncode(frame.Name)}: {share:0.0} %</title><rect x=\"{left:0.0}\" y=\"{top}\" width=\"{width:0.0}\" height=\"{RowHeight - 1}\" fill=\"{Color(frame.Name)}\"/><text x=\"{left + 2:0.0}\" y=\"{top + 11}\">{WebUtility.HtmlEncode(text)}</text></g>"));
        foreach (Frame callee in frame.Callees.OrderBy(callee => callee.Name, StringComparer.Ordinal))
        {
            Draw(output, callee, left, top);
            left += Width * callee.Samples / _root.Samples;
        }
    }

    // Ours, the kernel's, and the rest.
    private static string Color(string name) =>
        name.StartsWith(Ours, StringComparison.Ordinal) ? "#8fc7e8" : name.EndsWith(']') ? "#f0b27a" : "#d5d8dc";

    private void Add(List<string> stack)
    {
        if (stack.Count == 0)
        {
            return;
        }

        Frame frame = _root;
        frame.Samples++;
        for (int i = stack.Count - 1; i >= 0; i--)
        {
            frame = frame.Callee(stack[i]);
            frame.Samples++;
        }
    }

    // '  ffffffff8123 vfs_read+0x12 ([kernel.kallsyms])': the function, marked where it is the kernel's; of ours the namespaces go.
    private static string NameOf(string line)
    {
        string[] words = line.Split((char[])['\t', ' '], StringSplitOptions.RemoveEmptyEntries);
        string name = words.Length < 2 ? "?" : words[1];
        int offset = name.LastIndexOf("+0x", StringComparison.Ordinal);
        name = offset > 0 ? name[..offset] : name;
        if (words[^1].Contains("[kernel", StringComparison.Ordinal))
        {
            return name + " [k]";
        }

        int type = name.LastIndexOf("__", StringComparison.Ordinal);
        if (!name.StartsWith("Causeway", StringComparison.Ordinal) || type < 0)
        {
            return name;
        }

        int start = name.LastIndexOf('_', type - 1) + 1;
        return new StringBuilder(Ours).Append(name, start, type - start).Append('.').Append(name, type + 2, name.Length - type - 2)
            .ToString();
    }

    private sealed class Frame(string name)
    {
        private readonly Dictionary<string, Frame> _callees = [];

        public string Name => name;

        public long Samples { get; set; }

        public IEnumerable<Frame> Callees => _callees.Values;

        public int Depth => 1 + (_callees.Count == 0 ? 0 : _callees.Values.Max(callee => callee.Depth));

        public Frame Callee(string callee)
        {
            if (!_callees.TryGetValue(callee, out Frame? frame))
            {
                frame = new Frame(callee);
                _callees.Add(callee, frame);
            }

            return frame;
        }
    }
}
