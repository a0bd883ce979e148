using System.Globalization;
using Causeway.Driver;

namespace Causeway.Cli.Client;

/// <summary><c>causeway stat</c>.</summary>
internal static class StatusCommand
{
    public static async Task RunAsync(SharePath[] places, Output output, CancellationToken cancellationToken)
    {
        foreach (SharePath place in places)
        {
            VirtioFsClient client = await ClientCommands.ConnectAsync(place, CacheMode.Always, cancellationToken)
                .ConfigureAwait(false);
            await using (client.ConfigureAwait(false))
            {
                FileStatus status = await client.GetStatusAsync(place.Path, LinkHandling.NoFollow, cancellationToken)
                    .ConfigureAwait(false);
                string? target = status.Kind == FileKind.SymbolicLink
                    ? await client.ReadLinkAsync(place.Path, cancellationToken).ConfigureAwait(false)
                    : null;
                Print(place, status, target, output);
            }
        }
    }

    private static void Print(SharePath place, FileStatus status, string? target, Output output)
    {
        if (output == Output.Json)
        {
            Display.Json(writer => writer.WriteStatus("path", place.Path, status));
            return;
        }

        string arrow = target is null ? "" : $" -> {Display.Name(target)}";
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"""
                path: {Display.Name(place.Path)}{arrow}
                type: {Display.Kind(status.Kind)}
                size: {Display.Size(status.Length)} ({status.Length} bytes, {status.AllocatedBytes} allocated)
                mode: {Display.Mode(status)}
               owner: {status.UserId}:{status.GroupId}
               inode: {status.Inode}, {status.LinkCount} links
            accessed: {Display.Time(status.AccessTime, status.Attributes.AccessTimeNanoseconds)}
            modified: {Display.Time(status.ModificationTime, status.Attributes.ModificationTimeNanoseconds)}
             changed: {Display.Time(status.ChangeTime, status.Attributes.ChangeTimeNanoseconds)}
            """));
    }
}
