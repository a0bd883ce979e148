using System.Globalization;
using Causeway.Driver;

namespace Causeway.Cli.Client;

/// <summary><c>causeway df</c>.</summary>
internal static class FreeSpaceCommand
{
    public static async Task RunAsync(SharePath[] places, Output output, CancellationToken cancellationToken)
    {
        bool isFirst = true;
        foreach (SharePath place in places)
        {
            VirtioFsClient client = await ClientCommands.ConnectAsync(place, CacheMode.Always, cancellationToken)
                .ConfigureAwait(false);
            await using (client.ConfigureAwait(false))
            {
                FileSystemStatus status = await client.GetFileSystemStatusAsync(place.Path, cancellationToken)
                    .ConfigureAwait(false);
                Print(place, client.Transport.Tag, status, output, isFirst);
                isFirst = false;
            }
        }
    }

    private static void Print(SharePath place, string? tag, FileSystemStatus status, Output output, bool isFirst)
    {
        ulong used = (status.Blocks - Math.Min(status.Blocks, status.BlocksFree)) * (ulong)status.BlockBytes;
        if (output == Output.Json)
        {
            Display.Json(writer =>
            {
                writer.WriteStartObject();
                writer.WriteString("share", place.ToString());
                writer.WriteString("tag", tag);
                writer.WriteNumber("size", status.TotalBytes);
                writer.WriteNumber("used", used);
                writer.WriteNumber("available", status.AvailableBytes);
                writer.WriteNumber("inodes", status.Files);
                writer.WriteNumber("inodesFree", status.FilesFree);
                writer.WriteEndObject();
            });
            return;
        }

        if (isFirst)
        {
            Console.WriteLine("     size       used  available  use%  share");
        }

        // As df(1): of what ordinary users could have.
        double share = used + status.AvailableBytes == 0 ? 0 : 100.0 * used / (used + status.AvailableBytes);
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{Display.Size(status.TotalBytes),9}  {Display.Size(used),9}  {Display.Size(status.AvailableBytes),9}  "
                + $"{Math.Ceiling(share),3}%  {Display.Name(place.ToString())}"));
    }
}
