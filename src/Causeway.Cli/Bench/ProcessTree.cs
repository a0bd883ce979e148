using System.Globalization;
using Causeway.Linux;

namespace Causeway.Cli.Bench;

/// <summary>A process with all that it has started: a daemon in a sandbox is more than one.</summary>
internal sealed class ProcessTree(int root)
{
    private const int Stop = 19;
    private const int Continue = 18;

    private readonly List<int> _processes = [root];

    /// <summary>Their ids.</summary>
    public IReadOnlyList<int> Ids => _processes;

    /// <summary>Looks which processes there are.</summary>
    public void Refresh()
    {
        _processes.Clear();
        _processes.Add(root);
        for (int i = 0; i < _processes.Count; i++)
        {
            AddChildren(_processes[i]);
        }
    }

    /// <summary>The processor time of all of them, in nanoseconds; one that has ended counts no more.</summary>
    public long ProcessorTime()
    {
        long sum = 0;
        foreach (int process in _processes)
        {
            sum += Processes.ProcessorTime(process, out long time).IsError ? 0 : time;
        }

        return sum;
    }

    /// <summary>Has all of them wait (SIGSTOP), so that they take nothing from whose turn it is.</summary>
    public void Pause() => Signal(Stop);

    /// <summary>Has all of them go on (SIGCONT).</summary>
    public void Resume() => Signal(Continue);

    private void Signal(int signal)
    {
        foreach (int process in _processes)
        {
            _ = Children.Signal(process, signal);
        }
    }

    private void AddChildren(int process)
    {
        try
        {
            foreach (string thread in Directory.EnumerateDirectories(string.Create(CultureInfo.InvariantCulture, $"/proc/{process}/task")))
            {
                foreach (string child in File.ReadAllText(Path.Combine(thread, "children")).Split(
                    ' ', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
                {
                    _processes.Add(int.Parse(child, CultureInfo.InvariantCulture));
                }
            }
        }
        catch (IOException)
        {
            // It has ended; who talks to it will notice.
        }
    }
}
