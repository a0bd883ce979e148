using System.Text.Json;

namespace Causeway.Cli.Bench;

/// <summary>Results for scripts: every figure with its spread, and every slice.</summary>
internal static class JsonReport
{
    /// <summary>Writes one object.</summary>
    public static void Write(Stream output, BenchOptions options, string fileSystem, IEnumerable<OperationResult> results)
    {
        using var writer = new Utf8JsonWriter(output, new JsonWriterOptions { Indented = true });
        writer.WriteStartObject();
        writer.WriteString("directory", options.Directory);
        writer.WriteString("fileSystem", fileSystem);
        writer.WriteString("kernel", Environment.OSVersion.Version.ToString());
        writer.WriteNumber("processors", Environment.ProcessorCount);
        writer.WriteNumber("sliceSeconds", options.Slice.TotalSeconds);
        writer.WriteStartArray("daemons");
        foreach (DaemonLine daemon in options.Daemons)
        {
            writer.WriteStartObject();
            writer.WriteString("name", daemon.Name);
            writer.WriteString("command", daemon.Command);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
        writer.WriteStartArray("results");
        foreach (OperationResult result in results)
        {
            Write(writer, result);
        }

        writer.WriteEndArray();
        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, OperationResult result)
    {
        writer.WriteStartObject();
        writer.WriteString("operation", result.Operation.Name);
        writer.WriteString("kind", result.Operation.Kind switch
        {
            OperationKind.Metadata => "metadata",
            OperationKind.Data => "data",
            OperationKind.Mix => "mix",
            _ => "disk",
        });
        writer.WriteNumber("depth", result.Load.Depth);
        writer.WriteNumber("queues", result.Load.Queues);
        writer.WriteString("client", result.Load.Client == ClientKind.Blocking ? "blocking" : "polling");
        writer.WriteStartArray("daemons");
        foreach (DaemonResult daemon in result.Daemons)
        {
            writer.WriteStartObject();
            writer.WriteString("name", daemon.Daemon);
            writer.WriteNumber("queues", daemon.Queues);
            if (daemon.Missing is { } missing)
            {
                writer.WriteString("missing", missing);
            }

            foreach (Measurement measurement in Measurement.All)
            {
                Write(writer, measurement.Key, measurement.For(daemon));
                Write(writer, $"{measurement.Key}Ratio", measurement.Ratio(daemon, result.Daemons[0]));
            }

            Write(writer, daemon.Slices);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, string key, Spread? spread)
    {
        if (spread is not { } known)
        {
            writer.WriteNull(key);
            return;
        }

        writer.WriteStartObject(key);
        writer.WriteNumber("lower", Math.Round(known.Lower, 3));
        writer.WriteNumber("median", Math.Round(known.Median, 3));
        writer.WriteNumber("upper", Math.Round(known.Upper, 3));
        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, IReadOnlyList<Slice> slices)
    {
        writer.WriteStartArray("slices");
        foreach (Slice slice in slices)
        {
            writer.WriteStartObject();
            writer.WriteNumber("operations", slice.Operations);
            writer.WriteNumber("seconds", Math.Round(slice.Seconds, 6));
            writer.WriteNumber("cpuNanoseconds", slice.ProcessorNanoseconds);
            writer.WriteNumber("p50Nanoseconds", Math.Round(slice.MedianNanoseconds));
            writer.WriteNumber("p99Nanoseconds", Math.Round(slice.Percentile99Nanoseconds));
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
    }
}
