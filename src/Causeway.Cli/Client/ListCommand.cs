using Causeway.Driver;

namespace Causeway.Cli.Client;

/// <summary><c>causeway ls</c>.</summary>
internal static class ListCommand
{
    public static async Task RunAsync(SharePath[] places, Output output, CancellationToken cancellationToken)
    {
        foreach (SharePath place in places)
        {
            List<(string Name, FileStatus Status)> entries = await ListAsync(place, cancellationToken).ConfigureAwait(false);
            entries.Sort((left, right) => string.CompareOrdinal(left.Name, right.Name));
            if (places.Length > 1 && output != Output.Json)
            {
                Console.WriteLine($"{Display.Name(place.ToString())}:");
            }

            Print(entries, output);
        }
    }

    private static async Task<List<(string Name, FileStatus Status)>> ListAsync(
        SharePath place, CancellationToken cancellationToken)
    {
        VirtioFsClient client = await ClientCommands.ConnectAsync(place, CacheMode.Always, cancellationToken)
            .ConfigureAwait(false);
        await using (client.ConfigureAwait(false))
        {
            FileStatus status = await client.GetStatusAsync(place.Path, LinkHandling.Follow, cancellationToken)
                .ConfigureAwait(false);
            if (status.Kind != FileKind.Directory)
            {
                return [(place.Path, status)];
            }

            var entries = new List<(string Name, FileStatus Status)>();
            await foreach (DirectoryItem item in client.EnumerateAsync(place.Path, cancellationToken).ConfigureAwait(false))
            {
                try
                {
                    entries.Add((item.Name, item.Status ?? await client.GetStatusAsync(
                        place.Below(item.Name).Path, LinkHandling.NoFollow, cancellationToken).ConfigureAwait(false)));
                }
                catch (VirtioFsException exception) when (exception.Error == Linux.Errno.ENOENT)
                {
                    // Removed since it was listed, or a name that cannot be asked for.
                }
            }

            return entries;
        }
    }

    private static void Print(List<(string Name, FileStatus Status)> entries, Output output)
    {
        if (output == Output.Json)
        {
            Display.Json(writer =>
            {
                writer.WriteStartArray();
                foreach ((string name, FileStatus status) in entries)
                {
                    writer.WriteStatus("name", name, status);
                }

                writer.WriteEndArray();
            });
            return;
        }

        foreach ((string name, FileStatus status) in entries)
        {
            Console.WriteLine(output == Output.Long ? Display.Line(name, status) : Display.Name(name));
        }
    }
}
