using System.Globalization;

namespace Causeway.Cli.Bench;

/// <summary>A daemon to measure.</summary>
/// <param name="Name">What the results call it.</param>
/// <param name="Command">A line for the shell, with <c>{socket}</c> and <c>{dir}</c> where its socket and directory go.</param>
internal sealed record DaemonLine(string Name, string Command)
{
    private const string Socket = "{socket}";
    private const string Directory = "{dir}";

    /// <summary>Reads <c>NAME=COMMAND</c>.</summary>
    public static DaemonLine Parse(string text)
    {
        int separator = text.IndexOf('=', StringComparison.Ordinal);
        if (separator <= 0)
        {
            throw new UsageException($"'--daemon' takes NAME=COMMAND, not '{text}'");
        }

        var line = new DaemonLine(text[..separator], text[(separator + 1)..]);
        foreach (string place in new[] { Socket, Directory })
        {
            if (!line.Command.Contains(place, StringComparison.Ordinal))
            {
                throw new UsageException(
                    $"the command of the daemon '{line.Name}' has no {place}; say '--daemon \"{line.Name}=PROGRAM "
                    + $"--socket-path {Socket} --shared-dir {Directory}\"'");
            }
        }

        return line;
    }

    /// <summary>What the shell runs.</summary>
    public string Fill(string socket, string directory) => Command
        .Replace(Socket, Quote(socket), StringComparison.Ordinal)
        .Replace(Directory, Quote(directory), StringComparison.Ordinal);

    private static string Quote(string text) => $"'{text.Replace("'", "'\\''", StringComparison.Ordinal)}'";
}

/// <summary>How the client waits for replies.</summary>
internal enum ClientKind
{
    /// <summary>It sleeps until the daemon calls, as a virtual machine does.</summary>
    Blocking,

    /// <summary>It looks at the ring all the time, so the daemon need not call.</summary>
    Polling,
}

/// <summary>How much is asked of a daemon at once.</summary>
/// <param name="Depth">Requests in flight per queue.</param>
/// <param name="Queues">Request queues, each with a thread of the client.</param>
/// <param name="Client">How the client waits.</param>
internal readonly record struct Load(int Depth, int Queues, ClientKind Client)
{
    /// <summary>
    /// Whether queues are packed rings where the daemon has them. Default: no, as in the guests of front ends in their default.
    /// </summary>
    public bool UsesPackedRings { get; init; }

    /// <summary>As the heading of a table.</summary>
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"depth {Depth}, {Queues} {(Queues == 1 ? "queue" : "queues")}, "
            + $"{(Client == ClientKind.Blocking ? "blocking" : "polling")} client{(UsesPackedRings ? ", packed rings" : "")}");
}

/// <summary>What <c>causeway bench</c> measures.</summary>
internal sealed record BenchOptions
{
    /// <summary>The daemons; ratios are to the first.</summary>
    public required IReadOnlyList<DaemonLine> Daemons { get; init; }

    /// <summary>Where the directories to share are made, and removed at the end.</summary>
    public required string Directory { get; init; }

    /// <summary>The operations.</summary>
    public required IReadOnlyList<Operation> Operations { get; init; }

    /// <summary>The loads, one after the other.</summary>
    public required IReadOnlyList<Load> Loads { get; init; }

    /// <summary>How long one daemon is measured until it is the next one's turn.</summary>
    public required TimeSpan Slice { get; init; }

    /// <summary>How many slices each daemon gets per operation.</summary>
    public required int Slices { get; init; }
}
